-- The longest lease on an answer that any process of this store may have given: after a start no revocation returns
-- before leases of that length have ended.
ALTER TABLE meta ADD COLUMN longest_lease_ms INTEGER NOT NULL DEFAULT 0 CHECK (longest_lease_ms >= 0);
