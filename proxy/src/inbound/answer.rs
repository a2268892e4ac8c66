//! Making the answer of one admitted question: facts, permit, plan, rows, body.
//!
//! Invariant: the first byte of an answer goes out only through the connection's gate, under the
//! effective revision that its permit was decided on; a gateway that fails before it becomes an
//! error response, and one that fails after it becomes an aborted connection, never a short body.

use std::sync::Arc;

use bytes::Bytes;
use pingora_core::protocols::http::ServerSession;
use policy::decision::{Basis, Permit};
use policy::deny::{Deny, DenyCode};
use policy::evaluate::{Admitted, Capabilities};
use policy::plan::{PlanError, QueryPlan};
use policy::reach::RowLimit;
use policy::request::{ItemId, QueryFilter};
use policy::revision::EffectiveRevision;
use policy::rows::Tally;
use policy::snapshot::GrantEntry;
use policy::time::UnixMillis;

use crate::directory::View;
use crate::gateway::cursor::{self, CursorBinding};
use crate::gateway::facts::FetchedFacts;
use crate::gateway::item;
use crate::gateway::list::{Next, OwnedKey, READ_ON, Rows};
use crate::gateway::page::{PageError, ReadError};
use crate::gateway::{GatewayError, Turn};
use crate::message::failure::Failure;
use crate::message::rate::RateFields;
use crate::transport::{AnswerGuard, Stale};

use super::authenticate::Connection;
use super::budget::{Cut, RowBudget};
use super::finish::Exchange;
use super::lease::AnswerLease;
use super::respond::{self, Carried, PeerGone};
use super::service::Inbound;

/// Bytes of a body that are collected before they are sent: a shorter answer has a length, and its
/// failure has a status.
pub(super) const PART: usize = 64 * 1024;

/// Why no answer, or no whole answer, was given.
#[derive(Debug)]
pub enum Halt {
    /// Refused or failed before the first byte.
    Refused(Failure),
    /// The grant changed before the first byte: authenticate and plan again.
    Replan,
    /// The answer was under way and cannot be completed: the connection must be aborted.
    Broken(DenyCode),
    /// The peer or the connection is gone.
    PeerGone,
}

impl Halt {
    /// A failure of the gateway, before the first byte.
    #[must_use]
    pub fn gateway(error: &PageError) -> Self {
        tracing::warn!(%error, "the gateway could not be used");
        Self::Refused(error.deny_code().into())
    }
}

impl From<ReadError> for Halt {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Page(page) => Self::gateway(page),
            ReadError::Filter(_) => {
                Self::Refused(Failure::saying(error.deny_code(), error.to_string()))
            }
        }
    }
}

impl From<PageError> for Halt {
    fn from(error: PageError) -> Self {
        Self::gateway(&error)
    }
}

impl From<GatewayError> for Halt {
    fn from(error: GatewayError) -> Self {
        Self::gateway(&PageError::Gateway(error))
    }
}

impl From<Deny> for Halt {
    fn from(deny: Deny) -> Self {
        Self::Refused(deny.code().into())
    }
}

impl From<DenyCode> for Halt {
    fn from(code: DenyCode) -> Self {
        Self::Refused(code.into())
    }
}

impl From<PeerGone> for Halt {
    fn from(PeerGone: PeerGone) -> Self {
        Self::PeerGone
    }
}

/// Everything an answer is made with.
pub struct Answering<'a> {
    /// The serving side.
    pub inbound: &'a Inbound,
    /// The connection the question came on.
    pub connection: &'a Connection,
    /// The view it was admitted under.
    pub view: &'a View,
    /// The session to answer on.
    pub session: &'a mut ServerSession,
    /// The record of this exchange.
    pub exchange: &'a mut Exchange,
    /// The lease that the answer carries.
    pub lease: AnswerLease<'a>,
    /// How the grant's rate stands.
    pub rate: &'a mut Option<RateFields>,
    /// Held from the first byte of an answer until its last is flushed.
    pub under_way: &'a mut Option<AnswerGuard>,
    /// The turn to ask the gateway, until it has been read: a peer that takes its time to read keeps it from nobody.
    pub turn: Option<Turn<'a>>,
}

/// A list question, parsed.
pub struct ListQuestion<'a> {
    /// As asked.
    pub limit: Option<RowLimit>,
    /// Allow-listed for the resource.
    pub filter: QueryFilter,
    /// Not yet opened.
    pub cursor: Option<&'a str>,
}

