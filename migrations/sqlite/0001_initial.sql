-- The first schema. Times are integer milliseconds since the epoch, ids canonical UUID text, digests 32-byte blobs.
-- Closed sets are checked here as well as in the program: a row that breaks one cannot be written by anything.

CREATE TABLE meta (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    store_id   TEXT NOT NULL CHECK (length(store_id) = 36),
    revision   INTEGER NOT NULL CHECK (revision >= 0),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE secrets (
    purpose    TEXT NOT NULL,
    id         TEXT NOT NULL,
    generation INTEGER NOT NULL CHECK (generation >= 0),
    sealed     BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (purpose, id, generation)
) STRICT, WITHOUT ROWID;

CREATE TABLE peers (
    id               TEXT PRIMARY KEY CHECK (length(id) = 36),
    name             TEXT NOT NULL,
    direction        TEXT NOT NULL CHECK (direction IN ('inbound', 'outbound')),
    state            TEXT NOT NULL CHECK (state IN ('pending', 'active', 'degraded', 'suspended', 'revoked')),
    endpoint_url     TEXT,
    common_name      TEXT,
    trust_bundle_pem TEXT,
    created_at       INTEGER NOT NULL,
    last_success_at  INTEGER,
    last_failure_at  INTEGER,
    last_failure     TEXT,
    CHECK (direction = 'inbound'
        OR (endpoint_url IS NOT NULL AND common_name IS NOT NULL AND trust_bundle_pem IS NOT NULL))
) STRICT, WITHOUT ROWID;
-- A removed peer stays as history and leaves its name to others.
CREATE UNIQUE INDEX one_peer_per_name ON peers (direction, name) WHERE state <> 'revoked';

CREATE TABLE grants (
    id           TEXT PRIMARY KEY CHECK (length(id) = 36),
    peer_id      TEXT NOT NULL REFERENCES peers (id),
    user_id      TEXT NOT NULL,
    subject_id   TEXT NOT NULL CHECK (length(subject_id) = 36),
    scope        TEXT NOT NULL,
    status       TEXT NOT NULL CHECK (status IN ('pending', 'active', 'revoked', 'expired')),
    edit         INTEGER NOT NULL CHECK (edit >= 0),
    created_at   INTEGER NOT NULL,
    activated_at INTEGER,
    expires_at   INTEGER,
    -- The earlier of the grant's own end and its scope's: what conditional updates compare with the time.
    ends_at      INTEGER,
    revoked_at   INTEGER,
    reason       TEXT,
    CHECK ((status = 'revoked') = (revoked_at IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX grants_by_peer ON grants (peer_id);
CREATE INDEX grants_by_end ON grants (ends_at) WHERE ends_at IS NOT NULL AND status IN ('pending', 'active');

CREATE TABLE certificates (
    fingerprint BLOB PRIMARY KEY CHECK (length(fingerprint) = 32),
    grant_id    TEXT NOT NULL REFERENCES grants (id),
    serial      TEXT NOT NULL,
    not_before  INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('active', 'superseded', 'revoked')),
    issued_at   INTEGER NOT NULL,
    revoked_at  INTEGER,
    der         BLOB NOT NULL,
    CHECK ((state = 'revoked') = (revoked_at IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX certificates_by_grant ON certificates (grant_id, not_after);
CREATE INDEX certificates_by_end ON certificates (not_after);

CREATE TABLE enrollment_tokens (
    sha256       BLOB PRIMARY KEY CHECK (length(sha256) = 32),
    prefix8      TEXT NOT NULL CHECK (length(prefix8) = 8),
    grant_id     TEXT NOT NULL REFERENCES grants (id),
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    used_at      INTEGER,
    withdrawn_at INTEGER,
    CHECK (used_at IS NULL OR withdrawn_at IS NULL)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_live_token_per_grant ON enrollment_tokens (grant_id)
    WHERE used_at IS NULL AND withdrawn_at IS NULL;

CREATE TABLE issue_intents (
    id         TEXT PRIMARY KEY CHECK (length(id) = 36),
    grant_id   TEXT NOT NULL REFERENCES grants (id),
    csr_sha256 BLOB NOT NULL CHECK (length(csr_sha256) = 32),
    created_at INTEGER NOT NULL,
    outcome    TEXT CHECK (outcome IN ('issued', 'failed')),
    detail     TEXT,
    closed_at  INTEGER,
    CHECK ((outcome IS NULL) = (closed_at IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX issue_intents_by_grant ON issue_intents (grant_id);

CREATE TABLE outbound_credentials (
    id         TEXT PRIMARY KEY CHECK (length(id) = 36),
    peer_id    TEXT NOT NULL REFERENCES peers (id),
    local_user TEXT NOT NULL,
    grant_id   TEXT NOT NULL CHECK (length(grant_id) = 36),
    subject_id TEXT NOT NULL CHECK (length(subject_id) = 36),
    chain_pem  TEXT NOT NULL,
    sealed_key BLOB NOT NULL,
    not_after  INTEGER NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('active', 'suspended', 'superseded', 'expired', 'revoked')),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX outbound_credentials_by_peer ON outbound_credentials (peer_id, created_at);

CREATE TABLE sessions (
    token_sha256 BLOB PRIMARY KEY CHECK (length(token_sha256) = 32),
    id           TEXT NOT NULL UNIQUE CHECK (length(id) = 36),
    local_user   TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    ended_at     INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE subject_tokens (
    user_id    TEXT PRIMARY KEY,
    sealed     BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE policy_bundles (
    revision   INTEGER PRIMARY KEY,
    files      TEXT NOT NULL,
    sha256     BLOB NOT NULL CHECK (length(sha256) = 32),
    applied_at INTEGER NOT NULL
) STRICT;

-- One row per federated request and admin act. `position` is the order of writing, which readers follow.
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
    outcome         TEXT NOT NULL CHECK (outcome IN ('allowed', 'denied', 'error', 'aborted')),
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
CREATE INDEX federation_audit_log_by_time ON federation_audit_log (at);
CREATE INDEX federation_audit_log_by_request ON federation_audit_log (request_id);
CREATE INDEX federation_audit_log_by_peer_request ON federation_audit_log (peer_request_id)
    WHERE peer_request_id IS NOT NULL;
CREATE INDEX federation_audit_log_by_grant ON federation_audit_log (grant_id, position);
