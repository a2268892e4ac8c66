//! The user's own gateway as one of the sources of a session.
//!
//! Invariant: it is asked as exactly the session's user, under a permit (`policy::local`), and what it answers passes
//! the row filter that peers' questions pass: ownership, redaction, no sensitive resource. Answers have the form of
//! the wire protocol, so that whoever merges sources cannot treat this one differently. Memory is bounded by
//! [`MAX_BODY_BYTES`].
//!
//! It needs no serving role: a process that only asks has the same gateway, and the redaction of its policy directory
//! when there is one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use certs::Clock;
use certs::seal::PageSealer;
use http::StatusCode;
use policy::decision::Permit;
use policy::deny::DenyCode;
use policy::evaluate::{Admission, Admitted};
use policy::id::{SubjectId, UserId};
use policy::local::admit_local;
use policy::plan::QueryPlan;
use policy::request::{ItemId, QueryFilter};
use policy::rows::Tally;

use super::Outbound;
use super::ask::{Deadline, Trace};
use super::exchange::{Asked, Exchange};
use super::failure::DoorFailure;
use crate::audit::AuditOutcome;
use crate::directory::{Directory, View};
use crate::gateway::cursor::{self, CursorBinding};
use crate::gateway::facts::FetchedFacts;
use crate::gateway::list::{Next, OwnedKey, READ_ON, Rows};
use crate::gateway::page::{Asking, ReadError};
use crate::gateway::{Gateway, GatewayError, item};
use crate::message::body::Body;
use crate::message::failure::Failure;
use crate::message::target::Route;
use crate::telemetry::metrics::RowsKind;

/// Bytes after which a page ends, with a cursor.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// One question to the user's own gateway.
#[derive(Debug, Clone, Copy)]
pub struct LocalQuestion<'a> {
    /// Who asks, as the gateway names them.
    pub user: &'a UserId,
    /// What.
    pub route: &'a Route,
    /// JSON as a peer would send it.
    pub body: &'a [u8],
    /// Our id of the request.
    pub request_id: &'a str,
}

/// What it came to.
#[derive(Debug, Clone, Default)]
pub struct LocalAnswer {
    /// As the wire protocol has it.
    pub body: Bytes,
    /// Rows in it.
    pub rows: u64,
    /// Rows that the gateway showed and the filter did not pass.
    pub withheld: u64,
}

/// Answers questions of local users from their own gateway.
#[async_trait]
pub trait LocalSource: Send + Sync {
    /// The answer, whole.
    ///
    /// # Errors
    /// A reason of the wire protocol.
    async fn answer(&self, question: LocalQuestion<'_>) -> Result<LocalAnswer, Failure>;
}

/// The gateway beside this process.
pub struct OwnGateway {
    /// Rules and mapping in force.
    pub directory: Arc<Directory>,
    /// Asks it.
    pub gateway: Arc<Gateway>,
    /// Seals the cursors of its pages.
    pub cursors: PageSealer,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl LocalSource for OwnGateway {
    async fn answer(&self, question: LocalQuestion<'_>) -> Result<LocalAnswer, Failure> {
        if self.directory.is_fenced() {
            return Err(DenyCode::Fenced.into());
        }
        let view = self.directory.view();
        let body = Body::parse(question.body)
            .map_err(|problem| Failure::saying(problem.code, problem.message))?;
        let route = question.route;
        if *route == Route::Search {
            return Err(DenyCode::UnknownVerb.into());
        }
        let limit = body
            .limit_under(None)
            .map_err(|problem| Failure::saying(problem.code, problem.message))?;
        let admission = admit_local(
            &view.snapshot,
            question.user,
            route.verb(),
            route.resource(),
            limit,
        )
        .map_err(|deny| Failure::from(deny.code()))?;
        let mut tally = Tally::default();
        let answered = match (admission, route) {
            (Admission::Capabilities(capabilities), _) => {
                let body = serde_json::to_vec(&capabilities).unwrap_or_default();
                Ok((body, 0))
            }
            (Admission::Rows(admitted), Route::Get { id, .. }) => {
                self.get(&view, admitted, id, question.request_id, &mut tally)
                    .await
            }
            (Admission::Rows(admitted), _) => {
                self.list(&view, admitted, &body, question.request_id, &mut tally)
                    .await
            }
        };
        self.count(tally, question.request_id);
        let (body, rows) = answered?;
        Ok(LocalAnswer {
            body: Bytes::from(body),
            rows,
            withheld: tally.withheld,
        })
    }
}

impl OwnGateway {
    async fn permit(
        &self,
        view: &View,
        admitted: Admitted,
        request_id: &str,
    ) -> Result<(Permit, Arc<FetchedFacts>), Failure> {
        let facts = self
            .gateway
            .facts_for(&admitted, view.snapshot.mapping(), request_id)
            .await
            .map_err(|error| match error {
                GatewayError::CredentialMissing | GatewayError::CredentialRejected => {
                    Failure::from(error.deny_code())
                }
                other => {
                    tracing::warn!(error = %other, "native facts are not available");
                    DenyCode::FactsUnavailable.into()
                }
            })?;
        let permit = admitted.decide(&facts.facts);
        Ok((permit, facts))
    }

