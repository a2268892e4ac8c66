//! Renewing the credentials we ask peers with, in time and by the peers' clocks.
//!
//! Invariant: the credential in use stays in use until the next one is stored and has been answered with; requests
//! that are out finish on the connection they are on. Whatever step the process ends at, the next one goes on from
//! there: key and request are stored before they are sent, what was issued before it is used. A try is written down
//! before it is made, so that a process that keeps dying does not flood the peer.
//!
//! `attempt.rs` is one try, step by step; when it is due is pure, in `certs::rotation`. The serving side is in
//! `inbound/renew.rs`.

mod attempt;
mod error;
pub mod plan;

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use policy::peer::{PeerName, PeerState};
use policy::time::UnixMillis;

use super::Outbound;
use super::route::PeerRoute;
use crate::store::{Actor, CredentialState, RenewalTries};
use crate::telemetry::steps::RenewalStep;

pub use error::RenewError;
pub use plan::RenewalPlan;

/// What became of one credential.
pub type Renewed = (PeerName, Result<UnixMillis, RenewError>);

impl Outbound {
    /// Renews every credential that is due and returns when all have been tried. To be called every second or so:
    /// it looks at the clock anew each time, so that a machine that slept acts as soon as it wakes.
    pub async fn renew_due(&self) -> Vec<Renewed> {
        self.renew_those(Actor::Sidecar("renewal"), |route| {
            let now = route.their_now(self.clock.as_ref());
            let next = route.plan.next(&route.tries(), now);
            let due = next.is_some_and(|at| at.0 <= now);
            // New trust roots of the peer come with a renewal.
            let behind = route.is_trust_behind() && route.plan.may_try(&route.tries(), now);
            standing(route).is_ok() && (due || behind)
        })
        .await
    }

    /// Puts to use what a process before has been given and did not get to use. To be called once, at the start: the
    /// credential before it may have ended meanwhile.
    pub async fn resume_renewals(&self) {
        for route in self
            .table
            .load_full()
            .routes()
            .filter(|route| may_ask(route))
        {
            match self.has_issued(route).await {
                Ok(true) => {
                    // What goes wrong is told there, and tried again when it is due.
                    let _ = self.renew_route(route, Actor::Sidecar("renewal")).await;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(peer = %route.name, %error, "a renewal under way could not be looked up")
                }
            }
        }
    }

    /// Renews the credential for the peer of that name now, or for every peer that an operator has not suspended; one
    /// that is over says why not.
    pub async fn renew_now(&self, actor: Actor, peer: Option<&PeerName>) -> Vec<Renewed> {
        self.renew_those(actor, |route| peer.is_none_or(|peer| route.name == *peer))
            .await
    }

    async fn renew_those(&self, actor: Actor, wanted: impl Fn(&PeerRoute) -> bool) -> Vec<Renewed> {
        let table = self.table.load_full();
        let mut tries: FuturesUnordered<_> = table
            .routes()
            .filter(|route| may_ask(route) && wanted(route))
            .map(|route| {
                let actor = actor.clone();
                async move { (route.name.clone(), self.renew_route(route, actor).await) }
            })
            .collect();
        let mut done = Vec::new();
        while let Some(renewed) = tries.next().await {
            done.push(renewed);
        }
        done.sort_by(|(a, _), (b, _)| a.cmp(b));
        done
    }

