//! Sessions that were looked up a moment ago, so that an answer from memory does not wait for the database.
//!
//! Invariant: a session that was ended through this process is unknown here once [`SessionBook::forget`] has returned,
//! also when it was being looked up meanwhile. One that something else ended in the same database is known for
//! [`TRUSTED`] at most, and none beyond its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use certs::Clock;
use parking_lot::Mutex;
use policy::time::UnixMillis;

use super::session::{Session, SessionKey};
use crate::store::{SessionRecord, Sha256, StoreError};

/// How long a session that was found is not looked up again.
const TRUSTED: Duration = Duration::from_secs(1);
/// Most sessions that are known at once: with more, all are looked up again.
const MOST: usize = 4_096;

/// Live sessions by the SHA-256 of their token.
#[derive(Debug, Default)]
pub(super) struct SessionBook {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Moved by every [`SessionBook::forget`].
    generation: u64,
    sessions: HashMap<Sha256, Entry>,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    expires_at: UnixMillis,
    /// Time since boot until which it is not looked up again, nanoseconds.
    until: u64,
}

impl SessionBook {
    /// The live session of a token: one that is known, or what `look_up` finds.
    ///
    /// # Errors
    /// What looking it up said.
    pub(super) async fn find<L>(
        &self,
        clock: &dyn Clock,
        token: &Sha256,
        look_up: impl FnOnce(UnixMillis) -> L,
    ) -> Result<Option<Arc<Session>>, StoreError>
    where
        L: Future<Output = Result<Option<SessionRecord>, StoreError>>,
    {
        let (now, moment) = (UnixMillis(clock.unix_millis()), clock.boot_nanos());
        let generation = {
            let known = self.known.lock();
            let fresh = known.sessions.get(token);
            if let Some(entry) = fresh.filter(|entry| moment < entry.until) {
                let live = now < entry.expires_at;
                return Ok(live.then(|| Arc::clone(&entry.session)));
            }
            known.generation
        };
        let Some(found) = look_up(now).await? else {
            return Ok(None);
        };
        let session = Arc::new(Session {
            user: found.local_user,
            key: SessionKey::Token(found.id),
        });
        let mut known = self.known.lock();
        // What was read before a session was ended says nothing of what is now.
        if known.generation == generation {
            if known.sessions.len() >= MOST && !known.sessions.contains_key(token) {
                known.sessions.clear();
            }
            let entry = Entry {
                session: Arc::clone(&session),
                expires_at: found.expires_at,
                until: moment.saturating_add(u64::try_from(TRUSTED.as_nanos()).unwrap_or(0)),
            };
            known.sessions.insert(*token, entry);
        }
        Ok(Some(session))
    }

    /// Has every session looked up again. To be called when one has been ended, before that is said to have happened.
    pub(super) fn forget(&self) {
        let mut known = self.known.lock();
        known.generation = known.generation.wrapping_add(1);
        known.sessions.clear();
    }
}

#[cfg(test)]
mod tests;