    async fn get(
        &self,
        view: &View,
        admitted: Admitted,
        id: &ItemId,
        request_id: &str,
        tally: &mut Tally,
    ) -> Result<(Vec<u8>, u64), Failure> {
        let (permit, facts) = self.permit(view, admitted, request_id).await?;
        let plan = QueryPlan::get(&permit, view.snapshot.mapping(), id, &facts.facts);
        let auth = self
            .gateway
            .credentials
            .for_subject(permit.user(), permit.grant())
            .map_err(|error| Failure::from(error.deny_code()))?;
        let asking = Asking {
            client: &self.gateway.client,
            permit: &permit,
            auth: &auth,
            request_id,
        };
        let mut body = b"{\"item\":".to_vec();
        let found = item::find(asking, &plan, &facts, id, &mut body, tally).await;
        if !found.map_err(failed)? {
            return Err(DenyCode::NotFound.into());
        }
        body.push(b'}');
        Ok((body, 1))
    }

    async fn list(
        &self,
        view: &View,
        admitted: Admitted,
        body: &Body,
        request_id: &str,
        tally: &mut Tally,
    ) -> Result<(Vec<u8>, u64), Failure> {
        let refused = |code, text: String| Failure::saying(code, text);
        let filter = QueryFilter::parse(admitted.resource(), &body.filter)
            .map_err(|error| refused(DenyCode::InvalidFilter, error.to_string()))?;
        let binding = CursorBinding::new(admitted.basis(), admitted.resource(), &filter);
        let after = match &body.cursor {
            None => None,
            Some(text) => {
                let position = cursor::open(&self.cursors, text, &binding)?;
                Some(OwnedKey::behind(&position).ok_or(DenyCode::InvalidCursor)?)
            }
        };
        let (permit, facts) = self.permit(view, admitted, request_id).await?;
        let plan = QueryPlan::list(&permit, view.snapshot.mapping(), &filter, &facts.facts)
            .map_err(|error| refused(DenyCode::InvalidFilter, error.to_string()))?;
        let auth = self
            .gateway
            .credentials
            .for_subject(permit.user(), permit.grant())
            .map_err(|error| Failure::from(error.deny_code()))?;
        let asking = Asking {
            client: &self.gateway.client,
            permit: &permit,
            auth: &auth,
            request_id,
        };
        let mut rows = Rows::open(asking, &plan, &facts, after)
            .await
            .map_err(failed)?;
        let limit = u64::from(permit.row_limit().rows());
        let page = self.page(&mut rows, limit).await;
        *tally = rows.tally();
        let page = page.map_err(failed)?;
        let mut out = page.body;
        out.push(b']');
        if let Some(position) = page.position {
            let sealed = cursor::seal(&self.cursors, &position.position(), &binding)?;
            out.extend_from_slice(format!(",\"nextCursor\":\"{sealed}\"").as_bytes());
        }
        let tail = format!(",\"_partial\":false,\"_truncated\":{}}}", page.truncated);
        out.extend_from_slice(tail.as_bytes());
        Ok((out, page.shown))
    }

