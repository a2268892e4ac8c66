//! The body of `POST /v1/query`: which sources are asked what.
//!
//! Invariant: strict, as the bodies of the wire protocol: unknown and doubled keys are refused, and so is any attempt
//! to name a user or a grant; whose rows they are is the session's. What is sent to a source is built anew from what
//! was parsed.
//!
//! Which peer a name leads to is in `route.rs`; asking one is in `ask.rs`, asking all in `fanout.rs`.

use bytes::Bytes;
use http::Method;
use policy::deny::DenyCode;
use policy::reach::RowLimit;
use policy::request::ItemId;
use serde_json::{Map, Value, json};

use crate::message::body::{Body, BodyProblem};
use crate::message::failure::Failure;
use crate::message::target::{BASE, Route};

/// What stands before the name of a peer in `source`.
const FEDERATED: &str = "federated:";
/// Most bytes of a cursor over several sources, and so of any.
pub(super) const MAX_CURSOR: usize = 8 * 1024;

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The user's own gateway.
    Local,
    /// One peer, by a name as written.
    Peer(String),
    /// The user's own gateway and every active peer of theirs.
    All,
}

/// A question, parsed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    pub(super) source: Source,
    pub(super) route: Route,
    /// `params` as asked.
    pub(super) params: Map<String, Value>,
    /// `params.limit`.
    pub(super) limit: Option<RowLimit>,
    pub(super) cursor: Option<String>,
}

impl Query {
    /// Parses a body.
    ///
    /// # Errors
    /// The first thing wrong.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let Ok(Value::Object(mut members)) = policy::strict_json::parse_bytes(bytes) else {
            return malformed("the body must be one JSON object, no key given twice");
        };
        let source = match members.remove("source") {
            Some(Value::String(source)) => Source::parse(&source)?,
            _ => return malformed("`source` must be \"local\", \"all\" or \"federated:<peer>\""),
        };
        let verb = text(&mut members, "verb")?;
        let (resource, id) = (
            optional(&mut members, "resource")?,
            optional(&mut members, "id")?,
        );
        let route = route(&verb, resource, id)?;
        // What is left is what the wire protocol's own bodies hold, and judged as there.
        let rest = Value::Object(members).to_string();
        let refused = |problem: BodyProblem| Failure::saying(problem.code, problem.message);
        let body = Body::parse(rest.as_bytes()).map_err(refused)?;
        body.fits(&route).map_err(refused)?;
        let limit = body.limit_under(None).map_err(refused)?;
        if route == Route::Search {
            body.search_query().map_err(refused)?;
        }
        if body
            .cursor
            .as_ref()
            .is_some_and(|text| text.len() > MAX_CURSOR)
        {
            return Err(DenyCode::InvalidCursor.into());
        }
        let params = match body.params {
            Value::Object(params) => params,
            _ => Map::new(),
        };
        Ok(Self {
            source,
            route,
            params,
            limit,
            cursor: body.cursor,
        })
    }

    /// The body for one source, with `limit` and `cursor` in place of those that were asked for.
    pub(super) fn body(&self, limit: Option<RowLimit>, cursor: Option<&str>) -> Bytes {
        let mut params = self.params.clone();
        if let Some(limit) = limit {
            params.insert("limit".to_owned(), json!(limit.rows()));
        }
        let mut body = Map::new();
        if !params.is_empty() {
            body.insert("params".to_owned(), Value::Object(params));
        }
        if let Some(cursor) = cursor {
            body.insert("cursor".to_owned(), json!(cursor));
        }
        Bytes::from(Value::Object(body).to_string())
    }
}

impl Source {
    fn parse(text: &str) -> Result<Self, Failure> {
        match (text, text.strip_prefix(FEDERATED)) {
            ("local", _) => Ok(Self::Local),
            ("all", _) => Ok(Self::All),
            (_, Some(peer)) if !peer.is_empty() => Ok(Self::Peer(peer.to_owned())),
            _ => malformed("`source` must be \"local\", \"all\" or \"federated:<peer>\""),
        }
    }
}

fn malformed<T>(what: impl Into<std::borrow::Cow<'static, str>>) -> Result<T, Failure> {
    Err(Failure::saying(DenyCode::MalformedBody, what))
}

fn optional(members: &mut Map<String, Value>, key: &str) -> Result<Option<String>, Failure> {
    match members.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => malformed(format!("`{key}` must be a string")),
    }
}

fn text(members: &mut Map<String, Value>, key: &str) -> Result<String, Failure> {
    optional(members, key)?.map_or_else(|| malformed(format!("`{key}` is missing")), Ok)
}

fn route(verb: &str, resource: Option<String>, id: Option<String>) -> Result<Route, Failure> {
    match (verb, resource, id) {
        ("list", Some(resource), None) => named(&resource),
        ("get", Some(resource), Some(id)) => {
            named(&resource)?;
            let id = ItemId::parse(&id)
                .map_err(|error| Failure::saying(DenyCode::InvalidId, error.to_string()))?;
            Ok(Route::Get { resource, id })
        }
        ("search", None, None) => Ok(Route::Search),
        ("capabilities", None, None) => Ok(Route::Capabilities),
        ("list", ..) => malformed("`list` takes a `resource` and no `id`"),
        ("get", ..) => malformed("`get` takes a `resource` and an `id`"),
        ("search", ..) => malformed("`search` takes `params.resources` and no `resource` or `id`"),
        ("capabilities", ..) => malformed("`capabilities` takes neither `resource` nor `id`"),
        _ => Err(Failure::saying(
            DenyCode::UnknownVerb,
            "`verb` must be list, get, search or capabilities",
        )),
    }
}

