//! Renewal from end to end: an asking side keeps its credentials fresh, and sessions do not notice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "renewal_home/killed.rs"]
mod killed;
#[path = "renewal_home/rotation.rs"]
mod rotation;
mod support;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use certs::Clock;
use certs::testing::ManualClock;
use policy::id::GrantId;
use proxy::admin::{AddPeer, CertificateRow, PeerView, RenewCertificates, RevokeCertificate};
use proxy::outbound::Outbound;
use reference_gateway::plan;
use serde_json::{Value, json};
use support::enlist::http_get;
use support::line::Line;
use support::onboard::{keys, truth, whole_scope};
use support::reader::PATIENCE;
use tests::audit::{audit_row, audit_rows};
use tests::command::command;
use tests::database::Database;
use tests::world::operator;
use tests::{Home, Response, World};

const LIFE: u64 = 300;

/// A work that issues certificates of five minutes, a home that asks it as amira over a line, and their clocks.
struct Pair {
    world: World,
    home: Home,
    line: Line,
    /// The home's clock.
    clock: Arc<ManualClock>,
    grant: GrantId,
    session: String,
}

impl Pair {
    async fn start() -> Self {
        Self::with("", Duration::ZERO, false, "").await
    }

    /// `limits` are lines of the serving side; `settings` sections of the asking side, whose clock is `skew` ahead or
    /// behind.
    async fn with(limits: &str, skew: Duration, behind: bool, settings: &str) -> Self {
        let limits = format!("[limits]\nclient_certificate_s = {LIFE}\n{limits}");
        let builder = if tests::valkey::missing().is_none() {
            World::builder().manual_limits()
        } else {
            World::builder().manual_clock()
        };
        let world = builder.settings(&limits).start().await;
        let skew = i64::try_from(skew.as_millis()).unwrap();
        let now = world.clock().unix_millis() + if behind { -skew } else { skew };
        let clock = Arc::new(ManualClock::at_millis(now));
        let dir = tempfile::tempdir().unwrap();
        let home = Home::start_by_hand(dir, &clock, settings).await;
        let line = Line::to(world.federation()).await;
        world.let_in(plan::AMIRA).await;
        let grant = world
            .pending_for("home", plan::AMIRA, whole_scope(plan::AMIRA))
            .await;
        let order = AddPeer {
            url: world.enrollment_url(grant.id).await,
            user: "amira".to_owned(),
            name: "work".to_owned(),
            endpoint: Some(format!("https://{}", line.address)),
            fingerprint: None,
            trust_root_pem: None,
        };
        let added = home.control().add_peer(&operator(), order).await.unwrap();
        assert_eq!(added.notice, None);
        let session = home.session("amira").await;
        Self {
            world,
            home,
            line,
            clock,
            grant: grant.id,
            session,
        }
    }

    fn outbound(&self) -> &Outbound {
        self.home.control().outbound.as_ref().unwrap()
    }

    /// Time passes on both sides.
    async fn pass(&self, seconds: u64) {
        let by = Duration::from_secs(seconds);
        self.clock.advance(by);
        self.world.pass(by).await;
        self.home.hear().await;
    }

    async fn ask(&self, path: &str) -> Response {
        self.home.ask(&self.session, "work", path, &json!({})).await
    }

    async fn works(&self) -> Response {
        let answer = self.ask("/list/notes").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(keys(&answer), truth("notes", plan::AMIRA));
        answer
    }

    /// `cert renew`: whether it was renewed, or why not.
    async fn renew(&self) -> Result<(), String> {
        let request = RenewCertificates::default();
        let (control, actor) = (self.home.control(), operator());
        let mut renewed = control.renew_certificates(&actor, request).await.unwrap();
        assert_eq!(renewed.len(), 1);
        match renewed.remove(0).failure {
            None => Ok(()),
            Some(why) => Err(why),
        }
    }

    async fn peer(&self) -> PeerView {
        let mut peers = self.home.control().list_peers().await.unwrap();
        assert_eq!(peers.len(), 1);
        peers.remove(0)
    }

