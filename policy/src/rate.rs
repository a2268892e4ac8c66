//! How often a grant may ask, and how many different rows it may see in a day.
//!
//! Invariant: rules meet and never join. A figure that a rule leaves out does not narrow, policy decides how much there
//! is at all, and a scope can only lower that.
//! Elsewhere on purpose: buckets, clocks and counting (the proxy).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

/// The most requests a minute that can be written down.
pub const PER_MINUTE_MAX: u32 = 10_000_000;
/// The most requests at once that can be written down.
pub const BURST_MAX: u32 = 1_000_000;
/// The most rows a day that can be written down.
pub const ROWS_PER_DAY_MAX: u32 = 10_000_000;

/// The rate of a grant: so many requests a minute in the long run, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rate {
    per_minute: u32,
    burst: u32,
}

/// The figure is not one of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Requests a minute.
    #[error("per_minute must be a whole number from 1 to {PER_MINUTE_MAX}")]
    PerMinute,
    /// Requests at once.
    #[error("burst must be a whole number from 1 to {BURST_MAX}")]
    Burst,
}

impl Rate {
    /// What a grant has when no rule says anything (specification, section 7).
    pub const DEFAULT: Self = Self {
        per_minute: 120,
        burst: 30,
    };

    /// A rate.
    ///
    /// # Errors
    /// [`RateError`] for a figure that is 0 or too large.
    pub fn new(per_minute: u32, burst: u32) -> Result<Self, RateError> {
        Ok(Self {
            per_minute: figure(per_minute.into(), PER_MINUTE_MAX).ok_or(RateError::PerMinute)?,
            burst: figure(burst.into(), BURST_MAX).ok_or(RateError::Burst)?,
        })
    }

    /// Requests a minute.
    #[must_use]
    pub const fn per_minute(self) -> u32 {
        self.per_minute
    }

    /// Requests at once.
    #[must_use]
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// The same rate, lowered to what `rule` says where that is less.
    #[must_use]
    pub fn lowered(self, rule: RateRule) -> Self {
        let lower = |own: u32, rule: Option<u32>| rule.map_or(own, |rule| rule.min(own));
        Self {
            per_minute: lower(self.per_minute, rule.per_minute),
            burst: lower(self.burst, rule.burst),
        }
    }
}

fn figure(number: u64, most: u32) -> Option<u32> {
    let number = u32::try_from(number).ok()?;
    (1..=most).contains(&number).then_some(number)
}

/// What one rule says about the rate; a figure it leaves out does not narrow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct RateRule {
    #[serde(skip_serializing_if = "Option::is_none")]
    per_minute: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
}

impl RateRule {
    /// A rule of these figures.
    ///
    /// # Errors
    /// [`RateError`] for a figure that is 0 or too large.
    pub fn new(per_minute: Option<u64>, burst: Option<u64>) -> Result<Self, RateError> {
        let read = |number: Option<u64>, most, error| {
            number
                .map(|number| figure(number, most).ok_or(error))
                .transpose()
        };
        Ok(Self {
            per_minute: read(per_minute, PER_MINUTE_MAX, RateError::PerMinute)?,
            burst: read(burst, BURST_MAX, RateError::Burst)?,
        })
    }

    /// Whether it says nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.per_minute.is_none() && self.burst.is_none()
    }

    /// What both rules say: the lesser of each figure.
    #[must_use]
    pub fn meet(self, other: Self) -> Self {
        Self {
            per_minute: least(self.per_minute, other.per_minute),
            burst: least(self.burst, other.burst),
        }
    }

    /// The rate it comes to: a figure that no rule names is that of [`Rate::DEFAULT`].
    #[must_use]
    pub fn in_force(self) -> Rate {
        Rate {
            per_minute: self.per_minute.unwrap_or(Rate::DEFAULT.per_minute),
            burst: self.burst.unwrap_or(Rate::DEFAULT.burst),
        }
    }
}

