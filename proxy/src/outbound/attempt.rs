//! One question out to the network: whether it may go, waiting as the peer has told, and going again.
//!
//! Invariant: nothing goes out without an [`Admission`], and a refusal that names a time, a 429 or a full queue, is followed by
//! another try only when that time has passed and the deadline is not reached; every try keeps the request id and counts its attempt.
//!
//! The state of a peer is in `reach.rs`; what a reply means, in `ask.rs`.

use std::sync::Arc;
use std::time::Duration;

use certs::Clock;
use http::StatusCode;

use super::client::{PeerClient, Question, Reply};
use super::deadline::Deadline;
use super::failure::DoorFailure;
use super::fault::AskError;
use super::reach::{Admission, Barrier, PeerReach, Quota};
use super::{relay, verdict};

/// A reply that is no 200, read to its end.
pub(super) struct Refusal {
    pub(super) head: http::response::Parts,
    pub(super) attempt: u8,
    pub(super) failure: DoorFailure,
    /// The outage it belongs to, when it counts as a failure of the peer.
    pub(super) outage: Option<u64>,
}

/// What became of a question.
pub(super) enum Attempted {
    /// A 200, to be opened under its admission.
    Answer(Box<Reply>, Admission),
    /// Another reply.
    Refused(Box<Refusal>),
    /// No reply; the outage that this belongs to.
    Silent(AskError, Option<u64>),
    /// It did not go out.
    HeldBack(Barrier),
}

/// Puts the question to the peer whose client that is; all of the answer is due by `deadline`.
pub(super) async fn attempt(
    reach: &Arc<PeerReach>,
    clock: &dyn Clock,
    client: &PeerClient,
    mut question: Question,
    (quota, deadline): (Quota, Deadline),
) -> Attempted {
    let mut told: Option<Box<Refusal>> = None;
    loop {
        let mut admission = match (reach.admit(quota, deadline.at_nanos()).await, told) {
            (Ok(admission), _) => admission,
            // The peer's own words are better than ours about them.
            (Err(Barrier::Limited(_)), Some(refusal)) => return Attempted::Refused(refusal),
            (Err(barrier), _) => return Attempted::HeldBack(barrier),
        };
        let left = deadline.left(clock);
        let reply = match client.ask_within(&question, left).await {
            Ok(reply) => reply,
            Err(error) => {
                let outage = admission.settle(verdict::of_silence(error));
                return Attempted::Silent(error, outage);
            }
        };
        reach.note_rate(&reply.head.headers);
        if reply.head.status == StatusCode::OK {
            return Attempted::Answer(Box::new(reply), admission);
        }
        let refusal = read_refusal(reply, admission).await;
        let Some(wait) = wait_of(&refusal) else {
            return Attempted::Refused(refusal);
        };
        reach.told_to_wait(quota, wait);
        question.attempt = refusal.attempt.saturating_add(1);
        told = Some(refusal);
    }
}

/// How long the peer says to wait; a refusal that says nothing is not waited for.
fn wait_of(refusal: &Refusal) -> Option<Duration> {
    let is_busy = matches!(&refusal.failure, DoorFailure::Peer(error) if error.is_busy());
    if refusal.head.status != StatusCode::TOO_MANY_REQUESTS && !is_busy {
        return None;
    }
    let after = relay::retry_after(&refusal.head.headers)?;
    let seconds: u64 = after.to_str().ok()?.parse().ok()?;
    // Zero would be a busy loop between two machines.
    Some(Duration::from_secs(seconds.max(1)))
}

async fn read_refusal(reply: Reply, mut admission: Admission) -> Box<Refusal> {
    let (head, attempt) = (reply.head.clone(), reply.attempt);
    let failure = relay::refusal(reply).await;
    let outage = admission.settle(verdict::of_refusal(head.status, &failure));
    Box::new(Refusal {
        head,
        attempt,
        failure,
        outage,
    })
}