    /// The certificates that the serving side has issued, and the states it shows of them.
    async fn issued(&self) -> Vec<CertificateRow> {
        let rows = self.world.control().list_certificates().await.unwrap();
        rows.into_iter()
            .filter(|row| row.role == "issued")
            .collect()
    }

    async fn metric(&self, line: &str) -> String {
        let ops = self.home.sidecar.addresses().ops.unwrap();
        let text = http_get(ops, "/metrics").await;
        let line = format!("mosaic_federation_{line} ");
        let value = text.lines().find_map(|one| one.strip_prefix(&line));
        value.unwrap_or_else(|| panic!("{line}: {text}")).to_owned()
    }

    /// Whether the serving side's database lets a certificate be registered: the authority is inside of it, so that is how it is down.
    async fn authority(&self, is_up: bool) {
        let mut store = Database::open(&self.world.config).await;
        let statements: &[&str] = match (&store, is_up) {
            (Database::Sqlite(_), true) => &["DROP TRIGGER down"],
            (Database::Sqlite(_), false) => &[
                "CREATE TRIGGER down BEFORE INSERT ON certificates BEGIN SELECT RAISE(ABORT, 'down'); END",
            ],
            (Database::Postgres(_), true) => &["DROP FUNCTION down CASCADE"],
            (Database::Postgres(_), false) => &[
                "CREATE FUNCTION down() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''down''; END'",
                "CREATE TRIGGER down BEFORE INSERT ON certificates FOR EACH ROW EXECUTE FUNCTION down()",
            ],
        };
        for statement in statements {
            store.execute(statement, &[]).await;
        }
        store.close().await;
    }

    /// The asking side stops and starts again on what it kept.
    async fn restart_home(self, settings: &str) -> Self {
        let Self {
            world,
            home,
            line,
            clock,
            grant,
            session,
        } = self;
        let dir = home.stop().await;
        let home = Home::start_by_hand(dir, &clock, settings).await;
        Self {
            world,
            home,
            line,
            clock,
            grant,
            session,
        }
    }

