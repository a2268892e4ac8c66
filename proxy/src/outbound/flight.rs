//! Identical questions asked at once become one.
//!
//! Invariant: at most one question of a kind is out; the others wait for it, each within its own deadline, and are
//! told what became of it: an answer that they may share, or that they have to ask for themselves. A question that is
//! dropped half-way tells them so: nobody waits for somebody who is gone.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::cache::{KeptAnswer, QuestionKey};

/// What became of a question, for those who wait.
#[derive(Debug, Clone)]
pub(super) enum Landed {
    /// An answer that may be shared.
    Answer(KeptAnswer),
    /// Nothing that can be shared: no rows, too many, or none under a lease.
    Alone,
    /// Nothing yet: the peer wants patience. One of those who still have some asks, for all of them.
    Limited,
    /// Nothing: it was given up.
    GivenUp,
}

type Waiting = HashMap<QuestionKey, watch::Receiver<Option<Landed>>>;

/// The questions that are out.
#[derive(Debug, Default)]
pub(super) struct Flights {
    waiting: Arc<Mutex<Waiting>>,
}

/// What to do with a question.
#[derive(Debug)]
pub(super) enum Boarding {
    /// Ask it; whoever asks the same waits for this seat to land.
    Ask(Seat),
    /// Wait: it is out already.
    Wait(watch::Receiver<Option<Landed>>),
}

/// The duty to say what became of a question.
#[derive(Debug)]
pub(super) struct Seat {
    key: QuestionKey,
    waiting: Arc<Mutex<Waiting>>,
    tell: watch::Sender<Option<Landed>>,
}

impl Flights {
    /// Joins the question that is out, or puts this one out.
    pub(super) fn board(&self, key: QuestionKey) -> Boarding {
        let mut waiting = self.waiting.lock();
        if let Some(out) = waiting.get(&key) {
            return Boarding::Wait(out.clone());
        }
        let (tell, told) = watch::channel(None);
        waiting.insert(key, told);
        Boarding::Ask(Seat {
            key,
            waiting: Arc::clone(&self.waiting),
            tell,
        })
    }
}

impl Seat {
    /// The question.
    pub(super) const fn key(&self) -> &QuestionKey {
        &self.key
    }

    /// Says what became of it.
    pub(super) fn land(self, landed: Landed) {
        self.tell.send_replace(Some(landed));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.key);
        self.tell.send_if_modified(|landed| {
            let given_up = landed.is_none();
            if given_up {
                *landed = Some(Landed::GivenUp);
            }
            given_up
        });
    }
}

/// Waits for the question that is out.
pub(super) async fn landed(mut out: watch::Receiver<Option<Landed>>) -> Landed {
    match out.wait_for(Option::is_some).await {
        Ok(landed) => landed.clone().unwrap_or(Landed::GivenUp),
        Err(_) => Landed::GivenUp,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use policy::id::{GrantId, PeerId};
    use policy::resource::Resource;
    use policy::verb::Verb;
    use uuid::Uuid;

    use super::*;

    fn key(n: u8) -> QuestionKey {
        QuestionKey {
            peer: PeerId::new(Uuid::from_u128(1)),
            credential: [0; 32],
            grant: GrantId::from(Uuid::from_u128(2)),
            verb: Verb::List,
            resource: Resource::Tasks,
            query: [n; 32],
        }
    }

    fn seat(flights: &Flights, n: u8) -> Seat {
        match flights.board(key(n)) {
            Boarding::Ask(seat) => seat,
            Boarding::Wait(_) => panic!("it is out already"),
        }
    }

    fn joined(flights: &Flights, n: u8) -> watch::Receiver<Option<Landed>> {
        match flights.board(key(n)) {
            Boarding::Wait(out) => out,
            Boarding::Ask(_) => panic!("it is not out"),
        }
    }

    #[tokio::test]
    async fn all_who_ask_the_same_are_told_and_the_next_asks_anew() {
        let flights = Flights::default();
        let first = seat(&flights, 1);
        let (second, third) = (joined(&flights, 1), joined(&flights, 1));
        let other = seat(&flights, 2);
        first.land(Landed::Alone);
        for out in [second, third] {
            assert!(matches!(landed(out).await, Landed::Alone));
        }
        drop(seat(&flights, 1));
        drop(other);
        assert!(flights.waiting.lock().is_empty());
    }

    #[tokio::test]
    async fn a_question_that_is_dropped_lets_go_of_those_who_wait() {
        let flights = Flights::default();
        let first = seat(&flights, 1);
        let second = joined(&flights, 1);
        drop(first);
        assert!(matches!(landed(second).await, Landed::GivenUp));
        drop(seat(&flights, 1));
    }
}