impl Answering<'_> {
    /// Answers `capabilities`.
    ///
    /// # Errors
    /// [`Halt`].
    pub async fn capabilities(
        &mut self,
        revision: EffectiveRevision,
        capabilities: &Capabilities,
    ) -> Result<(), Halt> {
        let body = serde_json::to_vec(capabilities).unwrap_or_default();
        self.whole(revision, body).await
    }

    /// Answers `renew` for the certificate of the connection.
    ///
    /// # Errors
    /// [`Halt`].
    pub async fn renew(&mut self, entry: &Arc<GrantEntry>, csr_pem: &str) -> Result<(), Halt> {
        let identity = self.connection.identity().ok_or(Halt::PeerGone)?;
        let renewed = self.inbound.renewals.renew(entry, &identity, csr_pem);
        let body = renewed.await.map_err(Halt::Refused)?;
        self.whole(entry.effective_revision, body).await
    }

    /// Answers `list`.
    ///
    /// # Errors
    /// [`Halt`].
    pub async fn list(
        &mut self,
        admitted: Admitted,
        question: ListQuestion<'_>,
    ) -> Result<(), Halt> {
        // The cursor belongs to the shape of the question: judged before the gateway is asked.
        let binding = CursorBinding::new(admitted.basis(), admitted.resource(), &question.filter);
        let after = match question.cursor {
            None => None,
            Some(text) => {
                let position = cursor::open(&self.inbound.cursors, text, &binding)?;
                Some(OwnedKey::behind(&position).ok_or(DenyCode::InvalidCursor)?)
            }
        };
        let mut budget = budget_of(self.inbound, admitted.basis()).await?;
        let (permit, facts) = self.permit(admitted).await?;
        let mapping = self.view.snapshot.mapping();
        let plan = QueryPlan::list(&permit, mapping, &question.filter, &facts.facts)
            .map_err(|error @ PlanError::FilterUnsupported { .. }| {
                Failure::saying(DenyCode::InvalidFilter, error.to_string())
            })
            .map_err(Halt::Refused)?;
        let gateway = &self.inbound.gateway;
        let auth = gateway.auth_for(&permit)?;
        let request_id = self.exchange.request_id().to_owned();
        let asking = gateway.asking(&permit, &auth, self.exchange.tag(&request_id));
        let mut rows = Rows::open(asking, &plan, &facts, after).await?;
        let written = self
            .rows(&permit, &mut rows, budget.as_mut(), &question, &binding)
            .await;
        let tally = rows.tally();
        self.exchange.figures.withheld = tally.withheld;
        self.exchange.figures.redacted = tally.redacted_members;
        written
    }

    /// Writes the rows of a list, from `{"items":[` to the last brace.
    async fn rows(
        &mut self,
        permit: &Permit,
        rows: &mut Rows<'_>,
        mut budget: Option<&mut RowBudget<'_, OwnedKey>>,
        question: &ListQuestion<'_>,
        binding: &CursorBinding,
    ) -> Result<(), Halt> {
        let clock = Arc::clone(&self.inbound.recorder.clock);
        let until = clock
            .boot_nanos()
            .saturating_add(u64::try_from(READ_ON.as_nanos()).unwrap_or(u64::MAX));
        let in_time = move || clock.boot_nanos() < until;
        let limit = u64::from(permit.row_limit().rows());
        let mut body = Body::new(permit.effective_revision());
        // Room for rows of the usual size, so that a short answer is not moved as it grows.
        let room = usize::from(permit.row_limit().rows()).saturating_mul(256);
        body.buffer.reserve(room.clamp(1024, PART));
        body.buffer.extend_from_slice(b"{\"items\":[");
        let mut shown = 0_u64;
        let mut position = None;
        let mut truncated = false;
        let mut spent = None;
        loop {
            let mark = body.buffer.len();
            if shown == limit {
                // One more row, not to be shown, tells whether there are more.
                position = rows.position();
                let next = rows.next(&mut body.buffer, &in_time).await;
                body.buffer.truncate(mark);
                match next.map_err(|error| body.halt(error))? {
                    Next::Exhausted => position = None,
                    Next::Row | Next::Bound => {
                        truncated = question.limit.is_none_or(|asked| asked > permit.row_cap());
                    }
                }
                break;
            }
            if shown > 0 {
                body.buffer.push(b',');
            }
            // Where to go on is noted for each row only where the budget may end before it.
            let before = budget.as_ref().and_then(|_| rows.position());
            match rows
                .next(&mut body.buffer, &in_time)
                .await
                .map_err(|error| body.halt(error))?
            {
                Next::Row => {
                    shown = shown.saturating_add(1);
                    if let Some(budget) = budget.as_mut() {
                        let id = rows.shown_id().ok_or(DenyCode::GatewayMalformed);
                        let id = id.map_err(|code| body.halt(code))?;
                        budget.add(permit.resource(), id, mark, before);
                    }
                }
                ended => {
                    body.buffer.truncate(mark);
                    if ended == Next::Bound {
                        position = rows.position();
                        truncated = true;
                    }
                    break;
                }
            }
            self.exchange.figures.returned = shown;
            if body.buffer.len() >= PART {
                if let Some(cut) = body.settle(budget.as_deref_mut()).await? {
                    spent = Some(cut);
                    break;
                }
                body.part(self).await?;
            }
            if body.sent >= self.inbound.limits.max_answer_bytes {
                position = rows.position();
                truncated = true;
                break;
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
            position = cut.position;
            truncated = true;
        }
        body.buffer.push(b']');
        if let Some(position) = position {
            let sealed = cursor::seal(&self.inbound.cursors, &position.position(), binding)
                .map_err(|code| body.halt(code))?;
            body.buffer.extend_from_slice(b",\"nextCursor\":\"");
            body.buffer.extend_from_slice(sealed.as_bytes());
            body.buffer.push(b'"');
        }
        let tail: &[u8] = if truncated {
            b",\"_partial\":false,\"_truncated\":true}"
        } else {
            b",\"_partial\":false,\"_truncated\":false}"
        };
        body.buffer.extend_from_slice(tail);
        body.end(self).await
    }

    /// Answers `get`.
    ///
    /// # Errors
    /// [`Halt`]; a row outside the scope is `not_found`, as one that does not exist.
    pub async fn get(&mut self, admitted: Admitted, id: &ItemId) -> Result<(), Halt> {
        let mut budget = budget_of(self.inbound, admitted.basis()).await?;
        let (permit, facts) = self.permit(admitted).await?;
        let plan = QueryPlan::get(&permit, self.view.snapshot.mapping(), id, &facts.facts);
        let gateway = &self.inbound.gateway;
        let auth = gateway.auth_for(&permit)?;
        let request_id = self.exchange.request_id().to_owned();
        let asking = gateway.asking(&permit, &auth, self.exchange.tag(&request_id));
        let mut body = b"{\"item\":".to_vec();
        let begins = body.len();
        let mut tally = Tally::default();
        let found = item::find(asking, &plan, &facts, id, &mut body, &mut tally).await;
        self.exchange.figures.withheld = tally.withheld;
        self.exchange.figures.redacted = tally.redacted_members;
        if !found? {
            return Err(DenyCode::NotFound.into());
        }
        if let Some(budget) = budget.as_mut() {
            budget.add(permit.resource(), id.as_str(), begins, None);
            if budget.settle(&mut body).await?.is_some() {
                return Err(Halt::Refused(budget.used_up()));
            }
        }
        body.push(b'}');
        self.exchange.figures.returned = 1;
        self.whole(permit.effective_revision(), body).await
    }

    /// Fetches the facts of the subject, or takes those still fresh, and decides.
    async fn permit(&mut self, admitted: Admitted) -> Result<(Permit, Arc<FetchedFacts>), Halt> {
        let facts = self.facts(&admitted).await?;
        let limit = admitted.limit();
        let permit = admitted.decide(&facts.facts);
        self.inbound.shadow.permitted(&permit, limit, &facts.facts);
        self.exchange.note_permit(&permit);
        Ok((permit, facts))
    }

    /// Fetches the facts of the subject, or takes those still fresh.
    pub(super) async fn facts(&self, admitted: &Admitted) -> Result<Arc<FetchedFacts>, Halt> {
        self.inbound
            .gateway
            .facts_for(
                admitted,
                self.view.snapshot.mapping(),
                self.exchange.tag(self.exchange.request_id()),
            )
            .await
            .map_err(|error| match error {
                GatewayError::CredentialMissing | GatewayError::CredentialRejected => {
                    Halt::from(error)
                }
                other => {
                    tracing::warn!(error = %other, "native facts are not available");
                    Halt::from(DenyCode::FactsUnavailable)
                }
            })
    }

    /// Sends a body that is whole.
    async fn whole(&mut self, revision: EffectiveRevision, body: Vec<u8>) -> Result<(), Halt> {
        let mut writer = Body::new(revision);
        writer.buffer = body;
        writer.end(self).await
    }

    fn begin(&mut self, revision: EffectiveRevision) -> Result<(), Halt> {
        let Some(identity) = self.connection.identity() else {
            return Err(Halt::PeerGone);
        };
        self.exchange.intend()?;
        let directory = &self.inbound.directory;
        let live = || directory.live_revision(identity.grant.into());
        let book = || self.lease.book();
        match self.connection.gate.begin(revision, live, book) {
            Ok(guard) => {
                *self.under_way = Some(guard);
                Ok(())
            }
            Err(Stale::RevisionMoved) => Err(Halt::Replan),
            Err(Stale::Cut) => Err(Halt::PeerGone),
        }
    }
}

