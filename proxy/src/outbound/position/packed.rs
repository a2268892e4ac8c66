//! Positions as bytes, short: a cursor over many sources has to fit into 8 KiB.
//!
//! Invariant: what is written is read back as it was, character for character; what has a shorter form that gives the
//! same text again (base64url, a UUID, an instant in UTC milliseconds) is kept in that form. Pure.
//!
//! Content: version, flags of what is lost, then one entry after another. Entry: flags, name, start cursor, last instant,
//! last id, each with its length unless the flags say that it is of fixed length; lengths are u16, big end first.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use policy::time::UnixMillis;
use uuid::Uuid;

use super::super::merge::Feed;
use super::super::page::Key;
use super::{Lost, Positions};

/// Version of the content; 1 was JSON.
const VERSION: u8 = 2;

const PARTIAL: u8 = 1;
const TRUNCATED: u8 = 1 << 1;

/// The page has a cursor.
const START: u8 = 1;
/// It is base64url without padding, kept decoded.
const START_PACKED: u8 = 1 << 1;
/// A row of it came out.
const LAST: u8 = 1 << 2;
/// Its instant is kept as milliseconds.
const INSTANT_PACKED: u8 = 1 << 3;
/// Its id is a UUID.
const ID_PACKED: u8 = 1 << 4;
const KNOWN: u8 = START | START_PACKED | LAST | INSTANT_PACKED | ID_PACKED;

/// The whole content.
pub(super) fn content<'a>(lost: Lost, entries: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let flags = flag(lost.partial, PARTIAL) | flag(lost.truncated, TRUNCATED);
    let mut out = vec![VERSION, flags];
    entries.for_each(|entry| out.extend_from_slice(entry));
    out
}

/// The position of one source; `None` for one that cannot be written: no text of it is that long.
pub(super) fn entry(feed: &Feed) -> Option<Vec<u8>> {
    let mut flags = 0;
    let mut fields = Vec::new();
    put(&mut fields, feed.name.as_bytes())?;
    if let Some(start) = &feed.start {
        flags |= START;
        match unpadded(start) {
            Some(bytes) => {
                flags |= START_PACKED;
                put(&mut fields, &bytes)?;
            }
            None => put(&mut fields, start.as_bytes())?,
        }
    }
    if let Some(last) = &feed.last {
        flags |= LAST;
        match millis(last) {
            Some(millis) => {
                flags |= INSTANT_PACKED;
                fields.extend_from_slice(&millis.to_be_bytes());
            }
            None => put(&mut fields, last.created_at.as_bytes())?,
        }
        match uuid(&last.id) {
            Some(uuid) => {
                flags |= ID_PACKED;
                fields.extend_from_slice(uuid.as_bytes());
            }
            None => put(&mut fields, last.id.as_bytes())?,
        }
    }
    fields.insert(0, flags);
    Some(fields)
}

/// Reads a content; `None` unless every byte of it is understood.
pub(super) fn positions(content: &[u8]) -> Option<Positions> {
    let [VERSION, flags, rest @ ..] = content else {
        return None;
    };
    let mut rest = Rest(rest);
    let mut feeds = Vec::new();
    while !rest.0.is_empty() {
        feeds.push(rest.feed()?);
    }
    Some(Positions {
        feeds,
        lost: Lost {
            partial: flags & PARTIAL != 0,
            truncated: flags & TRUNCATED != 0,
        },
    })
}

fn put(out: &mut Vec<u8>, field: &[u8]) -> Option<()> {
    out.extend_from_slice(&u16::try_from(field.len()).ok()?.to_be_bytes());
    out.extend_from_slice(field);
    Some(())
}

/// The bytes that give this text again.
fn unpadded(text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    (URL_SAFE_NO_PAD.encode(&bytes) == text).then_some(bytes)
}

fn millis(key: &Key) -> Option<i64> {
    let instant = UnixMillis::from_nanos(key.nanos);
    (instant.to_string() == key.created_at).then_some(instant.0)
}

