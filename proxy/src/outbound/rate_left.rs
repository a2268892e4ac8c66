//! What a peer says is left of its limit (`RateLimit`, draft-ietf-httpapi-ratelimit-headers), for `status`.
//!
//! Invariant: it is shown, never acted on: only a 429 makes anybody wait, in `backoff.rs`.

use http::HeaderMap;

/// What the peer last said of its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLeft {
    /// Requests that are left.
    pub remaining: u64,
    /// When that changes, seconds from then.
    pub reset_s: Option<u64>,
}

impl RateLeft {
    /// Reads the first item of a `RateLimit` field (`"default";r=29;t=1`).
    #[must_use]
    pub fn parse(headers: &HeaderMap) -> Option<Self> {
        let item = headers.get("ratelimit")?.to_str().ok()?.split(',').next()?;
        let number = |key: &str| {
            let mut parameters = item.split(';').skip(1).map(str::trim);
            parameters.find_map(|one| one.strip_prefix(key)?.parse().ok())
        };
        Some(Self {
            remaining: number("r=")?,
            reset_s: number("t="),
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_left_is_read_from_the_first_item() {
        let parse = |text: &'static str| {
            RateLeft::parse(&HeaderMap::from_iter([(
                http::HeaderName::from_static("ratelimit"),
                HeaderValue::from_static(text),
            )]))
        };
        let left = |remaining, reset_s| Some(RateLeft { remaining, reset_s });
        assert_eq!(parse("\"default\";r=29;t=1"), left(29, Some(1)));
        assert_eq!(parse("\"a\"; r=0, \"b\";r=7"), left(0, None));
        for odd in ["", "\"default\"", "\"default\";r=-1", "r=5", "\"a\";r=x"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
        assert_eq!(RateLeft::parse(&HeaderMap::new()), None);
    }
}
