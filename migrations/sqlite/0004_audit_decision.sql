-- What a decision came to, in a few bytes (`policy/src/recorded.rs`); null where nothing was decided.
ALTER TABLE federation_audit_log ADD COLUMN decision BLOB CHECK (decision IS NULL OR length(decision) <= 512);
