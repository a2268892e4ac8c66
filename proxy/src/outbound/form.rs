//! Which of its forms a request to the door has, and what it names.
//!
//! Invariant: a request is to the proxy exactly when it names a target of its own (an absolute URI), other than this
//! door itself; and names are only ever compared, nothing here resolves or connects. `Host` and `Origin` are this
//! machine's (or, for the proxy, the target's), because web pages can reach loopback listeners (DNS rebinding).
//!
//! Whose request it is, is in `session.rs`; which peer a name leads to, in `route.rs`.

use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Method, Uri, header};
use policy::deny::DenyCode;

use super::failure::DoorFailure;
use super::session::{Doorway, is_loopback};
use crate::message::failure::Failure;
use crate::message::target::BASE;

/// Path of the query form.
const QUERY: &str = "/v1/query";
/// Base path of the form that names the peer in the path; its name follows.
const PEERS: &str = "/peers/";
/// What the host of a peer ends with, to the proxy; its name stands before.
const SUFFIX: &str = ".federation";

/// A form of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// `POST /v1/query`.
    Query,
    /// `/peers/{peer}/api/federation/v1/...`.
    Peer {
        /// As written.
        name: String,
        /// The rest of the path.
        path: String,
    },
    /// An absolute URI, as programs send that know only `http_proxy`.
    Proxy {
        /// Host of the URI, with its port if it has one.
        host: String,
        /// Its path.
        path: String,
    },
    /// CONNECT, or a target that would need one.
    Tunnel,
    /// Nothing that is here.
    Unknown,
}

impl Form {
    /// The form of a request.
    ///
    /// # Errors
    /// [`DoorFailure::ForeignOrigin`] naming the header that is another's.
    pub(super) fn of(doorway: Doorway, parts: &Parts) -> Result<Self, DoorFailure> {
        let other_scheme = parts
            .uri
            .scheme()
            .is_some_and(|scheme| *scheme != Scheme::HTTP);
        if parts.method == Method::CONNECT || other_scheme {
            return Ok(Self::Tunnel);
        }
        let path = parts.uri.path();
        if let Some(target) = parts.uri.authority().filter(|_| is_proxied(&parts.uri)) {
            check_origins(&parts.headers)?;
            check_host(&parts.headers, |host| same(host, target))?;
            return Ok(Self::Proxy {
                host: target.as_str().to_ascii_lowercase(),
                path: path.to_owned(),
            });
        }
        if doorway == Doorway::Loopback {
            check_host(&parts.headers, is_loopback)?;
            check_origins(&parts.headers)?;
        }
        if path == QUERY {
            return Ok(Self::Query);
        }
        Ok(match split_peer(path) {
            Some((name, path)) => Self::Peer {
                name: name.to_owned(),
                path: path.to_owned(),
            },
            None => Self::Unknown,
        })
    }

    /// Whether the session is named as to a proxy (`Proxy-Authorization`).
    pub(super) const fn is_proxy(&self) -> bool {
        matches!(self, Self::Proxy { .. } | Self::Tunnel)
    }
}

/// What a tunnel is answered with.
pub(super) fn tunnel_refused() -> DoorFailure {
    DoorFailure::Own(Failure::saying(
        DenyCode::ConnectRefused,
        "this proxy opens no tunnels: it encrypts towards the peer itself. Ask for http://<peer>.federation/... \
         instead of https://",
    ))
}

/// Whether a target is another's: every absolute URI but one that names this machine for a route of the door itself.
fn is_proxied(target: &Uri) -> bool {
    target
        .authority()
        .is_some_and(|named| !is_loopback(named) || target.path().starts_with(BASE))
}

/// The name that the host of a proxy request stands for: `work` of `work.federation`, any other as it is.
pub(super) fn peer_of_host(host: &str) -> &str {
    let plain = host.strip_suffix(":80").unwrap_or(host);
    plain.strip_suffix(SUFFIX).unwrap_or(host)
}

/// `/peers/{name}/api/...` as name and the rest.
fn split_peer(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(PEERS)?;
    let slash = rest.find('/')?;
    let (name, path) = rest.split_at_checked(slash)?;
    path.starts_with(BASE).then_some((name, path))
}

/// Refuses requests without exactly one `Host` that is `own`.
fn check_host(headers: &HeaderMap, own: impl Fn(&Authority) -> bool) -> Result<(), DoorFailure> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host: Option<Authority> = hosts
        .next()
        .and_then(|host| host.to_str().ok())
        .and_then(|host| host.parse().ok());
    if host.as_ref().is_some_and(own) && hosts.next().is_none() {
        Ok(())
    } else {
        Err(DoorFailure::ForeignOrigin("Host"))
    }
}

/// Refuses requests of web pages that are not this machine's.
fn check_origins(headers: &HeaderMap) -> Result<(), DoorFailure> {
    for origin in headers.get_all(header::ORIGIN) {
        let own = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.parse::<Uri>().ok())
            .and_then(|origin| origin.into_parts().authority)
            .is_some_and(|origin| is_loopback(&origin));
        if !own {
            return Err(DoorFailure::ForeignOrigin("Origin"));
        }
    }
    Ok(())
}

