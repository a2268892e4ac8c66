//! Instants against known values, and the laws of printing and parsing.
#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

fn nanos(text: &str) -> Result<i64, TimeError> {
    parse_rfc3339_nanos(text.as_bytes())
}

#[test]
fn known_instants() {
    assert_eq!(nanos("1970-01-01T00:00:00Z"), Ok(0));
    assert_eq!(
        nanos("2026-01-02T03:04:05.678Z"),
        Ok(1_767_323_045_678_000_000)
    );
    assert_eq!(
        nanos("2026-01-02t05:04:05.678+02:00"),
        Ok(1_767_323_045_678_000_000)
    );
    assert_eq!(
        nanos("2024-02-29T23:59:59.999999999z"),
        Ok(1_709_251_199_999_999_999)
    );
    assert_eq!(nanos("1969-12-31T23:59:59.9Z"), Ok(-100_000_000));
    assert_eq!(
        nanos("2000-01-01T00:00:00.1234567899Z"),
        Ok(946_684_800_123_456_789)
    );
    assert_eq!(
        UnixMillis(1_767_323_045_678).to_string(),
        "2026-01-02T03:04:05.678Z"
    );
    assert_eq!(UnixMillis(-1).to_string(), "1969-12-31T23:59:59.999Z");
    assert_eq!(UnixMillis(i64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    assert_eq!(UnixMillis(i64::MIN).to_string(), "0000-01-01T00:00:00.000Z");
}

#[test]
fn the_ends_of_sixty_four_bits() {
    assert_eq!(nanos("2262-04-11T23:47:16.854775807Z"), Ok(i64::MAX));
    assert_eq!(nanos("2262-04-11T23:47:16.854775808Z"), Err(TimeError));
    assert_eq!(nanos("1677-09-21T00:12:43.145224192Z"), Ok(i64::MIN));
    assert_eq!(nanos("1677-09-21T00:12:43.145224191Z"), Err(TimeError));
}

#[test]
fn what_is_not_rfc3339_is_refused() {
    for text in [
        "",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05,5Z",
        "2026-01-02T03:04Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:60:00Z",
        "2016-12-31T23:59:60Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-01-02T03:04:05+0200",
        "2026-01-02T03:04:05+24:00",
        "2026-01-02T03:04:05+02:60",
        "2026-01-02T03:04:05ZZ",
        "+026-01-02T03:04:05Z",
        "12026-01-02T03:04:05Z",
        "0001-01-01T00:00:00Z",
        " 2026-01-02T03:04:05Z",
    ] {
        assert_eq!(nanos(text), Err(TimeError), "{text}");
    }
}

#[test]
fn every_day_of_four_centuries_follows_the_one_before() {
    let (mut year, mut month, mut day) = (1800, 1, 1);
    for days in days_of_civil(1800, 1, 1)..days_of_civil(2200, 1, 1) {
        assert_eq!(civil_of_days(days), (year, month, day));
        assert_eq!(days_of_civil(year, month, day), days);
        day += 1;
        if day > days_in_month(year, month) {
            (day, month) = (1, month + 1);
        }
        if month > 12 {
            (month, year) = (1, year + 1);
        }
    }
}

proptest! {
    #[test]
    fn printing_parses_back(millis in -9_223_372_036_854i64..=9_223_372_036_854) {
        let text = UnixMillis(millis).to_string();
        prop_assert_eq!(text.parse::<UnixMillis>().unwrap(), UnixMillis(millis));
    }

    #[test]
    fn text_order_is_time_order(a in FIRST_MILLI..=LAST_MILLI, b in FIRST_MILLI..=LAST_MILLI) {
        let (x, y) = (UnixMillis(a).to_string(), UnixMillis(b).to_string());
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
    }

    #[test]
    fn an_offset_only_shifts(millis in 0i64..4_000_000_000_000, hours in 0i64..24, minutes in 0i64..60) {
        let shift = (hours * 60 + minutes) * 60_000;
        let local = UnixMillis(millis + shift).to_string();
        let text = format!("{}+{hours:02}:{minutes:02}", local.trim_end_matches('Z'));
        prop_assert_eq!(text.parse::<UnixMillis>().unwrap(), UnixMillis(millis));
    }

    #[test]
    fn parsing_never_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = parse_rfc3339_nanos(&text);
    }
}
