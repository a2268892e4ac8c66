-- Renewal of client certificates, on both sides.

-- Serving side. `issue` counts up within a grant. A renewed certificate is unconfirmed (`confirmed_at` null) until its first
-- request; then the one before it is good until `retires_at`. `csr_sha256` and `chain_pem` answer a repeated request.
ALTER TABLE certificates ADD COLUMN issue INTEGER NOT NULL DEFAULT 0 CHECK (issue >= 0);
ALTER TABLE certificates ADD COLUMN csr_sha256 BLOB CHECK (csr_sha256 IS NULL OR length(csr_sha256) = 32);
ALTER TABLE certificates ADD COLUMN chain_pem TEXT;
ALTER TABLE certificates ADD COLUMN confirmed_at INTEGER;
ALTER TABLE certificates ADD COLUMN retires_at INTEGER;
UPDATE certificates SET confirmed_at = issued_at;
CREATE UNIQUE INDEX one_certificate_per_request ON certificates (grant_id, csr_sha256) WHERE csr_sha256 IS NOT NULL;

-- Asking side. `began_at` is when we got it, by the peer's clock; `skew_ms` how far that was ahead of ours.
ALTER TABLE outbound_credentials ADD COLUMN began_at INTEGER;
ALTER TABLE outbound_credentials ADD COLUMN skew_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbound_credentials ADD COLUMN renewal_failures INTEGER NOT NULL DEFAULT 0 CHECK (renewal_failures >= 0);
ALTER TABLE outbound_credentials ADD COLUMN renewal_tried_at INTEGER;
ALTER TABLE outbound_credentials ADD COLUMN renewal_failure TEXT;

-- A renewal under way: key and request are here before the peer is asked, its answer before it is used.
CREATE TABLE outbound_renewals (
    credential_id    TEXT PRIMARY KEY REFERENCES outbound_credentials (id),
    id               TEXT NOT NULL UNIQUE CHECK (length(id) = 36),
    sealed_key       BLOB NOT NULL,
    csr_pem          TEXT NOT NULL,
    begun_at         INTEGER NOT NULL,
    chain_pem        TEXT,
    trust_bundle_pem TEXT,
    not_after        INTEGER,
    began_at         INTEGER,
    CHECK ((chain_pem IS NULL) = (trust_bundle_pem IS NULL) AND (chain_pem IS NULL) = (not_after IS NULL)
        AND (chain_pem IS NULL) = (began_at IS NULL))
) STRICT, WITHOUT ROWID;