    /// Renews one credential, unless that has been done meanwhile; the end of the one in use then, by the peer's clock.
    async fn renew_route(
        &self,
        asked: &Arc<PeerRoute>,
        actor: Actor,
    ) -> Result<UnixMillis, RenewError> {
        let _one_at_a_time = asked.turn.lock().await;
        let route = self.current(asked).ok_or(RenewError::Overtaken)?;
        if route.credential != asked.credential {
            return Ok(route.not_after);
        }
        standing(&route)?;
        let now = UnixMillis(route.their_now(self.clock.as_ref()));
        if now > route.not_after && !self.has_issued(&route).await? {
            return Err(RenewError::Expired);
        }
        let begun = RenewalTries {
            tried_at: Some(now),
            ..route.tries()
        };
        (self.told)(RenewalStep::Due);
        self.note_tries(&route, begun.clone()).await?;
        (self.told)(RenewalStep::Tried);
        let renewed = attempt::renew(self, &route, &actor).await;
        let metrics = self.reaches.metrics();
        metrics.renewal(route.name.as_str(), renewed.is_ok());
        let act = self.act(Actor::Sidecar("renewal"));
        let (degraded, why) = match &renewed {
            Ok(_) => (false, "renewed".to_owned()),
            Err(error) => (true, error.to_string()),
        };
        let marked = self.store.mark_peer(&act, route.peer, degraded, &why).await;
        if let Err(error) = &renewed {
            let tries = RenewalTries {
                failures: begun.failures.saturating_add(1),
                failure: Some(why.clone()),
                ..begun
            };
            tracing::warn!(
                peer = %route.name, grant = %route.grant, failures = tries.failures, expires = %route.not_after, %error,
                "the certificate for a peer could not be renewed; it is tried again until it ends"
            );
            self.note_tries(&route, tries).await?;
        }
        match marked {
            Ok(marked) if marked.changed || renewed == Err(RenewError::Overtaken) => {
                self.load().await?;
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the state of a peer could not be stored"),
        }
        renewed
    }

    /// Whether the next credential is here and only has to be put to use.
    async fn has_issued(&self, route: &PeerRoute) -> Result<bool, RenewError> {
        let pending = self.store.outbound_renewal(route.credential).await?;
        Ok(pending.is_some_and(|pending| pending.issued.is_some()))
    }

    async fn note_tries(&self, route: &PeerRoute, tries: RenewalTries) -> Result<(), RenewError> {
        self.store
            .record_renewal_tries(route.credential, &tries)
            .await?;
        route.set_tries(tries);
        Ok(())
    }

    /// The route that the peer of `route` has now, which may be by another credential.
    pub(super) fn current(&self, route: &PeerRoute) -> Option<Arc<PeerRoute>> {
        let table = self.table.load();
        let mut routes = table.routes();
        routes.find(|now| now.peer == route.peer).map(Arc::clone)
    }

    /// The route to ask again by, after the peer has called the credential of `route` outdated: by a newer one that
    /// is in use, or one that has been issued and not yet been put to use.
    pub(super) async fn newer_than(&self, route: &Arc<PeerRoute>) -> Option<Arc<PeerRoute>> {
        let newer = || {
            self.current(route)
                .filter(|now| now.credential != route.credential)
        };
        if newer().is_none() {
            // It may be stored and not be loaded yet.
            self.load().await.ok()?;
        }
        if let Some(newer) = newer() {
            return Some(newer);
        }
        if !self.has_issued(route).await.ok()? {
            // It may have taken the place of this one between the two looks.
            self.load().await.ok()?;
            return newer();
        }
        let actor = Actor::Sidecar("session-door");
        // Whoever puts it to use: what has come of it is in the table, or nothing has.
        let _told_there = self.renew_route(route, actor).await;
        newer()
    }
}

/// Whether an operator of this side lets the peer be asked.
const fn may_ask(route: &PeerRoute) -> bool {
    !matches!(route.peer_state, PeerState::Suspended | PeerState::Revoked)
}

/// Whether a credential is one to renew, as far as it is known here.
fn standing(route: &PeerRoute) -> Result<(), RenewError> {
    match route.state() {
        // A suspension is lifted without telling: what is due is due.
        CredentialState::Active | CredentialState::Suspended => Ok(()),
        CredentialState::Expired => Err(RenewError::Expired),
        CredentialState::Revoked => Err(RenewError::Revoked),
        CredentialState::Superseded => Err(RenewError::Overtaken),
    }
}
