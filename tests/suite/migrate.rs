//! `store migrate` by the program itself: killed in the middle and run again, the store on PostgreSQL is the one that was in the file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use proxy::config::{PostgresTls, PostgresUrl};
use proxy::store::{PostgresOptions, PostgresStore};
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection};
use support::acts::member;
use support::process::{Spawned, program, serve, spawn};
use support::skipped;
use tests::command::command;
use tests::grants::BASE;
use tests::{Client, Wire, World};

/// Questions whose records are moved: several batches.
const QUESTIONS: usize = 2_200;
const ASKING: usize = 4;
/// Of them moved when the program is killed.
const MOVED: i64 = 1_000;

fn migrate(file: &Path, to: &str, schema: &str) -> Command {
    let mut command = Command::new(program());
    command
        .args(["--json", "store", "migrate", "--schema", schema, "--to", to])
        .args(["--from", &format!("sqlite:{}", file.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn ran(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// Rows of a table of the schema; `None` while it is not there.
async fn there(hand: &mut PgConnection, schema: &str, table: &str) -> Option<i64> {
    let count = format!("SELECT count(*) FROM {schema}.{table}");
    sqlx::query_scalar(AssertSqlSafe(count))
        .fetch_one(hand)
        .await
        .ok()
}

/// Makes the schema as a first start of a move leaves it, and lets every statement on its log that comes after so many rows wait.
async fn slowed(url: &PostgresUrl, schema: &str, store_id: uuid::Uuid, hand: &mut PgConnection) {
    let second = Duration::from_secs(30);
    let options = PostgresOptions {
        host: url.host.clone(),
        port: url.port,
        user: url.user.clone(),
        password: url.password.clone(),
        database: url.database.clone(),
        schema: schema.to_owned(),
        tls: PostgresTls::Off,
        store_id,
        now: policy::time::UnixMillis(0),
        max_connections: 2,
        acquire_timeout: second,
        statement_timeout: second,
        lock_timeout: second,
    };
    drop(PostgresStore::open(&options).await.unwrap());
    for statement in [
        format!(
            "CREATE FUNCTION {schema}.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF (SELECT count(*) FROM {schema}.federation_audit_log) >= {MOVED} THEN PERFORM pg_sleep(600); END IF; RETURN NULL; END $$"
        ),
        format!(
            "CREATE TRIGGER wait BEFORE INSERT ON {schema}.federation_audit_log FOR EACH STATEMENT EXECUTE FUNCTION {schema}.wait()"
        ),
    ] {
        let statement = AssertSqlSafe(statement);
        sqlx::query(statement).execute(&mut *hand).await.unwrap();
    }
}

/// Ends what a process that was killed has left running, and waits until the lock of the schema is free.
async fn let_go(hand: &mut PgConnection, schema: &str) {
    let ended = "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l JOIN pg_namespace n ON l.objid = n.oid \
                 WHERE l.locktype = 'advisory' AND n.nspname = $1";
    loop {
        let held: i64 = sqlx::query_scalar(ended)
            .bind(schema)
            .fetch_one(&mut *hand)
            .await
            .unwrap();
        if held == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_moved_by_a_program_that_was_killed_is_the_same() {
    if tests::database::is_postgres() {
        return;
    }
    let (Ok(url), Ok(valkey)) = (
        std::env::var("MOSAIC_TEST_POSTGRES"),
        std::env::var("MOSAIC_TEST_VALKEY"),
    ) else {
        return skipped(
            "moving a store by the program",
            "MOSAIC_TEST_POSTGRES names no server",
        );
    };
    let world = World::start().await;
    let holder = member(&world, "moved").await;
    let asking = (0..ASKING).map(|_| async {
        let mut client = Client::open(Wire::H2, world.federation(), &holder.minted, world.root())
            .await
            .unwrap();
        for _ in 0..QUESTIONS / ASKING {
            let answer = client.post(&format!("{BASE}/capabilities"), "{}").await;
            assert_eq!(answer.unwrap().status, 200);
        }
    });
    futures_util::future::join_all(asking).await;
    let World {
        gateway,
        sidecar,
        ca,
        dir,
        ..
    } = world;
    sidecar.stop().await.unwrap();
    let file = dir.path().join("data").join("federation.db");
    let mut source: SqliteConnection = SqliteConnectOptions::new()
        .filename(&file)
        .connect()
        .await
        .unwrap();
    let records: i64 = sqlx::query_scalar("SELECT count(*) FROM federation_audit_log")
        .fetch_one(&mut source)
        .await
        .unwrap();
    assert!(records > i64::try_from(QUESTIONS).unwrap());
    let store_id: String = sqlx::query_scalar("SELECT store_id FROM meta")
        .fetch_one(&mut source)
        .await
        .unwrap();
    source.close().await.unwrap();

    let parsed = PostgresUrl::parse(&url).unwrap();
    let schema = format!("m_{}", uuid::Uuid::new_v4().simple());
    let mut hand: PgConnection = url
        .parse::<sqlx::postgres::PgConnectOptions>()
        .unwrap()
        .connect()
        .await
        .unwrap();
    slowed(&parsed, &schema, store_id.parse().unwrap(), &mut hand).await;
    let mut moving = migrate(&file, &url, &schema).spawn().unwrap();
    let log = "federation_audit_log";
    while there(&mut hand, &schema, log).await.unwrap() < MOVED {
        let ended = moving.try_wait().unwrap();
        assert!(ended.is_none(), "{:?}", moving.wait_with_output());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    moving.kill().unwrap();
    moving.wait().unwrap();
    let_go(&mut hand, &schema).await;
    let half = there(&mut hand, &schema, log).await.unwrap();
    println!("killed with {half} of {records} records moved");
    assert!(half >= MOVED && half < records);
    let free = AssertSqlSafe(format!("DROP TRIGGER wait ON {schema}.{log}"));
    sqlx::query(free).execute(&mut hand).await.unwrap();
    let free = AssertSqlSafe(format!("DROP FUNCTION {schema}.wait()"));
    sqlx::query(free).execute(&mut hand).await.unwrap();

    let settings: Vec<String> = [
        "tier=federated".to_owned(),
        format!("database.url={url}"),
        format!("database.schema={schema}"),
        format!("valkey.url={valkey}"),
    ]
    .into();
    // What is half there is not a store.
    let half = ran(serve(dir.path(), "warn", &settings)).await;
    assert!(!half.status.success());

    let moved = ran(migrate(&file, &url, &schema)).await;
    let told = String::from_utf8(moved.stdout).unwrap();
    assert!(
        moved.status.success(),
        "{told} {}",
        String::from_utf8_lossy(&moved.stderr)
    );
    let told: Value = serde_json::from_str(&told).unwrap();
    let mut source: SqliteConnection = SqliteConnectOptions::new()
        .filename(&file)
        .connect()
        .await
        .unwrap();
    let tables = told["tables"].as_array().unwrap();
    for table in tables {
        let name = table["table"].as_str().unwrap();
        assert_eq!(table["sha256"].as_str().map(str::len), Some(64));
        let here: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {name}")))
            .fetch_one(&mut source)
            .await
            .unwrap();
        assert_eq!(table["rows"], here, "{name}");
        assert_eq!(there(&mut hand, &schema, name).await, Some(here), "{name}");
    }
    // Nothing is left out: a table that is not named is empty in the file.
    let all: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> '_sqlx_migrations'",
    )
    .fetch_all(&mut source)
    .await
    .unwrap();
    for name in all {
        if !tables.iter().any(|table| table["table"] == name.as_str()) {
            let count = format!("SELECT count(*) FROM {name} WHERE 1 = 1");
            let rows: i64 = sqlx::query_scalar(AssertSqlSafe(count))
                .fetch_one(&mut source)
                .await
                .unwrap();
            assert!(
                rows == 0 || ["replicas", "runners"].contains(&name.as_str()),
                "{name}"
            );
        }
    }
    source.close().await.unwrap();

    // Not onto a store, nor onto data of somebody else.
    let again = ran(migrate(&file, &url, &schema)).await;
    assert!(!again.status.success());
    let other = format!("{schema}_o");
    for statement in [
        format!("CREATE SCHEMA {other}"),
        format!("CREATE TABLE {other}.peers (id text)"),
        format!("INSERT INTO {other}.peers VALUES ('theirs')"),
    ] {
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut hand)
            .await
            .unwrap();
    }
    let refused = ran(migrate(&file, &url, &other)).await;
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && why.contains(&other), "{why}");
    assert_eq!(there(&mut hand, &other, "peers").await, Some(1));

    // The sidecar goes on: its grants, its keys, its records.
    let mut command_line = serve(dir.path(), "info", &settings);
    let Spawned {
        mut child,
        federation,
        ..
    } = tokio::task::spawn_blocking(move || spawn(&mut command_line))
        .await
        .unwrap();
    let asked = async {
        let mut client = Client::open(Wire::H1, federation.unwrap(), &holder.minted, ca.root_der())
            .await
            .unwrap();
        client
            .post(&format!("{BASE}/list/tasks"), "{}")
            .await
            .unwrap()
    };
    let answer = asked.await;
    let socket = dir.path().join("data").join("admin.sock");
    let verified = command(&socket, &["--json", "audit", "verify"]).await;
    let told = Command::new("kill").arg(child.id().to_string()).status();
    assert!(told.unwrap().success() && child.wait().unwrap().success());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(verified.exit, 0, "{verified:?}");
    for schema in [schema, other] {
        let dropped = AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"));
        sqlx::query(dropped).execute(&mut hand).await.unwrap();
    }
    drop(gateway);
}
