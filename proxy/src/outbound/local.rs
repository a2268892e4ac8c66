//! The user's own gateway as one of the sources of a session.
//!
//! Invariant: a question leaves one record, as one to a peer does, but without peer and grant. Answers have the form of
//! the wire protocol, so that whoever merges sources cannot treat this one differently.
//!
//! How the gateway is asked is in `own.rs`.

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use policy::deny::DenyCode;
use policy::id::{SubjectId, UserId};

use super::Outbound;
use super::ask::Deadline;
use super::exchange::{Asked, Exchange};
use super::failure::DoorFailure;
use crate::audit::AuditOutcome;
use crate::message::failure::Failure;
use crate::message::headers::RequestTag;
use crate::message::target::Route;
use crate::telemetry::TraceParent;

/// One question to the user's own gateway.
#[derive(Debug, Clone, Copy)]
pub struct LocalQuestion<'a> {
    /// Who asks, as the gateway names them.
    pub user: &'a UserId,
    /// What.
    pub route: &'a Route,
    /// JSON as a peer would send it.
    pub body: &'a [u8],
    /// Our id of the request, and its span.
    pub tag: RequestTag<'a>,
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

/// Asks the user's own gateway, leaving one record as for a peer.
///
/// # Errors
/// The failure, recorded already.
pub(super) async fn ask_local(
    outbound: &Outbound,
    question: LocalQuestion<'_>,
    trace: Option<TraceParent>,
    deadline: Deadline,
) -> Result<Bytes, DoorFailure> {
    let slot = outbound
        .audit
        .reserve()
        .map_err(|_| DoorFailure::AuditUnavailable)?;
    let asked = Asked {
        route: question.route,
        body: question.body,
        request_id: question.tag.id,
        trace,
        spans: &outbound.spans,
    };
    let subject = SubjectId::of_user(question.user);
    let mut exchange = Exchange::begin_local(slot, &outbound.clock, subject, &asked);
    if exchange.intend().is_err() {
        exchange.fail(&DoorFailure::AuditUnavailable);
        return Err(DoorFailure::AuditUnavailable);
    }
    let question = LocalQuestion {
        tag: RequestTag {
            trace: exchange.here(),
            ..question.tag
        },
        ..question
    };
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
