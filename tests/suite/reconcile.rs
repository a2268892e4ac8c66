//! Two operators compare what the asking side recorded with what the serving side exports, over whole sidecars: an honest pair
//! is clean, and whatever a serving side changes, with all of its keys, is named.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certs::{Clock, SystemClock};
use policy::id::{GrantId, SubjectId};
use policy::time::UnixMillis;
use proxy::admin::AuditQuery;
use proxy::audit::history::export::GrantExporter;
use proxy::audit::history::grant_of;
use proxy::audit::{AuditOutcome, AuditRecord, AuditRow, AuditText, HistoryHead};
use reference_gateway::plan;
use serde_json::{Value, json};
use support::log::Log;
use support::onboard::{onboard, truth};
use support::reader::PATIENCE;
use tests::audit::audit_rows;
use tests::command::{Ran, command};
use tests::database::{Database, Value as Bound};
use tests::{Home, Response, World};
use uuid::Uuid;

/// A serving side, an asking side, and the grant between them.
struct Pair {
    world: World,
    home: Home,
    session: String,
    grant: String,
}

impl Pair {
    async fn new() -> Self {
        let world = World::start().await;
        let home = Home::start().await;
        let grant = onboard(&world, &home, "home", plan::AMIRA, "amira").await;
        let session = home.session("amira").await;
        Self {
            world,
            home,
            session,
            grant,
        }
    }

    async fn ask(&self, path: &str, body: &Value) -> Response {
        self.home.ask(&self.session, "work", path, body).await
    }

    /// Every kind of question, answered and refused; the last one is on both sides when this returns.
    async fn ask_all(&self) {
        let mine = truth("tasks", plan::AMIRA)[0].1.clone();
        let search = json!({"params": {"query": "the", "resources": ["tasks", "notes"]}});
        let one = json!({"params": {"query": "the", "resources": ["tasks"]}});
        let limit = json!({"params": {"limit": 3}});
        let questions: [(&str, &Value, u16); 9] = [
            ("/capabilities", &json!({}), 200),
            ("/list/tasks", &json!({}), 200),
            ("/list/notes", &limit, 200),
            (&format!("/get/tasks/{mine}"), &json!({}), 200),
            ("/get/tasks/no-such-row", &json!({}), 404),
            ("/list/credentials", &json!({}), 403),
            ("/search", &search, 200),
            ("/search", &one, 200),
            ("/list/tasks", &json!({"params": {"limit": 0}}), 400),
        ];
        for (path, body, status) in questions {
            let answer = self.ask(path, body).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
            self.settled(&answer).await;
        }
    }

    /// Waits until both sides have written a question down.
    async fn settled(&self, answer: &Response) {
        let own = audit_rows(self.home.control(), answer.request_id(), 1).await;
        let id = own[0]["request_id"].as_str().unwrap();
        audit_rows(self.world.control(), id, 1).await;
    }

