//! Answering a search: all resources are looked through at once, each under a permit of its own, then the best rows of
//! all are sent.
//!
//! Invariant: what is ranked is what passed the row filter, as it will be sent; what the gateway's own search adds is
//! never counted, so the scores of an answer do not depend on it. A resource that fails gives no row at all. Reading is
//! bounded in rows, pages and time, and memory by `MAX_KEPT`.
//!
//! Looking through one resource is in `gateway/search.rs`, words and scores in `policy::rank`.

use std::sync::Arc;

use futures_util::future::join_all;
use policy::decision::Permit;
use policy::deny::DenyCode;
use policy::evaluate::Admitted;
use policy::rank::{Query, Ranking, merge};
use policy::reach::RowLimit;
use policy::revision::EffectiveRevision;

use crate::gateway::list::{OwnedKey, READ_ON};
use crate::gateway::search::{Look, Looked, write_hit};

use super::answer::{Answering, Body, Halt, PART, budget_of};
use super::budget::RowBudget;

/// Most bytes of rows kept for one answer, all resources together.
const MAX_KEPT: usize = 16 * 1024 * 1024;

/// What was found, and whether it is all.
#[derive(Default)]
struct Found {
    ranking: Ranking,
    partial: bool,
    cut: bool,
}

impl Answering<'_> {
    /// Answers `search` over the resources that were `admitted`: those that were `named`, or all that are open.
    ///
    /// # Errors
    /// [`Halt`]; a resource that fails at the gateway makes the answer partial, unless all of them do.
    pub async fn search(
        &mut self,
        revision: EffectiveRevision,
        admitted: Vec<Admitted>,
        named: bool,
        limit: Option<RowLimit>,
        query: &Query,
    ) -> Result<(), Halt> {
        let mut budget = match admitted.first() {
            Some(admitted) => budget_of(self.inbound, admitted.basis()).await?,
            None => None,
        };
        let cap = admitted.first().map(Admitted::row_cap);
        let found = self.look(admitted, named, query).await?;
        let capped = limit.is_none_or(|limit| cap.is_none_or(|cap| limit > cap));
        let truncated = found.cut || found.ranking.cut || (found.ranking.more && capped);
        self.hits(revision, found, budget.as_mut(), truncated).await
    }

    /// Looks through every resource.
    async fn look(
        &mut self,
        admitted: Vec<Admitted>,
        named: bool,
        query: &Query,
    ) -> Result<Found, Halt> {
        let Some(first) = admitted.first() else {
            return Ok(Found::default());
        };
        // One set of facts for all, so that they agree with each other.
        let facts = self.facts(first).await?;
        let limit = first.limit();
        let permits: Vec<Permit> = admitted
            .into_iter()
            .map(|admitted| admitted.decide(&facts.facts))
            .collect();
        for permit in &permits {
            self.exchange.note_permit(permit);
            self.inbound.shadow.permitted(permit, limit, &facts.facts);
        }
        let Some(permit) = permits.first() else {
            return Ok(Found::default());
        };
        let gateway = &self.inbound.gateway;
        let auth = gateway.auth_for(permit)?;
        let request_id = self.exchange.request_id().to_owned();
        let tag = self.exchange.tag(&request_id);
        let clock = Arc::clone(&self.inbound.recorder.clock);
        let until = clock
            .boot_nanos()
            .saturating_add(u64::try_from(READ_ON.as_nanos()).unwrap_or(u64::MAX));
        let in_time = move || clock.boot_nanos() < until;
        let limit = usize::from(permit.row_limit().rows());
        let looks = permits.iter().map(|permit| {
            let look = Look {
                asking: gateway.asking(permit, &auth, tag),
                mapping: self.view.snapshot.mapping(),
                facts: &facts,
                query,
                rows: self.inbound.limits.search_rows,
                budget: MAX_KEPT / permits.len(),
                in_time: &in_time,
            };
            async move { look.through().await }
        });
        let looked = join_all(looks).await;
        self.gather(looked, named, limit)
    }

    /// Counts what was looked through, and puts the hits in order.
    fn gather(&mut self, looked: Vec<Looked>, named: bool, limit: usize) -> Result<Found, Halt> {
        let (mut partial, mut cut) = (false, false);
        let mut rankers = Vec::new();
        let mut failure = None;
        // The search may have been planned before.
        (
            self.exchange.figures.withheld,
            self.exchange.figures.redacted,
        ) = (0, 0);
        for looked in looked {
            let (figures, tally) = (&mut self.exchange.figures, looked.tally);
            figures.withheld = figures.withheld.saturating_add(tally.withheld);
            figures.redacted = figures.redacted.saturating_add(tally.redacted_members);
            match looked.failure.map(Halt::from) {
                None => {
                    cut |= looked.cut;
                    rankers.push(looked.ranker);
                }
                // What a list would be refused for is not left out of what was asked for by name.
                Some(halt) if named && is_denied(&halt) => return Err(halt),
                Some(halt) => {
                    partial = true;
                    failure.get_or_insert(halt);
                }
            }
        }
        if let (Some(halt), true) = (failure, rankers.is_empty()) {
            return Err(halt);
        }
        Ok(Found {
            ranking: merge(rankers, limit),
            partial,
            cut,
        })
    }

    /// Writes the answer.
    async fn hits(
        &mut self,
        revision: EffectiveRevision,
        found: Found,
        mut budget: Option<&mut RowBudget<'_, OwnedKey>>,
        mut truncated: bool,
    ) -> Result<(), Halt> {
        let mut body = Body::new(revision);
        body.buffer.extend_from_slice(b"{\"items\":[");
        let mut shown = 0_u64;
        let mut spent = None;
        for hit in found.ranking.hits {
            if body.sent >= self.inbound.limits.max_answer_bytes {
                truncated = true;
                break;
            }
            if let Some(budget) = budget.as_mut() {
                budget.add(hit.resource, &hit.id, body.buffer.len(), None);
            }
            write_hit(&hit, shown == 0, &mut body.buffer);
            shown = shown.saturating_add(1);
            self.exchange.figures.returned = shown;
            if body.buffer.len() >= PART {
                spent = body.settle(budget.as_deref_mut()).await?;
                if spent.is_some() {
                    break;
                }
                body.part(self).await?;
            }
        }
        if spent.is_none() {
            spent = body.settle(budget.as_deref_mut()).await?;
        }
        if let Some(cut) = spent {
            shown = shown.saturating_sub(cut.taken_out);
            self.exchange.figures.returned = shown;
            if let (0, Some(budget)) = (shown, budget) {
                return Err(Halt::Refused(budget.used_up()));
            }
            truncated = true;
        }
        let tail = format!(
            "],\"_partial\":{},\"_truncated\":{truncated}}}",
            found.partial
        );
        body.buffer.extend_from_slice(tail.as_bytes());
        body.end(self).await
    }
}

fn is_denied(halt: &Halt) -> bool {
    matches!(halt, Halt::Refused(failure) if failure.code == DenyCode::GatewayDenied)
}
