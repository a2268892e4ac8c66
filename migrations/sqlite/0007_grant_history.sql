-- The history of each grant: a hash chain over its own records that its peer can follow (`proxy/src/audit/history.rs`).
-- Rows from before have no place in one.
ALTER TABLE federation_audit_log ADD COLUMN gseq INTEGER CHECK (gseq IS NULL OR gseq > 0);
ALTER TABLE federation_audit_log ADD COLUMN ghash BLOB CHECK ((ghash IS NULL) = (gseq IS NULL) AND (ghash IS NULL OR length(ghash) = 32));
-- On the asking side: how far the serving side said with its answer that its history had got (chain, number, hash).
ALTER TABLE federation_audit_log ADD COLUMN witnessed BLOB CHECK (witnessed IS NULL OR length(witnessed) = 56);

-- How far each history has got: written with the rows themselves.
CREATE TABLE audit_histories (
    grant_id BLOB PRIMARY KEY CHECK (length(grant_id) = 16),
    chain    BLOB NOT NULL CHECK (length(chain) = 16),
    gseq     INTEGER NOT NULL CHECK (gseq > 0),
    ghash    BLOB NOT NULL CHECK (length(ghash) = 32)
) STRICT, WITHOUT ROWID;

-- The public key with which a peer that is asked signs such statements, as enrollment gave it.
ALTER TABLE peers ADD COLUMN checkpoint_key BLOB CHECK (checkpoint_key IS NULL OR length(checkpoint_key) = 32);

-- The newest statement of each chain of a peer about our grant there, and the newest that was signed.
CREATE TABLE witnessed_checkpoints (
    grant_id     BLOB NOT NULL CHECK (length(grant_id) = 16),
    chain        BLOB NOT NULL CHECK (length(chain) = 16),
    gseq         INTEGER NOT NULL CHECK (gseq > 0),
    ghash        BLOB NOT NULL CHECK (length(ghash) = 32),
    heard_at     INTEGER NOT NULL,
    signed_gseq  INTEGER CHECK (signed_gseq > 0),
    signed_ghash BLOB CHECK (length(signed_ghash) = 32),
    signed_at    INTEGER,
    signature    BLOB CHECK (length(signature) = 64),
    PRIMARY KEY (grant_id, chain),
    CHECK ((signed_gseq IS NULL) = (signed_ghash IS NULL) AND (signed_gseq IS NULL) = (signed_at IS NULL)
        AND (signed_gseq IS NULL) = (signature IS NULL))
) STRICT, WITHOUT ROWID;
