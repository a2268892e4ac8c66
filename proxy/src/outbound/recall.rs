//! A question of a session to a peer, answered from memory where that is safe, else by asking.
//!
//! Invariant: an answer is served from memory only to a session of the user whose credential got it, only while the
//! grant is in force as far as this side knows, and only under a lease that lasts; where it does not, one
//! `capabilities` call renews it or shows that the answer is of another time. An answer that was just fetched is held
//! to the same: one whose lease has run out meanwhile is vouched for anew, or asked for again.
//!
//! What is kept is in `cache.rs`, for how long it may be served in `lease.rs`; that a write happens in time is
//! `passage.rs`'s. Asking is in `ask.rs`.

use std::sync::Arc;

use http::StatusCode;
use policy::resource::Resource;
use policy::verb::Verb;

use super::Outbound;
use super::ask::{Ask, Refused, admit, begin, fetch, renew};
use super::cache::{KeptAnswer, QuestionKey};
use super::failure::DoorFailure;
use super::fault::AskError;
use super::flight::{Boarding, Landed, Seat, landed};
use super::reach::Quota;
use super::relay::PeerAnswer;
use super::ticket::{Ticket, collect};
use crate::message::body::Body;
use crate::message::target::Route;

/// How often a question is asked whose answer is out of date before it can be passed on.
const MAX_ROUNDS: u8 = 3;

/// Asks one peer one question, or finds the answer in memory.
///
/// # Errors
/// [`Refused`], recorded already.
pub(super) async fn ask(outbound: &Outbound, ask: Ask) -> Result<PeerAnswer, Refused> {
    let Some(key) = key_of(outbound, &ask) else {
        return anew(outbound, &ask).await;
    };
    loop {
        if let Some(kept) = recall(outbound, &ask, &key).await {
            return from_memory(outbound, &ask, kept)
                .map_err(|failure| Refused::by(&ask.peer, failure));
        }
        let out = match outbound.flights.board(key) {
            Boarding::Ask(seat) => {
                // Whoever asked before may have landed just now.
                match find(outbound, &ask, &key) {
                    Some((_, ticket)) if ticket.holds(outbound.clock.boot_nanos()).is_some() => {
                        continue;
                    }
                    _ => return lead(outbound, &ask, seat).await,
                }
            }
            Boarding::Wait(out) => out,
        };
        let left = ask.deadline.left(outbound.clock.as_ref());
        let due = ask.deadline.at_nanos();
        let waited = tokio::select! {
            biased;
            waited = tokio::time::timeout(left, landed(out)) => waited,
            // Whoever asks has the patience that the peer wants; this one has not.
            barrier = ask.peer.reach.outlasted(Quota::Rows, due) => {
                return Err(given_up(outbound, &ask, DoorFailure::HeldBack(barrier)));
            }
        };
        match waited {
            Ok(Landed::Answer(kept)) => {
                let ticket = ticket_of(&ask, &kept);
                if ticket.holds(outbound.clock.boot_nanos()).is_some() {
                    return from_memory(outbound, &ask, kept)
                        .map_err(|failure| Refused::by(&ask.peer, failure));
                }
            }
            Ok(Landed::Alone) => return anew(outbound, &ask).await,
            Ok(Landed::Limited | Landed::GivenUp) => {}
            Err(_) => {
                let failure = DoorFailure::Offline(AskError::TotalTimeout);
                return Err(given_up(outbound, &ask, failure));
            }
        }
    }
}

/// What tells the question from others; `None` when no answer to it is ever kept: only list and get of a known
/// resource are, in the form that the wire protocol has, and only while the grant is in force.
fn key_of(outbound: &Outbound, ask: &Ask) -> Option<QuestionKey> {
    let own = ask.peer.user == ask.session.user;
    if !own || !outbound.cache.is_on() || admit(outbound, ask).is_err() {
        return None;
    }
    let verb = match &ask.route {
        Route::List { .. } => Verb::List,
        Route::Get { .. } => Verb::Get,
        _ => return None,
    };
    let body = Body::parse(&ask.body).ok()?;
    let plain = verb == Verb::List
        || (body.limit.is_none() && body.filter.is_null() && body.cursor.is_none());
    let agrees = |said: &Option<String>, is: Option<&str>| said.is_none() || said.as_deref() == is;
    if !plain
        || !agrees(&body.verb, Some(ask.route.verb()))
        || !agrees(&body.resource, ask.route.resource())
    {
        return None;
    }
    let peer = &ask.peer;
    Some(QuestionKey {
        peer: peer.peer,
        credential: *peer.basis(),
        grant: peer.grant,
        verb,
        resource: Resource::parse(ask.route.resource()?).ok()?,
        query: super::exchange::query_hash(&ask.route, &ask.body)?,
    })
}

