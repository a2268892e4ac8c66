-- The processes that serve from this store, and which of them does what only one may do. Times are by the database's clock.

-- `applied` is the newest revision that is in force there; until `leases_until` leases may be out that it gave under an older one.
-- One that has left serves no more; its leases end as those of one that is gone.
CREATE TABLE replicas (
    id           TEXT COLLATE "C" PRIMARY KEY CHECK (length(id) = 36),
    name         TEXT NOT NULL,
    started_at   BIGINT NOT NULL,
    heartbeat_at BIGINT NOT NULL,
    applied      BIGINT NOT NULL CHECK (applied >= 0),
    lease_ms     BIGINT NOT NULL CHECK (lease_ms >= 0),
    fence_ms     BIGINT NOT NULL CHECK (fence_ms > 0),
    leases_until BIGINT NOT NULL,
    left_at      BIGINT
);

CREATE TABLE runners (
    job     TEXT COLLATE "C" PRIMARY KEY,
    replica TEXT COLLATE "C" NOT NULL CHECK (length(replica) = 36),
    until   BIGINT NOT NULL
);