/// Whether two authorities name one host and port; a scheme's own port may be left out.
fn same(host: &Authority, target: &Authority) -> bool {
    let port = |of: &Authority| of.port_u16().unwrap_or(80);
    host.host().eq_ignore_ascii_case(target.host())
        && port(host) == port(target)
        && !host.as_str().contains('@')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::{HeaderName, HeaderValue, Request};

    use super::*;

    const TASKS: &str = "/api/federation/v1/list/tasks";

    fn of(
        doorway: Doorway,
        target: &str,
        fields: &[(HeaderName, &'static str)],
    ) -> Result<Form, DoorFailure> {
        let (mut parts, ()) = Request::post(target).body(()).unwrap().into_parts();
        for (name, value) in fields {
            parts
                .headers
                .append(name.clone(), HeaderValue::from_static(value));
        }
        Form::of(doorway, &parts)
    }

    fn tcp(target: &str, fields: &[(HeaderName, &'static str)]) -> Result<Form, DoorFailure> {
        of(Doorway::Loopback, target, fields)
    }

    #[test]
    fn the_forms_of_asking() {
        let local = [(header::HOST, "localhost")];
        assert_eq!(tcp("/v1/query", &local), Ok(Form::Query));
        let peer = Form::Peer {
            name: "work".to_owned(),
            path: TASKS.to_owned(),
        };
        assert_eq!(
            tcp(&format!("/peers/work{TASKS}"), &local),
            Ok(peer.clone())
        );
        let own = format!("http://127.0.0.1:8480/peers/work{TASKS}");
        assert_eq!(
            tcp(&own, &local),
            Ok(peer),
            "an absolute URI of the door itself"
        );
        for other in [
            "/",
            "/peers/",
            "/peers/work",
            "/peers/work/api",
            "/peers/work/admin/v1",
            TASKS,
            "/peers//x/api/federation/v1/list/tasks",
            "/peers/work/../api/federation/v1/list/tasks",
            "/v1/query/",
        ] {
            assert_eq!(tcp(other, &local), Ok(Form::Unknown), "{other}");
        }
    }

    #[test]
    fn an_absolute_uri_is_for_the_proxy() {
        for (target, host, named) in [
            (
                "http://work.federation/x",
                "work.federation",
                "work.federation",
            ),
            (
                "http://Work.Federation/x",
                "work.federation",
                "work.federation:80",
            ),
            (
                "http://work.example:8443/x",
                "work.example:8443",
                "WORK.example:8443",
            ),
            ("http://evil.example/x", "evil.example", "evil.example"),
        ] {
            let found = tcp(target, &[(header::HOST, named)]);
            let wanted = Form::Proxy {
                host: host.to_owned(),
                path: "/x".to_owned(),
            };
            assert_eq!(found, Ok(wanted), "{target}");
        }
        let own = format!("http://127.0.0.1:8443{TASKS}");
        let found = tcp(&own, &[(header::HOST, "127.0.0.1:8443")]).unwrap();
        assert!(found.is_proxy(), "a peer may be on this machine");
    }

    #[test]
    fn a_host_of_the_proxy_is_the_target() {
        let refused = Err(DoorFailure::ForeignOrigin("Host"));
        for doorway in [Doorway::Loopback, Doorway::Unix { uid: Some(1) }] {
            for fields in [
                vec![],
                vec![(header::HOST, "localhost")],
                vec![(header::HOST, "work.federation:8480")],
                vec![
                    (header::HOST, "work.federation"),
                    (header::HOST, "work.federation"),
                ],
            ] {
                let found = of(doorway, "http://work.federation/x", &fields);
                assert_eq!(found, refused, "{fields:?}");
            }
        }
        let paged = [
            (header::HOST, "work.federation"),
            (header::ORIGIN, "http://work.federation"),
        ];
        let found = tcp("http://work.federation/x", &paged);
        assert_eq!(
            found,
            Err(DoorFailure::ForeignOrigin("Origin")),
            "no web page asks"
        );
    }

    #[test]
    fn only_this_machines_names_are_hosts() {
        let check = |host: &'static str| tcp("/v1/query", &[(header::HOST, host)]).is_ok();
        for good in [
            "localhost",
            "LocalHost:8480",
            "127.0.0.1:8480",
            "127.8.9.1",
            "[::1]:8480",
        ] {
            assert!(check(good), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example:8480",
            "127.0.0.1.evil.example",
            "192.168.0.1:8480",
            "localhost@evil.example",
            "[::2]:1",
            "",
            "0.0.0.0",
        ] {
            assert!(!check(bad), "{bad}");
        }
        assert!(tcp("/v1/query", &[]).is_err(), "no host at all");
        let two = [(header::HOST, "localhost"), (header::HOST, "evil.example")];
        assert!(tcp("/v1/query", &two).is_err());
        assert!(
            of(
                Doorway::Unix { uid: None },
                "/v1/query",
                &[(header::HOST, "x")]
            )
            .is_ok(),
            "no web page reaches the unix socket"
        );
    }

    #[test]
    fn web_pages_of_other_origins_are_refused() {
        let from = |origin: &'static str| {
            let fields = [(header::HOST, "localhost"), (header::ORIGIN, origin)];
            tcp("/v1/query", &fields).is_ok()
        };
        for good in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "https://[::1]:8480",
        ] {
            assert!(from(good), "{good}");
        }
        for bad in [
            "null",
            "https://evil.example",
            "http://localhost.evil.example",
            "",
            "localhost evil",
        ] {
            assert!(!from(bad), "{bad}");
        }
    }

    #[test]
    fn a_host_stands_for_a_name() {
        for (host, name) in [
            ("work.federation", "work"),
            ("work.federation:80", "work"),
            ("work.federation:8443", "work.federation:8443"),
            ("work.example", "work.example"),
            ("work.example:8443", "work.example:8443"),
            ("work.example:80", "work.example:80"),
            ("a.b.federation", "a.b"),
        ] {
            assert_eq!(peer_of_host(host), name, "{host}");
        }
    }
}
