//! Values of arguments: texts to types.
//!
//! Invariant: what is wrong is said in a few words that show the right form.

use std::net::SocketAddr;

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
