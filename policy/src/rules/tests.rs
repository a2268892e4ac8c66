//! Policy texts: what they mean and how they fail. Elsewhere on purpose: what a ceiling does (`evaluate.rs`).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;
use crate::rate::Rate;

fn parse(text: &str) -> Result<RuleSet, Vec<Problem>> {
    RuleSet::parse(&[("a.toml", text)])
}

fn places(text: &str) -> Vec<(usize, usize)> {
    let problems = parse(text).unwrap_err();
    problems
        .iter()
        .map(|problem| (problem.line, problem.column))
        .collect()
}

const WHOLE: &str = r#"
schema = 1
[ceiling]
resources = ["tasks", "notes"]
max_rows_per_query = 1000
teams = ["platform"]
rate_limit = { per_minute = 600, burst = 20 }
[peers.home]
rate_limit = { burst = 50 }
rows_per_day = 500
resources = ["tasks"]
max_rows_per_query = 200
include_personal = false
allow_sensitive = ["credentials"]
[redaction]
exempt = ["tasks.usage.tokenCount"]
[redaction.fields]
tasks = ["internalNote", "meta.cost"]
"#;

const MAPPING: &str = r#"
[mapping.facts.lists]
teams = { path = "/t", id = "id" }
projects = { path = "/p", id = "id", team = "team" }
missions = { path = "/m", rows = "items", id = "id", project = "project", owner = "owner" }
[mapping.tasks]
list = "/tasks"
get = "/tasks/{id}"
rows = "data.items"
paging = { limit = "n", before = "b" }
fields = { id = "id", created_at = "made", owner = "owner" }
filters = { status = "state" }
[mapping.memory.insight]
list = "/insights"
fields = { id = "id", created_at = "made", owner = "owner" }
"#;

#[test]
fn a_whole_policy() {
    let rules = parse(WHOLE).unwrap();
    let home = "home".parse().unwrap();
    let other = "other".parse().unwrap();
    let ceiling = rules.ceiling_for(&home);
    assert_eq!(ceiling.max_rows_per_query.rows(), 200);
    let tasks = ceiling.resources.get(&Resource::Tasks).unwrap();
    assert_eq!(
        tasks.teams,
        TeamSet::Only(["platform".parse().unwrap()].into())
    );
    assert!(!tasks.include_personal);
    assert_eq!(ceiling.resources.len(), 1);
    assert_eq!(rules.ceiling_for(&other).resources.len(), 2);
    assert_eq!(rules.allow_sensitive(&home), [Resource::Credentials]);
    assert!(rules.allow_sensitive(&other).is_empty());
    assert!(
        rules
            .redaction()
            .removes(Resource::Tasks, &["meta", "cost"])
    );
    assert!(
        !rules
            .redaction()
            .removes(Resource::Tasks, &["usage", "tokenCount"])
    );
    assert!(rules.mapping().is_none());
}

#[test]
fn allowances_of_a_policy() {
    let rules = parse(WHOLE).unwrap();
    let of = |name: &str| rules.allowance_for(&name.parse().unwrap()).for_scope(None);
    assert_eq!(of("other").rate, Rate::new(600, 20).unwrap());
    assert_eq!(of("other").rows_per_day, None);
    // A peer's own rule cannot raise the common one.
    assert_eq!(of("home").rate, Rate::new(600, 20).unwrap());
    assert_eq!(of("home").rows_per_day, Some(500));
    let open = parse("schema = 1\n[ceiling]\nresources = [\"tasks\"]\n[peers.home]\nrate_limit = { per_minute = 6000 }").unwrap();
    let of = |name: &str| open.allowance_for(&name.parse().unwrap()).for_scope(None);
    assert_eq!(of("other").rate, Rate::DEFAULT);
    assert_eq!(of("home").rate, Rate::new(6000, 30).unwrap());
    assert_ne!(
        open.hash(),
        parse("schema = 1\n[ceiling]\nresources = [\"tasks\"]")
            .unwrap()
            .hash()
    );
}

