-- The files that rows of the audit log were moved into, written with their manifests: where to look for rows. What proves them
-- is the manifest of each, which is a row of the log.
CREATE TABLE audit_archives (
    number         INTEGER PRIMARY KEY CHECK (number > 0),
    rows           INTEGER NOT NULL CHECK (rows > 0),
    first_position INTEGER NOT NULL,
    last_position  INTEGER NOT NULL UNIQUE,
    earliest       INTEGER NOT NULL,
    latest         INTEGER NOT NULL,
    bytes          INTEGER NOT NULL CHECK (bytes > 0),
    sha256         BLOB NOT NULL CHECK (length(sha256) = 32)
) STRICT;
