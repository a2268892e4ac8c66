-- The schema on PostgreSQL 15 and later: the tables of `migrations/sqlite/` as they have become, with the same closed sets and checks.
-- Times are integer milliseconds since the epoch, ids canonical UUID text or 16 bytes, digests 32 bytes. Texts sort by their bytes.
-- Everything is in the first schema of the search path, which functions keep.

CREATE TABLE meta (
    one              BIGINT PRIMARY KEY CHECK (one = 1),
    store_id         TEXT NOT NULL CHECK (length(store_id) = 36),
    revision         BIGINT NOT NULL CHECK (revision >= 0),
    created_at       BIGINT NOT NULL,
    -- The longest lease on an answer that any process of this store may have given.
    longest_lease_ms BIGINT NOT NULL DEFAULT 0 CHECK (longest_lease_ms >= 0)
);

-- Whoever listens on `mosaic_federation_<schema>` is told the revision of each change when it is committed. It speeds things up;
-- nothing may depend on it.
CREATE FUNCTION tell_revision() RETURNS TRIGGER LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_notify('mosaic_federation_' || TG_TABLE_SCHEMA, NEW.revision::TEXT);
    RETURN NULL;
END $$;
CREATE TRIGGER meta_revision AFTER UPDATE OF revision ON meta FOR EACH ROW EXECUTE FUNCTION tell_revision();

CREATE TABLE secrets (
    purpose    TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL CHECK (generation >= 0),
    sealed     BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (purpose, id, generation)
);

CREATE TABLE peers (
    id               TEXT COLLATE "C" PRIMARY KEY CHECK (length(id) = 36),
    name             TEXT COLLATE "C" NOT NULL,
    direction        TEXT COLLATE "C" NOT NULL CHECK (direction IN ('inbound', 'outbound')),
    state            TEXT NOT NULL CHECK (state IN ('pending', 'active', 'degraded', 'suspended', 'revoked')),
    endpoint_url     TEXT,
    common_name      TEXT,
    trust_bundle_pem TEXT,
    created_at       BIGINT NOT NULL,
    last_success_at  BIGINT,
    last_failure_at  BIGINT,
    last_failure     TEXT,
    -- The public key with which a peer that is asked signs statements about our history, as enrollment gave it.
    checkpoint_key   BYTEA CHECK (checkpoint_key IS NULL OR length(checkpoint_key) = 32),
    -- Asking side: the generation of the peer's bundle that is kept; of one that says none, 1.
    trust_generation BIGINT NOT NULL DEFAULT 1 CHECK (trust_generation > 0),
    CHECK (direction = 'inbound'
        OR (endpoint_url IS NOT NULL AND common_name IS NOT NULL AND trust_bundle_pem IS NOT NULL))
);
-- A removed peer stays as history and leaves its name to others.
CREATE UNIQUE INDEX one_peer_per_name ON peers (direction, name) WHERE state <> 'revoked';

CREATE TABLE grants (
    id           TEXT COLLATE "C" PRIMARY KEY CHECK (length(id) = 36),
    peer_id      TEXT COLLATE "C" NOT NULL REFERENCES peers (id),
    user_id      TEXT COLLATE "C" NOT NULL,
    subject_id   TEXT NOT NULL CHECK (length(subject_id) = 36),
    scope        TEXT NOT NULL,
    status       TEXT NOT NULL CHECK (status IN ('pending', 'active', 'revoked', 'expired')),
    edit         BIGINT NOT NULL CHECK (edit >= 0),
    created_at   BIGINT NOT NULL,
    activated_at BIGINT,
    expires_at   BIGINT,
    -- The earlier of the grant's own end and its scope's: what conditional updates compare with the time.
    ends_at      BIGINT,
    revoked_at   BIGINT,
    reason       TEXT,
    CHECK ((status = 'revoked') = (revoked_at IS NOT NULL))
);
CREATE INDEX grants_by_peer ON grants (peer_id);
CREATE INDEX grants_by_end ON grants (ends_at) WHERE ends_at IS NOT NULL AND status IN ('pending', 'active');

