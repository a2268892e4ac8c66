//! TLS to the servers of the tier: what the settings demand is what happens, against real servers behind a front that ends TLS with
//! certificates of the test, and against one that has no TLS at all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::net::SocketAddr;
use std::path::PathBuf;

use certs::testing::{Mint, TestCa};
use policy::id::GrantId;
use rustls::ServerConfig;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::{PostgresTls, PostgresUrl, ValkeyUrl};
use crate::limit::{BucketKey, Limited, Limiter, LocalLimiter, Purpose, Quota, SharedLimiter};
use crate::telemetry::Metrics;

/// The address of a server of this run; without one the test says so and is counted as skipped.
fn server(variable: &str, test: &str) -> Option<String> {
    let found = std::env::var(variable).ok();
    if found.is_none() {
        println!("SKIPPED {test}: {variable} names no server");
    }
    found
}

/// A front before `server` that ends TLS with a certificate for `localhost` under `ca`; in PostgreSQL's way, where TLS is asked for first.
async fn front(server: String, ca: &TestCa, postgres: bool) -> SocketAddr {
    let minted = Mint::server(&["localhost"]).sign_with(ca);
    let config = ServerConfig::builder_with_provider(certs::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![minted.leaf().clone()], minted.key_der())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (server, acceptor) = (server.clone(), acceptor.clone());
            tokio::spawn(async move {
                if postgres {
                    // SSLRequest, and that it is granted.
                    let mut asked = [0; 8];
                    near.read_exact(&mut asked).await?;
                    assert_eq!(asked, [0, 0, 0, 8, 4, 210, 22, 47], "not in the clear");
                    near.write_all(b"S").await?;
                }
                // A client that does not trust it leaves.
                let mut near = acceptor.accept(near).await?;
                let mut far = TcpStream::connect(server).await?;
                copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    address
}

/// Roots in files: those of `ca`, and those of another.
fn roots(dir: &TempDir, ca: &TestCa) -> [PathBuf; 2] {
    let write = |name: &str, ca: &TestCa| {
        let file = dir.path().join(name);
        std::fs::write(&file, ca.root_pem()).unwrap();
        file
    };
    [
        write("root.pem", ca),
        write("other.pem", &TestCa::root("another")),
    ]
}

fn database(url: &str, host: &str, port: u16, tls: PostgresTls) -> Database {
    let url = PostgresUrl::parse(url).unwrap();
    Database {
        host: crate::config::PostgresHost::Network(host.to_owned()),
        port,
        user: url.user,
        name: url.database,
        schema: "never_made".to_owned(),
        password: url
            .password
            .map_or(PasswordSource::None, PasswordSource::Url),
        tls,
        max_connections: 2,
        acquire_timeout: Duration::from_secs(30),
        statement_timeout: Duration::from_secs(30),
        lock_timeout: Duration::from_secs(30),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_reached_by_the_tls_that_the_settings_demand_or_not_at_all() {
    const NAME: &str = "a_database_is_reached_by_the_tls_that_the_settings_demand_or_not_at_all";
    let Some(url) = server("MOSAIC_TEST_POSTGRES", NAME) else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let ca = TestCa::root("of the database");
    let [right, wrong] = roots(&dir, &ca);
    let parsed = PostgresUrl::parse(&url).unwrap();
    let crate::config::PostgresHost::Network(host) = &parsed.host else {
        panic!("a server on the network is needed");
    };
    let near = front(format!("{host}:{}", parsed.port), &ca, true).await;
    let verified = |roots: &PathBuf| PostgresTls::Verified {
        roots: Some(roots.clone()),
    };
    let asked = async |host: &str, port, tls| {
        let probes = probe_postgres(&database(&url, host, port, tls)).await;
        probes[0].found.clone()
    };
    let found = asked("localhost", near.port(), verified(&right)).await;
    assert!(
        found.as_ref().is_ok_and(|found| found.contains("version")),
        "{found:?}"
    );
    let found = asked("localhost", near.port(), PostgresTls::Unverified).await;
    assert!(found.is_ok(), "{found:?}");
    // Another root, and the public ones; another name.
    for (host, tls, why) in [
        ("localhost", verified(&wrong), "UnknownIssuer"),
        (
            "localhost",
            PostgresTls::Verified { roots: None },
            "UnknownIssuer",
        ),
        ("127.0.0.1", verified(&right), "not valid for name"),
    ] {
        let found = asked(host, near.port(), tls).await.unwrap_err();
        assert!(found.contains(why), "{why}: {found}");
    }
    // The server itself, where it has no TLS, is not asked in the clear instead.
    let plain = async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut asked = [0; 8];
                    near.read_exact(&mut asked).await.unwrap();
                    near.write_all(b"N").await.unwrap();
                    let mut more = Vec::new();
                    near.read_to_end(&mut more).await.unwrap();
                    assert_eq!(more, b"", "something was said in the clear");
                });
            }
        });
        address
    };
    let plain = plain.await;
    for tls in [verified(&right), PostgresTls::Unverified] {
        let found = asked("localhost", plain.port(), tls).await.unwrap_err();
        assert!(found.contains("does not support TLS"), "{found}");
    }
}

