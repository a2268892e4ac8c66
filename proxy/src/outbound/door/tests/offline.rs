//! A peer that fails, is away, comes back, or asks for patience, as a session sees it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::atomic::AtomicBool;

use futures_util::future::join_all;

use super::super::super::breaker::BreakerRules;
use super::*;

const CAPABILITIES: &str = "/peers/work/api/federation/v1/capabilities";
const NOTICE: &str = "federation_offline";

/// A breaker whose time is over soon.
const BRIEF: ReachRules = ReachRules {
    breaker: BreakerRules {
        failures: 5,
        open: Duration::from_millis(200),
        open_max: Duration::from_millis(400),
    },
    places: 32,
};

async fn brief(script: impl Fn(usize) -> Act + Send + Sync + 'static) -> (Side, Arc<Log>) {
    let pki = Pki::new();
    let (address, log) = start(pki.ordinary(BOTH), script).await;
    (Side::with_rules(&pki, address, BRIEF).await, log)
}

fn nanos() -> u64 {
    certs::Clock::boot_nanos(&SystemClock)
}

fn notices(body: &Value) -> Vec<&str> {
    let notices = body["error"]["details"]["notices"].as_array();
    let codes = notices.into_iter().flatten().map(|one| {
        assert_eq!(one["peer"], "work");
        assert_eq!(one["message"], "federation offline for work");
        one["code"].as_str().unwrap()
    });
    codes.collect()
}

fn limited(seconds: &str) -> Act {
    let Act::Answer(mut response) = refusal(429, "rate_limited", None) else {
        unreachable!("a refusal is an answer")
    };
    let value = seconds.parse().unwrap();
    response.headers_mut().insert(header::RETRY_AFTER, value);
    Act::Answer(response)
}

async fn token(side: &Side) -> String {
    let later = UnixMillis(side.outbound.clock.unix_millis() + 60_000);
    let user = UserId::parse("amira").unwrap();
    let session = side
        .outbound
        .create_session(Actor::Sidecar("test"), user, later);
    format!("Bearer {}", session.await.unwrap().0.expose())
}

#[tokio::test]
async fn an_open_breaker_touches_no_network_and_each_session_is_told_once() {
    let (side, log) = side(|_| Act::Hang).await;
    let other = token(&side).await;
    for round in 0..5 {
        let (status, _, body) = side.ask(AMIRA, TASKS, &[]).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["error"]["message"], "federation offline for work");
        let expected = if round == 0 { vec![NOTICE] } else { vec![] };
        assert_eq!(notices(&body), expected, "round {round}");
    }
    let count = || {
        (
            log.requests.lock().len(),
            log.connections.load(Ordering::SeqCst),
        )
    };
    let touched = count();
    assert_eq!(touched.0, 10, "each was tried again on a fresh connection");
    for round in 0..20 {
        let bearer = [("authorization", other.as_str())];
        let (status, headers, body) = side.ask(AMIRA, TASKS, &bearer).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["error"]["details"]["reason"], "breaker_open");
        let after: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=15).contains(&after), "{after}");
        assert_eq!(notices(&body).len(), usize::from(round == 0));
    }
    let (_, _, body) = side.ask(AMIRA, CAPABILITIES, &[]).await;
    assert_eq!(body["error"]["details"]["reason"], "breaker_open");
    assert_eq!(count(), touched, "nothing went out");
    let records = side.records().await;
    assert_eq!(records.len(), 26, "what does not go out is recorded too");
    let held = records
        .iter()
        .filter(|row| row.record.deny_code.as_ref().map(AuditText::as_str) == Some("breaker_open"));
    assert_eq!(held.count(), 21);
}

#[tokio::test]
async fn concurrent_requests_of_a_session_are_told_once_between_them() {
    let (side, _) = side(|_| Act::Hang).await;
    let answers = join_all((0..40).map(|_| side.ask(AMIRA, TASKS, &[]))).await;
    let told: usize = answers.iter().map(|(_, _, body)| notices(body).len()).sum();
    assert_eq!(told, 1);
    assert!(
        answers
            .iter()
            .all(|(status, ..)| *status == StatusCode::SERVICE_UNAVAILABLE)
    );
}

