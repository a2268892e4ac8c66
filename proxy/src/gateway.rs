//! The local gateway: how it is asked, as whom, and how its answers are read.
//!
//! Invariant: only GET leaves this directory, to one fixed origin, built from scratch; redirects
//! are never followed; and every question carries an [`Authority`], so that none is asked without
//! a decision. What of an answer may be shown is decided by the row filter in `policy`.

pub mod assertion;
pub mod client;
pub mod credential;
pub mod cursor;
pub mod error;
pub mod facts;
mod http1;
pub mod item;
pub mod list;
pub mod origin;
pub mod page;
pub mod search;
mod turns;
mod wire;

use std::sync::Arc;

use policy::evaluate::Admitted;
use policy::mapping::Mapping;

pub use client::{Answer, Authority, GatewayClient, GatewayLimits};
pub use credential::SubjectCredentials;
pub use error::GatewayError;
use facts::{FactsCache, FactsOf, FetchedFacts};
pub use origin::Origin;
pub use turns::{Turn, TurnLimits, Turns};

use crate::message::headers::RequestTag;
use crate::telemetry::Metrics;

/// The local gateway, as peers and local sessions have it asked.
pub struct Gateway {
    /// Asks it.
    pub client: Arc<GatewayClient>,
    /// As whom.
    pub credentials: Arc<SubjectCredentials>,
    /// What it said about subjects lately.
    pub facts: FactsCache,
    /// How many questions of peers ask it at once.
    pub turns: Turns,
    /// How many questions of users of this machine ask it at once: peers do not take their turns.
    pub own_turns: Turns,
    /// Counted events.
    pub metrics: Arc<Metrics>,
}

impl Gateway {
    /// The native facts of the subject of an admitted question: fresh ones kept from before, else
    /// fetched as the subject.
    ///
    /// # Errors
    /// [`GatewayError`]; facts are whole or absent.
    pub async fn facts_for(
        &self,
        admitted: &Admitted,
        mapping: &Mapping,
        tag: RequestTag<'_>,
    ) -> Result<Arc<FetchedFacts>, GatewayError> {
        let basis = admitted.basis();
        let fetch = || {
            Box::pin(async {
                let auth = self.credentials.for_subject(basis.user(), basis.grant())?;
                let authority = Authority::Admission(admitted);
                facts::fetch(&self.client, mapping, &authority, &auth, tag).await
            })
        };
        self.facts
            .facts(
                FactsOf::basis(basis),
                basis.effective_revision(),
                &self.metrics,
                fetch,
            )
            .await
    }
}
