-- What the embedded authority has issued for the listeners of every process that serves from this store: each of them answers for all.
CREATE TABLE server_certificates (
    fingerprint BYTEA PRIMARY KEY CHECK (length(fingerprint) = 32),
    serial      TEXT COLLATE "C" NOT NULL,
    der         BYTEA NOT NULL,
    not_after   BIGINT NOT NULL
);
CREATE INDEX server_certificates_by_serial ON server_certificates (serial);
