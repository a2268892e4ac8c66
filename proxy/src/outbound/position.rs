//! The cursor over several sources: where each of them is read on.
//!
//! Invariant: it is sealed, opens only for the user and the question it was made for, and has at most
//! [`MAX_CURSOR`](super::query::MAX_CURSOR) characters; whatever else is sent is one error, with no hint why. A cursor
//! of a peer within it is an opaque text of that peer's and goes back to that peer only. A source whose position has no
//! room is named, and later pages say that something is missing.
//!
//! How a position is written is in `position/packed.rs`.

mod packed;

use certs::seal::{CursorError, PageSealer};
use policy::id::UserId;
use policy::query_hash::QueryHash;
use policy::resource::Resource;
use policy::verb::Verb;
use serde_json::Value;

use super::merge::Feed;
use super::query::Query;

/// Begins what a cursor is bound to, so that no cursor of one source is ever taken for one over several.
const PURPOSE: &[u8] = b"merged";

/// Where a list over several sources is read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Positions {
    pub(super) feeds: Vec<Feed>,
    pub(super) lost: Lost,
}

/// What was left out for good, on this page or an earlier one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// A source, or part of one: `_partial`.
    pub(super) partial: bool,
    /// Rows that a source still has: `_truncated`.
    pub(super) truncated: bool,
}

/// What a cursor is good for.
pub(super) fn binding(user: &UserId, query: &Query) -> Vec<u8> {
    let resource = query
        .route
        .resource()
        .and_then(|name| Resource::parse(name).ok());
    let mut params = query.params.clone();
    // A later page may be of another size.
    params.remove("limit");
    let hash = QueryHash::of(Verb::List, resource, &Value::Object(params), None);
    let name = query.route.resource().unwrap_or_default();
    let mut bound = Vec::new();
    for field in [
        PURPOSE,
        user.as_str().as_bytes(),
        name.as_bytes(),
        hash.as_bytes(),
    ] {
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        bound.extend_from_slice(&length.to_be_bytes());
        bound.extend_from_slice(field);
    }
    bound
}

/// A cursor, and the sources for whose position it has no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) text: String,
    pub(super) left_out: Vec<String>,
}

/// Seals positions. Where they do not all fit, the longest are left out, of equal ones the last, and what is left out
/// is lost to every later page; `None` when none can be sealed.
pub(super) fn seal(
    sealer: &PageSealer,
    feeds: &[&Feed],
    lost: Lost,
    bound: &[u8],
) -> Option<Sealed> {
    let mut entries: Vec<(&str, Vec<u8>)> = feeds
        .iter()
        .filter_map(|feed| Some((feed.name.as_str(), packed::entry(feed)?)))
        .collect();
    while !entries.is_empty() {
        let is_whole = entries.len() == feeds.len();
        let lost = Lost {
            partial: lost.partial || !is_whole,
            truncated: lost.truncated || !is_whole,
        };
        let content = packed::content(lost, entries.iter().map(|(_, entry)| entry.as_slice()));
        match sealer.seal(&content, bound) {
            Ok(text) => {
                let is_in = |feed: &&&Feed| entries.iter().any(|(name, _)| *name == feed.name);
                let left_out = feeds.iter().filter(|feed| !is_in(feed));
                let left_out = left_out.map(|feed| feed.name.clone()).collect();
                return Some(Sealed { text, left_out });
            }
            Err(CursorError::TooLong) => {
                let sizes = entries.iter().map(|(_, entry)| entry.len()).enumerate();
                let (longest, _) = sizes.max_by_key(|(_, size)| *size)?;
                entries.remove(longest);
            }
            Err(_) => return None,
        }
    }
    None
}

