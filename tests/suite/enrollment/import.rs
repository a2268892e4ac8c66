//! Peers of an upstream gateway are taken over with the keys it has sealed, each whole or not at all.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use certs::testing::{Mint, Minted, TestCa};
use reference_gateway::plan;
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnectOptions;
use tests::command::{Ran, command};
use tests::{Holder, Home, World};

use super::support::enlist::enlist;
use super::support::enroll::{contains, files};
use super::support::onboard::{keys, truth, users, whole_scope};
use super::support::upstream::{SECRET, sealed};

fn row(world: &World, minted: &Minted, common_name: &str) -> Value {
    json!({
        "id": "7b0c", "common_name": common_name, "state": "active",
        "endpoint_url": format!("https://{}", world.federation()),
        "cert_pem": minted.chain_pem(),
        "client_key_pem": sealed(SECRET, &minted.private_key().to_pem()),
        "created_at": "2026-01-02 03:04:05+00",
    })
}

/// The same as the database writes it.
fn csv(rows: &[Value]) -> String {
    let names = [
        "id",
        "common_name",
        "state",
        "endpoint_url",
        "cert_pem",
        "client_key_pem",
    ];
    let mut text = names.join(",");
    for row in rows {
        let fields = names.map(|name| format!("\"{}\"", row[name].as_str().unwrap_or_default()));
        text.push('\n');
        text.push_str(&fields.join(","));
    }
    text
}

struct Desk<'a> {
    home: &'a Home,
    dir: &'a Path,
}

impl Desk<'_> {
    async fn import(&self, export: &str, names: &[&str]) -> Ran {
        self.import_with(export, SECRET, names).await
    }

    async fn import_with(&self, export: &str, secret: &str, names: &[&str]) -> Ran {
        let file = |name: &str, content: &str| {
            let path = self.dir.join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path.display().to_string()
        };
        let (export, secret) = (file("peers", export), file("secret", secret));
        let root = self.dir.join("root.pem").display().to_string();
        let mut arguments = vec!["peer", "import", export.as_str(), "--user", "alex"];
        arguments.extend([
            "--trust-root",
            root.as_str(),
            "--secret-file",
            secret.as_str(),
            "--json",
        ]);
        for name in names {
            arguments.extend(["--name", name]);
        }
        command(&self.home.config.admin.socket, &arguments).await
    }
}