#[test]
fn allowances_that_say_nothing_or_too_much() {
    for line in [
        "rate_limit = {}",
        "rate_limit = 5",
        "rate_limit = { per_minute = 0 }",
        "rate_limit = { burst = 1000001 }",
        "rate_limit = { per_hour = 5 }",
        "rows_per_day = 0",
        "rows_per_day = \"many\"",
    ] {
        let text = format!("schema = 1\n[ceiling]\nresources = [\"tasks\"]\n{line}");
        let problems = parse(&text).unwrap_err();
        assert!(
            problems.iter().all(|problem| problem.line == 4),
            "{line}: {problems:?}"
        );
    }
}

#[test]
fn a_renewal_conflict_suspends_by_the_common_rule_or_the_peers_own() {
    let parse = |text: &str| parse(text).unwrap();
    let (home, away) = ("home".parse().unwrap(), "away".parse().unwrap());
    let base = "schema = 1\n[ceiling]\nresources = [\"tasks\"]\n";
    let suspends = |rules: &RuleSet| {
        [&home, &away].map(|peer: &PeerName| rules.suspends_on_renewal_conflict(peer))
    };
    let none = parse(base);
    assert_eq!(suspends(&none), [false, false]);
    let all = parse(&format!("{base}suspend_on_renewal_conflict = true\n"));
    assert_eq!(suspends(&all), [true, true]);
    let one = parse(&format!(
        "{base}[peers.home]\nsuspend_on_renewal_conflict = true\n"
    ));
    assert_eq!(suspends(&one), [true, false]);
    assert!(none.hash() != all.hash() && none.hash() != one.hash());
    // A peer cannot be let off the common rule.
    let off = parse(&format!(
        "{base}suspend_on_renewal_conflict = true\n[peers.home]\nsuspend_on_renewal_conflict = false\n"
    ));
    assert_eq!(suspends(&off), [true, true]);
}

#[test]
fn no_rule_denies() {
    for rules in [
        RuleSet::deny_all(),
        parse("schema = 1").unwrap(),
        RuleSet::parse(&[]).unwrap(),
    ] {
        assert!(
            rules
                .ceiling_for(&"home".parse().unwrap())
                .resources
                .is_empty()
        );
        assert_eq!(rules, RuleSet::deny_all());
    }
}

#[test]
fn a_peer_alone_has_only_what_it_names() {
    let rules = parse("schema = 1\n[peers.home]\nresources = [\"tasks\"]").unwrap();
    assert_eq!(
        rules.ceiling_for(&"home".parse().unwrap()).resources.len(),
        1
    );
    assert!(
        rules
            .ceiling_for(&"other".parse().unwrap())
            .resources
            .is_empty()
    );
    assert_eq!(
        places("schema = 1\n[peers.home]\nmax_rows_per_query = 5"),
        [(2, 1)]
    );
}

#[test]
fn each_problem_is_found_where_it_stands() {
    let table = [
        ("", (1, 1)),
        ("schema = 2", (1, 10)),
        ("schema = 1\nrates = 1", (2, 1)),
        (
            "schema = 1\n[ceiling]\nresources = [\"tasks\"]\nteam = []",
            (4, 1),
        ),
        ("schema = 1\n[ceiling]\nteams = []", (2, 1)),
        ("schema = 1\n[ceiling]\nresources = [\"users\"]", (3, 14)),
        (
            "schema = 1\n[ceiling]\nresources = [\"tasks\", \"tasks\"]",
            (3, 23),
        ),
        ("schema = 1\n[ceiling]\nresources = \"tasks\"", (3, 13)),
        (
            "schema = 1\n[ceiling]\nresources = []\nmax_rows_per_query = 0",
            (4, 22),
        ),
        (
            "schema = 1\n[ceiling]\nresources = []\ninclude_personal = 1",
            (4, 20),
        ),
        ("schema = 1\n[peers.Home]\nresources = []", (2, 8)),
        ("schema = 1\n[peers.local]\nresources = []", (2, 8)),
        (
            "schema = 1\n[peers.a]\nresources = []\nallow_sensitive = [\"tasks\"]",
            (4, 20),
        ),
        (
            "schema = 1\n[redaction]\nexempt = [\"tokenCount\"]",
            (3, 11),
        ),
        (
            "schema = 1\n[redaction.fields]\ncredentials = [\"x\"]",
            (3, 1),
        ),
        ("schema = 1\n[redaction.fields]\ntasks = [\"id\"]", (3, 10)),
        (
            "schema = 1\n[redaction.fields]\ntasks = [\"a..b\"]",
            (3, 10),
        ),
        ("schema = 1\nceiling = 3", (2, 11)),
        ("schema = 1\n[ceiling\n", (2, 9)),
    ];
    for (text, place) in table {
        assert_eq!(places(text), [place], "{text:?}: {:?}", parse(text));
    }
}

