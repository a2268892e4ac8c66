//! The closed set of questions a peer may ask.
//!
//! Invariant: a verb that is not listed here does not exist; there is no catch-all.
//! Elsewhere on purpose: routes and methods (the proxy), what each verb means for the gateway (`plan.rs`).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a peer asks for (specification, section 3).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// A page of rows of one resource.
    List,
    /// One row by its id.
    Get,
    /// The rows of several resources in which the words of a query occur, best first.
    Search,
    /// What the grant allows.
    Capabilities,
}

/// The text is not a verb of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown verb: use list, get, search or capabilities")]
pub struct UnknownVerb;

impl Verb {
    /// Every verb, in the order capabilities lists them.
    pub const ALL: [Self; 4] = [Self::List, Self::Get, Self::Search, Self::Capabilities];

    /// Parses the wire name; case matters.
    ///
    /// # Errors
    /// [`UnknownVerb`] for anything else.
    pub fn parse(text: &str) -> Result<Self, UnknownVerb> {
        match text {
            "list" => Ok(Self::List),
            "get" => Ok(Self::Get),
            "search" => Ok(Self::Search),
            "capabilities" => Ok(Self::Capabilities),
            _ => Err(UnknownVerb),
        }
    }

    /// The wire name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Get => "get",
            Self::Search => "search",
            Self::Capabilities => "capabilities",
        }
    }
}

impl std::str::FromStr for Verb {
    type Err = UnknownVerb;

    fn from_str(text: &str) -> Result<Self, UnknownVerb> {
        Self::parse(text)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_nothing_else_parses() {
        for verb in Verb::ALL {
            assert_eq!(Verb::parse(verb.as_str()), Ok(verb));
        }
        for other in ["Search", "List", "LIST", "", "renew", "list "] {
            assert_eq!(Verb::parse(other), Err(UnknownVerb), "{other}");
        }
    }
}
