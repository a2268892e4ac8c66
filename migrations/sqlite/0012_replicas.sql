-- The processes that serve from this store, and which of them does what only one may do. Times are by the database's clock.

-- `applied` is the newest revision that is in force there; until `leases_until` leases may be out that it gave under an older one.
-- One that has left serves no more; its leases end as those of one that is gone.
CREATE TABLE replicas (
    id           TEXT PRIMARY KEY CHECK (length(id) = 36),
    name         TEXT NOT NULL,
    started_at   INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL,
    applied      INTEGER NOT NULL CHECK (applied >= 0),
    lease_ms     INTEGER NOT NULL CHECK (lease_ms >= 0),
    fence_ms     INTEGER NOT NULL CHECK (fence_ms > 0),
    leases_until INTEGER NOT NULL,
    left_at      INTEGER
) STRICT;

CREATE TABLE runners (
    job     TEXT PRIMARY KEY,
    replica TEXT NOT NULL CHECK (length(replica) = 36),
    until   INTEGER NOT NULL
) STRICT;
