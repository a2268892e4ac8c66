//! What applying changes cut: changes that were committed at once are applied at once, and each act still learns of its own.
//!
//! Invariant: a commit belongs to the first application whose view includes it. The last [`KEPT`] applications are
//! known; an act asks for its own right after it.

use std::collections::VecDeque;

use policy::id::{GrantId, PeerId};

use super::leases::Touched;
use crate::transport::CutCount;

/// Applications that are known.
const KEPT: usize = 64;

/// Connections that were cut of one grant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) grant: GrantId,
    pub(super) peer: PeerId,
    pub(super) count: CutCount,
}

#[derive(Debug)]
struct Application {
    /// Revision of its view.
    revision: u64,
    cuts: Vec<Cut>,
}

/// The last applications, oldest first.
#[derive(Debug, Default)]
pub(super) struct Applications(VecDeque<Application>);

impl Applications {
    /// Notes one that put a view of `revision` in force.
    pub(super) fn note(&mut self, revision: u64, cuts: Vec<Cut>) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Application { revision, cuts });
    }

    /// What applying the commit of `revision` cut of the touched grants.
    pub(super) fn of(&self, revision: u64, touched: Touched) -> CutCount {
        let own = self.0.iter().find(|one| one.revision >= revision);
        let cuts = own.into_iter().flat_map(|one| &one.cuts);
        cuts.filter(|cut| touched.is(cut.grant, cut.peer))
            .fold(CutCount::default(), |sum, cut| sum.plus(cut.count))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn cut(n: u128, closed: u64) -> Cut {
        Cut {
            grant: GrantId::from(Uuid::from_u128(n)),
            peer: PeerId::new(Uuid::from_u128(n % 2)),
            count: CutCount { closed, reset: 1 },
        }
    }

    #[test]
    fn each_commit_is_told_what_was_cut_of_its_own() {
        let mut applications = Applications::default();
        applications.note(7, vec![cut(1, 10), cut(2, 20), cut(3, 30)]);
        applications.note(9, vec![cut(1, 400)]);
        let closed = |revision, touched| applications.of(revision, touched).closed;
        let one = cut(1, 0);
        for (revision, touched, expected) in [
            (5, Touched::Grant(one.grant), 10),
            (7, Touched::Grant(one.grant), 10),
            (7, Touched::Peer(one.peer), 40),
            (6, Touched::All, 60),
            (8, Touched::All, 400),
            (8, Touched::Grant(cut(2, 0).grant), 0),
            (10, Touched::All, 0),
        ] {
            assert_eq!(
                closed(revision, touched),
                expected,
                "{revision} {touched:?}"
            );
        }
        assert_eq!(applications.of(7, Touched::All).reset, 3);
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let mut applications = Applications::default();
        for revision in 0..1_000 {
            applications.note(revision, vec![cut(1, revision)]);
        }
        assert_eq!(applications.0.len(), KEPT);
        assert_eq!(applications.of(999, Touched::All).closed, 999);
    }
}
