-- What the sidecar does to `list tasks`, written the way an operator would script it in nginx.
--
-- Same inputs, same answer: the client certificate names a grant; the subject's facts are asked for and kept
-- for two seconds; rows pass by team, or as the subject's own; members whose names say secret are removed;
-- each row is tagged. bench.py compares the answers of both before it measures anything.
-- In the script's favour: no audit record, no revocation check per request beyond the table look-up, no
-- strict JSON, no cursor, numbers as doubles. Names are classified once and remembered.
local cjson = require "cjson"

local M = { grants = {} }
local KEEP_FACTS = 2 -- seconds
local known_facts = {}

local SEQUENCES = { "password", "secret", "token", "api_key", "private_key", "credential", "authorization", "cookie" }
local SQUASHED = { "apikey", "accesstoken", "privatekey", "clientsecret", "password", "passwd" }
local EXEMPT = { id = true, createdAt = true, ownerId = true, teamId = true, projectId = true, missionId = true }

local function says_secret(name)
  local words = name:gsub("(%u)(%u%l)", "%1_%2"):gsub("([%l%d])(%u)", "%1_%2"):gsub("[%-%.]", "_"):lower()
  words = "_" .. words .. "_"
  for _, sequence in ipairs(SEQUENCES) do
    local singular, plural = "_" .. sequence .. "_", "_" .. sequence .. "s_"
    if words:find(singular, 1, true) or words:find(plural, 1, true) then return true end
  end
  local squashed = words:gsub("_", "")
  if squashed == "pwd" then return true end
  for _, part in ipairs(SQUASHED) do
    if squashed:find(part, 1, true) then return true end
  end
  return false
end

local classified, classified_count = {}, 0
local function is_secret(name)
  local secret = classified[name]
  if secret == nil then
    if classified_count >= 10000 then classified, classified_count = {}, 0 end
    secret = says_secret(name)
    classified[name], classified_count = secret, classified_count + 1
  end
  return secret
end

local function redact(value, top)
  for name, inner in pairs(value) do
    if type(name) == "string" and is_secret(name) and not (top and EXEMPT[name]) then
      value[name] = nil
    elseif type(inner) == "table" then
      redact(inner, false)
    end
  end
end

local null = cjson.null
local function present(value)
  if value == null then return nil end
  return value
end

local function ask(path)
  local answer = ngx.location.capture("/gateway" .. path)
  if answer.status ~= 200 or answer.truncated then return nil end
  local good, decoded = pcall(cjson.decode, answer.body)
  return good and decoded or nil
end

local function facts_of(serial, grant)
  local facts = known_facts[serial]
  if facts and ngx.now() < facts.till then return facts end
  facts = { till = ngx.now() + KEEP_FACTS, teams = {}, projects = {}, missions = {} }
  local path, after = "/internal/v1/facts?limit=1000", nil
  repeat
    local page = ask(after and path .. "&after=" .. ngx.escape_uri(after) or path)
    if not page then return nil end
    local native = {}
    for _, team in ipairs(page.teams) do native[team.id] = true end
    for _, team in ipairs(grant.teams) do facts.teams[team] = native[team] or facts.teams[team] end
    for _, project in ipairs(page.projects) do
      facts.projects[project.id] = { team = present(project.teamId), owner = present(project.ownerId) }
    end
    for _, mission in ipairs(page.missions) do
      facts.missions[mission.id] =
        { project = present(mission.projectId), team = present(mission.teamId), owner = present(mission.ownerId) }
    end
    after = present(page.next)
  until not after
  known_facts[serial] = facts
  return facts
end

local function passes(row, facts, grant)
  local team, owner = present(row.teamId), present(row.ownerId)
  local project_id, mission_id = present(row.projectId), present(row.missionId)
  if not present(row.id) or not (team or owner or project_id or mission_id) then return false end
  local project, mission
  if mission_id then
    mission = facts.missions[mission_id]
    if not mission then return false end
  end
  if project_id then
    project = facts.projects[project_id]
    if not project then return false end
  end
  if mission and not team then
    local of = mission.project and facts.projects[mission.project]
    if mission.project and not of then return false end
    team = (project and project.team) or mission.team or (of and of.team)
  elseif project and not team then
    team = project.team
  end
  if team then return facts.teams[team] == true end
  owner = owner or (mission and mission.owner) or (project and project.owner)
  return grant.personal and owner == grant.owner
end

local function target(limit, facts, grant)
  local path = { "/internal/v1/tasks?limit=", limit + 1 }
  for team in pairs(facts.teams) do path[#path + 1] = "&team=" .. ngx.escape_uri(team) end
  path[#path + 1] = "&personal=" .. tostring(grant.personal)
  return table.concat(path)
end

local function refuse(status, code)
  ngx.status = status
  ngx.header.content_type = "application/json"
  ngx.print('{"error":{"code":"', code, '","message":"refused","requestId":"', ngx.var.request_id, '"}}')
end

function M.list_tasks()
  local serial = ngx.var.ssl_client_serial
  local grant = serial and M.grants[serial]
  if not grant then return refuse(403, "forbidden") end
  if ngx.req.get_method() ~= "POST" then return refuse(405, "invalid_request") end
  ngx.req.read_body()
  local good, question = pcall(cjson.decode, ngx.req.get_body_data() or "{}")
  local limit = good and type(question.params) == "table" and question.params.limit or grant.cap
  if not good or type(limit) ~= "number" or limit < 1 or limit > 10000 or limit % 1 ~= 0 then
    return refuse(400, "invalid_request")
  end
  limit = math.min(limit, grant.cap)
  local facts = facts_of(serial, grant)
  local answer = facts and ask(target(limit, facts, grant))
  if not answer or type(answer.rows) ~= "table" then return refuse(503, "unavailable") end
  local items, count = {}, 0
  for _, row in ipairs(answer.rows) do
    if count < limit and passes(row, facts, grant) then
      redact(row, true)
      row._source = "local"
      count = count + 1
      items[count] = row
    end
  end
  local rows = count > 0 and cjson.encode(items) or "[]"
  local body = '{"items":' .. rows .. ',"_partial":false,"_truncated":false}'
  ngx.header.content_type = "application/json"
  ngx.header.content_length = #body
  ngx.header.cache_control = "no-store"
  ngx.header.x_request_id = ngx.var.request_id
  ngx.print(body)
end

return M