fn least(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl JsonSchema for RateRule {
    fn schema_name() -> Cow<'static, str> {
        "RateRule".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let number = |most: u32, what: &str| json_schema!({ "type": "integer", "minimum": 1, "maximum": most, "description": what });
        json_schema!({
            "type": "object",
            "additionalProperties": false,
            "minProperties": 1,
            "properties": {
                "per_minute": number(PER_MINUTE_MAX, "Requests a minute in the long run."),
                "burst": number(BURST_MAX, "Requests at once."),
            },
        })
    }
}

/// What policy allows a peer besides its reach: how often each of its grants may ask, and how many rows a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Allowance {
    /// The rate.
    pub rate: RateRule,
    /// Different rows that one grant may see in a UTC day; any number when absent.
    pub rows_per_day: Option<u32>,
}

impl Allowance {
    /// What both allow.
    #[must_use]
    pub fn meet(self, other: Self) -> Self {
        Self {
            rate: self.rate.meet(other.rate),
            rows_per_day: least(self.rows_per_day, other.rows_per_day),
        }
    }

    /// What a grant gets of it whose scope says `scope` about the rate.
    #[must_use]
    pub fn for_scope(self, scope: Option<RateRule>) -> GrantLimits {
        GrantLimits {
            rate: self.rate.in_force().lowered(scope.unwrap_or_default()),
            rows_per_day: self.rows_per_day,
        }
    }
}

/// The limits of one grant, in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantLimits {
    /// How often it may ask.
    pub rate: Rate,
    /// Different rows it may see in a UTC day; any number when absent.
    pub rows_per_day: Option<u32>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::option;
    use proptest::prelude::*;

    fn any_rule() -> impl Strategy<Value = RateRule> {
        let figure = |most: u32| option::of(1..=u64::from(most));
        (figure(PER_MINUTE_MAX), figure(BURST_MAX))
            .prop_map(|(per_minute, burst)| RateRule::new(per_minute, burst).unwrap())
    }

    fn any_allowance() -> impl Strategy<Value = Allowance> {
        (any_rule(), option::of(1..=ROWS_PER_DAY_MAX))
            .prop_map(|(rate, rows_per_day)| Allowance { rate, rows_per_day })
    }

    fn is_within(one: Rate, other: Rate) -> bool {
        one.per_minute <= other.per_minute && one.burst <= other.burst
    }

    proptest! {
        #[test]
        fn allowances_meet(a in any_allowance(), b in any_allowance(), c in any_allowance()) {
            prop_assert_eq!(a.meet(a), a);
            prop_assert_eq!(a.meet(b), b.meet(a));
            prop_assert_eq!(a.meet(b).meet(c), a.meet(b.meet(c)));
            prop_assert_eq!(a.meet(Allowance::default()), a);
        }

        #[test]
        fn a_scope_only_lowers(policy in any_allowance(), scope in any_rule()) {
            let (without, with) = (policy.for_scope(None), policy.for_scope(Some(scope)));
            prop_assert!(is_within(with.rate, without.rate));
            prop_assert_eq!(with.rows_per_day, without.rows_per_day);
            prop_assert!(scope.per_minute.is_none_or(|most| with.rate.per_minute <= most));
            prop_assert!(scope.burst.is_none_or(|most| with.rate.burst <= most));
        }
    }

    #[test]
    fn figures_have_ends() {
        assert_eq!(Rate::new(0, 1), Err(RateError::PerMinute));
        assert_eq!(Rate::new(PER_MINUTE_MAX + 1, 1), Err(RateError::PerMinute));
        assert_eq!(Rate::new(1, 0), Err(RateError::Burst));
        assert_eq!(
            RateRule::new(None, Some(u64::from(BURST_MAX) + 1)),
            Err(RateError::Burst)
        );
        assert_eq!(
            RateRule::new(Some(u64::MAX), None),
            Err(RateError::PerMinute)
        );
        assert_eq!(RateRule::default().in_force(), Rate::DEFAULT);
        assert_eq!(Rate::new(120, 30), Ok(Rate::DEFAULT));
    }

    #[test]
    fn policy_may_allow_more_than_the_default() {
        let policy = Allowance {
            rate: RateRule::new(Some(6000), None).unwrap(),
            rows_per_day: None,
        };
        assert_eq!(policy.for_scope(None).rate, Rate::new(6000, 30).unwrap());
    }
}
