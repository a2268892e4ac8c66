-- Which rows a grant has seen on a UTC day, kept only for grants with a budget of rows a day. A row is here before it is sent.
-- Days count from the epoch; a row is the first half of a SHA-256 over resource and id.
CREATE TABLE rows_seen (
    day      INTEGER NOT NULL,
    grant_id BLOB NOT NULL CHECK (length(grant_id) = 16),
    row      BLOB NOT NULL CHECK (length(row) = 16),
    PRIMARY KEY (day, grant_id, row)
) STRICT, WITHOUT ROWID;

-- How many they are, so that nobody has to count.
CREATE TABLE row_counts (
    day      INTEGER NOT NULL,
    grant_id BLOB NOT NULL CHECK (length(grant_id) = 16),
    rows     INTEGER NOT NULL CHECK (rows >= 0),
    PRIMARY KEY (day, grant_id)
) STRICT, WITHOUT ROWID;
