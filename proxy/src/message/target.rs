//! The request target: method and path to one of the routes of the federation listener.
//!
//! The set is closed; anything else is an unknown route. A query string is refused, since no verb
//! takes one and a silently ignored parameter would mislead.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;
use policy::deny::DenyCode;
use policy::request::ItemId;
use serde_json::{Value, json};

/// Base path of wire protocol version 1.
pub const BASE: &str = "/api/federation/v1/";

/// What is asked, before anything of it is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `POST list/{resource}`.
    List {
        /// As written by the peer.
        resource: String,
    },
    /// `POST get/{resource}/{id}`.
    Get {
        /// As written by the peer.
        resource: String,
        /// Decoded.
        id: ItemId,
    },
    /// `POST search`.
    Search,
    /// `GET` or `POST capabilities`.
    Capabilities,
    /// `POST renew`: another certificate for the same grant.
    Renew,
}

impl Route {
    /// The verb's name, for records.
    #[must_use]
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::List { .. } => "list",
            Self::Get { .. } => "get",
            Self::Search => "search",
            Self::Capabilities => "capabilities",
            Self::Renew => "renew",
        }
    }

    /// The resource as the peer wrote it.
    #[must_use]
    pub fn resource(&self) -> Option<&str> {
        match self {
            Self::List { resource } | Self::Get { resource, .. } => Some(resource),
            Self::Search | Self::Capabilities | Self::Renew => None,
        }
    }

    /// The parameters as the query hash takes them: the row id of a get stands in for parameters,
    /// so that two gets of different rows are two queries.
    #[must_use]
    pub fn hashed_params<'v>(&self, params: &'v Value) -> Cow<'v, Value> {
        match self {
            Self::Get { id, .. } => Cow::Owned(json!({ "id": id.as_str() })),
            Self::List { .. } | Self::Search | Self::Capabilities | Self::Renew => {
                Cow::Borrowed(params)
            }
        }
    }

    /// As [`parse`](Self::parse), of what a session may ask: certificates are this side's own business.
    ///
    /// # Errors
    /// The same, and `UnknownRoute` for `renew`.
    pub fn parse_question(
        method: &Method,
        path: &str,
        query: Option<&str>,
    ) -> Result<Self, DenyCode> {
        match Self::parse(method, path, query)? {
            Self::Renew => Err(DenyCode::UnknownRoute),
            route => Ok(route),
        }
    }

    /// Parses method, path and query.
    ///
    /// # Errors
    /// `UnknownRoute`, `MethodNotAllowed`, `UnknownKey` (a query), `InvalidId`.
    pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Self, DenyCode> {
        let rest = path.strip_prefix(BASE).ok_or(DenyCode::UnknownRoute)?;
        let mut segments = rest.split('/');
        let verb = segments.next().unwrap_or_default();
        let (resource, id, more) = (segments.next(), segments.next(), segments.next());
        let (route, get_allowed) = match (verb, resource, id, more) {
            ("capabilities", None, None, None) => (Self::Capabilities, true),
            ("search", None, None, None) => (Self::Search, false),
            ("renew", None, None, None) => (Self::Renew, false),
            ("list", Some(resource), None, None) if is_word(resource) => (
                Self::List {
                    resource: resource.to_owned(),
                },
                false,
            ),
            ("get", Some(resource), Some(id), None) if is_word(resource) => {
                let id = decode_id(id)?;
                (
                    Self::Get {
                        resource: resource.to_owned(),
                        id,
                    },
                    false,
                )
            }
            _ => return Err(DenyCode::UnknownRoute),
        };
        if method != Method::POST && !(get_allowed && method == Method::GET) {
            return Err(DenyCode::MethodNotAllowed);
        }
        if query.is_some() {
            return Err(DenyCode::UnknownKey);
        }
        Ok(route)
    }
}

/// The methods a path answers, as `Allow` lists them (RFC 9110, section 10.2.1).
#[must_use]
pub fn allowed_methods(path: &str) -> &'static str {
    match path.strip_prefix(BASE) {
        Some("capabilities") => "GET, POST",
        _ => "POST",
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn decode_id(text: &str) -> Result<ItemId, DenyCode> {
    let id = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| DenyCode::InvalidId)?;
    ItemId::parse(&id).map_err(|_| DenyCode::InvalidId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(path: &str) -> Result<Route, DenyCode> {
        Route::parse(&Method::POST, path, None)
    }

    #[test]
    fn the_routes_of_version_one() {
        assert_eq!(
            post("/api/federation/v1/list/tasks"),
            Ok(Route::List {
                resource: "tasks".into()
            })
        );
        assert_eq!(
            post("/api/federation/v1/get/tasks/a%2Fb"),
            ItemId::parse("a/b")
                .map(|id| Route::Get {
                    resource: "tasks".into(),
                    id
                })
                .map_err(|_| DenyCode::InvalidId)
        );
        assert_eq!(
            post("/api/federation/v1/capabilities"),
            Ok(Route::Capabilities)
        );
        assert_eq!(
            Route::parse(&Method::GET, "/api/federation/v1/capabilities", None),
            Ok(Route::Capabilities)
        );
        assert_eq!(post("/api/federation/v1/search"), Ok(Route::Search));
        assert_eq!(
            Route::parse(&Method::GET, "/api/federation/v1/search", None),
            Err(DenyCode::MethodNotAllowed)
        );
    }

    #[test]
    fn anything_else_is_an_unknown_route() {
        for path in [
            "/",
            "/api/federation/v2/list/tasks",
            "/api/federation/v1/search/tasks",
            "/api/federation/v1/list/tasks/",
            "/api/federation/v1/list/",
            "/api/federation/v1/get/tasks",
            "/api/federation/v1//list/tasks",
        ] {
            assert_eq!(post(path), Err(DenyCode::UnknownRoute), "{path}");
        }
    }

    #[test]
    fn a_session_cannot_ask_for_certificates() {
        let path = "/api/federation/v1/renew";
        assert_eq!(post(path), Ok(Route::Renew));
        for method in [Method::POST, Method::GET] {
            let asked = Route::parse_question(&method, path, None);
            assert!(asked.is_err(), "{method}: {asked:?}");
        }
        let search = Route::parse_question(&Method::POST, "/api/federation/v1/search", None);
        assert_eq!(search, Ok(Route::Search));
    }

    #[test]
    fn other_methods_and_queries_are_refused() {
        assert_eq!(
            Route::parse(&Method::GET, "/api/federation/v1/list/tasks", None),
            Err(DenyCode::MethodNotAllowed)
        );
        assert_eq!(
            Route::parse(
                &Method::POST,
                "/api/federation/v1/list/tasks",
                Some("limit=1")
            ),
            Err(DenyCode::UnknownKey)
        );
    }

    #[test]
    fn ids_are_decoded_and_bounded() {
        assert_eq!(
            post("/api/federation/v1/get/tasks/%00"),
            Err(DenyCode::InvalidId)
        );
        assert_eq!(
            post("/api/federation/v1/get/tasks/.."),
            Err(DenyCode::InvalidId)
        );
        assert_eq!(
            post("/api/federation/v1/get/tasks/%ff"),
            Err(DenyCode::InvalidId)
        );
        assert_eq!(
            post(&format!("/api/federation/v1/get/tasks/{}", "a".repeat(257))),
            Err(DenyCode::InvalidId)
        );
    }
}
