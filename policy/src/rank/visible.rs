//! The searchable text of a row that is about to be sent: every string in it, at any depth.
//!
//! Invariant: only what leaves is read, so what redaction took away cannot be found. Not searchable: names of members,
//! numbers, and the top-level members that say which row it is and whose. Elsewhere on purpose: making the row
//! (`crate::rows`), looking for words (`matcher.rs`).

use std::borrow::Cow;

use memchr::memchr2;

use crate::mapping::FieldMap;

/// Members every row has that are no text.
const ALWAYS: [&str; 3] = ["_source", "id", "createdAt"];

/// The names of the top-level members that are not searched.
#[derive(Clone, Debug)]
pub(super) struct Unsearched(Vec<Box<str>>);

impl Default for Unsearched {
    fn default() -> Self {
        Self(ALWAYS.map(Into::into).to_vec())
    }
}

impl Unsearched {
    pub(super) fn of(fields: &FieldMap) -> Self {
        let references = [
            &fields.owner,
            &fields.team,
            &fields.project,
            &fields.mission,
        ];
        let names = ALWAYS
            .into_iter()
            .chain([fields.id.as_str(), fields.created_at.as_str()])
            .chain(references.into_iter().flatten().map(String::as_str));
        Self(names.map(Into::into).collect())
    }

    fn has(&self, raw: &[u8]) -> bool {
        let name = decode(raw);
        name.is_none_or(|name| self.0.iter().any(|known| **known == *name))
    }
}

/// Calls `each` with every searchable string of `row`, which is one JSON object.
pub(super) fn strings(row: &[u8], unsearched: &Unsearched, mut each: impl FnMut(&str)) {
    let mut depth = 0_usize;
    let mut passed_over = false;
    let mut at = 0;
    while let Some(byte) = row.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let Some(end) = string_end(row, at) else {
                    return;
                };
                let raw = row.get(at..end).unwrap_or_default();
                at = end + 1;
                if is_name(row, at) {
                    if depth == 1 {
                        passed_over = unsearched.has(raw);
                    }
                } else if !passed_over && let Some(text) = decode(raw) {
                    each(&text);
                }
            }
            _ => {}
        }
    }
}

/// The row without these top-level members.
pub(super) fn without(row: &[u8], names: &[String]) -> Vec<u8> {
    let mut out = Vec::with_capacity(row.len());
    out.push(b'{');
    let (mut depth, mut at, mut begin, mut keep) = (0_usize, 0, 0, true);
    while let Some(byte) = row.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth == 1 {
                    begin = at + 1;
                }
            }
            b'"' => {
                let Some(end) = string_end(row, at + 1) else {
                    break;
                };
                if depth == 1 && is_name(row, end + 1) {
                    let name = decode(row.get(at + 1..end).unwrap_or_default());
                    keep = name.is_none_or(|name| !names.iter().any(|known| *known == *name));
                }
                at = end;
            }
            b',' | b'}' | b']' => {
                if depth == 1 {
                    let member = row.get(begin..at).unwrap_or_default().trim_ascii();
                    if keep && !member.is_empty() {
                        if out.len() > 1 {
                            out.push(b',');
                        }
                        out.extend_from_slice(member);
                    }
                    begin = at + 1;
                }
                if *byte != b',' {
                    depth = depth.saturating_sub(1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    out.push(b'}');
    out
}

/// Where the string whose content begins at `at` ends: the position of its closing quote.
fn string_end(row: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let found = at + memchr2(b'"', b'\\', row.get(at..)?)?;
        if row.get(found) == Some(&b'"') {
            return Some(found);
        }
        at = found + 2;
    }
}

/// Whether what stands before `at` is the name of a member.
fn is_name(row: &[u8], at: usize) -> bool {
    let rest = row.get(at..).unwrap_or_default();
    rest.iter()
        .find(|byte| !byte.is_ascii_whitespace())
        .is_some_and(|byte| *byte == b':')
}

/// A string from the bytes between its quotes.
fn decode(raw: &[u8]) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', raw).is_none() {
        return std::str::from_utf8(raw).ok().map(Cow::Borrowed);
    }
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice::<String>(&quoted)
        .ok()
        .map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsearched() -> Unsearched {
        Unsearched::of(&FieldMap {
            id: "uuid".to_owned(),
            created_at: "createdAt".to_owned(),
            owner: Some("ownerId".to_owned()),
            team: None,
            project: None,
            mission: Some("missionId".to_owned()),
        })
    }

    fn texts(row: &str) -> Vec<String> {
        let mut found = Vec::new();
        strings(row.as_bytes(), &unsearched(), |text| {
            found.push(text.to_owned());
        });
        found
    }

    #[test]
    fn strings_at_any_depth_and_no_names_ids_or_numbers() {
        let row = r#"{"_source":"local","id":"i","createdAt":"c","ownerId":"o", "title" : "a \"b\"\nc",
            "n":1,"meta":{"id":"inner","list":["x",["y\u0041"],{"missionId":"m"}]},"missionId":"gone","end":"z"}"#;
        assert_eq!(texts(row), ["a \"b\"\nc", "inner", "x", "yA", "m", "z"]);
        assert_eq!(texts(r#"{"\u0069d":"i","t":"x"}"#), ["x"]);
        assert_eq!(texts("{}"), Vec::<String>::new());
    }

    #[test]
    fn members_are_taken_out_whole() {
        let names = ["score".to_owned(), "distance".to_owned()];
        for (row, left) in [
            (
                r#"{"score":1,"a":[1,{"score":2}],"distance":{"x":"}"}}"#,
                r#"{"a":[1,{"score":2}]}"#,
            ),
            (
                r#"{ "a" : "score" , "sc\u006fre" : 3 }"#,
                r#"{"a" : "score"}"#,
            ),
            (r#"{"score":1}"#, "{}"),
            (
                r#"{"a":"\"score\":1,","b":2}"#,
                r#"{"a":"\"score\":1,","b":2}"#,
            ),
        ] {
            assert_eq!(
                String::from_utf8_lossy(&without(row.as_bytes(), &names)),
                left
            );
        }
    }
}
