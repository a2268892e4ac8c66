//! The JSON body of a request: `{"verb","resource","params":{...},"cursor"}`, parsed strictly.
//!
//! Unknown and repeated keys are refused; so is any attempt to name an identity in a body. What the
//! values mean for a resource is judged elsewhere.

use std::borrow::Cow;
use std::fmt;

use policy::compat::Compat;
use policy::deny::DenyCode;
use policy::rank::Query;
use policy::reach::RowLimit;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::target::Route;

/// Largest body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// Most names in `params.resources`.
const MAX_RESOURCES: usize = 16;

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
    /// `params.query` as sent.
    pub query: Option<String>,
    /// `params.resources`, as written by the peer, each once.
    pub resources: Option<Vec<String>>,
    /// `limit` beside `params`, as sent: what upstream's third milestone may do.
    pub outer_limit: Option<Value>,
    /// The opaque continuation of an earlier answer.
    pub cursor: Option<String>,
    /// `csrPem` of a renewal.
    pub csr_pem: Option<String>,
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
    /// [`BodyProblem`] with `MalformedBody`, `UnknownKey`, `IdentityInBody`, `InvalidLimit`,
    /// `InvalidCursor`, `InvalidQuery` or `InvalidResources`.
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
                ("csrPem", Value::String(pem)) => body.csr_pem = Some(pem),
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
                ("limit", limit) => body.outer_limit = Some(limit),
                ("subjectUserId" | "grantId", _) => {
                    return problem(
                        DenyCode::IdentityInBody,
                        format!("`{key}` cannot be chosen: the client certificate names it"),
                    );
                }
                ("verb" | "resource" | "params" | "csrPem", _) => {
                    return problem(
                        DenyCode::MalformedBody,
                        format!("`{key}` has the wrong type"),
                    );
                }
                _ => {
                    return problem(DenyCode::UnknownKey, unknown(&key));
                }
            }
        }
        Ok(body)
    }

    /// The number of rows asked for by a peer that is treated by `compat`: `limit` may stand beside
    /// `params` for a peer that knows no better, and not in both places.
    ///
    /// # Errors
    /// [`BodyProblem`] with `UnknownKey` or `InvalidLimit`.
    pub fn limit_under(&self, compat: Option<Compat>) -> Result<Option<RowLimit>, BodyProblem> {
        match (&self.outer_limit, compat) {
            (None, _) => Ok(self.limit),
            (Some(_), None) => problem(DenyCode::UnknownKey, unknown("limit")),
            (Some(_), Some(Compat::UpstreamM3)) if self.limit.is_some() => problem(
                DenyCode::InvalidLimit,
                "`limit` is given twice: beside `params` and in it",
            ),
            (Some(limit), Some(Compat::UpstreamM3)) => row_limit(limit, "limit").map(Some),
        }
    }

    /// The query of a search.
    ///
    /// # Errors
    /// [`BodyProblem`] with `InvalidQuery` when there is none, or none that can be read.
    pub fn search_query(&self) -> Result<Query, BodyProblem> {
        let Some(text) = &self.query else {
            return problem(DenyCode::InvalidQuery, "`params.query` is missing");
        };
        Query::parse(text).or_else(|error| problem(DenyCode::InvalidQuery, error.to_string()))
    }

    /// Checks that the body has no part that the verb does not take.
    ///
    /// # Errors
    /// [`BodyProblem`] with `UnknownKey`.
    pub fn fits(&self, route: &Route) -> Result<(), BodyProblem> {
        let (lists, searches) = match route {
            Route::List { .. } => (true, false),
            Route::Search => (false, true),
            Route::Get { .. } | Route::Capabilities | Route::Renew => (false, false),
        };
        let limited = self.limit.is_some() || self.outer_limit.is_some();
        let paged = !self.filter.is_null() || self.cursor.is_some();
        let searched = self.query.is_some() || self.resources.is_some();
        if paged && !lists || limited && !lists && !searches {
            return problem(
                DenyCode::UnknownKey,
                "only `list` takes a filter and a cursor, and only `list` and `search` a limit",
            );
        }
        match (&self.csr_pem, route) {
            (Some(_), Route::Renew) => {}
            (None, Route::Renew) => return problem(DenyCode::InvalidCsr, "`csrPem` is missing"),
            (None, _) => {}
            (Some(_), _) => return problem(DenyCode::UnknownKey, "only `renew` takes `csrPem`"),
        }
        if searched && !searches {
            return problem(
                DenyCode::UnknownKey,
                "only `search` takes a query and resources",
            );
        }
        Ok(())
    }

    /// `params` for the query hash, in which a limit beside `params` is one in it.
    #[must_use]
    pub fn hashed_params(&self) -> Cow<'_, Value> {
        let Some(limit) = &self.outer_limit else {
            return Cow::Borrowed(&self.params);
        };
        let mut params = self.params.as_object().cloned().unwrap_or_default();
        params.insert("limit".to_owned(), limit.clone());
        Cow::Owned(Value::Object(params))
    }

    fn params(&mut self, params: &serde_json::Map<String, Value>) -> Result<(), BodyProblem> {
        for (key, value) in params {
            match (key.as_str(), value) {
                ("limit", value) => self.limit = Some(row_limit(value, "params.limit")?),
                ("filter", filter) => self.filter = filter.clone(),
                ("query", Value::String(query)) => self.query = Some(query.clone()),
                ("query", _) => {
                    return problem(DenyCode::InvalidQuery, "`params.query` must be a string");
                }
                ("resources", value) => self.resources = Some(resources(value)?),
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
                            "unknown key `params.{}`; known are limit, filter, query and resources",
                            key.escape_debug()
                        ),
                    );
                }
            }
        }
        Ok(())
    }
}

