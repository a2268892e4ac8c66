-- A request refused for a limit has an outcome of its own. The check of a column cannot be changed, so the table is made anew.
ALTER TABLE federation_audit_log RENAME TO federation_audit_log_old;

CREATE TABLE federation_audit_log (
    position        INTEGER PRIMARY KEY AUTOINCREMENT,
    id              BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    at              INTEGER NOT NULL,
    request_id      TEXT NOT NULL,
    peer_request_id TEXT,
    attempt         INTEGER NOT NULL,
    trace_id        TEXT,
    direction       TEXT NOT NULL CHECK (direction IN ('inbound', 'outbound', 'admin')),
    peer_id         TEXT,
    grant_id        TEXT,
    subject_user_id TEXT,
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
    detail          TEXT
) STRICT;

INSERT INTO federation_audit_log SELECT * FROM federation_audit_log_old ORDER BY position;
DROP TABLE federation_audit_log_old;

CREATE INDEX federation_audit_log_by_time ON federation_audit_log (at);
CREATE INDEX federation_audit_log_by_request ON federation_audit_log (request_id);
CREATE INDEX federation_audit_log_by_peer_request ON federation_audit_log (peer_request_id)
    WHERE peer_request_id IS NOT NULL;
CREATE INDEX federation_audit_log_by_grant ON federation_audit_log (grant_id, position);
