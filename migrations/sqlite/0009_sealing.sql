-- Which sealing secret is in force, by its public name (`certs/src/seal.rs`), and which is to follow while rows are sealed again.
-- `former` is the secret in force, sealed under the one that follows; it goes when the change ends.
CREATE TABLE sealing (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    key_id      BLOB NOT NULL CHECK (length(key_id) = 8),
    next_key_id BLOB CHECK (next_key_id IS NULL OR (length(next_key_id) = 8 AND next_key_id <> key_id)),
    former      BLOB,
    begun_at    INTEGER,
    CHECK ((next_key_id IS NULL) = (former IS NULL) AND (next_key_id IS NULL) = (begun_at IS NULL))
) STRICT;

-- Everything that is sealed. Octets 5 to 12 of a sealed value name the secret. Forgotten keys are empty.
CREATE VIEW sealed_rows AS
    SELECT 'secret' AS kind, purpose, id, generation, sealed FROM secrets
    UNION ALL SELECT 'credential', '', id, 0, sealed_key FROM outbound_credentials WHERE length(sealed_key) > 0
    UNION ALL SELECT 'renewal', '', id, 0, sealed_key FROM outbound_renewals
    UNION ALL SELECT 'subject_token', '', user_id, 0, sealed FROM subject_tokens;

-- A value sealed with a secret that is not in force is written by nobody, however late it comes.
CREATE TRIGGER secrets_sealed BEFORE INSERT ON secrets WHEN EXISTS (
    SELECT 1 FROM sealing WHERE substr(NEW.sealed, 5, 8) NOT IN (key_id, coalesce(next_key_id, key_id)))
BEGIN SELECT RAISE(ABORT, 'it was sealed with a secret that is not in force'); END;
CREATE TRIGGER secrets_resealed BEFORE UPDATE OF sealed ON secrets WHEN EXISTS (
    SELECT 1 FROM sealing WHERE substr(NEW.sealed, 5, 8) NOT IN (key_id, coalesce(next_key_id, key_id)))
BEGIN SELECT RAISE(ABORT, 'it was sealed with a secret that is not in force'); END;
CREATE TRIGGER subject_tokens_sealed BEFORE INSERT ON subject_tokens WHEN EXISTS (
    SELECT 1 FROM sealing WHERE substr(NEW.sealed, 5, 8) NOT IN (key_id, coalesce(next_key_id, key_id)))
BEGIN SELECT RAISE(ABORT, 'it was sealed with a secret that is not in force'); END;
CREATE TRIGGER subject_tokens_resealed BEFORE UPDATE OF sealed ON subject_tokens WHEN EXISTS (
    SELECT 1 FROM sealing WHERE substr(NEW.sealed, 5, 8) NOT IN (key_id, coalesce(next_key_id, key_id)))
BEGIN SELECT RAISE(ABORT, 'it was sealed with a secret that is not in force'); END;
CREATE TRIGGER outbound_credentials_sealed BEFORE INSERT ON outbound_credentials WHEN length(NEW.sealed_key) > 0 AND EXISTS (
    SELECT 1 FROM sealing WHERE substr(NEW.sealed_key, 5, 8) NOT IN (key_id, coalesce(next_key_id, key_id)))
BEGIN SELECT RAISE(ABORT, 'it was sealed with a secret that is not in force'); END;
CREATE TRIGGER outbound_credentials_resealed BEFORE UPDATE OF sealed_key ON outbound_credentials WHEN length(NEW.sealed_key) > 0 AND EXISTS (
    SELECT 1 FROM sealing WHERE substr(NEW.sealed_key, 5, 8) NOT IN (key_id, coalesce(next_key_id, key_id)))
BEGIN SELECT RAISE(ABORT, 'it was sealed with a secret that is not in force'); END;
CREATE TRIGGER outbound_renewals_sealed BEFORE INSERT ON outbound_renewals WHEN EXISTS (
    SELECT 1 FROM sealing WHERE substr(NEW.sealed_key, 5, 8) NOT IN (key_id, coalesce(next_key_id, key_id)))
BEGIN SELECT RAISE(ABORT, 'it was sealed with a secret that is not in force'); END;
CREATE TRIGGER outbound_renewals_resealed BEFORE UPDATE OF sealed_key ON outbound_renewals WHEN EXISTS (
    SELECT 1 FROM sealing WHERE substr(NEW.sealed_key, 5, 8) NOT IN (key_id, coalesce(next_key_id, key_id)))
BEGIN SELECT RAISE(ABORT, 'it was sealed with a secret that is not in force'); END;