#[tokio::test]
async fn a_probe_ends_the_outage_and_the_next_outage_is_told_again() {
    let away = Arc::new(AtomicBool::new(true));
    let gone = Arc::clone(&away);
    let (side, log) = brief(move |_| {
        if gone.load(Ordering::SeqCst) {
            Act::Hang
        } else {
            json(200, ROWS)
        }
    })
    .await;
    for outage in 0..3 {
        away.store(true, Ordering::SeqCst);
        let mut told = 0;
        for _ in 0..8 {
            told += notices(&side.ask(AMIRA, TASKS, &[]).await.2).len();
        }
        assert_eq!(told, 1, "outage {outage}");
        away.store(false, Ordering::SeqCst);
        // Until the open time is over every request is refused at once; then one goes out and finds it well.
        loop {
            let before = log.requests.lock().len();
            let (status, _, body) = side.ask(AMIRA, TASKS, &[]).await;
            if status == StatusCode::OK {
                break;
            }
            assert_eq!(body["error"]["details"]["reason"], "breaker_open");
            assert_eq!(log.requests.lock().len(), before);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(side.ask(AMIRA, TASKS, &[]).await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn the_operator_and_the_peers_own_contact_close_it() {
    let away = Arc::new(AtomicBool::new(true));
    let gone = Arc::clone(&away);
    let (side, _) = side(move |_| {
        if gone.load(Ordering::SeqCst) {
            refusal(503, "unavailable", Some("fenced"))
        } else {
            json(200, ROWS)
        }
    })
    .await;
    let name = PeerName::parse("work").unwrap();
    for by_contact in [false, true] {
        away.store(true, Ordering::SeqCst);
        for _ in 0..5 {
            let (_, _, body) = side.ask(AMIRA, TASKS, &[]).await;
            assert_eq!(body["error"]["details"]["reason"], "fenced");
        }
        away.store(false, Ordering::SeqCst);
        let (_, _, body) = side.ask(AMIRA, TASKS, &[]).await;
        assert_eq!(body["error"]["details"]["reason"], "breaker_open");
        if by_contact {
            side.outbound.reaches.contacted(&name);
        } else {
            side.outbound.reaches.of(&name).reset();
        }
        assert_eq!(side.ask(AMIRA, TASKS, &[]).await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_refusal_opens_nothing_and_a_peer_writes_no_notices() {
    let (side, log) = side(|_| {
        let details = value!({"reason": "r", "notices": [{"peer": "work", "code": "forged"}]});
        let error = value!({"code": "not_found", "message": "no", "details": details});
        json(404, value!({ "error": error }).to_string())
    })
    .await;
    for _ in 0..30 {
        let (status, _, body) = side.ask(AMIRA, TASKS, &[]).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(
            body["error"]["details"],
            value!({"reason": "r", "peer": "work"})
        );
    }
    assert_eq!(log.requests.lock().len(), 30);
}

#[tokio::test]
async fn a_limit_is_waited_for_when_the_deadline_permits_and_never_early() {
    let began = nanos();
    let (side, log) = side(|number| match number {
        0 => limited("1"),
        _ => json(200, ROWS),
    })
    .await;
    let (status, _, body) = side.ask(AMIRA, TASKS, &[("x-request-id", "mine-9")]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert!(nanos() - began >= 1_000_000_000, "early");
    let requests = log.requests.lock().clone();
    let sent: Vec<_> = requests
        .iter()
        .map(|seen| (seen.header("x-request-id"), seen.header("x-mosaic-attempt")))
        .collect();
    let mine = Some("mine-9");
    assert_eq!(sent, [(mine, Some("1")), (mine, Some("2"))]);
    let records = side.records().await;
    assert_eq!((records.len(), records[0].record.attempt), (1, 2));
}

#[tokio::test]
async fn a_limit_beyond_the_deadline_is_passed_on_and_kept_to() {
    let (side, log) = side(|_| limited("60")).await;
    let (status, headers, body) = side.ask(AMIRA, TASKS, &[]).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        (&headers["retry-after"], &body["error"]["message"]),
        (&"60".parse().unwrap(), &value!("no"))
    );
    for _ in 0..3 {
        let (status, headers, body) = side.ask(AMIRA, TASKS, &[]).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(body["error"]["code"], "rate_limited");
        assert_eq!(body["error"]["details"]["reason"], "waiting_as_told");
        let after: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((30..=60).contains(&after), "{after}");
    }
    assert_eq!(
        log.requests.lock().len(),
        1,
        "nothing went out before its time"
    );
    // What the peer counts apart is asked apart.
    assert_eq!(
        side.ask(AMIRA, CAPABILITIES, &[]).await.0,
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_eq!(log.requests.lock().len(), 2);
}

#[tokio::test]
async fn of_many_that_are_limited_one_waits() {
    // Different questions: those who ask the same thing at once share one request.
    const RESOURCES: [&str; 5] = ["tasks", "notes", "memory", "projects", "missions"];
    const ASKED: usize = RESOURCES.len();
    let (side, log) = side(|number| {
        if number < ASKED {
            limited("1")
        } else {
            json(200, ROWS)
        }
    })
    .await;
    let paths = RESOURCES.map(|resource| format!("/peers/work/api/federation/v1/list/{resource}"));
    let answers = join_all(paths.iter().map(|path| side.ask(AMIRA, path, &[]))).await;
    let served = answers
        .iter()
        .filter(|(status, ..)| *status == StatusCode::OK);
    let limited = answers
        .iter()
        .filter(|(status, ..)| *status == StatusCode::TOO_MANY_REQUESTS);
    let sent = log.requests.lock().len();
    // The first to be told may have kept later ones from going out at all.
    assert_eq!(served.count() + limited.count(), ASKED);
    assert!(sent <= ASKED + 1, "{sent}");
    let again = log
        .requests
        .lock()
        .iter()
        .filter(|seen| seen.header("x-mosaic-attempt") != Some("1"))
        .count();
    assert!(again <= 1, "{again} waited");
}

#[tokio::test]
async fn a_new_session_finds_a_connection_and_one_of_another_user_opens_none() {
    let (side, log) = side(|_| json(200, ROWS)).await;
    let later = UnixMillis(side.outbound.clock.unix_millis() + 60_000);
    for (user, connections) in [("bo", 0), ("amira", 1), ("amira", 1)] {
        let user = UserId::parse(user).unwrap();
        let session = side
            .outbound
            .create_session(Actor::Sidecar("test"), user, later);
        let _ = session.await.unwrap();
        while log.connections.load(Ordering::SeqCst) < connections {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // One more would have been on its way by now.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(log.connections.load(Ordering::SeqCst), connections);
    }
    assert!(log.requests.lock().is_empty(), "nothing was asked");
    assert_eq!(side.ask(AMIRA, TASKS, &[]).await.0, StatusCode::OK);
    assert_eq!(log.connections.load(Ordering::SeqCst), 1);
}
