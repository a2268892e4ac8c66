//! Grants: which peer may ask as which subject, within which scope, and the life of that permission.
//!
//! Invariant: a grant moves only along [`GrantStatus::transition`]; revoked and expired are final.
//! Elsewhere on purpose: what the scope means for a request (`evaluate.rs`), the effective revision (`revision.rs`).

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{GrantId, PeerId, SubjectId, UserId};
use crate::scope::Scope;
use crate::time::UnixMillis;

/// Where a grant stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GrantStatus {
    /// Made; no certificate in force.
    Pending,
    /// In force.
    Active,
    /// Ended by an operator; final.
    Revoked,
    /// Ended by time; final.
    Expired,
}

/// A change of status that a grant cannot make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a grant that is {from} cannot become {to}: create a new grant instead")]
pub struct TransitionError {
    /// The status it has.
    pub from: GrantStatus,
    /// The status that was asked for.
    pub to: GrantStatus,
}

/// The text is not a grant status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown grant status: expected pending, active, revoked or expired")]
pub struct UnknownGrantStatus;

impl GrantStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Active, Self::Revoked, Self::Expired];

    /// The stored and printed name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }

    /// Whether no further change is possible.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Revoked | Self::Expired)
    }

    /// The new status, if the grant may take it: `pending` to anything else, `active` to anything else (back to
    /// `pending` when its token is replaced), and nothing out of `revoked` or `expired`.
    ///
    /// # Errors
    /// [`TransitionError`] otherwise, also for a change to the status it already has.
    pub fn transition(self, to: Self) -> Result<Self, TransitionError> {
        let possible = match self {
            Self::Pending => matches!(to, Self::Active | Self::Revoked | Self::Expired),
            Self::Active => matches!(to, Self::Pending | Self::Revoked | Self::Expired),
            Self::Revoked | Self::Expired => false,
        };
        if possible {
            Ok(to)
        } else {
            Err(TransitionError { from: self, to })
        }
    }
}

impl FromStr for GrantStatus {
    type Err = UnknownGrantStatus;

    fn from_str(text: &str) -> Result<Self, UnknownGrantStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(UnknownGrantStatus)
    }
}

impl fmt::Display for GrantStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One grant, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its id, carried in the peer's certificate.
    pub id: GrantId,
    /// The peer that may ask.
    pub peer: PeerId,
    /// The user it speaks for, as the gateway names them.
    pub user: UserId,
    /// The same user as the certificate names them; always [`SubjectId::of_user`] of `user`.
    pub subject: SubjectId,
    /// What it covers.
    pub scope: Scope,
    /// Its stored status; see [`Grant::status_at`] for the one that counts.
    pub status: GrantStatus,
    /// Counts every act that touches the grant; part of its effective revision.
    pub edit: u64,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it ends, if it does; the scope may end it earlier.
    pub expires_at: Option<UnixMillis>,
}

impl Grant {
    /// The end of the grant: the earlier of its own and its scope's.
    #[must_use]
    pub fn ends_at(&self) -> Option<UnixMillis> {
        match (self.expires_at, self.scope.expires_at()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The status at `now`: a grant whose end has come is expired even if nobody has written that down yet.
    #[must_use]
    pub fn status_at(&self, now: UnixMillis) -> GrantStatus {
        if self.status.is_final() {
            return self.status;
        }
        match self.ends_at() {
            Some(end) if now >= end => GrantStatus::Expired,
            _ => self.status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_are_these_and_no_others() {
        use GrantStatus::{Active, Expired, Pending, Revoked};
        let possible = [
            (Pending, Active),
            (Pending, Revoked),
            (Pending, Expired),
            (Active, Pending),
            (Active, Revoked),
            (Active, Expired),
        ];
        for from in GrantStatus::ALL {
            assert_eq!(from.as_str().parse(), Ok(from));
            for to in GrantStatus::ALL {
                let expected = if possible.contains(&(from, to)) {
                    Ok(to)
                } else {
                    Err(TransitionError { from, to })
                };
                assert_eq!(from.transition(to), expected);
            }
        }
    }
}