/// The rows a grant may still see today, where policy bounds them.
pub(super) async fn budget_of<'a>(
    inbound: &'a Inbound,
    basis: &Basis,
) -> Result<Option<RowBudget<'a, OwnedKey>>, Halt> {
    let Basis::Grant(entry) = basis else {
        return Ok(None);
    };
    RowBudget::open(&*inbound.store, &*inbound.recorder.clock, entry)
        .await
        .map_err(Halt::Refused)
}

/// A body on its way: collected up to [`PART`], then streamed.
pub(super) struct Body {
    pub(super) buffer: Vec<u8>,
    revision: EffectiveRevision,
    begun: bool,
    pub(super) sent: u64,
}

impl Body {
    pub(super) const fn new(revision: EffectiveRevision) -> Self {
        Self {
            buffer: Vec::new(),
            revision,
            begun: false,
            sent: 0,
        }
    }

    /// What a failure comes to: once the answer is under way there is no status to refuse with.
    fn halt(&self, failure: impl Into<Halt>) -> Halt {
        match failure.into() {
            Halt::Refused(failure) if self.begun => Halt::Broken(failure.code),
            other => other,
        }
    }

    /// Books the rows collected so far, before any of them is sent.
    pub(super) async fn settle(
        &mut self,
        budget: Option<&mut RowBudget<'_, OwnedKey>>,
    ) -> Result<Option<Cut<OwnedKey>>, Halt> {
        let Some(budget) = budget else {
            return Ok(None);
        };
        let settled = budget.settle(&mut self.buffer).await;
        settled.map_err(|code| self.halt(code))
    }

