//! HTTP/2 as h2spec sees it: the conformance suite of others against the federation listener, through a tunnel that adds the
//! client certificate, which h2spec cannot.
//!
//! Invariant: a row that fails has its reason here, a reason that no row needs is removed. Without h2spec the test says that
//! it was skipped, and how many rows that leaves out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use rustls::ClientConfig;
use support::skipped;
use tests::grants::BASE;
use tests::{World, tls};
use tokio::io::copy;
use tokio::net::TcpListener;

/// Rows of h2spec 2.6 without the strict ones.
const ROWS: usize = 146;

/// Rows that fail, by section and number, and why that is as it should be.
const EXCEPTIONS: &[(&str, &str)] = &[];

/// The program: named by the environment, else on PATH.
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("MOSAIC_TEST_H2SPEC") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join("h2spec"))
        .find(|program| program.is_file())
}

/// Takes plain connections and carries each over TLS with a client certificate. Either end's end is the other's.
async fn tunnel(listener: TcpListener, to: SocketAddr, config: Arc<ClientConfig>) {
    loop {
        let (near, _) = listener.accept().await.unwrap();
        let config = Arc::clone(&config);
        tokio::spawn(async move {
            near.set_nodelay(true).unwrap();
            let far = tls::connect(to, config).await.unwrap();
            let (mut near_read, mut near_write) = tokio::io::split(near);
            let (mut far_read, mut far_write) = tokio::io::split(far);
            // What the server does is the object of the test, its closing too.
            tokio::select! {
                _ = copy(&mut near_read, &mut far_write) => {}
                _ = copy(&mut far_read, &mut near_write) => {}
            }
        });
    }
}

/// The rows of the report: whether each passed, by `section: what is asked`.
fn rows(report: &str) -> BTreeMap<String, bool> {
    let attribute = |tag: &str, name: &str| {
        let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
        rest.split('"').next().map(str::to_owned)
    };
    let cases = report.split("<testcase").skip(1);
    cases
        .map(|case| {
            let (tag, rest) = case.split_once('>').unwrap();
            let (package, what) = (attribute(tag, "package"), attribute(tag, "classname"));
            let body = rest.split("</testcase>").next().unwrap_or_default();
            let is_empty = tag.ends_with('/');
            let failed = !is_empty && (body.contains("<failure") || body.contains("<error"));
            (format!("{}: {}", package.unwrap(), what.unwrap()), !failed)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn h2spec_finds_no_fault_that_is_not_explained() {
    let Some(program) = program() else {
        skipped(
            &format!("the {ROWS} rows of h2spec"),
            "there is no h2spec on PATH, and it could not be built",
        );
        return;
    };
    let world = World::start().await;
    let holder = world.amira().await;
    let config = Arc::new(tls::client(Some(&holder.minted), world.root(), &["h2"]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = listener.local_addr().unwrap();
    let tunnel = tokio::spawn(tunnel(listener, world.federation(), config));
    let report = world.dir.path().join("h2spec.xml");
    let output = tokio::process::Command::new(&program)
        .args(["--host", "127.0.0.1", "--port", &near.port().to_string()])
        .args(["--path", &format!("{BASE}/capabilities")])
        .args(["--timeout", "1"])
        .arg("--junit-report")
        .arg(&report)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    tunnel.abort();
    let rows = rows(&std::fs::read_to_string(&report).unwrap_or_else(|error| {
        panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr))
    }));
    let failed: Vec<&String> = rows
        .iter()
        .filter_map(|(row, passed)| (!passed).then_some(row))
        .collect();
    println!("{} rows, {} of them failed", rows.len(), failed.len());
    assert!(rows.len() >= ROWS, "{said}");
    assert_eq!(output.status.success(), failed.is_empty(), "{said}");
    let known = |row: &str| EXCEPTIONS.iter().any(|(known, _)| *known == row);
    let unexplained: Vec<_> = failed.iter().filter(|row| !known(row)).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}\n{said}");
    let stale: Vec<_> = EXCEPTIONS
        .iter()
        .filter(|(row, _)| rows.get(*row) != Some(&false))
        .collect();
    assert!(stale.is_empty(), "these pass now: {stale:#?}");
    // After all of it, the listener answers.
    let answer = world
        .ask(&holder.minted, "/list/tasks", &serde_json::json!({}))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    world.stop().await;
}
