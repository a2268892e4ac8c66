//! The chain of a real sidecar's log: whole through restarts and jumps of the clock, and whatever is done to the database
//! without the key is found and named.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proxy::audit::chain::{Fault, Report, verify};
use proxy::audit::{AuditOutcome, Direction};
use reference_gateway::plan;
use serde_json::json;
use sqlx::{ConnectOptions, Connection as _, SqliteConnection};
use support::enlist::enlist;
use support::log::Log;
use support::onboard::{users, whole_scope};
use tests::audit::audit_row;
use tests::{Holder, World};

/// Why that is left out on PostgreSQL.
const ON_COPIES: &str = "of the file, of one process; `explain::verify_names_the_first_row_that_was_changed_or_removed` has it";

/// A sidecar that has answered, refused, restarted and stopped; its data.
struct Stopped {
    _world: World,
    data: PathBuf,
    audit: PathBuf,
}

async fn ask(world: &World, holder: &Holder) -> String {
    let mut last = String::new();
    for n in 0..6 {
        let path = if n % 3 == 2 {
            "/list/credentials"
        } else {
            "/list/tasks"
        };
        let answer = world.ask(&holder.minted, path, &json!({})).await;
        last = answer.request_id().to_owned();
    }
    audit_row(world.control(), &last).await;
    last
}

async fn begun() -> (World, Holder) {
    let world = World::start().await;
    let scope = whole_scope(plan::AMIRA);
    let holder = enlist(&world, "home", &users()[plan::AMIRA], scope).await;
    ask(&world, &holder).await;
    (world, holder)
}

async fn report(log: &Log, audit: &Path) -> Report {
    let mut known = log.heads().await;
    known.extend(log.checkpoints(audit));
    verify(&log.behind(0).await, log.key(), &known)
}

