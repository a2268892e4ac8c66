-- What the embedded authority has issued for the listeners of every process that serves from this store: each of them answers for all.
CREATE TABLE server_certificates (
    fingerprint BLOB PRIMARY KEY CHECK (length(fingerprint) = 32),
    serial      TEXT NOT NULL,
    der         BLOB NOT NULL,
    not_after   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX server_certificates_by_serial ON server_certificates (serial);
