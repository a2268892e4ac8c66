//! The cursor over several sources: where each of them is read on.
//!
//! Invariant: it is sealed, opens only for the user and the question it was made for, and has at most
//! [`MAX_CURSOR`] characters; whatever else is sent is one error, with no hint why. A cursor of a peer within it is an
//! opaque text of that peer's and goes back to that peer only.

use certs::seal::PageSealer;
use policy::id::UserId;
use policy::query_hash::QueryHash;
use policy::resource::Resource;
use policy::verb::Verb;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::merge::Feed;
use super::page::Key;
use super::query::Query;

/// Version of the content.
const VERSION: u8 = 1;
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

#[derive(Serialize, Deserialize)]
struct Content {
    v: u8,
    p: bool,
    t: bool,
    s: Vec<Entry>,
}

/// Name, cursor of the page, instant and id of the row that came out last.
#[derive(Serialize, Deserialize)]
struct Entry(String, Option<String>, Option<(String, String)>);

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

/// Seals positions; `None` when they do not fit into a cursor.
pub(super) fn seal(
    sealer: &PageSealer,
    feeds: &[&Feed],
    lost: Lost,
    bound: &[u8],
) -> Option<String> {
    let entry = |feed: &&Feed| {
        let last = feed.last.as_ref();
        let last = last.map(|key| (key.created_at.clone(), key.id.clone()));
        Entry(feed.name.clone(), feed.start.clone(), last)
    };
    let content = Content {
        v: VERSION,
        p: lost.partial,
        t: lost.truncated,
        s: feeds.iter().map(entry).collect(),
    };
    let content = serde_json::to_vec(&content).ok()?;
    sealer.seal(&content, bound).ok()
}

/// Opens a cursor; `None` for one that is not good here.
pub(super) fn open(sealer: &PageSealer, text: &str, bound: &[u8]) -> Option<Positions> {
    let content = sealer.open(text, bound).ok()?;
    let content: Content = serde_json::from_slice(&content).ok()?;
    if content.v != VERSION {
        return None;
    }
    let feeds = content.s.into_iter().map(|Entry(name, start, last)| {
        let last = match last {
            None => None,
            Some((created_at, id)) => Some(Key::parse(&created_at, &id)?),
        };
        Some(Feed::new(&name, start, last))
    });
    Some(Positions {
        feeds: feeds.collect::<Option<_>>()?,
        lost: Lost {
            partial: content.p,
            truncated: content.t,
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use certs::seal::CursorKey;
    use serde_json::json;

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
        let text = seal(&sealer, &feeds.iter().collect::<Vec<_>>(), lost, &bound).unwrap();
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

    #[test]
    fn a_cursor_has_a_longest() {
        let long = Feed::new("work", Some("x".repeat(1024)), None);
        let bound = binding(&user("amira"), &query(json!({})));
        let fit: Vec<&Feed> = std::iter::repeat_n(&long, 5).collect();
        let text = seal(&sealer(1), &fit, Lost::default(), &bound).unwrap();
        assert!(text.len() > 1024 && text.len() <= MAX_CURSOR);
        let more: Vec<&Feed> = std::iter::repeat_n(&long, 6).collect();
        assert_eq!(seal(&sealer(1), &more, Lost::default(), &bound), None);
    }
}
