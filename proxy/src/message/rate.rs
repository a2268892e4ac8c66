//! `RateLimit` and `RateLimit-Policy`: how a grant stands, told with each answer and each 429
//! (draft-ietf-httpapi-ratelimit-headers, structured fields).
//!
//! Invariant: the figures are those of the decision that let the request in or refused it, and tell
//! a grant about its own bucket only.

use std::io::Write as _;

use http::HeaderValue;
use parking_lot::Mutex;
use policy::rate::Rate;

use crate::limit::{Quota, Standing, whole_seconds};

/// Room for a value at its longest.
const ROOM: usize = 48;

/// The two fields of one response.
#[derive(Debug)]
pub struct RateFields {
    /// `RateLimit-Policy`: what a full bucket holds and how many seconds it takes to fill.
    pub policy: HeaderValue,
    /// `RateLimit`: what is left and how many seconds until the bucket is full.
    pub limit: HeaderValue,
}

/// Writes the fields of one connection. Its grant's rate hardly ever changes, so the field that tells
/// it is written once and shared.
#[derive(Debug, Default)]
pub struct RateTeller(Mutex<Option<(Rate, HeaderValue)>>);

impl RateTeller {
    /// The fields of a grant with this rate whose bucket stands so; a value that cannot be written
    /// (there is none) is left out with the other one.
    #[must_use]
    pub fn tell(&self, rate: Rate, standing: Standing) -> Option<RateFields> {
        let policy = {
            let mut known = self.0.lock();
            match known.as_ref() {
                Some((of, policy)) if *of == rate => policy.clone(),
                _ => {
                    let window = whole_seconds(Quota::of(rate).window());
                    let burst = rate.burst();
                    let policy = value(format_args!("\"grant\";q={burst};w={window}"))?;
                    *known = Some((rate, policy.clone()));
                    policy
                }
            }
        };
        let Standing { remaining, full_in } = standing;
        let full_in = if full_in.is_zero() {
            0
        } else {
            whole_seconds(full_in)
        };
        let limit = value(format_args!("\"grant\";r={remaining};t={full_in}"))?;
        Some(RateFields { policy, limit })
    }
}

fn value(text: std::fmt::Arguments<'_>) -> Option<HeaderValue> {
    let mut room = [0; ROOM];
    let mut rest = room.as_mut_slice();
    rest.write_fmt(text).ok()?;
    let left = rest.len();
    HeaderValue::from_bytes(room.get(..ROOM.saturating_sub(left))?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use policy::rate::{BURST_MAX, PER_MINUTE_MAX};
    use std::time::Duration;

    fn fields(rate: Rate, remaining: u32, full_in: Duration) -> (String, String) {
        let standing = Standing { remaining, full_in };
        let fields = RateTeller::default().tell(rate, standing).unwrap();
        let text = |value: HeaderValue| value.to_str().unwrap().to_owned();
        (text(fields.policy), text(fields.limit))
    }

    #[test]
    fn the_default_rate() {
        let told = fields(Rate::DEFAULT, 29, Duration::from_millis(500));
        assert_eq!(told.0, "\"grant\";q=30;w=15");
        assert_eq!(told.1, "\"grant\";r=29;t=1");
        let full = fields(Rate::DEFAULT, 30, Duration::ZERO);
        assert_eq!(full.1, "\"grant\";r=30;t=0");
    }

    #[test]
    fn a_window_is_at_least_a_second() {
        let fast = Rate::new(PER_MINUTE_MAX, 1).unwrap();
        assert_eq!(fields(fast, 1, Duration::ZERO).0, "\"grant\";q=1;w=1");
    }

    #[test]
    fn the_longest_values_fit() {
        let slow = Rate::new(1, BURST_MAX).unwrap();
        let (policy, limit) = fields(slow, BURST_MAX, Duration::from_secs(60_000_000));
        assert_eq!(policy, "\"grant\";q=1000000;w=60000000");
        assert_eq!(limit, "\"grant\";r=1000000;t=60000000");
    }

    #[test]
    fn a_rate_that_changes_is_told_anew() {
        let teller = RateTeller::default();
        let tell = |rate| {
            let fields = teller.tell(rate, Standing::default()).unwrap();
            fields.policy.to_str().unwrap().to_owned()
        };
        assert_eq!(tell(Rate::DEFAULT), "\"grant\";q=30;w=15");
        assert_eq!(tell(Rate::new(60, 1).unwrap()), "\"grant\";q=1;w=1");
        assert_eq!(tell(Rate::DEFAULT), "\"grant\";q=30;w=15");
    }
}