#[test]
fn all_problems_of_all_files_come_together() {
    let one = "schema = 1\n[ceiling]\nresources = [\"tasks\"]\nx = 1\n[peers.home]\nresources = []";
    let two = "schema = 1\n[ceiling]\nresources = []\n[peers.home]\nresources = []\n[redaction.fields]\ntasks = [\"id\", \"\"]";
    let problems = RuleSet::parse(&[("b.toml", two), ("a.toml", one)]).unwrap_err();
    let found: Vec<_> = problems.iter().map(|p| (p.file.as_str(), p.line)).collect();
    // The file read later is the one that says a thing twice.
    assert_eq!(
        found,
        [
            ("a.toml", 2),
            ("a.toml", 4),
            ("a.toml", 5),
            ("b.toml", 7),
            ("b.toml", 7)
        ]
    );
}

#[test]
fn the_hash_is_of_the_meaning() {
    let hash = |text: &str| *parse(text).unwrap().hash();
    let spaced = WHOLE.replace(
        "[\"tasks\", \"notes\"]",
        "[ \"notes\",\n  \"tasks\" ] # both",
    );
    assert_eq!(hash(WHOLE), hash(&spaced));
    let halves: Vec<_> = WHOLE.split("[redaction]").collect();
    let second = format!("schema = 1\n[redaction]{}", halves.last().unwrap());
    let split = RuleSet::parse(&[("x", &second), ("y", halves.first().unwrap())]).unwrap();
    assert_eq!(hash(WHOLE), *split.hash());
    for (from, to) in [
        ("200", "201"),
        ("[\"platform\"]", "[]"),
        ("include_personal = false", "include_personal = true"),
        ("[\"credentials\"]", "[\"api_keys\"]"),
        ("meta.cost", "meta.costs"),
        ("usage.tokenCount", "usage.tokens"),
        ("[peers.home]", "[peers.homes]"),
    ] {
        assert_ne!(hash(WHOLE), hash(&WHOLE.replace(from, to)), "{from}");
    }
    assert_ne!(hash(WHOLE), hash(&format!("{WHOLE}{MAPPING}")));
}

#[test]
fn a_mapping_is_read() {
    let rules = parse(&format!("schema = 1\n{MAPPING}")).unwrap();
    let mapping = rules.mapping().unwrap();
    assert!(mapping.serves(Resource::Tasks) && mapping.serves(Resource::Memory));
    assert!(!mapping.serves(Resource::Notes));
    let tasks = mapping.sources(Resource::Tasks).first().unwrap();
    assert_eq!(tasks.rows.as_str(), "data.items");
    assert_eq!(
        tasks.filters.get("status").map(String::as_str),
        Some("state")
    );
    assert_eq!(
        mapping
            .sources(Resource::Memory)
            .first()
            .unwrap()
            .kind
            .as_deref(),
        Some("insight")
    );
}

