//! Path templates of gateway requests and member paths into gateway answers.
//!
//! Invariant: a filled-in template has exactly the segments of the template. A value is percent-encoded down to
//! unreserved characters, and a value of dots alone has its dots encoded too, so it cannot climb.
//! Elsewhere on purpose: query strings (`plan.rs`).

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// Why a text is not a path template or a member path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No leading slash.
    #[error("a path begins with `/`")]
    NotAbsolute,
    /// An empty, `.` or `..` segment.
    #[error("a path has no empty, `.` or `..` segment")]
    EmptySegment,
    /// A character that would need encoding, or would begin a query.
    #[error(
        "a path holds letters, digits and -._~!$&'()*+,;=:@ only; the query is added by the mapping"
    )]
    Character,
    /// A placeholder that does not exist, or is only part of a segment.
    #[error("a placeholder is a whole segment, `{{id}}` or `{{mission}}`, at most once each")]
    Placeholder,
    /// A member path with an empty name.
    #[error("a member path is names joined with `.`, none of them empty")]
    Member,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Id,
    Mission,
}

/// A path with `{id}` and `{mission}` as whole segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathTemplate(Vec<Segment>);

impl PathTemplate {
    /// Parses `/api/missions/{mission}/tasks`.
    ///
    /// # Errors
    /// [`PathError`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let rest = text.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
        let segments: Vec<_> = rest.split('/').map(segment).collect::<Result<_, _>>()?;
        for placeholder in [Segment::Id, Segment::Mission] {
            if segments.iter().filter(|part| **part == placeholder).count() > 1 {
                return Err(PathError::Placeholder);
            }
        }
        Ok(Self(segments))
    }

    /// Whether it holds `{id}`.
    #[must_use]
    pub fn names_id(&self) -> bool {
        self.0.contains(&Segment::Id)
    }

    /// Whether it holds `{mission}`.
    #[must_use]
    pub fn names_mission(&self) -> bool {
        self.0.contains(&Segment::Mission)
    }

    /// The path with its placeholders filled in; `None` when one of them has no value.
    #[must_use]
    pub fn fill(&self, id: Option<&str>, mission: Option<&str>) -> Option<String> {
        let mut path = String::new();
        for part in &self.0 {
            path.push('/');
            match part {
                Segment::Literal(text) => path.push_str(text),
                Segment::Id => encode_segment(id?, &mut path),
                Segment::Mission => encode_segment(mission?, &mut path),
            }
        }
        Some(path)
    }
}

fn segment(text: &str) -> Result<Segment, PathError> {
    match text {
        "{id}" => return Ok(Segment::Id),
        "{mission}" => return Ok(Segment::Mission),
        "" | "." | ".." => return Err(PathError::EmptySegment),
        _ => {}
    }
    if text.contains(['{', '}']) {
        return Err(PathError::Placeholder);
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
    if text.bytes().all(plain) {
        Ok(Segment::Literal(text.to_owned()))
    } else {
        Err(PathError::Character)
    }
}

fn encode_segment(value: &str, out: &mut String) {
    if value.bytes().all(|b| b == b'.') {
        for _ in value.bytes() {
            out.push_str("%2E");
        }
    } else {
        percent_encode(value, out);
    }
}

/// Appends `value` with every byte but RFC 3986's unreserved ones percent-encoded; good for segments and queries.
pub(crate) fn percent_encode(value: &str, out: &mut String) {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for half in [byte >> 4, byte & 15] {
                out.push(HEX.get(usize::from(half)).copied().unwrap_or('0'));
            }
        }
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            let text = match part {
                Segment::Literal(text) => text.as_str(),
                Segment::Id => "{id}",
                Segment::Mission => "{mission}",
            };
            write!(f, "/{text}")?;
        }
        Ok(())
    }
}

impl Serialize for PathTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for PathTemplate {
    fn schema_name() -> Cow<'static, str> {
        "PathTemplate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(/([A-Za-z0-9._~!$&'()*+,;=:@-]+|\\{id\\}|\\{mission\\}))+$" })
    }
}

/// Names of nested members, joined with `.`; empty for the whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct MemberPath(String);

impl MemberPath {
    /// Parses `data.items`, or the empty text.
    ///
    /// # Errors
    /// [`PathError::Member`] for an empty name or a control character.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let bad = |name: &str| name.is_empty() || name.chars().any(char::is_control);
        if !text.is_empty() && text.split('.').any(bad) {
            return Err(PathError::Member);
        }
        Ok(Self(text.to_owned()))
    }

    /// The path as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole answer is meant.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names from the outside in.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('.').filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn templates_are_whole_segments() {
        for good in [
            "/a",
            "/api/v1/tasks",
            "/a/{id}",
            "/m/{mission}/tasks/{id}",
            "/a-b_c.d~e",
        ] {
            assert_eq!(PathTemplate::parse(good).unwrap().to_string(), good);
        }
        for (bad, error) in [
            ("", PathError::NotAbsolute),
            ("api", PathError::NotAbsolute),
            ("http://x/", PathError::NotAbsolute),
            ("/", PathError::EmptySegment),
            ("//x", PathError::EmptySegment),
            ("/a/", PathError::EmptySegment),
            ("/a/../b", PathError::EmptySegment),
            ("/a?b=c", PathError::Character),
            ("/a#b", PathError::Character),
            ("/a b", PathError::Character),
            ("/a%2e", PathError::Character),
            ("/a\r\nX: y", PathError::Character),
            ("/x{id}", PathError::Placeholder),
            ("/{user}", PathError::Placeholder),
            ("/{id}/{id}", PathError::Placeholder),
        ] {
            assert_eq!(PathTemplate::parse(bad), Err(error), "{bad}");
        }
    }

    #[test]
    fn values_cannot_climb() {
        let template = PathTemplate::parse("/a/{id}/b").unwrap();
        assert_eq!(template.fill(Some(".."), None).unwrap(), "/a/%2E%2E/b");
        assert_eq!(
            template.fill(Some("x/../y?z#"), None).unwrap(),
            "/a/x%2F..%2Fy%3Fz%23/b"
        );
        assert_eq!(template.fill(None, Some("m")), None);
    }

    #[test]
    fn member_paths() {
        assert!(MemberPath::parse("").unwrap().is_root());
        let path = MemberPath::parse("data.items").unwrap();
        assert_eq!(path.names().collect::<Vec<_>>(), ["data", "items"]);
        for bad in [".", "a.", ".a", "a..b", "a\n"] {
            assert_eq!(MemberPath::parse(bad), Err(PathError::Member));
        }
    }

    proptest! {
        #[test]
        fn a_filled_template_keeps_its_segments(value in ".{1,40}") {
            let path = PathTemplate::parse("/a/{id}").unwrap().fill(Some(&value), None).unwrap();
            prop_assert_eq!(path.matches('/').count(), 2);
            prop_assert!(path.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>".contains(&b)));
            prop_assert!(!path.ends_with("/.") && !path.ends_with("/.."));
        }
    }
}
