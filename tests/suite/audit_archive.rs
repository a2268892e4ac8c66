//! The archive of a real sidecar's audit log: rows move into it by age, are found, verified and exported through it, and whatever is done
//! to its files is named. Ending with SIGKILL behind any step loses and repeats nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use certs::Clock;
use policy::time::UnixMillis;
use proxy::admin::ArchiveStep;
use proxy::audit::AuditRow;
use proxy::audit::archive::{ColdReader, ColdWriter, Manifests};
use proxy::audit::chain::Verifier;
use reference_gateway::plan;
use serde_json::{Value as Json, json};
use support::copied;
use support::enlist::{enlist, http_get};
use support::log::Log;
use support::onboard::{users, whole_scope};
use tests::audit::audit_row;
use tests::command::{Ran, command};
use tests::database::{Database, Value};
use tests::{Holder, World};

const DAY: i64 = 86_400_000;

async fn run(world: &World, arguments: &[&str]) -> Ran {
    command(&world.config.admin.socket, arguments).await
}

async fn done(world: &World, arguments: &[&str]) -> Json {
    let ran = run(world, &[arguments, &["--json"]].concat()).await;
    assert_eq!(ran.exit, 0, "{arguments:?}: {ran:?}");
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

fn items(document: &Json) -> Vec<Json> {
    document["items"].as_array().unwrap().clone()
}

fn now(world: &World) -> UnixMillis {
    UnixMillis(world.clock().unix_millis())
}

/// A sidecar whose time stands, with a holder of a grant.
async fn begun() -> (World, Holder) {
    let world = World::builder().manual_clock().start().await;
    let scope = whole_scope(plan::AMIRA);
    let holder = enlist(&world, "home", &users()[plan::AMIRA], scope).await;
    (world, holder)
}

/// Asks and is refused, a second apart. Returns the request ids.
async fn ask(world: &World, holder: &Holder, times: usize) -> Vec<String> {
    let mut asked = Vec::new();
    for n in 0..times {
        world.pass(Duration::from_secs(1)).await;
        let path = ["/list/tasks", "/list/notes", "/list/credentials"][n % 3];
        let answer = world.ask(&holder.minted, path, &json!({})).await;
        audit_row(world.control(), answer.request_id()).await;
        asked.push(answer.request_id().to_owned());
    }
    asked
}

fn data(world: &World) -> PathBuf {
    world.dir.path().join("data")
}

async fn log(world: &World) -> Log {
    Log::of(&world.config).await
}

/// Verifies as the command does; what was found.
async fn verify(world: &World) -> Json {
    let ran = run(world, &["audit", "verify", "--json"]).await;
    let found: Json = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    assert_eq!(ran.exit, u8::from(!found["finding"].is_null()), "{ran:?}");
    found
}

/// What `doctor` shows of the running process.
async fn checks(world: &World) -> String {
    let checks = world.control().checks().await.unwrap();
    serde_json::to_string(&checks).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_move_by_themselves_and_are_found_as_before() {
    let (world, holder) = begun().await;
    let first = ask(&world, &holder, 6).await;
    let world = world.restart().await;
    let second = ask(&world, &holder, 6).await;
    let until = now(&world).to_string();
    let since = now(&world).saturating_add(-4_500).to_string();
    let grant = holder.grant.to_string();
    let looks: Vec<Vec<&str>> = [
        vec![],
        vec!["--limit", "3"],
        vec!["--limit", "1000", "--outcome", "denied"],
        vec!["--code", "resource_not_granted"],
        vec!["--direction", "inbound", "--resource", "notes"],
        vec!["--direction", "admin"],
        vec!["--verb", "list", "--grant", &grant, "--limit", "5"],
        vec!["--peer", "home"],
        vec!["--request-id", &second[1]],
        vec!["--since", &since],
    ]
    .into_iter()
    .map(|look| [&["audit", "query", "--until", &until], &look[..]].concat())
    .collect();
    let mut before = Vec::new();
    for look in &looks {
        let found = items(&done(&world, look).await);
        assert!(look.contains(&"--code") || !found.is_empty(), "{look:?}");
        before.push(found);
    }
    let whole = log(&world).await.behind(0).await;

    // Eighty-nine days later nothing is old enough.
    world.pass(Duration::from_secs(89 * 86_400)).await;
    let nothing = run(&world, &["audit", "archive"]).await;
    assert_eq!(nothing.exit, 0, "{nothing:?}");
    assert!(nothing.errors.contains("no row is that old"), "{nothing:?}");
    world.pass(Duration::from_secs(86_401)).await;
    let world = world.restart().await;
    let moved = async {
        loop {
            if !log(&world).await.files().await.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), moved)
        .await
        .expect("the daily task moved nothing");

    let log = log(&world).await;
    let after = log.behind(0).await;
    assert_eq!(after[..whole.len()], whole, "one log, as it was");
    let live = log.live().await;
    let acts: Vec<_> = live
        .iter()
        .filter_map(|row| row.record.action.as_ref())
        .map(|act| act.as_str().to_owned())
        .collect();
    assert_eq!(live.len(), acts.len(), "{acts:?}");
    assert!(acts.contains(&"audit.archive".to_owned()), "{acts:?}");
    let file = log.shelf().path(1);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&log.shelf().dir)), (0o600, 0o700));

    for (look, before) in looks.iter().zip(&before) {
        let found = items(&done(&world, &[&look[..], &["--historical"]].concat()).await);
        assert_eq!(&found, before, "{look:?}");
        let found = items(&done(&world, look).await);
        assert!(found.is_empty(), "{look:?}: {found:?}");
    }
    let explain = ["audit", "explain", &first[2]];
    let ran = run(&world, &explain).await;
    assert_eq!(ran.exit, 3, "{ran:?}");
    assert!(ran.errors.contains("--historical"), "{ran:?}");
    let ran = run(&world, &[&explain[..], &["--historical"]].concat()).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.out.contains(&first[2]), "{ran:?}");

    let verified = verify(&world).await;
    assert_eq!(verified["finding"], Json::Null, "{verified}");
    assert_eq!(verified["files"], 1);
    let counted = verified["verified"].as_u64().unwrap() + verified["unlinked"].as_u64().unwrap();
    assert_eq!(counted, log.behind(0).await.len() as u64);
    let rows = log.files().await[0].rows;
    assert_eq!(archived(&world).await, rows);

    // An export holds all of it, and verifies without the archive.
    let export = world.dir.path().join("export.jsonl");
    let to = export.to_str().unwrap();
    let ran = run(&world, &["audit", "export", "--to", to]).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    let text = std::fs::read_to_string(&export).unwrap();
    for id in first.iter().chain(&second) {
        assert!(text.contains(id.as_str()), "{id}");
    }
    let secret = data(&world).join("sealing.key");
    let secret = ["--secret-file", secret.to_str().unwrap()];
    let ran = run(&world, &[&["audit", "verify", to], &secret[..]].concat()).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    world.stop().await;
}

