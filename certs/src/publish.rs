//! Live values: one side publishes, the other only reads.
//!
//! Invariant: a receiver always has a value, each value it sees is whole, and the trust generation
//! it sees never goes back. Publishers and receivers are different types, so that code which
//! serves connections cannot change what it serves them with. What is checked before a value
//! exists at all is checked by its constructor.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::credential::Credential;
use crate::crl::CrlSet;
use crate::trust::{RevokedSet, TrustAnchors};

/// Why a value was not published; the one before it stays in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The trust anchors are not newer than those in force.
    #[error(
        "trust generation {offered} is not newer than generation {in_force}, which stays in force"
    )]
    StaleGeneration {
        /// The generation in force.
        in_force: u64,
        /// The generation offered.
        offered: u64,
    },
}

/// A kind of value that can be published.
pub trait Published: Send + Sync + 'static {
    /// Whether `self` may replace `in_force`.
    ///
    /// # Errors
    /// [`PublishError`] when it may not.
    fn may_replace(&self, in_force: &Self) -> Result<(), PublishError>;
}

impl Published for TrustAnchors {
    fn may_replace(&self, in_force: &Self) -> Result<(), PublishError> {
        let (in_force, offered) = (in_force.generation(), self.generation());
        if offered > in_force {
            Ok(())
        } else {
            Err(PublishError::StaleGeneration { in_force, offered })
        }
    }
}

impl Published for RevokedSet {
    fn may_replace(&self, _in_force: &Self) -> Result<(), PublishError> {
        Ok(())
    }
}

impl Published for Credential {
    fn may_replace(&self, _in_force: &Self) -> Result<(), PublishError> {
        Ok(())
    }
}

/// The side that changes a live value.
#[derive(Debug)]
pub struct Publisher<T> {
    slot: Arc<ArcSwap<T>>,
}

/// The side that reads a live value. Cheap to clone.
#[derive(Debug)]
pub struct Receiver<T> {
    slot: Arc<ArcSwap<T>>,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self {
            slot: Arc::clone(&self.slot),
        }
    }
}

/// Publishes trust anchors.
pub type TrustPublisher = Publisher<TrustAnchors>;
/// Reads the trust anchors in force.
pub type TrustReceiver = Receiver<TrustAnchors>;
/// Publishes a listener's server credential.
pub type CredentialPublisher = Publisher<Credential>;
/// Reads the server credential in force.
pub type CredentialReceiver = Receiver<Credential>;
/// Publishes the set of revoked certificates.
pub type RevokedPublisher = Publisher<RevokedSet>;
/// Reads the set of revoked certificates in force.
pub type RevokedReceiver = Receiver<RevokedSet>;
/// Publishes the revocation lists in force.
pub type CrlPublisher = Publisher<CrlSet>;
/// Reads the revocation lists in force.
pub type CrlReceiver = Receiver<CrlSet>;

/// A live value that starts as `initial`.
#[must_use]
pub fn channel<T: Published>(initial: T) -> (Publisher<T>, Receiver<T>) {
    let slot = Arc::new(ArcSwap::from_pointee(initial));
    let receiver = Receiver {
        slot: Arc::clone(&slot),
    };
    (Publisher { slot }, receiver)
}

impl<T: Published> Publisher<T> {
    /// Puts `next` in force for every handshake and request that starts from now on.
    ///
    /// # Errors
    /// [`PublishError`]; the value in force stays.
    pub fn publish(&self, next: T) -> Result<(), PublishError> {
        let next = Arc::new(next);
        let mut in_force = self.slot.load();
        loop {
            next.may_replace(&in_force)?;
            let seen = self.slot.compare_and_swap(&*in_force, Arc::clone(&next));
            if Arc::ptr_eq(&in_force, &seen) {
                return Ok(());
            }
            // Another publisher was first: compare with what it published.
            in_force = seen;
        }
    }

    /// Another reader of the same value.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver {
            slot: Arc::clone(&self.slot),
        }
    }
}

impl<T> Receiver<T> {
    /// The value in force now.
    #[must_use]
    pub fn load(&self) -> Arc<T> {
        self.slot.load_full()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::testing::TestCa;

    #[test]
    fn a_generation_that_is_not_newer_changes_nothing() {
        let ca = TestCa::root("ca");
        let (publisher, receiver) = channel(ca.anchors(5));
        for offered in [0, 4, 5] {
            assert_eq!(
                publisher.publish(ca.anchors(offered)),
                Err(PublishError::StaleGeneration {
                    in_force: 5,
                    offered
                })
            );
        }
        assert_eq!(receiver.load().generation(), 5);
        publisher.publish(ca.anchors(6)).unwrap();
        assert_eq!(receiver.load().generation(), 6);
        assert_eq!(publisher.subscribe().load().generation(), 6);
    }

    #[test]
    fn of_racing_publishers_the_highest_generation_wins() {
        let ca = TestCa::root("ca");
        let (publisher, receiver) = channel(ca.anchors(0));
        let publisher = &publisher;
        let ca = &ca;
        std::thread::scope(|scope| {
            for first in 1..=4 {
                scope.spawn(move || {
                    for generation in (first..=80).step_by(4) {
                        // Losing to a newer one is fine.
                        let _ = publisher.publish(ca.anchors(generation));
                    }
                });
            }
            let receiver = receiver.clone();
            scope.spawn(move || {
                let mut seen = 0;
                for _ in 0..1_000 {
                    let now = receiver.load().generation();
                    assert!(now >= seen);
                    seen = now;
                }
            });
        });
        assert_eq!(receiver.load().generation(), 80);
    }
}
