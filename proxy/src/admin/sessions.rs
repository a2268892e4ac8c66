//! Sessions: a bearer token bound to one local user.
//!
//! Invariant: the token is answered once; the store has its SHA-256 only. A session that was ended is refused at the
//! very next request: the door asks the store for each.

use policy::time::UnixMillis;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AdminCode, AdminFailure, Control, parse_user};
use crate::outbound::CreateSessionError;
use crate::store::{Actor, SessionRecord};

/// Life of a session unless told otherwise, seconds.
const TTL_DEFAULT: u32 = 12 * 3600;
/// Longest life of a session, seconds.
const TTL_MAX: u32 = 30 * 86_400;

/// A session to create.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// The local user it acts for.
    pub user: String,
    /// How long it lives, seconds: 1 to 30 days, 12 hours when absent.
    pub ttl_s: Option<u32>,
}

/// A session with its token, once.
#[derive(Serialize)]
pub struct SessionView {
    /// Its id.
    pub id: Uuid,
    /// The bearer token.
    pub token: String,
    /// When it ends.
    pub expires_at: UnixMillis,
    /// Path of the unix socket of the session door.
    pub socket: String,
    /// Base URL of its TCP form, when on.
    pub url: Option<String>,
}

/// A session as listed, without its token.
#[derive(Debug, Serialize)]
pub struct SessionListed {
    /// Its id.
    pub id: Uuid,
    /// The local user it acts for.
    pub user: String,
    /// `live`, `ended` or `expired`.
    pub state: &'static str,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it ends by itself.
    pub expires_at: UnixMillis,
    /// When an operator ended it.
    pub ended_at: Option<UnixMillis>,
}

impl SessionListed {
    fn of(record: SessionRecord, now: UnixMillis) -> Self {
        let state = match record.ended_at {
            Some(_) => "ended",
            None if record.is_live(now) => "live",
            None => "expired",
        };
        Self {
            id: record.id,
            user: record.local_user.to_string(),
            state,
            created_at: record.created_at,
            expires_at: record.expires_at,
            ended_at: record.ended_at,
        }
    }
}

impl Control {
    /// `session list`: newest first, those that are over too.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_sessions(&self) -> Result<Vec<SessionListed>, AdminFailure> {
        let now = self.now();
        let sessions = self.store.list_sessions().await?;
        let listed = sessions.into_iter().map(|one| SessionListed::of(one, now));
        Ok(listed.collect())
    }

    /// `session end`. Idempotent.
    ///
    /// # Errors
    /// An unknown session; the store's.
    pub async fn end_session(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<SessionListed, AdminFailure> {
        let id = Uuid::parse_str(id).map_err(|_| {
            AdminFailure::invalid("a session is named by its id")
                .hint("`mosaic-federation session list` shows the ids")
        })?;
        let ended = match &self.outbound {
            Some(outbound) => outbound.end_session(actor.clone(), id).await?,
            None => self.store.end_session(&self.act(actor), id).await?.value,
        };
        Ok(SessionListed::of(ended, self.now()))
    }

    /// `session create`.
    ///
    /// # Errors
    /// A life out of bounds; a process that does not ask.
    pub async fn create_session(
        &self,
        actor: &Actor,
        request: CreateSession,
    ) -> Result<SessionView, AdminFailure> {
        let outbound = self.asking()?;
        let local_user = parse_user(&request.user)?;
        let ttl = request.ttl_s.unwrap_or(TTL_DEFAULT);
        if !(1..=TTL_MAX).contains(&ttl) {
            return Err(AdminFailure::invalid("a session lives 1 second to 30 days"));
        }
        let expires_at = self.now().saturating_add(i64::from(ttl) * 1000);
        let created = outbound
            .create_session(actor.clone(), local_user, expires_at)
            .await;
        let (token, session) = created.map_err(|error| match error {
            CreateSessionError::Store(error) => error.into(),
            CreateSessionError::Draw(error) => {
                AdminFailure::new(AdminCode::Unavailable, error.to_string())
            }
        })?;
        Ok(SessionView {
            id: session.id,
            token: token.expose().to_owned(),
            expires_at: session.expires_at,
            socket: self.config.session.socket.display().to_string(),
            url: self
                .addresses
                .session
                .map(|address| format!("http://{address}")),
        })
    }
}
