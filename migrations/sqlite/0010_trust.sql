-- Serving side: which generation the trust of this side has, and how far a rotation of the embedded root has got. The roots are in
-- `secrets` (purpose `ca_key`), by generation.
CREATE TABLE trust (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    generation    INTEGER NOT NULL CHECK (generation > 0),
    ca_generation INTEGER NOT NULL CHECK (ca_generation > 0),
    phase         TEXT NOT NULL CHECK (phase IN ('steady', 'planned', 'applied')),
    since         INTEGER,
    CHECK ((phase = 'steady') = (since IS NULL))
) STRICT;
INSERT INTO trust (one, generation, ca_generation, phase) VALUES (1, 1, 1, 'steady');

-- The newest generation that the holder of a grant has said to have.
CREATE TABLE trust_acknowledgements (
    grant_id   TEXT PRIMARY KEY REFERENCES grants (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL CHECK (generation > 0),
    at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Asking side: the generation of the peer's bundle that is kept; of one that says none, 1.
ALTER TABLE peers ADD COLUMN trust_generation INTEGER NOT NULL DEFAULT 1 CHECK (trust_generation > 0);
ALTER TABLE outbound_renewals ADD COLUMN trust_generation INTEGER;
