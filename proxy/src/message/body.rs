//! The JSON body of a request: `{"verb","resource","params":{...},"cursor"}`, parsed strictly.
//!
//! Unknown and repeated keys are refused; so is any attempt to name an identity in a body. What the
//! values mean for a resource is judged elsewhere.

use std::fmt;

use policy::deny::DenyCode;
use policy::reach::RowLimit;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// Largest body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// A parsed body; every part may be absent.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Body {
    /// Must agree with the target when present.
    pub verb: Option<String>,
    /// Must agree with the target when present.
    pub resource: Option<String>,
    /// `params.limit`, 1..=10000.
    pub limit: Option<RowLimit>,
    /// `params.filter` as sent; what it may hold depends on the resource.
    pub filter: Value,
    /// The opaque continuation of an earlier answer.
    pub cursor: Option<String>,
    /// `params` as sent, for the query hash.
    pub params: Value,
}

/// A body that is refused, with the words for the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyProblem {
    /// The reason.
    pub code: DenyCode,
    /// What exactly is wrong.
    pub message: String,
}

fn problem<T>(code: DenyCode, message: impl Into<String>) -> Result<T, BodyProblem> {
    Err(BodyProblem {
        code,
        message: message.into(),
    })
}

impl Body {
    /// Parses the bytes of a body; an empty one is a body without any part.
    ///
    /// # Errors
    /// [`BodyProblem`] with `MalformedBody`, `UnknownKey`, `IdentityInBody`, `InvalidLimit`
    /// or `InvalidCursor`.
    pub fn parse(bytes: &[u8]) -> Result<Self, BodyProblem> {
        let mut body = Self::default();
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(body);
        }
        for (key, value) in members(bytes)? {
            match (key.as_str(), value) {
                ("verb", Value::String(verb)) => body.verb = Some(verb),
                ("resource", Value::String(resource)) => body.resource = Some(resource),
                ("cursor", Value::String(cursor)) if !cursor.is_empty() => {
                    body.cursor = Some(cursor)
                }
                ("cursor", Value::Null) => {}
                ("cursor", _) => {
                    return problem(
                        DenyCode::InvalidCursor,
                        "`cursor` must be a cursor of an earlier answer",
                    );
                }
                ("params", Value::Object(params)) => {
                    body.params(&params)?;
                    body.params = Value::Object(params);
                }
                ("params", Value::Null) => {}
                ("subjectUserId" | "grantId", _) => {
                    return problem(
                        DenyCode::IdentityInBody,
                        format!("`{key}` cannot be chosen: the client certificate names it"),
                    );
                }
                ("verb" | "resource" | "params", _) => {
                    return problem(
                        DenyCode::MalformedBody,
                        format!("`{key}` has the wrong type"),
                    );
                }
                _ => {
                    return problem(
                        DenyCode::UnknownKey,
                        format!(
                            "unknown key `{}`; known are verb, resource, params, cursor",
                            key.escape_debug()
                        ),
                    );
                }
            }
        }
        Ok(body)
    }

    fn params(&mut self, params: &serde_json::Map<String, Value>) -> Result<(), BodyProblem> {
        for (key, value) in params {
            match (key.as_str(), value) {
                ("limit", value) => match value.as_u64().map(RowLimit::new) {
                    Some(Ok(limit)) => self.limit = Some(limit),
                    _ => {
                        return problem(
                            DenyCode::InvalidLimit,
                            "`params.limit` must be a whole number from 1 to 10000",
                        );
                    }
                },
                ("filter", filter) => self.filter = filter.clone(),
                ("subjectUserId" | "grantId", _) => {
                    return problem(
                        DenyCode::IdentityInBody,
                        format!("`params.{key}` cannot be chosen: the client certificate names it"),
                    );
                }
                _ => {
                    return problem(
                        DenyCode::UnknownKey,
                        format!(
                            "unknown key `params.{}`; known are limit and filter",
                            key.escape_debug()
                        ),
                    );
                }
            }
        }
        Ok(())
    }
}

/// The members of the top-level object in order, none repeated.
fn members(bytes: &[u8]) -> Result<Vec<(String, Value)>, BodyProblem> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Result<Vec<(String, Value)>, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members: Vec<(String, Value)> = Vec::new();
            while let Some(key) = map.next_key::<String>()? {
                if members.iter().any(|(seen, _)| *seen == key) {
                    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                    return Ok(Err(key));
                }
                let value = map.next_value()?;
                members.push((key, value));
            }
            Ok(Ok(members))
        }
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let parsed = reader
        .deserialize_map(Members)
        .and_then(|members| reader.end().map(|()| members));
    match parsed {
        Ok(Ok(members)) => Ok(members),
        Ok(Err(key)) => problem(
            DenyCode::MalformedBody,
            format!("`{}` is given twice", key.escape_debug()),
        ),
        Err(error) => problem(
            DenyCode::MalformedBody,
            format!(
                "the body is not a JSON object: line {}, column {}",
                error.line(),
                error.column()
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Option<DenyCode> {
        Body::parse(text.as_bytes())
            .err()
            .map(|problem| problem.code)
    }

    #[test]
    fn an_empty_body_asks_for_the_defaults() {
        assert_eq!(Body::parse(b""), Ok(Body::default()));
        assert!(Body::parse(b"{}").is_ok());
    }

    #[test]
    fn every_part_is_read() {
        let body = Body::parse(br#"{"verb":"list","resource":"tasks","params":{"limit":5,"filter":{"status":"open"}},"cursor":"abc"}"#)
            .map_err(|problem| problem.message);
        let body = body.as_ref();
        assert_eq!(body.map(|body| body.limit.map(RowLimit::rows)), Ok(Some(5)));
        assert_eq!(body.map(|body| body.cursor.as_deref()), Ok(Some("abc")));
        assert_eq!(body.map(|body| body.filter.is_object()), Ok(true));
    }

    #[test]
    fn each_defect_has_its_code() {
        assert_eq!(code("[]"), Some(DenyCode::MalformedBody));
        assert_eq!(code("{} x"), Some(DenyCode::MalformedBody));
        assert_eq!(
            code(r#"{"verb":"list","verb":"get"}"#),
            Some(DenyCode::MalformedBody)
        );
        assert_eq!(code(r#"{"limit":5}"#), Some(DenyCode::UnknownKey));
        assert_eq!(code(r#"{"params":{"nope":1}}"#), Some(DenyCode::UnknownKey));
        assert_eq!(
            code(r#"{"subjectUserId":"x"}"#),
            Some(DenyCode::IdentityInBody)
        );
        assert_eq!(code(r#"{"grantId":"x"}"#), Some(DenyCode::IdentityInBody));
        for limit in ["0", "10001", "-1", "1.5", "\"5\"", "null"] {
            assert_eq!(
                code(&format!(r#"{{"params":{{"limit":{limit}}}}}"#)),
                Some(DenyCode::InvalidLimit),
                "{limit}"
            );
        }
        assert_eq!(code(r#"{"cursor":5}"#), Some(DenyCode::InvalidCursor));
    }
}