/// The answer that is kept for the newest revision known, if it is fresh, and the right to serve it.
fn find(outbound: &Outbound, ask: &Ask, key: &QuestionKey) -> Option<(KeptAnswer, Ticket)> {
    let revision = ask.peer.lease.revision()?;
    let now = outbound.clock.boot_nanos();
    let kept = outbound.cache.find(key, revision, now)?;
    let ticket = ticket_of(ask, &kept);
    Some((kept, ticket))
}

/// The answer that may be served from memory now, its lease renewed where it had run out.
async fn recall(outbound: &Outbound, ask: &Ask, key: &QuestionKey) -> Option<KeptAnswer> {
    let (kept, ticket) = find(outbound, ask, key)?;
    let lasts = ticket.holds(outbound.clock.boot_nanos()).is_some();
    (lasts || renew(outbound, &ticket).await).then_some(kept)
}

fn ticket_of(ask: &Ask, kept: &KeptAnswer) -> Ticket {
    Ticket {
        session: Arc::clone(&ask.session),
        peer: Arc::clone(&ask.peer),
        revision: kept.revision,
        own: None,
    }
}

/// Serves an answer from memory: a request of its own, with a record of its own.
fn from_memory(
    outbound: &Outbound,
    ask: &Ask,
    kept: KeptAnswer,
) -> Result<PeerAnswer, DoorFailure> {
    let mut exchange = begin(outbound, ask)?;
    exchange.note_cached();
    outbound.cache.count(ask.peer.peer, true);
    collect(ticket_of(ask, &kept));
    Ok(PeerAnswer::kept(
        kept.body,
        kept.rows,
        &ask.request_id,
        exchange,
    ))
}

/// Asks for all who ask the same, and keeps the answer.
async fn lead(outbound: &Outbound, ask: &Ask, seat: Seat) -> Result<PeerAnswer, Refused> {
    let answer = anew(outbound, ask).await;
    outbound.cache.count(ask.peer.peer, false);
    let landed = match &answer {
        Ok(answer) => keepable(answer).map_or(Landed::Alone, |kept| {
            outbound.cache.keep(*seat.key(), kept.clone());
            Landed::Answer(kept)
        }),
        Err(refused) if is_limited(ask, &refused.failure) => Landed::Limited,
        Err(_) => Landed::Alone,
    };
    seat.land(landed);
    answer
}

/// Whether a question was refused for the peer's limit, and until when is known.
fn is_limited(ask: &Ask, failure: &DoorFailure) -> bool {
    failure.status() == StatusCode::TOO_MANY_REQUESTS && ask.peer.reach.is_limited(Quota::Rows)
}

/// The answer as it is kept: whole, marked as cached, under a lease of the newest revision.
fn keepable(answer: &PeerAnswer) -> Option<KeptAnswer> {
    let ticket = answer.ticket()?;
    let sent = answer.sent()?;
    ticket.peer.lease.right(ticket.revision)?;
    let (body, rows) = answer.marked_as_cached()?;
    Some(KeptAnswer::new(body, rows, ticket.revision, sent))
}

/// Asks, until what comes back may be passed on.
async fn anew(outbound: &Outbound, ask: &Ask) -> Result<PeerAnswer, Refused> {
    for _ in 0..MAX_ROUNDS {
        let answer = fetch(outbound, ask.clone()).await?;
        let Some(ticket) = answer.ticket() else {
            // A peer without leases.
            return Ok(answer);
        };
        let lasts = ticket.holds(outbound.clock.boot_nanos()).is_some();
        let renews = !matches!(ask.route, Route::Capabilities);
        if lasts || (renews && renew(outbound, ticket).await) {
            collect(ticket.clone());
            return Ok(answer);
        }
    }
    Err(Refused::by(&ask.peer, DoorFailure::LeaseLost))
}

/// Whoever waited for another's question cannot wait any longer.
fn given_up(outbound: &Outbound, ask: &Ask, failure: DoorFailure) -> Refused {
    match begin(outbound, ask) {
        Ok(mut exchange) => super::ask::ended(ask, &mut exchange, failure),
        Err(failure) => Refused::by(&ask.peer, failure),
    }
}