async fn answers(home: &Home, name: &str, user: &str) {
    let session = home.session("alex").await;
    let body = json!({"params": {"limit": 1000}});
    let answer = home.ask(&session, name, "/list/tasks", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(keys(&answer), truth("tasks", user));
}

async fn holder(world: &World, peer: &str, user: &str) -> Holder {
    enlist(world, peer, &users()[user], whole_scope(user)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_an_upstream_gateway_are_taken_over_with_their_keys() {
    let (world, home) = (World::start().await, Home::start().await);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("root.pem"), world.ca.root_pem()).unwrap();
    let desk = Desk {
        home: &home,
        dir: dir.path(),
    };
    let amira = holder(&world, "home-a", plan::AMIRA).await;
    let ben = holder(&world, "home-b", plan::BEN).await;
    let rows = [
        row(&world, &amira.minted, "work.example"),
        row(&world, &ben.minted, "other"),
    ];
    let ran = desk.import(&csv(&rows), &["work.example=work"]).await;
    assert_eq!(ran.exit, 0, "{} {}", ran.out, ran.errors);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(found["imported"][0]["name"], "work");
    assert_eq!(found["imported"][0]["grant"], amira.grant.to_string());
    answers(&home, "work", plan::AMIRA).await;
    answers(&home, "other", plan::BEN).await;
    // Its secrets are in no output and no file of ours.
    let pem = amira.minted.private_key().to_pem();
    let inside: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    for (name, content) in files(&home.config.data_dir) {
        for secret in [
            SECRET.as_bytes(),
            amira.minted.private_key().pkcs8(),
            &inside.as_bytes()[..48],
        ] {
            assert!(!contains(&content, secret), "{name}");
        }
    }
    for text in [&ran.out, &ran.errors] {
        assert!(!text.contains(SECRET) && !text.contains(&inside[..48]));
    }
    home.stop().await;
    world.stop().await;
}

/// Rows that are kept are not said to be refused because this process cannot be made to know them.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_kept_and_cannot_be_used_yet_are_said_to_be_kept() {
    if tests::database::is_postgres() {
        return super::support::skipped(
            "rows_that_are_kept_and_cannot_be_used_yet_are_said_to_be_kept",
            "PostgreSQL lets nobody write a row that breaks a rule of its table",
        );
    }
    let (world, home) = (World::start().await, Home::start().await);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("root.pem"), world.ca.root_pem()).unwrap();
    let desk = Desk {
        home: &home,
        dir: dir.path(),
    };
    let first = holder(&world, "home-a", plan::AMIRA).await;
    let second = holder(&world, "home-b", plan::BEN).await;
    let ran = desk
        .import(&csv(&[row(&world, &first.minted, "first")]), &[])
        .await;
    assert_eq!(ran.exit, 0, "{}", ran.errors);
    let state = async |state: &'static str| {
        let mut store = SqliteConnectOptions::new()
            .filename(home.config.data_dir.join("federation.db"))
            .pragma("ignore_check_constraints", "1")
            .connect()
            .await
            .unwrap();
        let change = sqlx::query("UPDATE outbound_credentials SET state = ?").bind(state);
        change.execute(&mut store).await.unwrap();
        store.close().await.unwrap();
    };
    // A row of another peer that does not read.
    state("broken").await;
    let mut rows = ["second", "third"].map(|name| row(&world, &second.minted, name));
    rows[1]["state"] = json!("pending");
    let ran = desk.import(&json!(rows).to_string(), &[]).await;
    assert_ne!(ran.exit, 0, "{}", ran.out);
    let said = format!("{}{}", ran.out, ran.errors);
    assert!(said.contains("taken over and are kept: second"), "{said}");
    assert!(said.contains("third: its state is `pending`"), "{said}");
    state("active").await;
    let again = desk.import(&json!([rows[0]]).to_string(), &[]).await;
    assert!(again.out.contains("`second` already"), "{}", again.out);
    let dir = home.stop().await;
    let home = Home::start_in(dir, std::sync::Arc::new(certs::SystemClock)).await;
    answers(&home, "second", plan::BEN).await;
    home.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_is_refused_with_its_reason_and_the_good_one_is_kept() {
    let (world, home) = (World::start().await, Home::start().await);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("root.pem"), world.ca.root_pem()).unwrap();
    let desk = Desk {
        home: &home,
        dir: dir.path(),
    };
    let good = holder(&world, "home-a", plan::AMIRA).await;
    let base = row(&world, &good.minted, "bad");
    let with = |name: &str, value: Value| {
        let mut row = base.clone();
        row[name] = value;
        row
    };
    let mint = || Mint::client(good.grant.uuid(), good.subject);
    let of = |minted: &Minted| row(&world, minted, "bad");
    let other = TestCa::root("other");
    let expired = mint().expired().sign_with(&world.ca);
    let server = Mint::server(&["work.example"]).sign_with(&world.ca);
    let key = |text: &str| with("client_key_pem", json!(sealed(SECRET, text)));
    let cases = [
        (with("state", json!("pending")), "its state is `pending`"),
        (with("state", json!("revoked")), "its state is `revoked`"),
        (with("cert_pem", Value::Null), "`cert_pem` is empty"),
        (
            with("client_key_pem", json!("")),
            "`client_key_pem` is empty",
        ),
        (with("endpoint_url", Value::Null), "`endpoint_url` is empty"),
        (
            with("endpoint_url", json!("http://work.example")),
            "endpoint cannot be used",
        ),
        (with("client_key_pem", json!("?")), "not base64"),
        (with("client_key_pem", json!("AAAA")), "too short"),
        (
            with("client_key_pem", json!(sealed("another", "x"))),
            "does not open with this secret",
        ),
        (key("sk-a-provider-key"), "no private key"),
        (
            key(&other.private_key().to_pem()),
            "cannot be used together",
        ),
        (with("cert_serial", json!("0A:0B")), "the row says a0b"),
        (of(&expired), "expired at"),
        (of(&server), "names no grant and subject"),
        (with("common_name", json!("all")), "--name COMMON_NAME=NAME"),
    ];
    for (bad, why) in cases {
        let rows = json!([bad]).to_string();
        let ran = desk.import(&rows, &[]).await;
        assert_eq!(ran.exit, 1, "{why}: {} {}", ran.out, ran.errors);
        let found: Value = serde_json::from_str(&ran.out).unwrap();
        let said = found["refused"][0]["why"].as_str().unwrap();
        assert!(said.contains(why), "{why}: {said}");
        assert!(said.contains(';'), "it says what to do: {said}");
        assert!(
            !ran.out.contains(SECRET) && !ran.out.contains("sk-a-provider"),
            "{why}"
        );
        assert_eq!(home.control().list_peers().await.unwrap().len(), 0, "{why}");
    }
    let wrong = desk
        .import_with(&json!([base]).to_string(), "another", &[])
        .await;
    assert!(
        wrong.out.contains("does not open with this secret"),
        "{}",
        wrong.out
    );
    // A bad one beside a good one, which is then in the way of its own name.
    let both = json!([
        with("state", json!("pending")),
        row(&world, &good.minted, "work")
    ]);
    let ran = desk.import(&both.to_string(), &[]).await;
    assert_eq!(ran.exit, 1, "{}", ran.out);
    answers(&home, "work", plan::AMIRA).await;
    let ran = desk
        .import(&json!([row(&world, &good.minted, "work")]).to_string(), &[])
        .await;
    assert!(
        ran.out.contains("there is a peer named `work` already"),
        "{}",
        ran.out
    );
    // What is no export at all.
    for (export, why) in [("", "empty"), ("common_name\nwork\n", "no `endpoint_url`")] {
        let ran = desk.import(export, &[]).await;
        assert_eq!(ran.exit, 2, "{}", ran.errors);
        assert!(ran.errors.contains(why), "{}", ran.errors);
    }
    let ran = desk.import(&json!([base]).to_string(), &["nobody=x"]).await;
    assert!(
        ran.errors.contains("no row has that common name"),
        "{}",
        ran.errors
    );
    home.stop().await;
    world.stop().await;
}
