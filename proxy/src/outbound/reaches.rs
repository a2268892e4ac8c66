//! Reaching every peer, by local name, and the word that a peer has spoken to us.
//!
//! Invariant: a name has one [`PeerReach`] for as long as a peer of that name is configured, whatever becomes of its
//! credentials. Contacts are matched by local name: whoever is answered under a name that an operator of this side
//! also gave to a peer we ask is taken to be that peer. No peer chooses these names, so none can close the breaker
//! of another.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use certs::Clock;
use parking_lot::Mutex;
use policy::peer::PeerName;

use super::reach::{PeerReach, ReachRules};
use crate::telemetry::Metrics;

/// What is known of reaching every peer, by local name.
pub struct Reaches {
    peers: Mutex<HashMap<PeerName, Arc<PeerReach>>>,
    rules: ReachRules,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    troubled: Arc<AtomicBool>,
}

impl std::fmt::Debug for Reaches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reaches")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl Reaches {
    /// None known yet.
    #[must_use]
    pub fn new(rules: ReachRules, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self {
            peers: Mutex::default(),
            rules,
            clock,
            metrics,
            troubled: Arc::default(),
        }
    }

    /// Where what concerns peers that are asked is counted.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// That of `name`, which is to be a configured peer.
    #[must_use]
    pub fn of(&self, name: &PeerName) -> Arc<PeerReach> {
        let mut peers = self.peers.lock();
        let reach = peers.entry(name.clone()).or_insert_with(|| {
            Arc::new(PeerReach::new(
                name,
                self.rules,
                Arc::clone(&self.clock),
                Arc::clone(&self.metrics),
                Arc::clone(&self.troubled),
            ))
        });
        Arc::clone(reach)
    }

    /// Forgets every peer that is not `kept`.
    pub fn retain(&self, kept: impl Fn(&PeerName) -> bool) {
        self.peers.lock().retain(|name, _| {
            let keep = kept(name);
            if !keep {
                self.metrics.forget_peer(name.as_str());
            }
            keep
        });
    }

    /// The peer that we know under this name as one that asks us has just proved who it is. Where a peer is asked
    /// under the same name, its breaker closes. Costs next to nothing while no breaker has opened.
    pub fn contacted(&self, name: &PeerName) {
        if !self.troubled.load(Ordering::Relaxed) {
            return;
        }
        let reach = self.peers.lock().get(name).map(Arc::clone);
        if let Some(reach) = reach {
            reach.contacted();
        }
    }
}