/// Opens a cursor; `None` for one that is not good here.
pub(super) fn open(sealer: &PageSealer, text: &str, bound: &[u8]) -> Option<Positions> {
    packed::positions(&sealer.open(text, bound).ok()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use certs::seal::CursorKey;
    use serde_json::json;

    use super::super::page::Key;
    use super::super::query::MAX_CURSOR;
    use super::*;

    fn sealer(key: u8) -> PageSealer {
        let key = CursorKey::from_bytes(1, &[key; 32]).unwrap();
        PageSealer::new(&key, None).unwrap().for_longest(MAX_CURSOR)
    }

    fn query(params: Value) -> Query {
        let body = json!({"source": "all", "verb": "list", "resource": "tasks", "params": params});
        Query::parse(body.to_string().as_bytes()).unwrap()
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn feeds() -> Vec<Feed> {
        let last = Key::parse("2026-01-01T00:00:01.000Z", "t-1").unwrap();
        vec![
            Feed::new("local", None, Some(last)),
            Feed::new("work", Some("theirs".to_owned()), None),
        ]
    }

    #[test]
    fn positions_come_back_for_their_user_and_question_only() {
        let sealer = sealer(1);
        let bound = binding(&user("amira"), &query(json!({"limit": 5})));
        let feeds = feeds();
        let lost = Lost {
            partial: true,
            truncated: false,
        };
        let kept: Vec<&Feed> = feeds.iter().collect();
        let Sealed { text, left_out } = seal(&sealer, &kept, lost, &bound).unwrap();
        assert!(left_out.is_empty());
        let opened = open(&sealer, &text, &bound).unwrap();
        assert_eq!((opened.feeds, opened.lost), (feeds, lost));
        let other_size = binding(&user("amira"), &query(json!({"limit": 9})));
        assert!(open(&sealer, &text, &other_size).is_some());
        for foreign in [
            binding(&user("ben"), &query(json!({}))),
            binding(
                &user("amira"),
                &query(json!({"filter": {"status": "open"}})),
            ),
            Vec::new(),
        ] {
            assert_eq!(open(&sealer, &text, &foreign), None);
        }
        assert_eq!(open(&self::sealer(2), &text, &bound), None);
        let mut changed = text.clone().into_bytes();
        *changed.last_mut().unwrap() ^= 1;
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(open(&sealer, &changed, &bound), None);
    }

    /// As many positions as a gateway of this product gives.
    fn ordinary(count: usize) -> Vec<Feed> {
        let instant = "2026-01-01T00:00:01.000Z";
        let id = |n: usize| uuid::Uuid::from_u128(n as u128).to_string();
        let cursor = |n: usize| {
            let content = format!("12{instant}{}", id(n));
            let theirs = sealer(9).seal(content.as_bytes(), b"theirs");
            theirs.unwrap()
        };
        let feed = |n| {
            let last = Key::parse(instant, &id(n)).unwrap();
            Feed::new(&format!("peer-{n:03}"), Some(cursor(n)), Some(last))
        };
        (0..count).map(feed).collect()
    }

    #[test]
    fn forty_peers_of_this_product_fit() {
        let bound = binding(&user("amira"), &query(json!({})));
        let feeds = ordinary(40);
        let kept: Vec<&Feed> = feeds.iter().collect();
        let sealed = seal(&sealer(1), &kept, Lost::default(), &bound).unwrap();
        assert!(sealed.text.len() <= MAX_CURSOR && sealed.left_out.is_empty());
        let opened = open(&sealer(1), &sealed.text, &bound).unwrap();
        assert_eq!((opened.feeds, opened.lost), (feeds, Lost::default()));
    }

    #[test]
    fn what_does_not_fit_is_named_and_missed_by_every_later_page() {
        let bound = binding(&user("amira"), &query(json!({})));
        let mut feeds = ordinary(5);
        feeds.extend((0..9).map(|n| {
            let long = format!("{n}{}", "%".repeat(1_023 - n));
            Feed::new(&format!("long-{n}"), Some(long), None)
        }));
        let kept: Vec<&Feed> = feeds.iter().collect();
        let sealed = seal(&sealer(1), &kept, Lost::default(), &bound).unwrap();
        assert!(sealed.text.len() <= MAX_CURSOR);
        assert_eq!(sealed.left_out[0], "long-0", "the longest go first");
        assert!(sealed.left_out.iter().all(|name| name.starts_with("long-")));
        let opened = open(&sealer(1), &sealed.text, &bound).unwrap();
        assert_eq!(opened.feeds.len() + sealed.left_out.len(), feeds.len());
        assert!(opened.feeds.len() > 9, "no more is left out than must be");
        let missed = Lost {
            partial: true,
            truncated: true,
        };
        assert_eq!(opened.lost, missed);
        // One alone that fits nowhere.
        let huge = Feed::new("work", Some("%".repeat(MAX_CURSOR)), None);
        assert_eq!(seal(&sealer(1), &[&huge], Lost::default(), &bound), None);
    }
}
