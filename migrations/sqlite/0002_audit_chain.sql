-- The audit log with its hash chain. Ids are 16-byte blobs, so rows and indexes are small; ids of records are UUIDv7, so
-- every index but those of grants and of the peers' own ids grows at its end.
-- Rows from before have no place in a chain and never get one.

-- One chain for each run of a process that wrote. The newest row of each is noted here too.
CREATE TABLE audit_chains (
    chain           BLOB PRIMARY KEY CHECK (length(chain) = 16),
    number          INTEGER NOT NULL UNIQUE,
    begun_at        INTEGER NOT NULL,
    predecessor     BLOB,
    predecessor_seq INTEGER,
    seq             INTEGER NOT NULL CHECK (seq >= 0),
    hash            BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT, WITHOUT ROWID;

-- How far each journal has been brought into the log: written with the rows themselves.
CREATE TABLE audit_journals (
    journal BLOB PRIMARY KEY CHECK (length(journal) = 16),
    applied INTEGER NOT NULL CHECK (applied >= 0)
) STRICT, WITHOUT ROWID;

ALTER TABLE federation_audit_log RENAME TO federation_audit_log_1;

CREATE TABLE federation_audit_log (
    position        INTEGER PRIMARY KEY AUTOINCREMENT,
    id              BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    at              INTEGER NOT NULL,
    -- Null when it is the id itself, as for every request of a peer.
    request_id      TEXT,
    peer_request_id TEXT,
    attempt         INTEGER NOT NULL,
    trace_id        TEXT,
    direction       TEXT NOT NULL CHECK (direction IN ('inbound', 'outbound', 'admin')),
    peer_id         BLOB,
    grant_id        BLOB,
    subject_user_id BLOB,
    cert_serial     TEXT,
    verb            TEXT,
    resource        TEXT,
    query_hash      BLOB,
    outcome         TEXT NOT NULL CHECK (outcome IN ('allowed', 'denied', 'rate_limited', 'error', 'aborted')),
    deny_stage      TEXT,
    deny_code       TEXT,
    http_status     INTEGER,
    rows_returned   INTEGER NOT NULL,
    rows_withheld   INTEGER NOT NULL,
    bytes_out       INTEGER NOT NULL,
    latency_us      INTEGER NOT NULL,
    revision        INTEGER,
    action          TEXT,
    actor           TEXT,
    detail          TEXT,
    -- More than 1 when refusals were counted into one row while the journal was filling.
    count           INTEGER NOT NULL,
    chain           BLOB,
    seq             INTEGER,
    prev_hash       BLOB,
    hash            BLOB,
    CHECK ((chain IS NULL) = (seq IS NULL) AND (chain IS NULL) = (prev_hash IS NULL) AND (chain IS NULL) = (hash IS NULL))
) STRICT;

INSERT INTO federation_audit_log
    SELECT position, id, at,
        iif(unhex(replace(request_id, '-', '')) IS id AND request_id = lower(request_id) AND length(request_id) = 36,
            NULL, request_id),
        peer_request_id, attempt, trace_id, direction,
        unhex(replace(peer_id, '-', '')), unhex(replace(grant_id, '-', '')), unhex(replace(subject_user_id, '-', '')),
        cert_serial, verb, resource, query_hash, outcome, deny_stage, deny_code, http_status,
        rows_returned, rows_withheld, bytes_out, latency_us, revision, action, actor, detail,
        1, NULL, NULL, NULL, NULL
    FROM federation_audit_log_1 ORDER BY position;
DROP TABLE federation_audit_log_1;

CREATE INDEX audit_by_time ON federation_audit_log (at);
CREATE INDEX audit_by_request ON federation_audit_log (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX audit_by_peer_request ON federation_audit_log (peer_request_id) WHERE peer_request_id IS NOT NULL;
CREATE INDEX audit_by_grant ON federation_audit_log (grant_id, position);