/// How many rows the replicas have moved, together.
async fn archived(world: &World) -> u64 {
    let mut rows = 0;
    for replica in world.replicas() {
        let page = http_get(replica.addresses().ops.unwrap(), "/metrics").await;
        let name = "mosaic_federation_audit_archived_rows_total ";
        let count = page.lines().find_map(|line| line.strip_prefix(name));
        rows += count.unwrap().parse::<u64>().unwrap();
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_in_the_archive_are_replayed() {
    let (world, holder) = begun().await;
    ask(&world, &holder, 6).await;
    let moved = done(&world, &["audit", "archive", "--older-than", "2s"]).await;
    assert_eq!(moved["files"].as_array().unwrap().len(), 1, "{moved}");
    let live = log(&world).await.live().await;
    let inbound = live.iter().filter(|row| row.record.verb.is_some()).count();
    assert_eq!(inbound, 3, "the last of them are young");
    let candidate = world.config.policy.dir.to_str().unwrap().to_owned();
    let from = now(&world).saturating_add(-DAY).to_string();
    for since in ["1d", &from] {
        let arguments = [
            "policy",
            "replay",
            "--since",
            since,
            "--candidate",
            &candidate,
        ];
        let found = done(&world, &arguments).await;
        assert_eq!(found["examined"], 6, "{since}: {found}");
    }
    world.stop().await;
}

/// A log of which rows were moved three times, the first of them from before the sidecar began a chain.
async fn moved_thrice() -> (World, Holder) {
    let (world, holder) = begun().await;
    for n in 0..3 {
        ask(&world, &holder, 6).await;
        world.pass(Duration::from_secs(60)).await;
        let moved = done(&world, &["audit", "archive", "--older-than", "30s"]).await;
        assert_eq!(moved["files"].as_array().unwrap().len(), 1, "{n}: {moved}");
    }
    ask(&world, &holder, 3).await;
    let found = verify(&world).await;
    assert_eq!(found["finding"], Json::Null, "{found}");
    (world, holder)
}

/// Runs a statement on the database of a sidecar that runs.
async fn sql(world: &World, text: &str, values: &[Value<'_>]) {
    let mut database = Database::open(&world.config).await;
    database.execute(text, values).await;
    database.close().await;
}

/// Makes the list say this of the second file.
async fn list(world: &World, rows: usize, last_position: i64, bytes: usize, sha256: &[u8]) {
    let number = |count: usize| Value::Number(i64::try_from(count).unwrap());
    let text = "UPDATE audit_archives SET rows = $1, last_position = $2, bytes = $3, sha256 = $4 WHERE number = 2";
    let last = Value::Number(last_position);
    let values = [number(rows), last, number(bytes), Value::Bytes(sha256)];
    sql(world, text, &values).await;
}

/// Fails unless `audit verify` names this file, and says this of it.
async fn named(world: &World, what: &str, file: &str, says: &str) {
    let found = verify(world).await;
    let finding = &found["finding"];
    assert_eq!(finding["file"], file, "{what}: {found}");
    let fault = finding["fault"].as_str().unwrap();
    assert!(fault.contains(says), "{what}: {fault}");
    let ran = run(world, &["audit", "verify"]).await;
    assert!(ran.out.starts_with("NOT WHOLE  position "), "{ran:?}");
    assert!(ran.out.contains(file), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_the_archive_is_named() {
    let (world, _) = moved_thrice().await;
    let log = log(&world).await;
    let second = log.shelf().path(2);
    let (name, whole) = ("00000002.audit.zst", std::fs::read(&second).unwrap());
    let put_back = || std::fs::write(&second, &whole).unwrap();

    std::fs::remove_file(&second).unwrap();
    named(&world, "missing", name, "is missing").await;
    let ran = run(&world, &["audit", "query", "--historical"]).await;
    assert_eq!(ran.exit, 5, "{ran:?}");
    assert!(ran.errors.contains(name), "{ran:?}");
    let ran = run(&world, &["audit", "export"]).await;
    assert_ne!(ran.exit, 0, "an export without some rows");
    let checked = checks(&world).await;
    assert!(checked.contains(name), "{checked}");
    std::fs::write(&second, &whole[..whole.len() / 2]).unwrap();
    named(&world, "cut off", name, "is not what was written").await;
    std::fs::write(&second, &whole[..whole.len() - 1]).unwrap();
    named(&world, "one byte less", name, "is not what was written").await;
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    std::fs::write(&second, &changed).unwrap();
    named(&world, "one bit", name, "is not what was written").await;
    std::fs::write(&second, [&whole[..], b"x"].concat()).unwrap();
    named(&world, "one byte more", name, "is not what was written").await;
    std::fs::copy(log.shelf().path(1), &second).unwrap();
    named(
        &world,
        "another file",
        name,
        "written as `00000001.audit.zst`",
    )
    .await;
    put_back();
    assert_eq!(verify(&world).await["finding"], Json::Null);

    // With the database at hand too: the list of files is made to agree, and only the chain and the manifests are left.
    let rows = rows_of(&log, 2).await;
    let mut without = rows.clone();
    without.remove(3);
    forge(&world, &log, &without).await;
    let found = verify(&world).await;
    assert_eq!(found["finding"]["file"], name, "{found}");
    let fault = found["finding"]["fault"].as_str().unwrap();
    assert!(fault.contains("are missing"), "{fault}");
    assert!(
        fault.contains("lists it otherwise than its manifest"),
        "{fault}"
    );
    let mut other = rows.clone();
    other[3].record.bytes_out += 1;
    forge(&world, &log, &other).await;
    named(
        &world,
        "a row changed",
        name,
        "changed after it was written",
    )
    .await;
    let found = verify(&world).await;
    assert_eq!(found["finding"]["position"], rows[3].position, "{found}");
    forge(&world, &log, &rows[..rows.len() - 1]).await;
    named(&world, "its last row", name, "lists it otherwise").await;
    // The same rows packed otherwise: the chain is whole, the manifest is not met.
    let packed = zstd_again(&whole);
    std::fs::write(&second, &packed).unwrap();
    relist(&world, &packed).await;
    named(&world, "packed again", name, "lists it otherwise").await;
    put_back();
    relist(&world, &whole).await;
    assert_eq!(verify(&world).await["finding"], Json::Null);

    std::fs::remove_file(&second).unwrap();
    sql(&world, "DELETE FROM audit_archives WHERE number = 2", &[]).await;
    named(&world, "file and entry", name, "does not list it any more").await;
    sql(&world, "DELETE FROM audit_archives WHERE number = 3", &[]).await;
    // The manifest of the second was in the third: the third is the one that is told of.
    named(
        &world,
        "the next one too",
        "00000003.audit.zst",
        "does not list it any more",
    )
    .await;
    world.stop().await;
}

/// The rows of a file.
async fn rows_of(log: &Log, number: u64) -> Vec<AuditRow> {
    let files = log.files().await;
    let file = files.iter().find(|file| file.number == number).unwrap();
    let mut reader = ColdReader::open(log.shelf(), file).unwrap();
    reader.rows(10_000).unwrap()
}

/// Puts other rows into the second file, and makes the list of files agree.
async fn forge(world: &World, log: &Log, rows: &[AuditRow]) {
    let lock = log.shelf().take().unwrap();
    let mut writer = ColdWriter::begin(log.shelf(), 2).unwrap();
    for row in rows {
        assert!(writer.push(row).unwrap());
    }
    let finished = writer.finish().unwrap().unwrap();
    finished.rename().unwrap();
    drop(lock);
    let file = &finished.manifest().file;
    let size = |count: u64| usize::try_from(count).unwrap();
    let (rows, bytes) = (size(file.rows), size(file.bytes));
    list(world, rows, file.last_position, bytes, &file.sha256).await;
}

/// Makes the list say of the second file what these bytes are.
async fn relist(world: &World, bytes: &[u8]) {
    let digest = openssl::sha::sha256(bytes);
    let rows = rows_of_bytes(&log(world).await).await;
    let last = rows.last().unwrap().position;
    list(world, rows.len(), last, bytes.len(), &digest).await;
}

/// The rows of the second file as it is.
async fn rows_of_bytes(log: &Log) -> Vec<AuditRow> {
    let mut reader = ColdReader::open_unlisted(log.shelf(), 2).unwrap().unwrap();
    reader.rows(10_000).unwrap()
}

/// The same contents, compressed otherwise.
fn zstd_again(bytes: &[u8]) -> Vec<u8> {
    let plain = zstd::decode_all(bytes).unwrap();
    zstd::encode_all(plain.as_slice(), 1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_run_moves_a_row() {
    let (world, holder) = begun().await;
    ask(&world, &holder, 9).await;
    let before = log(&world).await.behind(0).await;
    let arguments = ["audit", "archive", "--older-than", "1s"];
    let runs = tokio::join!(
        run(&world, &arguments),
        run(&world, &arguments),
        run(&world, &arguments),
        run(&world, &arguments)
    );
    for ran in [runs.0, runs.1, runs.2, runs.3] {
        assert_eq!(ran.exit, 0, "{ran:?}");
    }
    // Another process that is at it.
    let lock = log(&world).await.shelf().take().unwrap();
    let ran = run(&world, &arguments).await;
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.errors.contains("another process moves rows"), "{ran:?}");
    drop(lock);
    let log = log(&world).await;
    let after = log.behind(0).await;
    assert_eq!(after[..before.len()], before);
    assert_eq!(verify(&world).await["finding"], Json::Null);
    for wrong in [
        &["--before", "2999-01-01T00:00:00Z"][..],
        &["--before", "yesterday"],
        &["--older-than", "0s"],
        &["--older-than", "1d", "--before", "2020-01-01T00:00:00Z"],
    ] {
        let ran = run(&world, &[&["audit", "archive"][..], wrong].concat()).await;
        assert!([1, 2].contains(&ran.exit), "{wrong:?}: {ran:?}");
    }
    let before = now(&world).to_string();
    let moved = done(&world, &["audit", "archive", "--before", &before]).await;
    assert_eq!(moved["before"], before);
    assert_eq!(verify(&world).await["finding"], Json::Null);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_the_log_goes_on_where_it_was() {
    let (world, holder) = begun().await;
    let asked = ask(&world, &holder, 6).await;
    let query = |after: &str| proxy::admin::AuditQuery {
        after: Some(uuid::Uuid::parse_str(after).unwrap()),
        direction: Some("inbound".to_owned()),
        ..Default::default()
    };
    let control = world.control();
    let behind = control.query_audit(query(&asked[3])).await.unwrap();
    assert_eq!(behind.len(), 2);
    let moved = done(&world, &["audit", "archive", "--older-than", "1s"]).await;
    assert_eq!(moved["files"].as_array().unwrap().len(), 1, "{moved}");
    let again = control.query_audit(query(&asked[3])).await.unwrap();
    assert_eq!(again, behind, "also when the row was moved meanwhile");
    let more = ask(&world, &holder, 1).await;
    let rows = control.query_audit(query(&asked[5])).await.unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["request_id"], more[0].as_str());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_nobody_lists_is_made_again_or_left_as_evidence() {
    let (world, holder) = begun().await;
    ask(&world, &holder, 6).await;
    let log = log(&world).await;
    let rows = log.live().await;
    let leave = |rows: &[AuditRow]| {
        let _lock = log.shelf().take().unwrap();
        let mut writer = ColdWriter::begin(log.shelf(), 1).unwrap();
        for row in rows {
            assert!(writer.push(row).unwrap());
        }
        writer.finish().unwrap().unwrap().rename().unwrap();
    };
    // Rows that this database does not have: of an older state of it that was put back, or somebody's.
    let mut other = rows[..4].to_vec();
    other[2].record.rows_returned += 1;
    leave(&other);
    let held = std::fs::read(log.shelf().path(1)).unwrap();
    let arguments = ["audit", "archive", "--older-than", "1s"];
    let ran = run(&world, &arguments).await;
    assert_eq!(ran.exit, 5, "{ran:?}");
    assert!(
        ran.errors
            .contains("move it to where it is kept as evidence"),
        "{ran:?}"
    );
    assert_eq!(std::fs::read(log.shelf().path(1)).unwrap(), held);
    assert_eq!(log.live().await, rows, "nothing was moved");
    let checked = checks(&world).await;
    assert!(
        checked.contains("old audit rows could not be moved"),
        "{checked}"
    );
    std::fs::write(log.shelf().path(1), &held[..held.len() / 2]).unwrap();
    assert_eq!(run(&world, &arguments).await.exit, 5, "half a file");
    // Rows that it has: what a run that was ended left.
    leave(&rows[..4]);
    let moved = done(&world, &arguments).await;
    assert!(moved["files"][0]["rows"].as_u64().unwrap() > 4, "{moved}");
    assert_eq!(verify(&world).await["finding"], Json::Null);
    world.stop().await;
}

/// The directory of a stopped sidecar, with some thousand rows a second apart, and the time behind the last.
async fn many() -> (tempfile::TempDir, UnixMillis) {
    let (world, holder) = begun().await;
    ask(&world, &holder, 9).await;
    let end = now(&world);
    let World {
        sidecar,
        mut beside,
        dir: home,
        ..
    } = world;
    if let Some(beside) = &mut beside {
        beside.stop().await;
    }
    sidecar.stop().await.unwrap();
    let log = Log::in_dir(home.path()).await;
    let rows = log.live().await;
    let pattern = rows.iter().find(|row| row.record.verb.is_some()).unwrap();
    let records: Vec<_> = (0..5_000)
        .map(|n| {
            let mut record = pattern.record.clone();
            record.at = end.saturating_add(n * 1_000);
            record.id = proxy::audit::record_id(record.at);
            record
        })
        .collect();
    let act = proxy::store::Act {
        id: proxy::audit::record_id(end),
        actor: proxy::store::Actor::Sidecar("test"),
        now: end,
    };
    log.begin_chain(act).await;
    for batch in records.chunks(500) {
        log.store().append_audit(batch, None).await.unwrap();
    }
    (home, end.saturating_add(5_000_000))
}

/// Moves what is from before a time, in a process that ends itself behind a step.
fn archive_until(data: &Path, before: UnixMillis, now: UnixMillis, step: &str) -> ExitStatus {
    Command::new(env!("CARGO_BIN_EXE_until"))
        .arg("archive")
        .arg(data)
        .args([before.0.to_string(), now.0.to_string(), step.to_owned()])
        .status()
        .unwrap()
}

/// Fails unless the log begins with these rows, each once, and its chains verify. Returns how many files and rows there are.
async fn intact(dir: &Path, rows: &[AuditRow], what: &str) -> (usize, usize) {
    let log = Log::in_dir(dir).await;
    let files = log.files().await;
    let (live, all) = (log.live().await, log.behind(0).await);
    let moved: u64 = files.iter().map(|file| file.rows).sum();
    assert_eq!(
        all.len() as u64,
        moved + live.len() as u64,
        "{what}: a row is in both places"
    );
    assert!(all[..rows.len()] == *rows, "{what}: the log is another one");
    let (mut verifier, mut manifests) = (Verifier::new(log.key()), Manifests::default());
    for head in log.heads().await {
        verifier.expect(head);
    }
    for head in log.checkpoints(&dir.join("data/audit")) {
        verifier.expect(head);
    }
    for row in &all {
        verifier.push(row);
        manifests.see(row);
    }
    assert_eq!(verifier.finish().finding, None, "{what}");
    let before = files.len() as u64;
    assert_eq!(manifests.disagreement(before, &files), None, "{what}");
    (files.len(), all.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_behind_any_step_loses_and_repeats_nothing() {
    if let Some(why) = copied::missing() {
        return support::skipped("a kill behind any step of moving rows", &why);
    }
    let (home, end) = many().await;
    let rows = Log::in_dir(home.path()).await.behind(0).await;
    let third = |n: i64| end.saturating_add(-5_000_000 + n * 1_700_000);
    for step in ArchiveStep::ALL {
        let what = format!("{step:?}");
        let trial = tempfile::tempdir().unwrap();
        copied::copy(home.path(), trial.path());
        let (dir, data) = (trial.path(), &trial.path().join("data"));
        // The first file, of rows of two chains, then a second one: each killed once and then made.
        for file in 1..=2 {
            let killed = archive_until(data, third(i64::try_from(file).unwrap()), end, &what);
            assert_eq!(killed.signal(), Some(9), "{what}: {killed}");
            let (files, _) = intact(dir, &rows, &what).await;
            let recorded = step == ArchiveStep::Recorded;
            assert_eq!(files, if recorded { file } else { file - 1 }, "{what}");
            let done = archive_until(data, third(i64::try_from(file).unwrap()), end, "never");
            assert!(done.success(), "{what}: {done}");
            let (files, _) = intact(dir, &rows, &what).await;
            assert_eq!(files, file, "{what}");
        }
        let names: Vec<_> = std::fs::read_dir(data.join("audit/archive"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "lock")
            .collect();
        assert_eq!(names.len(), 2, "{what}: {names:?}");
    }
}

/// How long each transaction took that removed rows, milliseconds: between two lines of the log.
fn held(log: &str) -> Vec<i64> {
    let at = |step: &str| -> Vec<UnixMillis> {
        let lines = log.lines().filter(|line| line.contains(step));
        let times = lines.map(|line| line.split_whitespace().next().unwrap().parse());
        times.collect::<Result<_, _>>().unwrap()
    };
    let (from, to) = (at("step=NameSynced"), at("step=Recorded"));
    assert_eq!(from.len(), to.len());
    from.iter()
        .zip(to)
        .map(|(from, to)| to.since(*from))
        .collect()
}

/// Neither moving nor reading rows takes memory for them.
#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_archive() {
    const ROWS: u64 = 110_000;
    const MIB: u64 = 1024 * 1024;
    let world = World::start().await;
    let scope = whole_scope(plan::AMIRA);
    let holder = enlist(&world, "home", &users()[plan::AMIRA], scope).await;
    let answer = world.ask(&holder.minted, "/list/tasks", &json!({})).await;
    audit_row(world.control(), answer.request_id()).await;
    // Elsewhere than everything else: a process that is confined to its files can write there.
    let archive = world.dir.path().join("cold").join("rows");
    let settings = vec![format!("audit.archive_dir={}", archive.display())];
    let process = support::process::Process::take_over_with(world, "debug", settings).await;
    let log = Log::open(&process).await.with_archive(&archive);
    let rows = log.live().await;
    let pattern = &rows
        .iter()
        .find(|row| row.record.verb.is_some())
        .unwrap()
        .record;
    let old = pattern.at.saturating_add(-100 * DAY);
    log.begin_chain(proxy::store::Act {
        id: proxy::audit::record_id(old),
        actor: proxy::store::Actor::Sidecar("test"),
        now: old,
    })
    .await;
    let append = async |rows: u64| {
        for first in (0..rows).step_by(1_000) {
            let batch: Vec<_> = (first..first + 1_000)
                .map(|n| {
                    let mut record = pattern.clone();
                    record.at = old.saturating_add(i64::try_from(n).unwrap());
                    record.id = proxy::audit::record_id(record.at);
                    record.latency_us += n;
                    record
                })
                .collect();
            log.store().append_audit(&batch, None).await.unwrap();
        }
    };
    let socket = process.data_dir().join("admin.sock");
    let measured = async |what: &str, arguments: &[&str]| {
        process.reset_peak();
        let (before, _) = process.memory();
        let begun = certs::SystemClock.boot_nanos();
        let ran = command(&socket, arguments).await;
        let millis = (certs::SystemClock.boot_nanos() - begun) / 1_000_000;
        assert_eq!(ran.exit, 0, "{ran:?}");
        let (_, peak) = process.memory();
        let grown = peak.saturating_sub(before) / MIB;
        println!("{what}: {millis} ms, {grown} MiB over {} MiB", before / MIB);
        (ran, grown)
    };
    let look = ["audit", "query", "--historical", "--code", "none"];
    // Also what was written a moment ago.
    let move_all = async |what: &str| {
        let before = UnixMillis(certs::SystemClock.unix_millis()).to_string();
        measured(what, &["audit", "archive", "--before", &before])
            .await
            .1
    };
    // What the connections of the database and the allocators keep, they keep from a few rows on.
    append(30_000).await;
    move_all("moving for the first time").await;
    measured("verifying for the first time", &["audit", "verify"]).await;
    append(ROWS).await;
    let moving = move_all("moving").await;
    let files = log.files().await;
    let (rows, bytes): (u64, u64) = files
        .iter()
        .map(|file| (file.rows, file.bytes))
        .fold((0, 0), |sum, file| (sum.0 + file.0, sum.1 + file.1));
    println!(
        "the database was held {:?} ms for each",
        held(&process.log.lock().unwrap())
    );
    println!(
        "{rows} rows in {} files, {} bytes a row",
        files.len(),
        bytes / rows
    );
    // One and three files of old rows; the new ones of each run may be in one of their own.
    assert!(
        rows > ROWS && (4..=6).contains(&files.len()),
        "{rows} rows in {} files",
        files.len()
    );
    let (_, looking) = measured("looking in the archive", &look).await;
    let (ran, verifying) = measured("verifying", &["audit", "verify"]).await;
    assert!(ran.out.starts_with("whole: "), "{ran:?}");
    // The rows alone are more than 100 MiB when all of them are in memory. What the database's connections keep of its pages depends on
    // which of them are used: up to 35 MiB, for twice as many rows too.
    for (what, grown) in [
        ("moving", moving),
        ("looking", looking),
        ("verifying", verifying),
    ] {
        assert!(grown < 64, "{what}: {grown} MiB");
    }
}