CREATE TABLE certificates (
    fingerprint       BYTEA PRIMARY KEY CHECK (length(fingerprint) = 32),
    grant_id          TEXT COLLATE "C" NOT NULL REFERENCES grants (id),
    serial            TEXT COLLATE "C" NOT NULL,
    not_before        BIGINT NOT NULL,
    not_after         BIGINT NOT NULL,
    state             TEXT NOT NULL CHECK (state IN ('active', 'superseded', 'revoked')),
    issued_at         BIGINT NOT NULL,
    revoked_at        BIGINT,
    der               BYTEA NOT NULL,
    -- Counts up within a grant. A renewed certificate is unconfirmed (`confirmed_at` null) until its first request; then the
    -- one before it is good until `retires_at`. `csr_sha256` and `chain_pem` answer a repeated request.
    issue             BIGINT NOT NULL DEFAULT 0 CHECK (issue >= 0),
    csr_sha256        BYTEA CHECK (csr_sha256 IS NULL OR length(csr_sha256) = 32),
    chain_pem         TEXT,
    confirmed_at      BIGINT,
    retires_at        BIGINT,
    -- The code of RFC 5280, section 5.3.1. `told_at` is when another authority had the revocation.
    revocation_reason BIGINT CHECK (revocation_reason BETWEEN 0 AND 10),
    told_at           BIGINT,
    tell_tries        BIGINT NOT NULL DEFAULT 0 CHECK (tell_tries >= 0),
    tell_tried_at     BIGINT,
    tell_failure      TEXT,
    CHECK ((state = 'revoked') = (revoked_at IS NOT NULL))
);
CREATE INDEX certificates_by_grant ON certificates (grant_id, not_after);
CREATE INDEX certificates_by_end ON certificates (not_after);
CREATE INDEX certificates_revoked ON certificates (not_after) WHERE state = 'revoked';
CREATE INDEX certificates_by_serial ON certificates (serial);
CREATE UNIQUE INDEX one_certificate_per_request ON certificates (grant_id, csr_sha256) WHERE csr_sha256 IS NOT NULL;

CREATE TABLE enrollment_tokens (
    sha256       BYTEA PRIMARY KEY CHECK (length(sha256) = 32),
    prefix8      TEXT NOT NULL CHECK (length(prefix8) = 8),
    grant_id     TEXT COLLATE "C" NOT NULL REFERENCES grants (id),
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    used_at      BIGINT,
    withdrawn_at BIGINT,
    CHECK (used_at IS NULL OR withdrawn_at IS NULL)
);
CREATE UNIQUE INDEX one_live_token_per_grant ON enrollment_tokens (grant_id) WHERE used_at IS NULL AND withdrawn_at IS NULL;

CREATE TABLE issue_intents (
    id         TEXT COLLATE "C" PRIMARY KEY CHECK (length(id) = 36),
    grant_id   TEXT COLLATE "C" NOT NULL REFERENCES grants (id),
    csr_sha256 BYTEA NOT NULL CHECK (length(csr_sha256) = 32),
    created_at BIGINT NOT NULL,
    outcome    TEXT CHECK (outcome IN ('issued', 'failed')),
    detail     TEXT,
    closed_at  BIGINT,
    CHECK ((outcome IS NULL) = (closed_at IS NULL))
);
CREATE INDEX issue_intents_by_grant ON issue_intents (grant_id);

CREATE TABLE outbound_credentials (
    id               TEXT COLLATE "C" PRIMARY KEY CHECK (length(id) = 36),
    peer_id          TEXT COLLATE "C" NOT NULL REFERENCES peers (id),
    local_user       TEXT NOT NULL,
    grant_id         TEXT NOT NULL CHECK (length(grant_id) = 36),
    subject_id       TEXT NOT NULL CHECK (length(subject_id) = 36),
    chain_pem        TEXT NOT NULL,
    sealed_key       BYTEA NOT NULL,
    not_after        BIGINT NOT NULL,
    state            TEXT NOT NULL CHECK (state IN ('active', 'suspended', 'superseded', 'expired', 'revoked')),
    created_at       BIGINT NOT NULL,
    -- When we got it, by the peer's clock, and how far that was ahead of ours.
    began_at         BIGINT,
    skew_ms          BIGINT NOT NULL DEFAULT 0,
    renewal_failures BIGINT NOT NULL DEFAULT 0 CHECK (renewal_failures >= 0),
    renewal_tried_at BIGINT,
    renewal_failure  TEXT
);
CREATE INDEX outbound_credentials_by_peer ON outbound_credentials (peer_id, created_at);