#[test]
fn a_mapping_that_cannot_work_is_refused() {
    let broken = |from: &str, to: &str| {
        let text = format!("schema = 1\n{}", MAPPING.replace(from, to));
        assert!(parse(&text).is_err(), "{from} -> {to}");
    };
    broken("list = \"/tasks\"", "");
    broken("list = \"/tasks\"", "list = \"/tasks?x=1\"");
    broken("list = \"/tasks\"", "list = \"/{mission}/tasks\"");
    broken("list = \"/tasks\"", "list = \"/tasks\"\nper_mission = true");
    broken("get = \"/tasks/{id}\"", "get = \"/tasks\"");
    broken("n\", before = \"b", "n\", before = \"n");
    broken("status = \"state\"", "status = \"n\"");
    broken("status = \"state\"", "colour = \"c\"");
    broken(", owner = \"owner\" }\nfilters", " }\nfilters");
    broken(
        "created_at = \"made\", owner = \"owner\" }\nfilters",
        "created_at = \"id\", owner = \"o\" }\nfilters",
    );
    broken("[mapping.memory.insight]", "[mapping.memory]");
    broken("[mapping.memory.insight]", "[mapping.memory.other]");
    broken("[mapping.tasks]", "[mapping.credentials]");
    broken("[mapping.facts.lists]", "[mapping.facts.single]");
    broken("teams = { path = \"/t\", id = \"id\" }", "");
    broken("teams = { path = \"/t\"", "teams = { path = \"/t/{id}\"");
    broken(
        "teams = { path = \"/t\", id = \"id\" }",
        "teams = { path = \"/t\", id = \"id\", owner = \"o\" }",
    );
    assert!(parse("schema = 1\n[mapping.facts]\n").is_err());
    assert!(parse("schema = 1\n[mapping]\n").is_err());
}

/// The keys of a definition in the schema; empty when there is no such definition.
fn keys(schema: &Value, definition: &str) -> BTreeSet<String> {
    let table = if definition.is_empty() {
        Some(schema)
    } else {
        schema.get("$defs").and_then(|defs| defs.get(definition))
    };
    table
        .and_then(|table| table.get("properties"))
        .and_then(Value::as_object)
        .map(|properties| properties.keys().cloned().collect())
        .unwrap_or_default()
}

#[test]
fn the_schema_knows_the_keys_the_parser_knows() {
    let schema = policy_schema();
    let known =
        |list: &[&str]| -> BTreeSet<String> { list.iter().map(|key| (*key).to_owned()).collect() };
    assert_eq!(keys(&schema, ""), known(&parse::FILE_KEYS));
    assert_eq!(keys(&schema, "CeilingTable"), known(&parse::CEILING_KEYS));
    assert_eq!(keys(&schema, "PeerTable"), known(&parse::PEER_KEYS));
    assert_eq!(keys(&schema, "RateRule"), known(&parse::RATE_KEYS));
    assert_eq!(
        keys(&schema, "RedactionTable"),
        known(&parse::REDACTION_KEYS)
    );
    assert_eq!(keys(&schema, "SourceTable"), known(&mapping::SOURCE_KEYS));
    assert_eq!(keys(&schema, "SearchTable"), known(&mapping::SEARCH_KEYS));
    assert_eq!(keys(&schema, "FieldMap"), known(&mapping::FIELD_KEYS));
    assert_eq!(keys(&schema, "MemoryTable"), known(&mapping::MEMORY_KINDS));
    assert_eq!(keys(&schema, "SingleTable"), known(&facts::SINGLE_KEYS));
    assert_eq!(keys(&schema, "ListsTable"), known(&facts::LISTS_KEYS));
    assert_eq!(keys(&schema, "EntriesTable"), known(&facts::ENTRY_KEYS));
    let mut list = known(&facts::ENTRY_KEYS);
    list.insert("path".to_owned());
    assert_eq!(keys(&schema, "ListTable"), list);
    let mut mapped: BTreeSet<_> = Resource::SERVED.iter().map(ToString::to_string).collect();
    mapped.insert("facts".to_owned());
    mapped.insert("semantic".to_owned());
    assert_eq!(keys(&schema, "MappingTable"), mapped);
}
