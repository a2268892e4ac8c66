-- Revocation lists: what ours lists and why, what was fetched from others, and whom a revocation has yet to be told.

-- `revocation_reason` is the code of RFC 5280, section 5.3.1. `told_at` is when another authority had the revocation.
ALTER TABLE certificates ADD COLUMN revocation_reason INTEGER CHECK (revocation_reason BETWEEN 0 AND 10);
ALTER TABLE certificates ADD COLUMN told_at INTEGER;
ALTER TABLE certificates ADD COLUMN tell_tries INTEGER NOT NULL DEFAULT 0 CHECK (tell_tries >= 0);
ALTER TABLE certificates ADD COLUMN tell_tried_at INTEGER;
ALTER TABLE certificates ADD COLUMN tell_failure TEXT;
CREATE INDEX certificates_revoked ON certificates (not_after) WHERE state = 'revoked';
CREATE INDEX certificates_by_serial ON certificates (serial);

-- The last list of the embedded authority; `content` is the hash of what it lists.
CREATE TABLE revocation_list (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    number  INTEGER NOT NULL CHECK (number > 0),
    made_at INTEGER NOT NULL,
    content BLOB NOT NULL CHECK (length(content) = 32),
    der     BLOB NOT NULL
) STRICT;

-- The last good lists of each place they are read from, with the certificate of whoever signed them.
CREATE TABLE kept_revocation_lists (
    source TEXT NOT NULL,
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    der    BLOB NOT NULL,
    issuer BLOB NOT NULL,
    PRIMARY KEY (source, sha256)
) STRICT, WITHOUT ROWID;
