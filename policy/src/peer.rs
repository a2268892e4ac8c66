//! Peers: the other side of a federation pair, its local name and its state.
//!
//! Invariant: a name is chosen by this side's operator, never taken from what the peer says about itself.
//! Elsewhere on purpose: endpoints and certificates of a peer (the store, `certs`).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::PeerId;

/// Names that mean something else in a query's `source`.
pub const RESERVED_PEER_NAMES: [&str; 2] = ["all", "local"];

/// The local name of a peer: `[a-z0-9][a-z0-9._-]{0,62}`, never `local` or `all`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerName(Arc<str>);

/// Why a text is not a peer name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerNameError {
    /// Outside the grammar.
    #[error(
        "not a peer name: use 1 to 63 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit"
    )]
    Grammar,
    /// `local` or `all`.
    #[error("the names `local` and `all` are taken by queries: choose another name for the peer")]
    Reserved,
}

impl PeerName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`PeerNameError`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, PeerNameError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let first = text.bytes().next().is_some_and(plain);
        let rest = text
            .bytes()
            .all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'));
        if !first || !rest || text.len() > 63 {
            return Err(PeerNameError::Grammar);
        }
        if RESERVED_PEER_NAMES.contains(&text) {
            return Err(PeerNameError::Reserved);
        }
        Ok(Self(Arc::from(text)))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PeerName {
    type Err = PeerNameError;

    fn from_str(text: &str) -> Result<Self, PeerNameError> {
        Self::parse(text)
    }
}

impl AsRef<str> for PeerName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerName({})", self.0)
    }
}

impl Serialize for PeerName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PeerName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

impl JsonSchema for PeerName {
    fn schema_name() -> Cow<'static, str> {
        "PeerName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$",
            "not": { "enum": ["all", "local"] }
        })
    }
}

/// Where a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// Known by name; no certificate issued yet.
    Pending,
    /// Enrolled and in order.
    Active,
    /// Enrolled; something is failing, requests are still answered.
    Degraded,
    /// Stopped by the operator until resumed.
    Suspended,
    /// Ended for good.
    Revoked,
}

/// The text is not a peer state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown peer state: expected pending, active, degraded, suspended or revoked")]
pub struct UnknownPeerState;

impl PeerState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Active,
        Self::Degraded,
        Self::Suspended,
        Self::Revoked,
    ];

    /// The stored and printed name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }

    /// Whether requests of this peer are answered (specification, section 2).
    #[must_use]
    pub const fn is_answered(self) -> bool {
        matches!(self, Self::Active | Self::Degraded)
    }
}

impl FromStr for PeerState {
    type Err = UnknownPeerState;

    fn from_str(text: &str) -> Result<Self, UnknownPeerState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(UnknownPeerState)
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A peer as a decision sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its id.
    pub id: PeerId,
    /// Its local name.
    pub name: PeerName,
    /// Its state.
    pub state: PeerState,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar() {
        for good in ["home", "0", "a.b-c_d", "9work", &"x".repeat(63)] {
            assert!(PeerName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".home",
            "-a",
            "_a",
            "Home",
            "a b",
            "a/b",
            "é",
            "a\n",
            &"x".repeat(64),
        ] {
            assert_eq!(PeerName::parse(bad), Err(PeerNameError::Grammar), "{bad}");
        }
        for taken in RESERVED_PEER_NAMES {
            assert_eq!(PeerName::parse(taken), Err(PeerNameError::Reserved));
        }
    }

    #[test]
    fn only_active_and_degraded_peers_are_answered() {
        let answered: Vec<_> = PeerState::ALL
            .into_iter()
            .filter(|s| s.is_answered())
            .collect();
        assert_eq!(answered, [PeerState::Active, PeerState::Degraded]);
        for state in PeerState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
    }
}