fn uuid(text: &str) -> Option<Uuid> {
    let uuid = Uuid::parse_str(text).ok()?;
    (uuid.as_hyphenated().to_string() == text).then_some(uuid)
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn field(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(self.array()?);
        self.take(length.into())
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.field()?.to_vec()).ok()
    }

    fn feed(&mut self) -> Option<Feed> {
        let [flags] = self.array()?;
        if flags & !KNOWN != 0 {
            return None;
        }
        let is = |flag| flags & flag != 0;
        let name = self.text()?;
        let start = match (is(START), is(START_PACKED)) {
            (false, _) => None,
            (true, false) => Some(self.text()?),
            (true, true) => Some(URL_SAFE_NO_PAD.encode(self.field()?)),
        };
        let last = match is(LAST) {
            false => None,
            true => {
                let created_at = match is(INSTANT_PACKED) {
                    true => UnixMillis(i64::from_be_bytes(self.array()?)).to_string(),
                    false => self.text()?,
                };
                let id = match is(ID_PACKED) {
                    true => Uuid::from_bytes(self.array()?).as_hyphenated().to_string(),
                    false => self.text()?,
                };
                Some(Key::parse(&created_at, &id)?)
            }
        };
        Some(Feed::new(&name, start, last))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn written(feeds: &[Feed], lost: Lost) -> Vec<u8> {
        let entries: Vec<Vec<u8>> = feeds.iter().map(|feed| entry(feed).unwrap()).collect();
        content(lost, entries.iter().map(Vec::as_slice))
    }

    fn feed() -> impl Strategy<Value = Feed> {
        let start = prop_oneof!["[A-Za-z0-9_-]{0,40}", "\\PC{0,20}"];
        let instant = prop_oneof![
            Just("2026-01-01T00:00:01.000Z"),
            Just("2026-01-01T00:00:01Z"),
            Just("2026-01-01T02:00:01.000+02:00"),
            Just("2026-01-01T00:00:01.000001Z"),
            Just("1960-12-31T23:59:59.999Z"),
        ];
        let id = prop_oneof![
            "\\PC{1,20}",
            any::<u128>().prop_map(|n| Uuid::from_u128(n).to_string()),
            any::<u128>().prop_map(|n| Uuid::from_u128(n).to_string().to_uppercase()),
            any::<u128>().prop_map(|n| Uuid::from_u128(n).as_simple().to_string()),
        ];
        let last = (instant, id).prop_map(|(instant, id)| Key::parse(instant, &id).unwrap());
        (
            "[a-z-]{1,64}",
            prop::option::of(start),
            prop::option::of(last),
        )
            .prop_map(|(name, start, last)| Feed::new(&name, start, last))
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(
            feeds in prop::collection::vec(feed(), 0..8),
            partial: bool,
            truncated: bool,
        ) {
            let lost = Lost { partial, truncated };
            let opened = positions(&written(&feeds, lost)).unwrap();
            prop_assert_eq!((opened.feeds, opened.lost), (feeds, lost));
        }

        #[test]
        fn a_cut_or_changed_content_is_refused_or_read_and_never_worse(
            feeds in prop::collection::vec(feed(), 1..4),
            at: prop::sample::Index,
            to: u8,
        ) {
            let mut content = written(&feeds, Lost::default());
            let at = at.index(content.len());
            let cut = content.get(..at).unwrap();
            if let Some(opened) = positions(cut) {
                prop_assert!(opened.feeds.len() < feeds.len());
            }
            *content.get_mut(at).unwrap() = to;
            let _any = positions(&content);
        }
    }

    #[test]
    fn only_this_version_is_read() {
        for content in [
            &b""[..],
            &[2],
            &[1, 0],
            &[3, 0],
            br#"{"v":1,"p":false,"t":false,"s":[]}"#,
        ] {
            assert_eq!(positions(content), None, "{content:?}");
        }
        assert!(positions(&[VERSION, 0]).is_some());
    }
}