-- A renewal under way: key and request are here before the peer is asked, its answer before it is used.
CREATE TABLE outbound_renewals (
    credential_id    TEXT COLLATE "C" PRIMARY KEY REFERENCES outbound_credentials (id),
    id               TEXT COLLATE "C" NOT NULL UNIQUE CHECK (length(id) = 36),
    sealed_key       BYTEA NOT NULL,
    csr_pem          TEXT NOT NULL,
    begun_at         BIGINT NOT NULL,
    chain_pem        TEXT,
    trust_bundle_pem TEXT,
    not_after        BIGINT,
    began_at         BIGINT,
    trust_generation BIGINT,
    CHECK ((chain_pem IS NULL) = (trust_bundle_pem IS NULL) AND (chain_pem IS NULL) = (not_after IS NULL)
        AND (chain_pem IS NULL) = (began_at IS NULL))
);

CREATE TABLE sessions (
    token_sha256 BYTEA PRIMARY KEY CHECK (length(token_sha256) = 32),
    id           TEXT COLLATE "C" NOT NULL UNIQUE CHECK (length(id) = 36),
    local_user   TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    ended_at     BIGINT
);

CREATE TABLE subject_tokens (
    user_id    TEXT COLLATE "C" PRIMARY KEY,
    sealed     BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE policy_bundles (
    revision   BIGINT PRIMARY KEY,
    files      TEXT NOT NULL,
    sha256     BYTEA NOT NULL CHECK (length(sha256) = 32),
    applied_at BIGINT NOT NULL
);

-- Which rows a grant has seen on a UTC day, kept only for grants with a budget of rows a day. A row is here before it is sent.
CREATE TABLE rows_seen (
    day      BIGINT NOT NULL,
    grant_id BYTEA NOT NULL CHECK (length(grant_id) = 16),
    "row"    BYTEA NOT NULL CHECK (length("row") = 16),
    PRIMARY KEY (day, grant_id, "row")
);
CREATE TABLE row_counts (
    day      BIGINT NOT NULL,
    grant_id BYTEA NOT NULL CHECK (length(grant_id) = 16),
    rows     BIGINT NOT NULL CHECK (rows >= 0),
    PRIMARY KEY (day, grant_id)
);

-- One chain for each run of a process that wrote. The newest row of each is noted here too.
CREATE TABLE audit_chains (
    chain           BYTEA PRIMARY KEY CHECK (length(chain) = 16),
    number          BIGINT NOT NULL UNIQUE,
    begun_at        BIGINT NOT NULL,
    predecessor     BYTEA,
    predecessor_seq BIGINT,
    seq             BIGINT NOT NULL CHECK (seq >= 0),
    hash            BYTEA NOT NULL CHECK (length(hash) = 32)
);

-- How far each journal has been brought into the log: written with the rows themselves.
CREATE TABLE audit_journals (
    journal BYTEA PRIMARY KEY CHECK (length(journal) = 16),
    applied BIGINT NOT NULL CHECK (applied >= 0)
);

-- How far the history of each grant has got: written with the rows themselves.
CREATE TABLE audit_histories (
    grant_id BYTEA PRIMARY KEY CHECK (length(grant_id) = 16),
    chain    BYTEA NOT NULL CHECK (length(chain) = 16),
    gseq     BIGINT NOT NULL CHECK (gseq > 0),
    ghash    BYTEA NOT NULL CHECK (length(ghash) = 32)
);

-- The newest statement of each chain of a peer about our grant there, and the newest that was signed.
CREATE TABLE witnessed_checkpoints (
    grant_id     BYTEA NOT NULL CHECK (length(grant_id) = 16),
    chain        BYTEA NOT NULL CHECK (length(chain) = 16),
    gseq         BIGINT NOT NULL CHECK (gseq > 0),
    ghash        BYTEA NOT NULL CHECK (length(ghash) = 32),
    heard_at     BIGINT NOT NULL,
    signed_gseq  BIGINT CHECK (signed_gseq > 0),
    signed_ghash BYTEA CHECK (length(signed_ghash) = 32),
    signed_at    BIGINT,
    signature    BYTEA CHECK (length(signature) = 64),
    PRIMARY KEY (grant_id, chain),
    CHECK ((signed_gseq IS NULL) = (signed_ghash IS NULL) AND (signed_gseq IS NULL) = (signed_at IS NULL)
        AND (signed_gseq IS NULL) = (signature IS NULL))
);

-- The files that rows of the audit log were moved into, written with their manifests.
CREATE TABLE audit_archives (
    number         BIGINT PRIMARY KEY CHECK (number > 0),
    rows           BIGINT NOT NULL CHECK (rows > 0),
    first_position BIGINT NOT NULL,
    last_position  BIGINT NOT NULL UNIQUE,
    earliest       BIGINT NOT NULL,
    latest         BIGINT NOT NULL,
    bytes          BIGINT NOT NULL CHECK (bytes > 0),
    sha256         BYTEA NOT NULL CHECK (length(sha256) = 32)
);

-- One row per federated request and admin act, with its place in the hash chain. `position` is the order of writing, which readers
-- follow: writers take turns, so it is the order of commits too.
--
-- Partitioned by month. The key of the partitions is the id, whose first 48 bits are the time of the record (UUIDv7), so
-- that an id is unique in the whole log; the time beside it would allow one id twice. What belongs to no month that there is
-- goes to the default partition.
CREATE SEQUENCE federation_audit_log_position;
CREATE TABLE federation_audit_log (
    position        BIGINT NOT NULL DEFAULT nextval('federation_audit_log_position'),
    id              BYTEA NOT NULL CHECK (length(id) = 16),
    at              BIGINT NOT NULL,
    -- Null when it is the id itself, as for every request of a peer.
    request_id      TEXT COLLATE "C",
    peer_request_id TEXT COLLATE "C",
    attempt         BIGINT NOT NULL,
    trace_id        TEXT,
    direction       TEXT NOT NULL CHECK (direction IN ('inbound', 'outbound', 'admin')),
    peer_id         BYTEA,
    grant_id        BYTEA,
    subject_user_id BYTEA,
    cert_serial     TEXT,
    verb            TEXT,
    resource        TEXT,
    query_hash      BYTEA,
    outcome         TEXT NOT NULL CHECK (outcome IN ('allowed', 'denied', 'rate_limited', 'error', 'aborted')),
    deny_stage      TEXT,
    deny_code       TEXT,
    http_status     BIGINT,
    rows_returned   BIGINT NOT NULL,
    rows_withheld   BIGINT NOT NULL,
    bytes_out       BIGINT NOT NULL,
    latency_us      BIGINT NOT NULL,
    revision        BIGINT,
    action          TEXT,
    actor           TEXT,
    detail          TEXT,
    -- More than 1 when refusals were counted into one row while the journal was filling.
    count           BIGINT NOT NULL,
    chain           BYTEA,
    seq             BIGINT,
    prev_hash       BYTEA,
    hash            BYTEA,
    -- What the decision came to, in a few bytes (`policy/src/recorded.rs`); null where nothing was decided.
    decision        BYTEA CHECK (decision IS NULL OR length(decision) <= 512),
    -- The place in the history of the grant, which its peer can follow.
    gseq            BIGINT CHECK (gseq IS NULL OR gseq > 0),
    ghash           BYTEA CHECK ((ghash IS NULL) = (gseq IS NULL) AND (ghash IS NULL OR length(ghash) = 32)),
    -- On the asking side: how far the serving side said with its answer that its history had got.
    witnessed       BYTEA CHECK (witnessed IS NULL OR length(witnessed) = 56),
    PRIMARY KEY (id),
    CHECK ((chain IS NULL) = (seq IS NULL) AND (chain IS NULL) = (prev_hash IS NULL) AND (chain IS NULL) = (hash IS NULL))
) PARTITION BY RANGE (id);
ALTER SEQUENCE federation_audit_log_position OWNED BY federation_audit_log.position;
CREATE UNIQUE INDEX audit_by_position ON federation_audit_log (position, id);
CREATE INDEX audit_by_time ON federation_audit_log (at);
CREATE INDEX audit_by_request ON federation_audit_log (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX audit_by_peer_request ON federation_audit_log (peer_request_id) WHERE peer_request_id IS NOT NULL;
CREATE INDEX audit_by_grant ON federation_audit_log (grant_id, position);
CREATE TABLE federation_audit_log_other PARTITION OF federation_audit_log DEFAULT;

-- The least id of a record of that instant.
CREATE FUNCTION audit_id_from(ms BIGINT) RETURNS BYTEA LANGUAGE sql IMMUTABLE
    RETURN decode(lpad(to_hex(ms), 12, '0'), 'hex');

-- Makes the partition of the month of an instant, and says from when to when it is. Where it cannot be made, because somebody reads
-- the log just now, the default partition has rows of it, or the role may not, the default partition takes its rows.
CREATE FUNCTION make_audit_partition(ms BIGINT, OUT from_ms BIGINT, OUT until_ms BIGINT)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    month TIMESTAMP := date_trunc('month', to_timestamp(ms / 1000) AT TIME ZONE 'UTC');
    name TEXT := 'federation_audit_log_' || to_char(month, 'FMYYYY_MM');
BEGIN
    from_ms := extract(epoch FROM month)::BIGINT * 1000;
    until_ms := extract(epoch FROM month + INTERVAL '1 month')::BIGINT * 1000;
    IF to_regclass(name) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM set_config('lock_timeout', '500ms', true);
    EXECUTE format('CREATE TABLE %I PARTITION OF federation_audit_log FOR VALUES FROM (%L) TO (%L)',
        name, audit_id_from(from_ms), audit_id_from(until_ms));
EXCEPTION WHEN check_violation OR lock_not_available OR duplicate_table OR unique_violation OR insufficient_privilege THEN
    RAISE WARNING 'the partition % was not made: %', name, SQLERRM;
END $$;

-- Drops the partitions of months before an instant that have no rows any more; how many.
CREATE FUNCTION drop_empty_audit_partitions(ms BIGINT) RETURNS BIGINT
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    month TEXT := 'federation_audit_log_'
        || to_char(date_trunc('month', to_timestamp(ms / 1000) AT TIME ZONE 'UTC'), 'FMYYYY_MM');
    child RECORD;
    found BOOLEAN;
    dropped BIGINT := 0;
BEGIN
    PERFORM set_config('lock_timeout', '500ms', true);
    FOR child IN
        SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'federation_audit_log'::REGCLASS AND c.relname ~ '^federation_audit_log_[0-9]{4}_[0-9]{2}$'
            AND c.relname::TEXT COLLATE "C" < month COLLATE "C"
    LOOP
        BEGIN
            EXECUTE format('SELECT EXISTS (SELECT FROM %I)', child.name) INTO found;
            IF NOT found THEN
                EXECUTE format('DROP TABLE %I', child.name);
                dropped := dropped + 1;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            NULL; -- Somebody reads: the next time will do.
        END;
    END LOOP;
    RETURN dropped;
END $$;

-- Which sealing secret is in force, by its public name (`certs/src/seal.rs`), and which is to follow while rows are sealed again.
-- `former` is the secret in force, sealed under the one that follows; it goes when the change ends.
CREATE TABLE sealing (
    one         BIGINT PRIMARY KEY CHECK (one = 1),
    key_id      BYTEA NOT NULL CHECK (length(key_id) = 8),
    next_key_id BYTEA CHECK (next_key_id IS NULL OR (length(next_key_id) = 8 AND next_key_id <> key_id)),
    former      BYTEA,
    begun_at    BIGINT,
    CHECK ((next_key_id IS NULL) = (former IS NULL) AND (next_key_id IS NULL) = (begun_at IS NULL))
);

-- Everything that is sealed. Octets 5 to 12 of a sealed value name the secret. Forgotten keys are empty.
CREATE VIEW sealed_rows AS
    SELECT 'secret'::TEXT COLLATE "C" AS kind, purpose, id, generation, sealed FROM secrets
    UNION ALL SELECT 'credential', '', id, 0, sealed_key FROM outbound_credentials WHERE length(sealed_key) > 0
    UNION ALL SELECT 'renewal', '', id, 0, sealed_key FROM outbound_renewals
    UNION ALL SELECT 'subject_token', '', user_id, 0, sealed FROM subject_tokens;

-- A value sealed with a secret that is not in force is written by nobody, however late it comes.
CREATE FUNCTION refuse_other_seal(given BYTEA) RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF length(given) > 0 AND EXISTS (
        SELECT FROM sealing WHERE substr(given, 5, 8) NOT IN (key_id, coalesce(next_key_id, key_id))) THEN
        RAISE EXCEPTION 'it was sealed with a secret that is not in force' USING ERRCODE = 'MF001';
    END IF;
END $$;
CREATE FUNCTION check_sealed() RETURNS TRIGGER LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM refuse_other_seal(NEW.sealed);
    RETURN NEW;
END $$;
CREATE FUNCTION check_sealed_key() RETURNS TRIGGER LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM refuse_other_seal(NEW.sealed_key);
    RETURN NEW;
END $$;
CREATE TRIGGER secrets_sealed BEFORE INSERT OR UPDATE OF sealed ON secrets
    FOR EACH ROW EXECUTE FUNCTION check_sealed();
CREATE TRIGGER subject_tokens_sealed BEFORE INSERT OR UPDATE OF sealed ON subject_tokens
    FOR EACH ROW EXECUTE FUNCTION check_sealed();
CREATE TRIGGER outbound_credentials_sealed BEFORE INSERT OR UPDATE OF sealed_key ON outbound_credentials
    FOR EACH ROW EXECUTE FUNCTION check_sealed_key();
CREATE TRIGGER outbound_renewals_sealed BEFORE INSERT OR UPDATE OF sealed_key ON outbound_renewals
    FOR EACH ROW EXECUTE FUNCTION check_sealed_key();

-- Serving side: which generation the trust of this side has, and how far a rotation of the embedded root has got. The roots are in
-- `secrets` (purpose `ca_key`), by generation.
CREATE TABLE trust (
    one           BIGINT PRIMARY KEY CHECK (one = 1),
    generation    BIGINT NOT NULL CHECK (generation > 0),
    ca_generation BIGINT NOT NULL CHECK (ca_generation > 0),
    phase         TEXT NOT NULL CHECK (phase IN ('steady', 'planned', 'applied')),
    since         BIGINT,
    CHECK ((phase = 'steady') = (since IS NULL))
);
INSERT INTO trust (one, generation, ca_generation, phase) VALUES (1, 1, 1, 'steady');

-- The newest generation that the holder of a grant has said to have.
CREATE TABLE trust_acknowledgements (
    grant_id   TEXT COLLATE "C" PRIMARY KEY REFERENCES grants (id) ON DELETE CASCADE,
    generation BIGINT NOT NULL CHECK (generation > 0),
    at         BIGINT NOT NULL
);

-- The last list of the embedded authority; `content` is the hash of what it lists.
CREATE TABLE revocation_list (
    one     BIGINT PRIMARY KEY CHECK (one = 1),
    number  BIGINT NOT NULL CHECK (number > 0),
    made_at BIGINT NOT NULL,
    content BYTEA NOT NULL CHECK (length(content) = 32),
    der     BYTEA NOT NULL
);

-- The last good lists of each place they are read from, with the certificate of whoever signed them.
CREATE TABLE kept_revocation_lists (
    source TEXT COLLATE "C" NOT NULL,
    sha256 BYTEA NOT NULL CHECK (length(sha256) = 32),
    der    BYTEA NOT NULL,
    issuer BYTEA NOT NULL,
    PRIMARY KEY (source, sha256)
);