    async fn stop(self) {
        self.home.stop().await;
        self.world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_renewed_in_time_and_nobody_notices() {
    let pair = Pair::start().await;
    let before = pair.peer().await.credentials.remove(0);
    let due = before.renews_at.unwrap().since(pair.home.control().now());
    assert!((198_000..=206_000).contains(&due), "{due}");
    pair.pass(198).await;
    assert_eq!(pair.outbound().renew_due().await, []);
    pair.works().await;
    pair.pass(8).await;
    pair.outbound().renew_due().await;
    let answer = pair.works().await;
    let peer = pair.peer().await;
    let [new, old] = peer.credentials.as_slice() else {
        panic!("{peer:?}");
    };
    assert_eq!((new.state, old.state), ("active", "superseded"));
    assert_ne!(new.serial, old.serial);
    assert_eq!(new.not_after.since(old.not_after) / 1000, 206);
    assert_eq!(old.renews_at, None);
    assert_eq!(serde_json::to_value(peer.state).unwrap(), "active");
    // The key of the old one is gone, and both sides know which certificate is used.
    let stored = pair
        .home
        .control()
        .store
        .list_outbound_credentials()
        .await
        .unwrap();
    assert!(stored[1].sealed_key.is_empty());
    let row = audit_row(pair.world.control(), answer.request_id()).await;
    assert_eq!(row["cert_serial"], json!(new.serial), "{row}");
    assert_eq!(
        pair.metric("renewals_total{peer=\"work\",result=\"renewed\"}")
            .await,
        "1"
    );
    assert_eq!(pair.metric("renewal_failing{peer=\"work\"}").await, "0");
    let end = pair.metric("certificate_expiry_timestamp_seconds{peer=\"work\",role=\"client\"}");
    assert_eq!(end.await.parse::<i64>().unwrap(), new.not_after.0 / 1000);
    let issued = pair.issued().await;
    let states: Vec<_> = issued.iter().map(|row| row.state).collect();
    assert_eq!(states, ["active", "active"]);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_a_renewal_is_recorded_on_both_sides() {
    let pair = Pair::start().await;
    pair.renew().await.unwrap();
    let last = pair.works().await;
    audit_row(pair.home.control(), last.request_id()).await;
    let query = proxy::admin::AuditQuery {
        limit: Some(1_000),
        ..Default::default()
    };
    let rows = pair.home.control().query_audit(query).await.unwrap();
    let of = |verb: &str| -> Vec<&Value> {
        let outbound = rows.iter().filter(|row| row["direction"] == "outbound");
        outbound.filter(|row| row["verb"] == verb).collect()
    };
    let (renewals, proofs) = (of("renew"), of("capabilities"));
    // The first proof is that of enrollment.
    assert_eq!((renewals.len(), proofs.len()), (1, 2), "{rows:#?}");
    assert_eq!(renewals[0]["cert_serial"], proofs[0]["cert_serial"]);
    assert_ne!(renewals[0]["cert_serial"], proofs[1]["cert_serial"]);
    for ours in [renewals[0], proofs[1]] {
        assert_eq!(ours["outcome"], "allowed");
        assert_eq!(ours["grant_id"], pair.grant.to_string());
        let id = ours["request_id"].as_str().unwrap();
        let theirs = audit_rows(pair.world.control(), id, 1).await;
        assert_eq!(theirs[0]["cert_serial"], ours["cert_serial"], "{theirs:?}");
    }
    let acts: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["action"].as_str())
        .collect();
    for act in ["renewal.begin", "renewal.issued", "renewal.finish"] {
        assert!(acts.contains(&act), "{acts:?}");
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_is_asked_for_again() {
    let pair = Pair::start().await;
    pair.works().await;
    pair.line.lose_answers();
    let why = pair.renew().await.unwrap_err();
    assert!(why.contains("could not be asked"), "{why}");
    assert_eq!(pair.issued().await.len(), 2, "it was issued");
    let peer = pair.peer().await;
    assert_eq!(serde_json::to_value(peer.state).unwrap(), "degraded");
    assert_eq!(peer.credentials[0].renewal_failures, 1);
    assert_eq!(peer.credentials[0].renewal_failure.as_ref(), Some(&why));
    assert_eq!(pair.metric("renewal_failing{peer=\"work\"}").await, "1");
    pair.line.mend();
    // However long the answer was away: the one in use stays good until the new one is used.
    pair.pass(60).await;
    pair.works().await;
    pair.renew().await.unwrap();
    pair.works().await;
    let issued = pair.issued().await;
    assert_eq!(issued.len(), 2, "the same request got the same certificate");
    let peer = pair.peer().await;
    assert_eq!(serde_json::to_value(peer.state).unwrap(), "active");
    assert_eq!(peer.credentials[0].renewal_failures, 0);
    assert_eq!(pair.metric("renewal_failing{peer=\"work\"}").await, "0");
    pair.stop().await;
}

/// Whether a grant may renew again as soon as the test's clock says so; without that, the test is left out and says so.
fn renews_by_the_clock(test: &str) -> bool {
    let missing = tests::valkey::missing();
    if let Some(why) = &missing {
        support::skipped(test, why);
    }
    missing.is_none()
}

/// Polls a future a number of times; `None` when it was not done by then, and it is dropped.
async fn cut_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Whatever point a renewal ends at, the next process goes on from there; and a session notices nothing, although here
/// the one before ends with the first use of the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_breaks_off_anywhere_is_taken_up_again() {
    if !renews_by_the_clock("a_renewal_that_breaks_off_anywhere_is_taken_up_again") {
        return;
    }
    let mut pair = Pair::with("renewal_overlap_s = 0\n", Duration::ZERO, false, "").await;
    let mut whole = false;
    for polls in 1..400 {
        // Faster at the beginning and at the end, where it goes from step to step.
        let done = cut_after(polls, pair.outbound().renew_now(operator(), None)).await;
        whole = done.is_some();
        if polls % 2 == 0 {
            // Given up by who asked for it, while the process goes on.
            pair.works().await;
        }
        pair = pair.restart_home("").await;
        pair.works().await;
        pair.pass(7).await;
        pair.renew()
            .await
            .unwrap_or_else(|why| panic!("after {polls} polls: {why}"));
        pair.works().await;
        let good = pair.issued().await;
        let active = good.iter().filter(|row| row.state == "active").count();
        assert!(active <= 2, "after {polls} polls: {good:#?}");
        if whole {
            assert!(polls > 5, "it is cut at several places: {polls}");
            break;
        }
    }
    assert!(whole);
    pair.stop().await;
}

/// What is said with the old certificate after the new one has taken over is said again with the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_credential_is_exchanged_on_the_spot() {
    if !renews_by_the_clock("a_superseded_credential_is_exchanged_on_the_spot") {
        return;
    }
    let mut pair = Pair::with("renewal_overlap_s = 0\n", Duration::ZERO, false, "").await;
    // A renewal that ends between its proof and its last step, found by trying.
    for polls in 1..400 {
        pair.pass(1).await;
        let old = pair.peer().await.credentials.remove(0).serial;
        let done = cut_after(polls, pair.outbound().renew_now(operator(), None)).await;
        assert!(done.is_none(), "no such place was found");
        let current = pair.peer().await.credentials.remove(0).serial;
        let confirmed = pair
            .issued()
            .await
            .into_iter()
            .any(|row| row.serial == old && row.state == "superseded");
        if confirmed && current == old {
            break;
        }
        pair = pair.restart_home("").await;
        pair.pass(7).await;
        pair.renew().await.unwrap();
        pair.works().await;
    }
    let answer = pair.works().await;
    let rows = audit_rows(pair.home.control(), answer.request_id(), 1).await;
    assert!(!rows.is_empty());
    assert_eq!(
        pair.peer().await.credentials.len() % 2,
        pair.issued().await.len() % 2
    );
    pair.works().await;
    pair.stop().await;
}

/// A certificate that was given and not used before the process ended is good although the one before has ended.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_is_put_to_use_at_the_next_start() {
    if !renews_by_the_clock("what_was_given_is_put_to_use_at_the_next_start") {
        return;
    }
    let mut pair = Pair::start().await;
    for polls in 1..400 {
        pair.pass(30).await;
        let old = pair.outbound().routes().routes().next().unwrap().credential;
        let done = cut_after(polls, pair.outbound().renew_now(operator(), None)).await;
        assert!(done.is_none(), "no such place was found");
        let pending = pair
            .home
            .control()
            .store
            .outbound_renewal(old)
            .await
            .unwrap();
        if pending.is_some_and(|pending| pending.issued.is_some()) {
            break;
        }
        pair.renew().await.unwrap();
    }
    // Past the end of the old one, which is thirty seconds before that of the new one.
    let Pair {
        world,
        home,
        line,
        clock,
        grant,
        session,
    } = pair;
    let dir = home.stop().await;
    let asleep = Duration::from_secs(LIFE - 15);
    world.pass(asleep).await;
    clock.advance(asleep);
    let home = Home::start_by_hand(dir, &clock, "").await;
    pair = Pair {
        world,
        home,
        line,
        clock,
        grant,
        session,
    };
    let used = async {
        while pair.ask("/list/notes").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, used).await.unwrap();
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_slept_renews_when_it_wakes_or_says_what_to_do() {
    let pair = Pair::start().await;
    pair.works().await;
    pair.pass(LIFE - 30).await;
    let renewed = pair.outbound().renew_due().await;
    assert!(
        renewed.iter().all(|(_, result)| result.is_ok()),
        "{renewed:?}"
    );
    pair.works().await;
    let end = pair.peer().await.credentials[0].not_after;
    assert!(end.since(pair.home.control().now()) > 290_000);
    // Too long: nothing is sent, and both ways of asking say the remedy.
    pair.pass(LIFE + 1).await;
    assert_eq!(pair.outbound().renew_due().await, []);
    let refused = pair.ask("/list/notes").await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(refused.reason().as_deref(), Some("certificate_expired"));
    assert!(
        refused.text().contains("grant token --replace"),
        "{}",
        refused.text()
    );
    let ran = command(
        &pair.home.config.admin.socket,
        &["cert", "renew", "--peer", "work"],
    )
    .await;
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.errors.contains("grant token --replace"), "{ran:?}");
    // The remedy works.
    let url = pair.world.replace_token(pair.grant).await.url;
    let order = AddPeer {
        url,
        user: "amira".to_owned(),
        name: "work".to_owned(),
        endpoint: Some(format!("https://{}", pair.line.address)),
        fingerprint: None,
        trust_root_pem: None,
    };
    let added = pair
        .home
        .control()
        .add_peer(&operator(), order)
        .await
        .unwrap();
    assert!(added.reenrolled);
    pair.works().await;
    pair.stop().await;
}

/// Certificates end by the clock of whoever issued them, and are renewed by it.
#[tokio::test(flavor = "multi_thread")]
async fn two_minutes_between_the_clocks_do_not_matter() {
    for (behind, restarts) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut pair = Pair::with("", Duration::from_secs(120), behind, "").await;
        let mut serials = std::collections::BTreeSet::new();
        for step in 0..60 {
            pair.pass(10).await;
            pair.outbound().renew_due().await;
            let answer = pair.works().await;
            let row = audit_row(pair.world.control(), answer.request_id()).await;
            serials.insert(row["cert_serial"].as_str().unwrap().to_owned());
            if restarts && step % 7 == 3 {
                // Before the first answer only what was stored is known.
                pair = pair.restart_home("").await;
            }
        }
        // 600 s, one renewal in each 200 to 215.
        assert_eq!(serials.len(), 3, "behind={behind}");
        pair.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_back_off_until_the_line_is_mended() {
    let pair = Pair::start().await;
    pair.pass(206).await;
    pair.line.cut();
    let mut tries = 0;
    for _ in 0..60 {
        let tried = pair.outbound().renew_due().await;
        tries = tries.max(pair.peer().await.credentials[0].renewal_failures);
        assert!(tried.iter().all(|(_, result)| result.is_err()));
        pair.pass(1).await;
    }
    // 5, 10, 15, 15 ... seconds apart.
    assert!((4..=7).contains(&tries), "{tries}");
    let peer = pair.peer().await;
    assert_eq!(serde_json::to_value(peer.state).unwrap(), "degraded");
    let again = peer.credentials[0].renews_at.unwrap();
    assert!(again.since(pair.home.control().now()) <= 19_000);
    pair.line.mend();
    let ran = command(&pair.home.config.admin.socket, &["cert", "renew"]).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    // The breaker has heard of it too.
    pair.works().await;
    let peer = pair.peer().await;
    assert_eq!(serde_json::to_value(peer.state).unwrap(), "active");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_under_way_ends_on_the_connection_it_is_on() {
    let pair = Arc::new(Pair::start().await);
    pair.works().await;
    pair.world.gateway.forget_requests().await;
    let slow = json!({"over_share": ["slow"], "slow_bytes": 400, "slow_pause_ms": 20});
    pair.world.gateway.behave(&slow).await;
    let asking = Arc::clone(&pair);
    let asked = tokio::spawn(async move {
        asking
            .home
            .ask(&asking.session, "work", "/list/tasks", &json!({}))
            .await
    });
    let begun = async {
        loop {
            let requests = pair.world.gateway.requests().await;
            if requests
                .iter()
                .any(|request| request["path"] == "/internal/v1/tasks")
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    pair.renew().await.unwrap();
    assert!(!asked.is_finished());
    pair.world.gateway.behave_honestly().await;
    let new = pair.works().await;
    let old = asked.await.unwrap();
    assert_eq!(old.status, 200, "{}", old.text());
    assert_eq!(keys(&old), truth("tasks", plan::AMIRA));
    let serial = async |answer: &Response| {
        audit_row(pair.world.control(), answer.request_id()).await["cert_serial"].clone()
    };
    assert_ne!(serial(&old).await, serial(&new).await);
    Arc::into_inner(pair).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_answers_goes_with_the_credential() {
    let pair = Pair::with("", Duration::ZERO, false, "[cache]\n").await;
    let cached = |answer: &Response| answer.json()["_cached"] == true;
    assert!(!cached(&pair.works().await));
    assert!(cached(&pair.works().await));
    pair.renew().await.unwrap();
    assert!(!cached(&pair.works().await));
    assert!(cached(&pair.works().await));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_certificate_speaks_for_the_grant() {
    let pair = Pair::start().await;
    pair.pass(1).await;
    pair.renew().await.unwrap();
    pair.works().await;
    let credentials = pair.peer().await.credentials;
    let (new, old) = (&credentials[0], &credentials[1]);
    let revoke = async |serial: &Option<String>| {
        let serial = serial.as_deref().unwrap();
        // Past the leases that are out.
        pair.pass(2).await;
        pair.world
            .control()
            .revoke_certificate(&operator(), serial, RevokeCertificate::default())
            .await
            .unwrap()
    };
    assert_eq!(revoke(&old.serial).await.left, 1);
    pair.works().await;
    assert_eq!(pair.peer().await.credentials[0].state, "active");
    assert_eq!(revoke(&new.serial).await.left, 0);
    let refused = pair.ask("/list/notes").await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let peer = pair.peer().await;
    assert_eq!(peer.credentials[0].state, "revoked");
    assert_eq!(serde_json::to_value(peer.state).unwrap(), "revoked");
    let why = pair.renew().await.unwrap_err();
    assert!(why.contains("revoked"), "{why}");
    pair.stop().await;
}

/// Certificates are the sidecar's own business.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_cannot_ask_for_a_certificate() {
    let pair = Pair::start().await;
    let body = json!({ "csrPem": support::enroll::request().1 });
    let refused = pair.home.ask(&pair.session, "work", "/renew", &body).await;
    assert_eq!(refused.status, 404, "{}", refused.text());
    assert_eq!(pair.issued().await.len(), 1);
    pair.stop().await;
}

/// The work cannot give a certificate for a quarter of a lifetime, from the moment on at which one is due: requests go on
/// with the one there is, and the next is there before it ends.
#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_down_for_a_quarter_of_a_lifetime_is_waited_for() {
    let pair = Pair::start().await;
    let credential = pair.peer().await.credentials.remove(0);
    let due = credential.renews_at.unwrap();
    while pair.home.control().now() < due {
        pair.pass(1).await;
    }
    pair.authority(false).await;
    for second in 0..LIFE / 4 {
        let tried = pair.outbound().renew_due().await;
        assert!(tried.iter().all(|(_, result)| result.is_err()), "{tried:?}");
        if second % 5 == 0 {
            pair.works().await;
        }
        pair.pass(1).await;
    }
    let peer = pair.peer().await;
    assert_eq!(serde_json::to_value(peer.state).unwrap(), "degraded");
    // 5, 10, 15, 15 ... seconds apart.
    let tries = peer.credentials[0].renewal_failures;
    assert!((4..=8).contains(&tries), "{tries}");
    assert_eq!(pair.metric("renewal_failing{peer=\"work\"}").await, "1");
    pair.authority(true).await;
    while pair.peer().await.credentials[0].serial == credential.serial {
        assert!(
            pair.home.control().now() <= credential.not_after,
            "too late"
        );
        pair.works().await;
        drop(pair.outbound().renew_due().await);
        pair.pass(1).await;
    }
    pair.works().await;
    let peer = pair.peer().await;
    assert_eq!(serde_json::to_value(peer.state).unwrap(), "active");
    assert_eq!(pair.metric("renewal_failing{peer=\"work\"}").await, "0");
    pair.stop().await;
}
