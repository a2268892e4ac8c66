//! Instants: milliseconds since the Unix epoch, and RFC 3339 in and out.
//!
//! Invariant: what is printed here parses back to the same instant, and only RFC 3339 parses (section 5.6 of that
//! standard), because a row without a sound instant is withheld and a lenient reading would reorder rows.
//! Elsewhere on purpose: reading a clock. `now` is always an argument.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const DAY_SECONDS: i64 = 86_400;
const NANOS_PER_SECOND: i64 = 1_000_000_000;
const NANOS_PER_MILLI: i64 = 1_000_000;
/// 0000-01-01T00:00:00.000Z.
const FIRST_MILLI: i64 = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z.
const LAST_MILLI: i64 = 253_402_300_799_999;

/// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixMillis(pub i64);

/// The text is not an RFC 3339 date-time that fits into 64 bits of nanoseconds (years 1677 to 2262).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 date-time: write it as 2026-01-02T03:04:05.678Z")]
pub struct TimeError;

/// An instant as RFC 3339 text in UTC with milliseconds; 24 bytes on the stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rfc3339([u8; 24]);

impl UnixMillis {
    /// The instant that holds the given nanoseconds since the epoch, rounded towards the past.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos.div_euclid(NANOS_PER_MILLI))
    }

    /// `2026-01-02T03:04:05.678Z`. Instants outside the years 0 to 9999 print as the nearest one inside.
    #[must_use]
    pub fn rfc3339(self) -> Rfc3339 {
        let millis = self.0.clamp(FIRST_MILLI, LAST_MILLI);
        let (days, of_day) = (
            millis.div_euclid(DAY_SECONDS * 1000),
            millis.rem_euclid(DAY_SECONDS * 1000),
        );
        let (year, month, day) = civil_of_days(days);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |places: &[usize], mut value: i64| {
            for &at in places.iter().rev() {
                if let Some(slot) = text.get_mut(at) {
                    *slot = digit(value % 10);
                }
                value /= 10;
            }
        };
        put(&[0, 1, 2, 3], year);
        put(&[5, 6], month);
        put(&[8, 9], day);
        put(&[11, 12], of_day / 3_600_000);
        put(&[14, 15], of_day / 60_000 % 60);
        put(&[17, 18], of_day / 1000 % 60);
        put(&[20, 21, 22], of_day % 1000);
        Rfc3339(text)
    }

    /// The instant `millis` later; stays at the end of time instead of wrapping.
    #[must_use]
    pub const fn saturating_add(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this instant; negative when it is later, saturating.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

const fn digit(value: i64) -> u8 {
    match value {
        1 => b'1',
        2 => b'2',
        3 => b'3',
        4 => b'4',
        5 => b'5',
        6 => b'6',
        7 => b'7',
        8 => b'8',
        9 => b'9',
        _ => b'0',
    }
}

impl Rfc3339 {
    /// The text as bytes, all ASCII.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 24] {
        &self.0
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII digits and punctuation are ever written, so the fallback is never taken.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rfc3339().as_str())
    }
}

impl FromStr for UnixMillis {
    type Err = TimeError;

    /// Parses RFC 3339; finer digits than milliseconds are dropped.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        parse_rfc3339_nanos(text.as_bytes()).map(Self::from_nanos)
    }
}

impl Serialize for UnixMillis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.rfc3339().as_str())
    }
}

impl<'de> Deserialize<'de> for UnixMillis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for UnixMillis {
    fn schema_name() -> Cow<'static, str> {
        "UnixMillis".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// Parses an RFC 3339 date-time to nanoseconds since the epoch.
///
/// `T` and `Z` may be lower case; an offset is required; the date and time must exist. Leap seconds (`:60`) have no
/// place on the Unix time line and are refused. Digits past the ninth of the fraction are checked and dropped.
///
/// # Errors
/// [`TimeError`] for everything else, and for years outside 1677 to 2262, where 64 bits end.
#[inline]
pub fn parse_rfc3339_nanos(text: &[u8]) -> Result<i64, TimeError> {
    let (head, tail) = text.split_first_chunk::<19>().ok_or(TimeError)?;
    let [
        y0,
        y1,
        y2,
        y3,
        b'-',
        m0,
        m1,
        b'-',
        d0,
        d1,
        b'T' | b't',
        h0,
        h1,
        b':',
        n0,
        n1,
        b':',
        s0,
        s1,
    ] = *head
    else {
        return Err(TimeError);
    };
    let year = two(y0, y1)? * 100 + two(y2, y3)?;
    let (month, day) = (two(m0, m1)?, two(d0, d1)?);
    let (hour, minute, second) = (two(h0, h1)?, two(n0, n1)?, two(s0, s1)?);
    let real = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !real {
        return Err(TimeError);
    }
    let (fraction, zone) = split_fraction(tail)?;
    let offset_seconds = parse_zone(zone)?;
    let seconds =
        days_of_civil(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second
            - offset_seconds;
    nanos_of(seconds, fraction).ok_or(TimeError)
}

/// Seconds and a fraction of 0..1e9 nanoseconds, without leaving 64 bits on the way.
fn nanos_of(seconds: i64, fraction: i64) -> Option<i64> {
    if seconds < 0 && fraction > 0 {
        // The product alone may not fit just below the smallest instant that does.
        let up = (seconds + 1).checked_mul(NANOS_PER_SECOND)?;
        return up.checked_add(fraction - NANOS_PER_SECOND);
    }
    seconds.checked_mul(NANOS_PER_SECOND)?.checked_add(fraction)
}

fn one(byte: u8) -> Result<i64, TimeError> {
    if byte.is_ascii_digit() {
        Ok(i64::from(byte - b'0'))
    } else {
        Err(TimeError)
    }
}

fn two(tens: u8, ones: u8) -> Result<i64, TimeError> {
    Ok(one(tens)? * 10 + one(ones)?)
}

/// Splits `.678Z` into nanoseconds and the zone.
#[inline]
fn split_fraction(tail: &[u8]) -> Result<(i64, &[u8]), TimeError> {
    // Milliseconds, as most gateways write.
    if let [b'.', a, b, c, zone @ ..] = tail
        && matches!(zone, [b'Z'])
    {
        return Ok(((one(*a)? * 100 + two(*b, *c)?) * 1_000_000, zone));
    }
    let Some((b'.', rest)) = tail.split_first() else {
        return Ok((0, tail));
    };
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (figures, zone) = rest.split_at_checked(digits).ok_or(TimeError)?;
    if figures.is_empty() {
        return Err(TimeError);
    }
    let mut nanos = 0;
    for place in 0..9 {
        nanos = nanos * 10 + figures.get(place).map_or(Ok(0), |&b| one(b))?;
    }
    Ok((nanos, zone))
}

/// Seconds east of UTC.
fn parse_zone(zone: &[u8]) -> Result<i64, TimeError> {
    match *zone {
        [b'Z' | b'z'] => Ok(0),
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (two(h0, h1)?, two(m0, m1)?);
            if hours > 23 || minutes > 59 {
                return Err(TimeError);
            }
            let seconds = hours * 3600 + minutes * 60;
            Ok(if sign == b'-' { -seconds } else { seconds })
        }
        _ => Err(TimeError),
    }
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar. Years are counted from March, so that the
/// leap day is the last of its year, in eras of 400 years (146,097 days).
const fn days_of_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_of_civil`].
const fn civil_of_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests;