fn valkey_at(url: &str, roots: Option<&PathBuf>) -> Valkey {
    Valkey {
        servers: ValkeyUrl::parse(url).unwrap(),
        sentinel_user: None,
        sentinel_password_file: None,
        roots: roots.cloned(),
        only_this_host: false,
        timeout: Duration::from_secs(5),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_shared_by_verified_tls_or_not_at_all() {
    const NAME: &str = "limits_are_shared_by_verified_tls_or_not_at_all";
    let Some(url) = server("MOSAIC_TEST_VALKEY", NAME) else {
        return;
    };
    // As the program does when it starts; another test may have been first.
    let _installed = certs::tls::provider().as_ref().clone().install_default();
    let dir = TempDir::new().unwrap();
    let ca = TestCa::root("of the limits");
    let [right, wrong] = roots(&dir, &ca);
    let server = ValkeyUrl::parse(&url).unwrap().place();
    let port = front(server, &ca, false).await.port();
    let encrypted = format!("rediss://localhost:{port}");

    let clock: Arc<dyn certs::Clock> = Arc::new(certs::SystemClock);
    let metrics = Arc::new(Metrics::new().unwrap());
    let limit = Limited {
        key: BucketKey {
            grant: GrantId::new(Uuid::new_v4()),
            purpose: Purpose::Questions,
        },
        quota: Quota::per_window(4, Duration::from_secs(36_000)),
    };
    // Two of them have one bucket only if both reach the server.
    let mut accepted = 0;
    for _ in 0..2 {
        let options = valkey(&valkey_at(&encrypted, Some(&right))).unwrap();
        let own = Arc::new(LocalLimiter::new(Arc::clone(&clock)));
        let shared = SharedLimiter::new(options, own, Arc::clone(&clock), Arc::clone(&metrics));
        for _ in 0..4 {
            accepted += u32::from(shared.draw(&[limit]).await.from.is_some());
        }
    }
    assert_eq!(accepted, 4);
    let text = String::from_utf8(metrics.render().unwrap()).unwrap();
    assert!(text.contains("shared_limit_fallbacks_total 0"), "{text}");
    let named = format!("rediss://127.0.0.1:{port}");
    for (url, roots, why) in [
        (&encrypted, Some(&wrong), "UnknownIssuer"),
        (&encrypted, None, "UnknownIssuer"),
        (&named, Some(&right), "not valid for name"),
    ] {
        let probes = probe_valkey(&valkey_at(url, roots)).await;
        let found = probes[0].found.clone().unwrap_err();
        assert!(found.contains(why), "{why}: {found}");
    }
    let nowhere = dir.path().join("nowhere.pem");
    let probes = probe_valkey(&valkey_at(&encrypted, Some(&nowhere))).await;
    let found = probes[0].found.clone().unwrap_err();
    assert!(found.contains("nowhere.pem could not be read"), "{found}");
}