    /// Reads rows up to `limit`, and one more to know whether there are more.
    async fn page(&self, rows: &mut Rows<'_>, limit: u64) -> Result<Page, ReadError> {
        let deadline = Deadline::within(self.clock.as_ref(), READ_ON);
        let clock = Arc::clone(&self.clock);
        let in_time = move || deadline.left(clock.as_ref()) > Duration::ZERO;
        let mut page = Page {
            body: b"{\"items\":[".to_vec(),
            shown: 0,
            position: None,
            truncated: false,
        };
        loop {
            let mark = page.body.len();
            let full = page.shown == limit;
            let long = mark > MAX_BODY_BYTES;
            if full || long {
                page.position = rows.position();
            }
            if page.shown > 0 {
                page.body.push(b',');
            }
            let next = rows.next(&mut page.body, &in_time).await?;
            if next == Next::Row && !full && !long {
                page.shown = page.shown.saturating_add(1);
                continue;
            }
            page.body.truncate(mark);
            match next {
                Next::Exhausted => page.position = None,
                Next::Bound if !full && !long => {
                    page.position = rows.position();
                    page.truncated = true;
                }
                Next::Row | Next::Bound => page.truncated = long,
            }
            return Ok(page);
        }
    }

    fn count(&self, tally: Tally, request_id: &str) {
        let metrics = &self.gateway.metrics;
        if tally.withheld > 0 {
            metrics.rows(RowsKind::Withheld, tally.withheld);
            tracing::warn!(
                request_id,
                withheld = tally.withheld,
                "the gateway showed rows that its answer should not have held"
            );
        }
        if tally.redacted_members > 0 {
            metrics.rows(RowsKind::RedactedMembers, tally.redacted_members);
        }
    }
}

/// A page of rows, up to the bracket that ends them.
struct Page {
    body: Vec<u8>,
    shown: u64,
    position: Option<OwnedKey>,
    truncated: bool,
}

fn failed(error: ReadError) -> Failure {
    tracing::warn!(%error, "the gateway could not be used");
    match &error {
        ReadError::Page(_) => error.deny_code().into(),
        ReadError::Filter(_) => Failure::saying(error.deny_code(), error.to_string()),
    }
}

/// Asks the user's own gateway, leaving one record as for a peer.
///
/// # Errors
/// The failure, recorded already.
pub(super) async fn ask_local(
    outbound: &Outbound,
    question: LocalQuestion<'_>,
    trace: Option<&Trace>,
    deadline: Deadline,
) -> Result<Bytes, DoorFailure> {
    let slot = outbound
        .audit
        .reserve()
        .map_err(|_| DoorFailure::AuditUnavailable)?;
    let asked = Asked {
        route: question.route,
        body: question.body,
        request_id: question.request_id,
        trace_id: trace.map(Trace::id),
    };
    let subject = SubjectId::of_user(question.user);
    let mut exchange = Exchange::begin_local(slot, &outbound.clock, subject, &asked);
    if exchange.intend().is_err() {
        exchange.fail(&DoorFailure::AuditUnavailable);
        return Err(DoorFailure::AuditUnavailable);
    }
    let left = deadline.left(outbound.clock.as_ref());
    let answered = tokio::time::timeout(left, outbound.local.answer(question))
        .await
        .unwrap_or_else(|_| Err(DenyCode::GatewayTimeout.into()));
    match answered {
        Ok(answer) => {
            exchange.note(|record| {
                record.rows_returned = answer.rows;
                record.rows_withheld = answer.withheld;
                record.bytes_out = u64::try_from(answer.body.len()).unwrap_or(u64::MAX);
            });
            exchange.finish(AuditOutcome::Allowed, StatusCode::OK);
            Ok(answer.body)
        }
        Err(failure) => {
            let failure = DoorFailure::Own(failure);
            exchange.fail(&failure);
            Err(failure)
        }
    }
}
