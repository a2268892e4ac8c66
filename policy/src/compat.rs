//! Older versions of the protocol that a peer may have to be treated by.
//!
//! Invariant: compatibility only ever hides. A peer under it is offered and answered a part of what its grant reaches,
//! never more. Elsewhere on purpose: which peer is under it (`rules.rs`), the shape of bodies (the proxy).

use schemars::JsonSchema;
use serde::Serialize;

use crate::resource::Resource;
use crate::verb::Verb;

/// What a peer knows of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Compat {
    /// The third milestone of the upstream project: `list`, `get` and `capabilities`; no resource that came later; and
    /// `limit` beside `params`.
    #[serde(rename = "upstream-m3")]
    UpstreamM3,
}

/// The text is not a compatibility of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown compatibility: only \"upstream-m3\" is known")]
pub struct UnknownCompat;

impl Compat {
    /// Parses the name in policy.
    ///
    /// # Errors
    /// [`UnknownCompat`].
    pub fn parse(text: &str) -> Result<Self, UnknownCompat> {
        match text {
            "upstream-m3" => Ok(Self::UpstreamM3),
            _ => Err(UnknownCompat),
        }
    }

    /// The name in policy.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpstreamM3 => "upstream-m3",
        }
    }

    /// Whether such a peer knows the verb.
    #[must_use]
    pub const fn knows_verb(self, verb: Verb) -> bool {
        match self {
            Self::UpstreamM3 => !matches!(verb, Verb::Search),
        }
    }

    /// Whether such a peer knows the resource.
    #[must_use]
    pub const fn knows_resource(self, resource: Resource) -> bool {
        match self {
            Self::UpstreamM3 => !matches!(resource, Resource::Projects | Resource::Missions),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_name_parses() {
        assert_eq!(Compat::parse("upstream-m3"), Ok(Compat::UpstreamM3));
        for other in ["", "upstream", "Upstream-M3", "upstream-m4", "none"] {
            assert_eq!(Compat::parse(other), Err(UnknownCompat), "{other}");
        }
        let name = Compat::UpstreamM3.as_str();
        assert_eq!(
            serde_json::to_value(Compat::UpstreamM3).ok(),
            Some(name.into())
        );
        assert_eq!(Compat::parse(name), Ok(Compat::UpstreamM3));
    }
}