fn unknown(key: &str) -> String {
    let key = key.escape_debug();
    format!("unknown key `{key}`; known are verb, resource, params, cursor")
}

fn row_limit(value: &Value, name: &str) -> Result<RowLimit, BodyProblem> {
    match value.as_u64().map(RowLimit::new) {
        Some(Ok(limit)) => Ok(limit),
        _ => problem(
            DenyCode::InvalidLimit,
            format!("`{name}` must be a whole number from 1 to 10000"),
        ),
    }
}

/// Names of resources, each once; whether they exist is for the decision to say.
fn resources(value: &Value) -> Result<Vec<String>, BodyProblem> {
    let names: Option<Vec<String>> = value.as_array().and_then(|names| {
        let text = |name: &Value| name.as_str().map(str::to_owned);
        names.iter().map(text).collect()
    });
    let sound = names.filter(|names| {
        let distinct = names
            .iter()
            .enumerate()
            .all(|(at, name)| !names.iter().take(at).any(|other| other == name));
        distinct && (1..=MAX_RESOURCES).contains(&names.len())
    });
    match sound {
        Some(names) => Ok(names),
        None => problem(
            DenyCode::InvalidResources,
            format!("`params.resources` must be 1 to {MAX_RESOURCES} names, each once"),
        ),
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
        for query in ["5", "null", "[\"x\"]"] {
            assert_eq!(
                code(&format!(r#"{{"params":{{"query":{query}}}}}"#)),
                Some(DenyCode::InvalidQuery),
                "{query}"
            );
        }
        let many = format!(
            "[{}\"z\"]",
            (0..16).map(|n| format!("\"r{n}\",")).collect::<String>()
        );
        for names in [
            "5",
            "null",
            "[]",
            "[5]",
            r#"["tasks","tasks"]"#,
            many.as_str(),
        ] {
            assert_eq!(
                code(&format!(r#"{{"params":{{"resources":{names}}}}}"#)),
                Some(DenyCode::InvalidResources),
                "{names}"
            );
        }
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

    fn limit(text: &str, compat: Option<Compat>) -> Result<Option<u16>, DenyCode> {
        let body = Body::parse(text.as_bytes()).map_err(|problem| problem.code)?;
        match body.limit_under(compat) {
            Ok(limit) => Ok(limit.map(RowLimit::rows)),
            Err(problem) => Err(problem.code),
        }
    }

    #[test]
    fn a_limit_beside_params_is_for_peers_that_know_no_better() {
        let (old, beside) = (Some(Compat::UpstreamM3), r#"{"limit":5}"#);
        assert_eq!(limit(beside, None), Err(DenyCode::UnknownKey));
        assert_eq!(limit(beside, old), Ok(Some(5)));
        assert_eq!(limit(r#"{"params":{"limit":5}}"#, old), Ok(Some(5)));
        assert_eq!(limit("{}", old), Ok(None));
        for wrong in [r#"{"limit":0}"#, r#"{"limit":"5"}"#, r#"{"limit":null}"#] {
            assert_eq!(limit(wrong, old), Err(DenyCode::InvalidLimit), "{wrong}");
        }
        let twice = r#"{"limit":5,"params":{"limit":5}}"#;
        assert_eq!(limit(twice, old), Err(DenyCode::InvalidLimit));
        let hashed =
            |text: &str| Body::parse(text.as_bytes()).map(|body| body.hashed_params().into_owned());
        assert_eq!(hashed(beside), hashed(r#"{"params":{"limit":5}}"#));
    }

    #[test]
    fn each_verb_takes_its_own_parts() {
        let list = Route::List {
            resource: "tasks".into(),
        };
        for (params, listed, searched) in [
            (r#"{"limit":5}"#, true, true),
            (r#"{"filter":{}}"#, true, false),
            (r#"{"query":"x"}"#, false, true),
            (r#"{"resources":["tasks"]}"#, false, true),
        ] {
            let fits = |route: &Route| {
                let body = Body::parse(format!(r#"{{"params":{params}}}"#).as_bytes());
                body.and_then(|body| body.fits(route)).is_ok()
            };
            assert_eq!(fits(&list), listed, "{params}");
            assert_eq!(fits(&Route::Search), searched, "{params}");
            assert!(!fits(&Route::Capabilities), "{params}");
            assert!(!fits(&Route::Renew), "{params}");
        }
        let renewal = Body::parse(br#"{"csrPem":"x"}"#);
        let fits = |route: &Route| renewal.clone().and_then(|body| body.fits(route));
        assert_eq!(fits(&Route::Renew), Ok(()));
        for other in [&list, &Route::Search, &Route::Capabilities] {
            let refused = fits(other).map_err(|problem| problem.code);
            assert_eq!(refused, Err(DenyCode::UnknownKey));
        }
    }
}