/// The list of a resource whose name is one that a path can hold.
fn named(resource: &str) -> Result<Route, Failure> {
    Route::parse_question(&Method::POST, &format!("{BASE}list/{resource}"), None)
        .or_else(|_| malformed("`resource` must be the name of a resource"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn code(body: Value) -> DenyCode {
        Query::parse(body.to_string().as_bytes()).unwrap_err().code
    }

    #[test]
    fn questions_come_apart() {
        let body = json!({"source": "all", "verb": "list", "resource": "tasks",
            "params": {"limit": 5, "filter": {"status": "open"}}, "cursor": "c"});
        let query = Query::parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(query.source, Source::All);
        assert_eq!(query.limit.map(RowLimit::rows), Some(5));
        assert_eq!(query.cursor.as_deref(), Some("c"));
        let sent: Value =
            serde_json::from_slice(&query.body(RowLimit::new(7).ok(), Some("theirs"))).unwrap();
        assert_eq!(
            sent,
            json!({"params": {"limit": 7, "filter": {"status": "open"}}, "cursor": "theirs"})
        );
        let get = json!({"source": "federated:work.example:8443", "verb": "get", "resource": "tasks", "id": "a/b"});
        let get = Query::parse(get.to_string().as_bytes()).unwrap();
        assert_eq!(get.source, Source::Peer("work.example:8443".to_owned()));
        assert_eq!(get.body(None, None), "{}");
        let capabilities = json!({"source": "local", "verb": "capabilities", "params": null});
        assert!(Query::parse(capabilities.to_string().as_bytes()).is_ok());
    }

    #[test]
    fn each_refusal_by_name() {
        use DenyCode as D;
        for (body, wanted) in [
            (json!([]), D::MalformedBody),
            (
                json!({"verb": "list", "resource": "tasks"}),
                D::MalformedBody,
            ),
            (
                json!({"source": "work", "verb": "list", "resource": "tasks"}),
                D::MalformedBody,
            ),
            (
                json!({"source": "federated:", "verb": "list", "resource": "tasks"}),
                D::MalformedBody,
            ),
            (
                json!({"source": 1, "verb": "list", "resource": "tasks"}),
                D::MalformedBody,
            ),
            (
                json!({"source": "all", "resource": "tasks"}),
                D::MalformedBody,
            ),
            (json!({"source": "all", "verb": "renew"}), D::UnknownVerb),
            (json!({"source": "all", "verb": "list"}), D::MalformedBody),
            (json!({"source": "all", "verb": "search"}), D::InvalidQuery),
            (
                json!({"source": "all", "verb": "search", "resource": "tasks", "params": {"query": "x"}}),
                D::MalformedBody,
            ),
            (
                json!({"source": "all", "verb": "search", "params": {"query": "x"}, "cursor": "c"}),
                D::UnknownKey,
            ),
            (
                json!({"source": "all", "verb": "list", "resource": "tasks", "limit": 3}),
                D::UnknownKey,
            ),
            (
                json!({"source": "all", "verb": "list", "resource": "a/b"}),
                D::MalformedBody,
            ),
            (
                json!({"source": "all", "verb": "list", "resource": "tasks", "id": "1"}),
                D::MalformedBody,
            ),
            (
                json!({"source": "all", "verb": "get", "resource": "tasks"}),
                D::MalformedBody,
            ),
            (
                json!({"source": "all", "verb": "get", "resource": "tasks", "id": ".."}),
                D::InvalidId,
            ),
            (
                json!({"source": "all", "verb": "capabilities", "resource": "tasks"}),
                D::MalformedBody,
            ),
            (
                json!({"source": "all", "verb": "list", "resource": "tasks", "user": "x"}),
                D::UnknownKey,
            ),
            (
                json!({"source": "all", "verb": "list", "resource": "tasks", "grantId": "x"}),
                D::IdentityInBody,
            ),
            (
                json!({"source": "all", "verb": "list", "resource": "tasks", "params": {"limit": 0}}),
                D::InvalidLimit,
            ),
            (
                json!({"source": "all", "verb": "list", "resource": "tasks", "params": []}),
                D::MalformedBody,
            ),
            (
                json!({"source": "all", "verb": "list", "resource": "tasks", "cursor": ""}),
                D::InvalidCursor,
            ),
            (
                json!({"source": "all", "verb": "list", "resource": "tasks", "cursor": "x".repeat(MAX_CURSOR + 1)}),
                D::InvalidCursor,
            ),
            (
                json!({"source": "all", "verb": "get", "resource": "tasks", "id": "1", "cursor": "x"}),
                D::UnknownKey,
            ),
        ] {
            assert_eq!(code(body.clone()), wanted, "{body}");
        }
        let twice = br#"{"source":"all","source":"local","verb":"capabilities"}"#;
        assert_eq!(Query::parse(twice).unwrap_err().code, D::MalformedBody);
    }
}
