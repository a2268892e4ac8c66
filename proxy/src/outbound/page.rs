//! One source's page of a list, taken apart for merging.
//!
//! Invariant: a page is whole or a fault. Each of its rows has an `id` and a `createdAt`, neither twice; the rows of a
//! source that declares its order are newest first, and those of any other are put into that order here. Rows are
//! slices of the page, never re-encoded.
//!
//! Bounds on size, rows and depth were kept when the page was read (`answer.rs`); merging is in `merge.rs`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::VecDeque;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::AnswerFault;

/// By what rows are ordered: instant, then id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) nanos: i64,
    pub(super) id: String,
    /// The instant as it was written.
    pub(super) created_at: String,
}

impl Key {
    /// A key as it is written down.
    pub(super) fn parse(created_at: &str, id: &str) -> Option<Self> {
        let nanos = policy::time::parse_rfc3339_nanos(created_at.as_bytes()).ok()?;
        Some(Self {
            nanos,
            id: id.to_owned(),
            created_at: created_at.to_owned(),
        })
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.nanos, &self.id).cmp(&(other.nanos, &other.id))
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) text: Bytes,
}

/// A page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// Newest first.
    pub(super) rows: VecDeque<Row>,
    /// Where the source goes on.
    pub(super) next: Option<String>,
    pub(super) partial: bool,
    pub(super) truncated: bool,
}

#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    #[serde(rename = "nextCursor", default)]
    next: Option<String>,
    #[serde(rename = "_partial", default)]
    partial: bool,
    #[serde(rename = "_truncated", default)]
    truncated: bool,
}

#[derive(Deserialize)]
struct WrittenKey<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(rename = "createdAt", borrow)]
    created_at: Cow<'a, str>,
}

impl Page {
    /// Reads a page; `ordered` says whether its source declares that its rows are newest first.
    ///
    /// # Errors
    /// [`AnswerFault::Malformed`], also for rows that are not in the order declared.
    pub(super) fn parse(body: &Bytes, ordered: bool) -> Result<Self, AnswerFault> {
        let written: Written<'_> =
            serde_json::from_slice(body).map_err(|_| AnswerFault::Malformed)?;
        let mut rows = VecDeque::with_capacity(written.items.len());
        for item in written.items {
            let key: WrittenKey<'_> =
                serde_json::from_str(item.get()).map_err(|_| AnswerFault::Malformed)?;
            let key = Key::parse(&key.created_at, &key.id).ok_or(AnswerFault::Malformed)?;
            let newer = |last: &Row| key.nanos > last.key.nanos;
            if ordered && rows.back().is_some_and(newer) {
                return Err(AnswerFault::Malformed);
            }
            rows.push_back(Row {
                key,
                text: body.slice_ref(item.get().as_bytes()),
            });
        }
        if !ordered {
            rows.make_contiguous().sort_by(|a, b| b.key.cmp(&a.key));
        }
        Ok(Self {
            rows,
            next: written.next,
            partial: written.partial,
            truncated: written.truncated,
        })
    }

    /// Drops what was shown before, up to the row `last`; false when that row is not on this page, so that the next one
    /// may still hold rows that were shown.
    ///
    /// The row is looked for by what it is, since a source may order more finely than its instants are written. Where
    /// it is gone, its key decides.
    pub(super) fn skip_through(&mut self, last: &Key) -> bool {
        if let Some(at) = self.rows.iter().position(|row| row.key == *last) {
            self.rows.drain(..=at);
            return true;
        }
        let before = self.rows.iter().take_while(|row| row.key >= *last).count();
        self.rows.drain(..before);
        !self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn page(items: &[(&str, &str)], ordered: bool) -> Result<Page, AnswerFault> {
        let items: Vec<Value> = items
            .iter()
            .map(|(created, id)| json!({"_source": "work", "id": id, "createdAt": created, "n": 1.50}))
            .collect();
        let body =
            json!({"items": items, "nextCursor": "c", "_partial": false, "_truncated": true});
        Page::parse(&Bytes::from(body.to_string()), ordered)
    }

    fn ids(page: &Page) -> Vec<&str> {
        page.rows.iter().map(|row| row.key.id.as_str()).collect()
    }

    const T1: &str = "2026-01-01T00:00:01.000Z";
    const T2: &str = "2026-01-01T00:00:02.000Z";
    const T3: &str = "2026-01-01T00:00:03.000Z";

    #[test]
    fn rows_are_slices_with_their_keys() {
        let page = page(&[(T2, "b"), (T1, "a")], true).unwrap();
        assert_eq!(ids(&page), ["b", "a"]);
        assert_eq!((page.next.as_deref(), page.truncated), (Some("c"), true));
        let row: Value = serde_json::from_slice(&page.rows.front().unwrap().text).unwrap();
        assert_eq!(row["id"], "b");
    }

    #[test]
    fn a_declared_order_is_held_to() {
        assert_eq!(
            page(&[(T1, "a"), (T2, "b")], true),
            Err(AnswerFault::Malformed)
        );
        assert_eq!(
            ids(&page(&[(T1, "a"), (T2, "b")], false).unwrap()),
            ["b", "a"]
        );
        // Within one instant as written, the source knows better.
        assert_eq!(
            ids(&page(&[(T1, "a"), (T1, "b")], true).unwrap()),
            ["a", "b"]
        );
    }

    #[test]
    fn a_row_without_a_key_is_a_fault() {
        for items in [
            r#"[{"createdAt":"2026-01-01T00:00:01.000Z"}]"#,
            r#"[{"id":"1"}]"#,
            r#"[{"id":1,"createdAt":"2026-01-01T00:00:01.000Z"}]"#,
            r#"[{"id":"1","createdAt":"yesterday"}]"#,
            r#"[{"id":"1","id":"2","createdAt":"2026-01-01T00:00:01.000Z"}]"#,
            r#"[[]]"#,
            r#"{}"#,
        ] {
            let body = Bytes::from(format!("{{\"items\":{items}}}"));
            assert_eq!(
                Page::parse(&body, true),
                Err(AnswerFault::Malformed),
                "{items}"
            );
        }
    }

    #[test]
    fn what_was_shown_is_skipped_by_the_row_itself() {
        let last = |created, id| Key::parse(created, id).unwrap();
        let whole = page(&[(T3, "c"), (T2, "x"), (T2, "z"), (T1, "a")], true).unwrap();
        let mut after = whole.clone();
        assert!(after.skip_through(&last(T2, "x")));
        assert_eq!(ids(&after), ["z", "a"], "z was not shown, whatever its id");
        let mut gone = whole.clone();
        assert!(gone.skip_through(&last(T2, "y")));
        assert_eq!(
            ids(&gone),
            ["x", "z", "a"],
            "z is behind x, and x is below y"
        );
        let mut newer = whole;
        assert!(!newer.skip_through(&last("2025-01-01T00:00:00.000Z", "q")));
        assert!(
            newer.rows.is_empty(),
            "rows made since then push the page down"
        );
    }
}