    /// Asks until the asking side has verified a signature of the serving side.
    async fn witnessed(&self) -> Value {
        let look = async {
            loop {
                let answer = self.ask("/capabilities", &json!({})).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                self.settled(&answer).await;
                let seen = self.seen().await;
                if seen["signed_record"].is_u64() {
                    return seen;
                }
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap()
    }

    /// What `status` of the asking side says of the record of the serving side.
    async fn seen(&self) -> Value {
        let outbound = self.home.control().outbound.as_ref().unwrap();
        outbound.keep_heard().await;
        let status = self.home.control().status().await.unwrap();
        serde_json::to_value(&status.outbound[0].witness).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.dir.path().join(name)
    }

    async fn at_work(&self, arguments: &[&str]) -> Ran {
        command(&self.world.config.admin.socket, arguments).await
    }

    /// `audit export --grant` on the serving side.
    async fn export(&self) -> PathBuf {
        let file = self.file("export.jsonl");
        let to = file.to_str().unwrap();
        let ran = self
            .at_work(&["audit", "export", "--grant", &self.grant, "--to", to])
            .await;
        assert_eq!(ran.exit, 0, "{}", ran.errors);
        file
    }

    /// `audit reconcile` on the asking side.
    async fn reconcile(&self, file: &Path, more: &[&str]) -> Ran {
        let file = file.to_str().unwrap();
        let mut arguments = vec!["audit", "reconcile", "--export", file, "--settle", "0s"];
        arguments.extend_from_slice(more);
        command(&self.home.config.admin.socket, &arguments).await
    }

    /// What reconciling finds in a text.
    async fn findings(&self, text: &str) -> Vec<Value> {
        let file = self.file("forged.jsonl");
        std::fs::write(&file, text).unwrap();
        let ran = self.reconcile(&file, &["--json"]).await;
        assert_eq!(ran.exit, 1, "{}{}", ran.out, ran.errors);
        let done: Value = serde_json::from_str(&ran.out).unwrap();
        done["result"]["findings"].as_array().unwrap().clone()
    }

    /// The serving side's rows of the grant.
    async fn rows(&self) -> Vec<AuditRow> {
        let log = Log::of(&self.world.config).await;
        let grant: GrantId = self.grant.parse().unwrap();
        let mut rows = log.behind(0).await;
        rows.retain(|row| grant_of(&row.record) == Some(grant));
        rows
    }

    /// An export of these records as the serving side's own program would make it, with its key and hashes that follow.
    async fn forged(&self, rows: &[AuditRow]) -> String {
        let log = Log::of(&self.world.config).await;
        let grant: GrantId = self.grant.parse().unwrap();
        let at = UnixMillis(SystemClock.unix_millis());
        let signer = Arc::clone(log.signer());
        let (mut exporter, mut text) = GrantExporter::begin(signer, grant, at);
        let (mut head, mut buffer) = (HistoryHead::NONE, Vec::new());
        for row in rows {
            let chain = row.link.unwrap().chain;
            head = head.next(grant, chain, &row.record, &mut buffer);
            let row = AuditRow {
                history: Some(head.place()),
                ..row.clone()
            };
            exporter.row(&row, &mut text).unwrap();
        }
        text.push_str(&exporter.end());
        text
    }

    /// Restarts the serving side where it was.
    async fn restart(self) -> Self {
        let mut world = self.world;
        let mut config = proxy::config::Config::clone(&world.config);
        if world.beside.is_none() {
            config.federation.listen = world.federation();
        }
        world.config = Arc::new(config);
        let world = world.restart().await;
        Self { world, ..self }
    }

    async fn stop(self) {
        self.home.stop().await;
        self.world.stop().await;
    }
}

fn kinds(findings: &[Value]) -> Vec<&str> {
    findings
        .iter()
        .map(|finding| finding["kind"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_pair_is_clean_through_a_restart_and_learns_nothing_of_others() {
    let pair = Pair::new().await;
    // Another grant of another peer, in between.
    let other = Home::start().await;
    let foreign = onboard(&pair.world, &other, "other", plan::BEN, "ben").await;
    let session = other.session("ben").await;
    pair.ask_all().await;
    let answer = other.ask(&session, "work", "/list/tasks", &json!({})).await;
    assert_eq!(answer.status, 200);
    let pair = pair.restart().await;
    pair.ask_all().await;
    // A renewal is a request under the grant as well, and what follows it comes with another certificate.
    let renew = ["cert", "renew", "--peer", "work"];
    let ran = command(&pair.home.config.admin.socket, &renew).await;
    assert_eq!(ran.exit, 0, "{}", ran.errors);
    let seen = pair.witnessed().await;
    assert_eq!(seen["verifies"], true, "{seen}");
    assert_eq!(seen["alarms"], 0, "{seen}");
    let file = pair.export().await;
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let records = &lines[1..lines.len() - 1];
    let numbers: Vec<u64> = records
        .iter()
        .map(|line| line["gseq"].as_u64().unwrap())
        .collect();
    let expected: Vec<u64> = (1..=records.len() as u64).collect();
    assert_eq!(numbers, expected, "one line through both processes");
    let mut chains: Vec<&str> = records
        .iter()
        .map(|line| line["chain"].as_str().unwrap())
        .collect();
    let replicas = pair.world.replicas().count();
    if replicas > 1 {
        // Those that answered, before and after.
        chains.sort_unstable();
    }
    chains.dedup();
    assert!((2..=2 * replicas).contains(&chains.len()), "{chains:?}");
    // What the serving side alone may know is not in it, as text or in the records.
    for word in [
        &foreign,
        "rows_withheld",
        "revision",
        "decision",
        "latency",
        "peer_id",
    ] {
        assert!(!text.contains(word), "{word}");
    }
    let ran = pair.reconcile(&file, &["--json", "--peer", "work"]).await;
    assert_eq!(ran.exit, 0, "{}{}", ran.out, ran.errors);
    let done: Value = serde_json::from_str(&ran.out).unwrap();
    let result = &done["result"];
    assert_eq!(result["findings"], json!([]), "{done}");
    // Also the question with which the peer was added.
    assert_eq!(result["questions"], records.len(), "{done}");
    assert_eq!(result["agreed"], records.len(), "{done}");
    assert!(result["checkpoints"].as_u64().unwrap() > 2, "{done}");
    assert!(result["signed_checkpoints"].as_u64().unwrap() > 0, "{done}");
    assert_eq!(
        done["key"],
        "signed by the key that the peer gave at enrollment"
    );
    let ran = pair.reconcile(&file, &[]).await;
    assert_eq!(ran.exit, 0, "{}", ran.errors);
    assert!(ran.out.contains("\nclean: "), "{}", ran.out);
    // The serving side's own log is whole with it.
    let ran = pair.at_work(&["audit", "verify"]).await;
    assert_eq!(ran.exit, 0, "{}{}", ran.out, ran.errors);
    other.stop().await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_serving_side_changes_is_named() {
    let pair = Pair::new().await;
    pair.ask_all().await;
    pair.witnessed().await;
    let rows = pair.rows().await;
    let honest = pair.forged(&rows).await;
    let file = pair.file("honest.jsonl");
    std::fs::write(&file, &honest).unwrap();
    let ran = pair.reconcile(&file, &["--json"]).await;
    assert_eq!(ran.exit, 0, "{}{}", ran.out, ran.errors);
    let list = rows
        .iter()
        .position(|row| {
            let record = &row.record;
            record.verb == Some(AuditText::fixed("list")) && record.outcome == AuditOutcome::Allowed
        })
        .unwrap();
    let question = rows[list].record.peer_request_id.clone().unwrap();
    let question = question.as_str();

    // A request that never happened, they say.
    let mut forged = rows.clone();
    forged.remove(list);
    let found = pair.findings(&pair.forged(&forged).await).await;
    assert_eq!(kinds(&found), ["missing", "rewritten"], "{found:?}");
    assert_eq!(found[0]["request_id"], question);
    // The first place that was shown and is another now is the first behind it, or a later one.
    assert!(found[1]["gseq"].as_u64().unwrap() > list as u64);

    // One that did not.
    let mut forged = rows.clone();
    let mut invented = rows[list].clone();
    invented.record.id = Uuid::now_v7();
    invented.record.request_id = AuditText::short(&invented.record.id.to_string());
    invented.record.peer_request_id = Some(AuditText::fixed("never-asked"));
    invented.record.rows_returned = 10_000;
    forged.insert(list, invented);
    let found = pair.findings(&pair.forged(&forged).await).await;
    assert_eq!(kinds(&found), ["invented", "rewritten"], "{found:?}");
    assert_eq!(found[0]["request_id"], "never-asked");
    assert_eq!(found[0]["rows"], 10_000);

    // One that was another.
    type Change = fn(&mut AuditRecord);
    let changes: [(&str, Change); 6] = [
        ("query_hash", |one| one.query_hash = Some([1; 32])),
        ("status", |one| one.http_status = Some(503)),
        ("rows", |one| one.rows_returned += 1),
        ("subject", |one| {
            one.subject = Some(SubjectId::new(Uuid::nil()));
        }),
        ("resource", |one| {
            one.resource = Some(AuditText::fixed("missions"));
        }),
        ("cert_serial", |one| {
            one.cert_serial = Some(AuditText::fixed("00"));
        }),
    ];
    for (field, change) in changes {
        let mut forged = rows.clone();
        change(&mut forged[list].record);
        let found = pair.findings(&pair.forged(&forged).await).await;
        assert_eq!(
            kinds(&found),
            ["altered", "rewritten"],
            "{field}: {found:?}"
        );
        assert_eq!(found[0]["request_id"], question, "{field}");
        assert_eq!(found[0]["fields"][0]["field"], field, "{found:?}");
    }

    // The end is gone, as if the last questions were still to come.
    let cut = &rows[..rows.len() - 2];
    let found = pair.findings(&pair.forged(cut).await).await;
    assert_eq!(kinds(&found), ["missing", "missing", "cut"], "{found:?}");
    assert_eq!(found[2]["last"], cut.len());

    // A file that was edited by hand does not even hold together.
    let line = honest.lines().nth(list + 1).unwrap();
    let edited = honest.replacen(
        line,
        &line.replacen("\"outcome\":\"allowed\"", "\"outcome\":\"aborted\"", 1),
        1,
    );
    assert_ne!(edited, honest);
    let found = pair.findings(&edited).await;
    assert_eq!(kinds(&found), ["broken"], "{found:?}");
    let what = found[0]["what"].as_str().unwrap();
    assert!(what.starts_with(&format!("line {} ", list + 2)), "{what}");

    // Somebody else's signature is not the peer's.
    let ran = pair.reconcile(&file, &["--key", &"ab".repeat(32)]).await;
    assert_eq!(ran.exit, 1);
    assert!(
        ran.out.contains("NOT CLEAN") && ran.out.contains("broken"),
        "{}",
        ran.out
    );
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_wrongly_is_refused() {
    let pair = Pair::new().await;
    pair.ask_all().await;
    let file = pair.export().await;
    let ran = pair.reconcile(&file, &["--peer", "nobody"]).await;
    assert_eq!(ran.exit, 3, "{}", ran.errors);
    let ran = pair.reconcile(&file, &["--key", "short"]).await;
    assert_eq!(ran.exit, 2, "{}", ran.errors);
    let other = Uuid::new_v4().to_string();
    let ran = pair.at_work(&["audit", "export", "--grant", &other]).await;
    assert_eq!(ran.exit, 3, "{}", ran.errors);
    // The whole log is no export of a grant, and a grant that we do not hold is not ours to compare.
    let whole = pair.file("whole.jsonl");
    let ran = pair
        .at_work(&["audit", "export", "--to", whole.to_str().unwrap()])
        .await;
    assert_eq!(ran.exit, 0, "{}", ran.errors);
    let ran = pair.reconcile(&whole, &[]).await;
    assert_eq!(ran.exit, 2, "{}", ran.errors);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&whole, text.replacen(&pair.grant, &other, 1)).unwrap();
    let ran = pair.reconcile(&whole, &[]).await;
    assert_eq!(ran.exit, 3, "{}", ran.errors);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_changed_in_the_database_is_not_exported_as_if_nothing_were() {
    let pair = Pair::new().await;
    pair.ask_all().await;
    let rows = pair.rows().await;
    let at = rows[2].position;
    for (change, fault) in [
        (
            "bytes_out = bytes_out + 1 WHERE ghash <> $2",
            "the row was changed",
        ),
        ("ghash = $2 WHERE true", "history of its grant"),
        ("gseq = gseq + 1 WHERE ghash <> $2", "history of its grant"),
    ] {
        let mut database = pair.world.database().await;
        let sql = format!("UPDATE federation_audit_log SET {change} AND position = $1");
        let values = [Bound::Number(at), Bound::Bytes(&[0; 32])];
        assert_eq!(database.execute(&sql, &values).await, 1);
        let ran = pair
            .at_work(&["audit", "export", "--grant", &pair.grant])
            .await;
        assert_eq!(ran.exit, 1, "{change}: {}{}", ran.out, ran.errors);
        assert!(
            ran.errors.contains("is not what was written"),
            "{}",
            ran.errors
        );
        assert!(!ran.out.contains("\"end\""), "{}", ran.out);
        let ran = pair.at_work(&["audit", "verify"]).await;
        assert_eq!(ran.exit, 1, "{change}");
        assert!(ran.out.contains(&format!("position {at}")), "{}", ran.out);
        assert!(ran.out.contains(fault), "{change}: {}", ran.out);
        let place = rows[2].history.unwrap();
        let values = [
            Bound::Number(i64::try_from(rows[2].record.bytes_out).unwrap()),
            Bound::Number(i64::try_from(place.gseq).unwrap()),
            Bound::Bytes(&place.ghash),
            Bound::Number(at),
        ];
        let sql = "UPDATE federation_audit_log SET bytes_out = $1, gseq = $2, ghash = $3 WHERE position = $4";
        assert_eq!(database.execute(sql, &values).await, 1);
        database.close().await;
    }
    let ran = pair.at_work(&["audit", "verify"]).await;
    assert_eq!(ran.exit, 0, "{}", ran.out);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_side_that_is_set_back_raises_an_alarm_everywhere() {
    let mut pair = Pair::new().await;
    pair.ask_all().await;
    pair.witnessed().await;
    // The place that answers carry behind a restart is what the store notes.
    let mut rounds = 0;
    let seen = loop {
        let mut database = pair.world.database().await;
        let sql = "UPDATE audit_histories SET gseq = 1";
        database.execute(sql, &[]).await;
        database.close().await;
        pair = pair.restart().await;
        let answer = pair.ask("/list/tasks", &json!({})).await;
        assert_eq!(answer.status, 200, "rows are as good as they were");
        let seen = pair.seen().await;
        if seen["alarms"].as_u64().unwrap() > 0 {
            break seen;
        }
        rounds += 1;
        assert!(rounds < 10, "{seen}");
    };
    assert!(
        seen["alarm"]
            .as_str()
            .unwrap()
            .contains("history of our grant"),
        "{seen}"
    );
    let look = async {
        loop {
            let rows = pair
                .home
                .control()
                .query_audit(AuditQuery::default())
                .await
                .unwrap();
            if let Some(act) = rows.iter().find(|row| row["action"] == "witness.alarm") {
                return act.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let act = tokio::time::timeout(PATIENCE, look).await.unwrap();
    assert_eq!(act["grant_id"], pair.grant.as_str(), "{act}");
    assert!(
        act["detail"]["shown_gseq"].is_u64() && act["detail"]["known_gseq"].is_u64(),
        "{act}"
    );
    let kind = act["detail"]["kind"].as_str().unwrap();
    let metrics = String::from_utf8(pair.home.sidecar.metrics.render().unwrap()).unwrap();
    let series = format!("mosaic_federation_witness_alarms_total{{kind=\"{kind}\"}} ");
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix(&series))
        .unwrap();
    assert_ne!(count, "0");
    let checks = pair.home.control().checks().await.unwrap();
    assert!(
        checks.iter().any(|check| check.name == "record of work"),
        "{checks:?}"
    );
    let ran = command(&pair.home.config.admin.socket, &["status"]).await;
    assert!(ran.out.contains("RECORD IN DOUBT"), "{}", ran.out);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_than_that_of_the_enrollment_raises_an_alarm() {
    let pair = Pair::new().await;
    let mut database = Database::open(&pair.home.config).await;
    let sql = "UPDATE peers SET checkpoint_key = $1";
    assert_eq!(database.execute(sql, &[Bound::Bytes(&[7; 32])]).await, 1);
    database.close().await;
    let outbound = pair.home.control().outbound.as_ref().unwrap();
    outbound.load().await.unwrap();
    let look = async {
        loop {
            let answer = pair.ask("/list/tasks", &json!({})).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            pair.settled(&answer).await;
            let seen = pair.seen().await;
            if seen["alarms"].as_u64().unwrap() > 0 {
                return seen;
            }
        }
    };
    let seen = tokio::time::timeout(PATIENCE, look).await.unwrap();
    assert!(
        seen["alarm"].as_str().unwrap().contains("signature"),
        "{seen}"
    );
    assert_eq!(seen["signed_record"], Value::Null, "{seen}");
    pair.stop().await;
}
