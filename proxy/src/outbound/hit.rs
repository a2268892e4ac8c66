//! One hit of a peer's search, rewritten: its row as any other row, its resource and score checked.
//!
//! Invariant: nothing of the peer's hit is copied but the name of a resource, a number, and a row that was rewritten.
//!
//! Rewriting a row is in `rewrite.rs`; finding hits in an answer in `answer.rs`.

use std::borrow::Cow;

use policy::resource::Resource;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::rewrite::{RowFault, rewrite_object};

#[derive(Deserialize)]
struct Hit<'a> {
    #[serde(borrow)]
    resource: Cow<'a, str>,
    #[serde(borrow)]
    item: &'a RawValue,
    #[serde(borrow)]
    score: &'a RawValue,
}

/// Rewrites `hit` onto `out`, its row tagged as that of `source`.
///
/// # Errors
/// [`RowFault`] when it is no hit, or names no resource of this protocol; `out` then ends in rubbish and must not be
/// used.
pub(super) fn rewrite_hit(hit: &[u8], source: &str, out: &mut Vec<u8>) -> Result<(), RowFault> {
    let hit: Hit<'_> = serde_json::from_slice(hit).map_err(|_| RowFault)?;
    let resource = Resource::parse(&hit.resource).map_err(|_| RowFault)?;
    let score = hit.score.get();
    let is_number = score.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if !is_number || !serde_json::from_str::<f64>(score).is_ok_and(f64::is_finite) {
        return Err(RowFault);
    }
    out.extend_from_slice(format!("{{\"resource\":\"{resource}\",\"item\":").as_bytes());
    rewrite_object(hit.item.get().as_bytes(), Some(source), out)?;
    out.extend_from_slice(format!(",\"score\":{score}}}").as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(hit: &str) -> Option<String> {
        let mut out = Vec::new();
        rewrite_hit(hit.as_bytes(), "work", &mut out).ok()?;
        String::from_utf8(out).ok()
    }

    #[test]
    fn a_hit_keeps_resource_row_and_score() {
        assert_eq!(
            rewritten(
                r#"{ "score": 1.250000, "_x": 1, "item": {"_source":"local","id":"1","_y":{}}, "resource": "tasks", "z": [] }"#
            )
            .as_deref(),
            Some(
                r#"{"resource":"tasks","item":{"_source":"work","id":"1"},"score":1.250000}"#
            )
        );
    }

    #[test]
    fn anything_else_is_a_fault() {
        for hit in [
            "{}",
            "[]",
            r#"{"resource":"tasks","score":1}"#,
            r#"{"resource":"tasks","item":{}}"#,
            r#"{"item":{},"score":1}"#,
            r#"{"resource":"users","item":{},"score":1}"#,
            r#"{"resource":"x\"y","item":{},"score":1}"#,
            r#"{"resource":"tasks","item":[],"score":1}"#,
            r#"{"resource":"tasks","item":{},"score":"1"}"#,
            r#"{"resource":"tasks","item":{},"score":null}"#,
            r#"{"resource":"tasks","item":{},"score":1e999}"#,
            r#"{"resource":"tasks","resource":"notes","item":{},"score":1}"#,
        ] {
            assert_eq!(rewritten(hit), None, "{hit}");
        }
    }
}
