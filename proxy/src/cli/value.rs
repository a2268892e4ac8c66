//! Values of arguments: texts to types.
//!
//! Invariant: what is wrong is said in a few words that show the right form.

use std::net::SocketAddr;

use ::policy::time::UnixMillis;
use serde_json::Value;

/// `KEY=VALUE` with a key.
pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    if key.is_empty() {
        return Err("write it as KEY=VALUE".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// A whole number with `s`, `m`, `h` or `d`, as seconds.
pub(super) fn duration(text: &str) -> Result<u32, String> {
    let seconds = match text.chars().next_back() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err("write it as 900s, 15m, 12h or 30d".to_owned()),
    };
    let digits = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    let number: u32 = digits
        .parse()
        .map_err(|_| "write it as 900s, 15m, 12h or 30d".to_owned())?;
    match number.checked_mul(seconds) {
        Some(total) if total > 0 => Ok(total),
        Some(_) => Err("it must be longer than nothing".to_owned()),
        None => Err("it is too long".to_owned()),
    }
}

/// An instant, as it is written: from now, or on the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instant {
    /// So many seconds ago.
    Ago(u32),
    /// This one.
    At(UnixMillis),
}

impl Instant {
    /// The member of a question to the sidecar, whose clock counts, and its value: `since_s` or `since`.
    pub(super) fn member(self, name: &str) -> (String, Value) {
        match self {
            Self::Ago(seconds) => (format!("{name}_s"), seconds.into()),
            Self::At(instant) => (name.to_owned(), instant.to_string().into()),
        }
    }
}

/// How long ago, or RFC 3339.
pub(super) fn instant(text: &str) -> Result<Instant, String> {
    if let Ok(seconds) = duration(text) {
        return Ok(Instant::Ago(seconds));
    }
    time(text).map(Instant::At).map_err(|_| {
        "write it as 15m, 12h or 30d for so long ago, or as 2026-01-02T03:04:05Z".to_owned()
    })
}

/// RFC 3339.
pub(super) fn time(text: &str) -> Result<UnixMillis, String> {
    text.parse()
        .map_err(|_| "write it as 2026-01-02T03:04:05Z or 2026-01-02T03:04:05+01:00".to_owned())
}

/// `http://` with a loopback address and a port.
pub(super) fn loopback_url(text: &str) -> Result<SocketAddr, String> {
    let plain = text.strip_prefix("http://").unwrap_or_default();
    let address: Option<SocketAddr> = plain.trim_end_matches('/').parse().ok();
    address
        .filter(|address| address.ip().is_loopback())
        .ok_or_else(|| "write it as http://127.0.0.1:8480 or http://[::1]:8480".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("900s"), Ok(900));
        assert_eq!(duration("15m"), Ok(900));
        assert_eq!(duration("12h"), Ok(43_200));
        assert_eq!(duration("30d"), Ok(2_592_000));
        for wrong in [
            "",
            "s",
            "5",
            "0s",
            "-1s",
            "1.5h",
            "1w",
            "99999999d",
            "1\u{e9}",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn instants_are_long_ago_or_on_the_calendar() {
        assert_eq!(instant("12h"), Ok(Instant::Ago(43_200)));
        let noon = UnixMillis(1_767_355_200_000);
        assert_eq!(instant("2026-01-02T12:00:00Z"), Ok(Instant::At(noon)));
        assert_eq!(
            instant("2026-01-02T13:00:00.000+01:00"),
            Ok(Instant::At(noon))
        );
        assert_eq!(
            Instant::At(noon).member("since"),
            ("since".to_owned(), "2026-01-02T12:00:00.000Z".into())
        );
        assert_eq!(
            Instant::Ago(60).member("since"),
            ("since_s".to_owned(), 60.into())
        );
        for wrong in ["", "0s", "yesterday", "2026-01-02", "2026-13-02T12:00:00Z"] {
            assert!(instant(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_door_is_on_this_machine() {
        assert!(loopback_url("http://127.0.0.1:8480/").is_ok());
        assert!(loopback_url("http://[::1]:8480").is_ok());
        for wrong in [
            "127.0.0.1:8480",
            "http://10.0.0.1:8480",
            "https://127.0.0.1:1",
            "http://localhost:8480",
            "",
        ] {
            assert!(loopback_url(wrong).is_err(), "{wrong}");
        }
    }
}