async fn open(data: &Path) -> SqliteConnection {
    sqlx::sqlite::SqliteConnectOptions::new()
        .filename(data.join("federation.db"))
        .connect()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_are_linked_through_restarts_and_cover_requests_and_acts() {
    let (world, holder) = begun().await;
    let world = world.restart().await;
    ask(&world, &holder).await;
    world.revoke(holder.grant).await;
    let data = world.dir.path().join("data");
    let world = world.restart().await;
    let log = Log::of(&world.config).await;
    let report = report(&log, &data.join("audit")).await;
    assert_eq!(report.finding, None);
    // What the harness wrote before the first sidecar began a chain.
    assert!(report.unlinked <= 1, "{}", report.unlinked);
    assert_eq!(report.heads.len(), 3 * world.replicas().count());
    let rows = log.behind(0).await;
    assert_eq!(report.verified + report.unlinked, rows.len() as u64);
    for direction in [Direction::Inbound, Direction::Admin] {
        assert!(rows.iter().any(|row| row.record.direction == direction));
    }
    // Denied rows carry what allowed ones do.
    let denied = rows
        .iter()
        .find(|row| row.record.outcome == AuditOutcome::Denied)
        .unwrap();
    let record = &denied.record;
    assert!(record.peer.is_some() && record.grant.is_some() && record.subject.is_some());
    assert!(record.cert_serial.is_some() && record.revision.is_some());
    assert!(record.verb.is_some() && record.resource.is_some() && record.query_hash.is_some());
    assert!(record.http_status == Some(403) && record.bytes_out > 0 && record.latency_us > 0);
    // Through the admin door the links are shown too.
    let query = proxy::admin::AuditQuery::default();
    let shown = world.control().query_audit(query).await.unwrap();
    let linked = shown.iter().filter(|row| row["hash"].is_string());
    assert_eq!(linked.count() as u64, report.verified);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_clock_changes_times_and_nothing_else() {
    let world = World::builder().manual_clock().start().await;
    let scope = whole_scope(plan::AMIRA);
    let holder = enlist(&world, "home", &users()[plan::AMIRA], scope).await;
    let start = certs::Clock::unix_millis(world.clock());
    let mut asked = Vec::new();
    for jump in [0, 240_000, -200_000, 3_600_000, -100_000, 0] {
        world.clock().set_unix_millis(start + jump);
        world.clock().advance(Duration::from_millis(1));
        let answer = world.ask(&holder.minted, "/list/tasks", &json!({})).await;
        asked.push(answer.request_id().to_owned());
        if world.beside.is_some() {
            // Each process writes what it answered when it gets to it.
            audit_row(world.control(), answer.request_id()).await;
        }
    }
    for id in &asked {
        audit_row(world.control(), id).await;
    }
    let data = world.dir.path().join("data");
    let log = Log::of(&world.config).await;
    let report = report(&log, &data.join("audit")).await;
    assert_eq!(report.finding, None);
    let rows = log.behind(0).await;
    let order: Vec<_> = rows
        .iter()
        .map(|row| row.record.request_id.as_str().to_owned())
        .filter(|id| asked.contains(id))
        .collect();
    assert_eq!(order, asked);
    world.stop().await;
}

async fn stopped() -> Stopped {
    let (world, holder) = begun().await;
    let world = world.restart().await;
    ask(&world, &holder).await;
    let data = world.dir.path().join("data");
    let copy = tempfile::tempdir().unwrap().keep();
    let into = format!("VACUUM INTO '{}'", copy.join("federation.db").display());
    let mut database = open(&data).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(into))
        .execute(&mut database)
        .await
        .unwrap();
    database.close().await.unwrap();
    std::fs::set_permissions(copy.join("federation.db"), Permissions::from_mode(0o600)).unwrap();
    std::fs::copy(data.join("sealing.key"), copy.join("sealing.key")).unwrap();
    // Stopping, the sidecar signs the end of its chain; the next one begins another, which the copy does not have.
    let world = world.restart().await;
    let signed = std::fs::read_to_string(data.join("audit/checkpoints.jsonl")).unwrap();
    let mut lines: Vec<_> = signed.lines().collect();
    lines.pop();
    std::fs::create_dir(copy.join("audit")).unwrap();
    std::fs::write(copy.join("audit/checkpoints.jsonl"), lines.join("\n")).unwrap();
    Stopped {
        _world: world,
        audit: copy.join("audit"),
        data: copy,
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.data).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_the_database_is_found_at_its_row() {
    if tests::database::is_postgres() {
        return support::skipped("tampering with copies of the database", ON_COPIES);
    }
    let stopped = stopped().await;
    let log = Log::of_copy(&stopped.data).await;
    let clean = report(&log, &stopped.audit).await;
    assert_eq!(clean.finding, None);
    let rows = log.behind(0).await;
    // The third request, of the first chain; behind it come more rows of that chain.
    let at = rows
        .iter()
        .filter(|row| row.record.direction == Direction::Inbound)
        .nth(2)
        .unwrap();
    let (position, link) = (at.position, at.link.unwrap());
    let next = position + 1;
    let tampered: [(&str, String, Fault); 6] = [
        (
            "one byte",
            format!(
                "UPDATE federation_audit_log SET bytes_out = bytes_out + 1 WHERE position = {position}"
            ),
            Fault::Changed,
        ),
        (
            "who was asked about",
            format!(
                "UPDATE federation_audit_log SET subject_user_id = zeroblob(16) WHERE position = {position}"
            ),
            Fault::Changed,
        ),
        (
            "a row is gone",
            format!("DELETE FROM federation_audit_log WHERE position = {position}"),
            Fault::Missing {
                chain: link.chain,
                from: link.seq,
                to: link.seq,
            },
        ),
        (
            "two rows change places",
            format!(
                "UPDATE federation_audit_log SET position = -1 WHERE position = {position}; \
                 UPDATE federation_audit_log SET position = {position} WHERE position = {next}; \
                 UPDATE federation_audit_log SET position = {next} WHERE position = -1"
            ),
            Fault::OutOfOrder { expected: link.seq },
        ),
        (
            "renumbered over a gap",
            format!(
                "DELETE FROM federation_audit_log WHERE position = {position}; \
                 UPDATE federation_audit_log SET seq = seq - 1 WHERE position > {position}"
            ),
            Fault::Changed,
        ),
        (
            "a row without a place",
            format!(
                "UPDATE federation_audit_log SET chain = NULL, seq = NULL, prev_hash = NULL, hash = NULL \
                 WHERE position = {position}"
            ),
            Fault::Unlinked,
        ),
    ];
    for (what, sql, fault) in tampered {
        let home = tempfile::tempdir().unwrap();
        copy_into(&stopped.data, home.path());
        let mut database = open(home.path()).await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut database)
            .await
            .unwrap();
        database.close().await.unwrap();
        let log = Log::of_copy(home.path()).await;
        let found = report(&log, &stopped.audit).await.finding.expect(what);
        assert_eq!(found.fault, fault, "{what}");
        let gone = [
            "a row is gone",
            "two rows change places",
            "renumbered over a gap",
        ];
        let shows = if gone.contains(&what) && !what.starts_with("two") {
            next
        } else {
            position
        };
        assert_eq!(found.position, shows, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_cut_off_with_its_notes_is_found_by_the_checkpoint() {
    if tests::database::is_postgres() {
        return support::skipped("tampering with copies of the database", ON_COPIES);
    }
    let stopped = stopped().await;
    let heads = Log::of_copy(&stopped.data).await.heads().await;
    let newest = *heads.last().unwrap();
    // The newest chain is cut back, and the store's own note of its head is made to agree; then it is removed as a whole.
    for sql in [
        format!(
            "DELETE FROM federation_audit_log WHERE chain = x'{chain}' AND seq > 1; \
             UPDATE audit_chains SET (seq, hash) = \
                (SELECT seq, hash FROM federation_audit_log WHERE chain = x'{chain}' AND seq = 1) \
             WHERE chain = x'{chain}'",
            chain = newest.chain.simple()
        ),
        format!(
            "DELETE FROM federation_audit_log WHERE chain = x'{chain}'; \
             DELETE FROM audit_chains WHERE chain = x'{chain}'",
            chain = newest.chain.simple()
        ),
    ] {
        let home = tempfile::tempdir().unwrap();
        copy_into(&stopped.data, home.path());
        let mut database = open(home.path()).await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut database)
            .await
            .unwrap();
        database.close().await.unwrap();
        let log = Log::of_copy(home.path()).await;
        let rows = log.behind(0).await;
        // The database alone looks whole.
        assert_eq!(verify(&rows, log.key(), &log.heads().await).finding, None);
        let checkpoints = log.checkpoints(&stopped.audit);
        let known = checkpoints
            .iter()
            .find(|head| head.chain == newest.chain)
            .unwrap()
            .seq;
        let found = verify(&rows, log.key(), &checkpoints).finding.unwrap();
        let there = rows
            .iter()
            .filter(|row| row.link.is_some_and(|link| link.chain == newest.chain))
            .count() as u64;
        let cut = Fault::Cut {
            chain: newest.chain,
            found: there,
            known,
        };
        assert!(known > there);
        assert_eq!(found.fault, cut);
    }
}

fn copy_into(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}
