//! What is looked up, and what is not believed.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;

use certs::testing::ManualClock;
use policy::id::UserId;
use uuid::Uuid;

use super::*;

const TOKEN: Sha256 = [7; 32];
/// End of the session, Unix milliseconds.
const END: i64 = 10_000;

fn record() -> SessionRecord {
    SessionRecord {
        id: Uuid::from_u128(1),
        local_user: UserId::parse("amira").unwrap(),
        created_at: UnixMillis(0),
        expires_at: UnixMillis(END),
        ended_at: None,
    }
}

/// A book, a clock, and how often the store was asked.
struct Desk {
    book: SessionBook,
    clock: ManualClock,
    asked: Cell<u32>,
}

impl Desk {
    fn new() -> Self {
        Self {
            book: SessionBook::default(),
            clock: ManualClock::at_millis(1_000),
            asked: Cell::new(0),
        }
    }

    async fn find(
        &self,
        answer: Result<Option<SessionRecord>, StoreError>,
    ) -> Result<Option<Arc<Session>>, StoreError> {
        let look_up = |_| async {
            self.asked.set(self.asked.get() + 1);
            answer
        };
        self.book.find(&self.clock, &TOKEN, look_up).await
    }
}

#[tokio::test]
async fn a_session_is_looked_up_once_a_second() {
    let desk = Desk::new();
    for (advance, asked) in [(0, 1), (0, 1), (999, 1), (1, 2), (500, 2), (501, 3)] {
        desk.clock.advance(Duration::from_millis(advance));
        let found = desk.find(Ok(Some(record()))).await.unwrap().unwrap();
        assert_eq!(found.user.as_str(), "amira");
        assert_eq!(desk.asked.get(), asked, "{advance} ms later");
    }
}

#[tokio::test]
async fn what_is_not_there_is_looked_up_each_time() {
    let desk = Desk::new();
    for asked in 1..=3 {
        assert_eq!(desk.find(Ok(None)).await.unwrap(), None);
        assert_eq!(desk.asked.get(), asked);
    }
    assert!(desk.find(Err(StoreError::Busy)).await.is_err());
    assert!(desk.find(Ok(Some(record()))).await.unwrap().is_some());
}

#[tokio::test]
async fn none_outlives_its_end() {
    let desk = Desk::new();
    desk.clock.advance(Duration::from_millis(8_500));
    assert!(desk.find(Ok(Some(record()))).await.unwrap().is_some());
    desk.clock.advance(Duration::from_millis(500));
    assert_eq!(desk.find(Ok(Some(record()))).await.unwrap(), None);
    assert_eq!(desk.asked.get(), 1, "its end was known");
}

#[tokio::test]
async fn one_that_was_ended_is_unknown_at_once() {
    let desk = Desk::new();
    assert!(desk.find(Ok(Some(record()))).await.unwrap().is_some());
    desk.book.forget();
    assert_eq!(desk.find(Ok(None)).await.unwrap(), None);
}

#[tokio::test]
async fn what_was_read_before_an_end_is_not_kept() {
    let desk = Desk::new();
    let look_up = |_| async {
        // The session is ended between the reading and its return.
        desk.book.forget();
        Ok(Some(record()))
    };
    let found = desk.book.find(&desk.clock, &TOKEN, look_up).await;
    assert!(found.unwrap().is_some(), "the request began before");
    assert_eq!(desk.find(Ok(None)).await.unwrap(), None);
    assert_eq!(desk.asked.get(), 1);
}

#[tokio::test]
async fn the_book_is_bounded() {
    let desk = Desk::new();
    for n in 0..=MOST {
        let mut token = [0; 32];
        for (to, from) in token.iter_mut().zip(n.to_be_bytes()) {
            *to = from;
        }
        let look_up = |_| async { Ok(Some(record())) };
        desk.book.find(&desk.clock, &token, look_up).await.unwrap();
        assert!(desk.book.known.lock().sessions.len() <= MOST);
    }
}
