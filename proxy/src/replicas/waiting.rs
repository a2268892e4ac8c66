//! What a change waits for at other replicas: a pure function of what the store knows of them.
//!
//! Invariant: a replica is done with a change once it has put it in force and every lease that it gave before has ended, or once it is
//! certain that it serves nothing: it left, or was silent for its fence and [`MARGIN_MS`] by the database's clock. Then the leases
//! that it may have given until that moment are waited for. Whoever is done stays done.

use std::collections::HashMap;

use uuid::Uuid;

use crate::store::{ReplicaRecord, ReplicaTable};

/// By how much longer than its fence a replica has to be silent before others take it to serve nothing, milliseconds
/// (the specification, section 8).
pub const MARGIN_MS: i64 = 500;

fn millis(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The moment from which on a replica that is not heard of again serves nothing.
fn silent_from(one: &ReplicaRecord) -> i64 {
    one.left_at.unwrap_or_else(|| {
        one.heartbeat_at
            .saturating_add(millis(one.fence_ms))
            .saturating_add(MARGIN_MS)
    })
}

/// Whether it may serve at `now`, as far as the store knows.
#[must_use]
pub fn may_serve(one: &ReplicaRecord, now: i64) -> bool {
    now < silent_from(one)
}

/// The replicas besides `own` that may answer and have not put `revision` in force: what it added, they would refuse.
#[must_use]
pub fn behind(table: &ReplicaTable, own: Uuid, revision: u64) -> Vec<&str> {
    let behind = table
        .replicas
        .iter()
        .filter(|one| one.id != own && one.applied < revision && may_serve(one, table.now));
    behind.map(|one| one.name.as_str()).collect()
}

/// Why a change of `revision` is not done at a replica that has not said to have it in force; `None` when it is.
fn waits(one: &ReplicaRecord, revision: u64, now: i64) -> Option<String> {
    let name = &one.name;
    let until = silent_from(one)
        .saturating_add(millis(one.lease_ms))
        .max(one.leases_until);
    if now >= until {
        return None;
    }
    let silent = now.saturating_sub(one.heartbeat_at);
    Some(if may_serve(one, now) {
        let applied = one.applied;
        format!(
            "replica {name}: has put revision {applied} in force, not {revision}; last heard of {silent} ms ago"
        )
    } else {
        let left = until.saturating_sub(now);
        format!("leases of replica {name}, which serves no more ({left} ms)")
    })
}

/// A change of one revision that waits for replicas other than the own one.
#[derive(Debug)]
pub struct Waiting {
    own: Uuid,
    revision: u64,
    /// Until when the leases are out that a replica had given when it was first found to have the change in force: those of
    /// later changes are theirs to wait for.
    leases: HashMap<Uuid, i64>,
}

impl Waiting {
    /// For `revision`, on behalf of the replica `own`.
    #[must_use]
    pub fn new(own: Uuid, revision: u64) -> Self {
        Self {
            own,
            revision,
            leases: HashMap::new(),
        }
    }

    /// What it still waits for.
    pub fn pending(&mut self, table: &ReplicaTable) -> Vec<String> {
        let (own, revision, now) = (self.own, self.revision, table.now);
        let others = table.replicas.iter().filter(|one| one.id != own);
        others
            .filter_map(|one| {
                if one.applied < revision {
                    return waits(one, revision, now);
                }
                let until = *self.leases.entry(one.id).or_insert(one.leases_until);
                let left = until.saturating_sub(now);
                let name = &one.name;
                (left > 0).then(|| format!("leases that replica {name} gave before ({left} ms)"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    fn replica(n: u128) -> ReplicaRecord {
        ReplicaRecord {
            id: Uuid::from_u128(n),
            name: format!("r{n}"),
            started_at: 0,
            heartbeat_at: 10_000,
            applied: 7,
            lease_ms: 1_000,
            fence_ms: 2_000,
            leases_until: 0,
            left_at: None,
        }
    }

    fn waits_at(one: &ReplicaRecord, now: i64) -> bool {
        let table = ReplicaTable {
            now,
            replicas: vec![replica(1), one.clone()],
        };
        let pending = Waiting::new(Uuid::from_u128(1), 8).pending(&table);
        assert!(
            pending.iter().all(|what| what.contains("r2")),
            "{pending:?}"
        );
        !pending.is_empty()
    }

    #[test]
    fn one_that_has_applied_it_is_done_with_its_older_leases() {
        let one = ReplicaRecord {
            applied: 8,
            leases_until: 10_500,
            ..replica(2)
        };
        assert!(waits_at(&one, 10_499));
        assert!(!waits_at(&one, 10_500));
        assert!(!waits_at(&one, 99_000), "however long ago it was heard of");
    }

    #[test]
    fn one_that_is_silent_is_done_after_fence_margin_and_its_longest_lease() {
        let one = replica(2);
        let end = 10_000 + 2_000 + 500 + 1_000;
        assert!(waits_at(&one, end - 1));
        assert!(!waits_at(&one, end));
        assert!(may_serve(&one, 12_499));
        assert!(!may_serve(&one, 12_500));
    }

    #[test]
    fn one_that_has_left_is_done_when_its_leases_have_ended() {
        let one = ReplicaRecord {
            left_at: Some(10_100),
            ..replica(2)
        };
        assert!(!may_serve(&one, 10_100));
        assert!(waits_at(&one, 11_099));
        assert!(!waits_at(&one, 11_100));
        let with_older = ReplicaRecord {
            leases_until: 12_000,
            ..one
        };
        assert!(waits_at(&with_older, 11_999));
    }

    #[test]
    fn the_own_row_is_not_waited_for() {
        let table = ReplicaTable {
            now: 10_000,
            replicas: vec![replica(1)],
        };
        let pending = |own| Waiting::new(Uuid::from_u128(own), 8).pending(&table);
        assert_eq!(pending(1), Vec::<String>::new());
        assert_eq!(pending(9).len(), 1);
    }

    #[test]
    fn only_replicas_that_may_answer_are_behind() {
        let known = ReplicaRecord {
            applied: 8,
            leases_until: 99_000,
            ..replica(3)
        };
        let gone = ReplicaRecord {
            left_at: Some(10_000),
            ..replica(4)
        };
        let table = |now| ReplicaTable {
            now,
            replicas: vec![replica(1), replica(2), known.clone(), gone.clone()],
        };
        let own = Uuid::from_u128(1);
        assert_eq!(behind(&table(12_499), own, 8), ["r2"]);
        assert_eq!(behind(&table(12_500), own, 8), [""; 0], "silent");
        assert_eq!(behind(&table(12_499), own, 7), [""; 0]);
    }

    #[test]
    fn leases_that_a_later_change_ends_are_not_waited_for() {
        let table = |now, leases_until| ReplicaTable {
            now,
            replicas: vec![ReplicaRecord {
                applied: 8,
                leases_until,
                ..replica(2)
            }],
        };
        let mut waiting = Waiting::new(Uuid::from_u128(1), 8);
        assert_eq!(waiting.pending(&table(10_000, 10_200)).len(), 1);
        assert_eq!(waiting.pending(&table(10_199, 10_350)).len(), 1);
        assert_eq!(waiting.pending(&table(10_200, 10_400)).len(), 0);
    }
}