    /// Sends what is collected, as a part of a longer body.
    pub(super) async fn part(&mut self, answering: &mut Answering<'_>) -> Result<(), Halt> {
        if !self.begun {
            self.head(answering, None).await?;
        }
        self.send(answering, false).await
    }

    /// Sends what is collected as the end of the body.
    pub(super) async fn end(mut self, answering: &mut Answering<'_>) -> Result<(), Halt> {
        answering.turn = None;
        if !self.begun {
            let length = self.buffer.len();
            self.head(answering, Some(length)).await?;
        }
        self.send(answering, true).await
    }

    async fn head(
        &mut self,
        answering: &mut Answering<'_>,
        length: Option<usize>,
    ) -> Result<(), Halt> {
        answering.begin(self.revision)?;
        self.begun = true;
        let lease = answering.lease.header();
        let rate = answering.rate.take();
        let now = UnixMillis(answering.inbound.recorder.clock.unix_millis());
        let of = (answering.exchange.request_id(), now);
        let history = answering.connection.history.as_ref();
        let carried = Carried {
            revision: self.revision,
            lease,
            checkpoint: history.and_then(|cell| cell.value()),
            trust: answering.inbound.renewals.told_generation(),
            rate,
        };
        respond::begin_answer(&mut *answering.session, of, carried, length).await?;
        Ok(())
    }

    async fn send(&mut self, answering: &mut Answering<'_>, end: bool) -> Result<(), Halt> {
        let part = Bytes::from(std::mem::take(&mut self.buffer));
        self.sent = self
            .sent
            .saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
        answering.exchange.figures.bytes = self.sent;
        if !end {
            self.buffer.reserve(PART.saturating_add(PART / 8));
        }
        respond::write_body(answering.session, part, end).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_failure_is_a_refusal_until_the_first_byte_and_breaks_the_answer_after_it() {
        let mut body = Body::new(EffectiveRevision::parse("AAAAAAAAAAAAAAAAAAAAAA").unwrap());
        let refused = body.halt(DenyCode::InvalidCursor);
        assert!(
            matches!(refused, Halt::Refused(failure) if failure.code == DenyCode::InvalidCursor)
        );
        let disorder = || body.halt(PageError::Disorder);
        assert!(
            matches!(disorder(), Halt::Refused(failure) if failure.code == DenyCode::GatewayMalformed)
        );
        body.begun = true;
        let broken = body.halt(PageError::Disorder);
        assert!(matches!(broken, Halt::Broken(DenyCode::GatewayMalformed)));
        assert!(matches!(body.halt(Halt::PeerGone), Halt::PeerGone));
    }
}
