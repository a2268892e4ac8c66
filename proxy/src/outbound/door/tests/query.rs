//! The query form: one source, all of them, and what becomes of those that fail.

use super::super::super::fixture::{Seen, start_reading};
use super::side::Known;
use super::*;

const CAPABILITIES: &str = r#"{"resources":["tasks"],"order":"created_desc"}"#;
const LOCAL: &str = r#"{"items":[{"_source":"local","id":"l2","createdAt":"2026-01-01T00:00:05.000Z"},{"_source":"local","id":"l1","createdAt":"2026-01-01T00:00:01.000Z"}],"_partial":false,"_truncated":false}"#;
const OLD: &str = r#"{"id":"w1","createdAt":"2026-01-01T00:00:02.000Z"}"#;
const NEW: &str = r#"{"id":"w2","createdAt":"2026-01-01T00:00:04.000Z"}"#;

fn all(verb: &str) -> Value {
    value!({"source": "all", "verb": verb, "resource": "tasks"})
}

fn is_capabilities(seen: &Seen) -> bool {
    seen.head.uri.path().ends_with("/capabilities")
}

/// A side whose own gateway has two rows, with a peer that lists with `list` and says `capabilities`.
async fn with_work(
    capabilities: &'static str,
    list: impl Fn() -> Act + Send + Sync + 'static,
) -> (Side, Arc<Log>) {
    let pki = Pki::new();
    let script = move |_, seen: &Seen| match is_capabilities(seen) {
        true => json(200, capabilities),
        false => list(),
    };
    let (address, log) = start_reading(pki.ordinary(BOTH), script).await;
    let work = Known {
        name: "work",
        user: "amira",
        pki: &pki,
        address,
    };
    (Side::with(&[work], OwnRows(Ok(LOCAL))).await, log)
}

fn ids(body: &Value) -> Vec<(String, String)> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let items = body["items"].as_array().unwrap();
    items
        .iter()
        .map(|row| (text(row, "_source"), text(row, "id")))
        .collect()
}

fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(source, id): &(&str, &str)| ((*source).to_owned(), (*id).to_owned());
    wanted.iter().map(owned).collect()
}

#[tokio::test]
async fn all_sources_are_merged_newest_first_and_labelled() {
    let list = || {
        json(
            200,
            format!(r#"{{"items":[{NEW},{OLD}],"_partial":false,"_truncated":false}}"#),
        )
    };
    let (side, log) = with_work(CAPABILITIES, list).await;
    for _ in 0..2 {
        let (status, body) = side.query(&all("list")).await;
        assert_eq!(status, StatusCode::OK);
        let wanted = [
            ("local", "l2"),
            ("work", "w2"),
            ("work", "w1"),
            ("local", "l1"),
        ];
        assert_eq!(ids(&body), pairs(&wanted));
        assert_eq!(
            (&body["_partial"], &body["_truncated"]),
            (&value!(false), &value!(false))
        );
        assert_eq!(
            (&body["nextCursor"], &body["_failures"]),
            (&Value::Null, &Value::Null)
        );
    }
    let asked = log.requests.lock().clone();
    let capabilities = asked.iter().filter(|seen| is_capabilities(seen)).count();
    assert_eq!(
        (asked.len(), capabilities),
        (3, 1),
        "the order is asked for once"
    );
    let sent: Value = serde_json::from_slice(
        &asked
            .iter()
            .find(|seen| !is_capabilities(seen))
            .unwrap()
            .body,
    )
    .unwrap();
    assert_eq!(
        sent,
        value!({"params": {"limit": 100}}),
        "every source is told the size"
    );
    let records = side.records().await;
    let local = records
        .iter()
        .filter(|row| row.record.peer.is_none())
        .count();
    assert_eq!(
        (records.len(), local),
        (5, 2),
        "one record for each question to each source"
    );
}

#[tokio::test]
async fn one_source_is_asked_alone() {
    let list = || {
        json(
            200,
            format!(r#"{{"items":[{NEW}],"_partial":false,"_truncated":false}}"#),
        )
    };
    let (side, log) = with_work(CAPABILITIES, list).await;
    for name in ["work", "work.example", "WORK.EXAMPLE", "127.0.0.1"] {
        let body = value!({"source": format!("federated:{name}"), "verb": "list", "resource": "tasks", "params": {"limit": 3}, "cursor": "c"});
        let (status, body) = side.query(&body).await;
        assert_eq!(
            (status, ids(&body)),
            (StatusCode::OK, pairs(&[("work", "w2")])),
            "{name}"
        );
    }
    let sent: Value = serde_json::from_slice(&log.requests.lock()[0].body).unwrap();
    assert_eq!(sent, value!({"params": {"limit": 3}, "cursor": "c"}));
    let asked = log.requests.lock().len();
    let (_, body) = side
        .query(&value!({"source": "local", "verb": "list", "resource": "tasks"}))
        .await;
    assert_eq!(ids(&body), pairs(&[("local", "l2"), ("local", "l1")]));
    assert_eq!(log.requests.lock().len(), asked, "no peer is asked for it");
}

#[tokio::test]
async fn a_source_that_fails_is_named_and_the_rest_is_given() {
    for (list, reason) in [
        (
            Box::new(|| Act::Stall) as Box<dyn Fn() -> Act + Send + Sync>,
            "total_timeout",
        ),
        (Box::new(|| json(200, "[")), "malformed_answer"),
        (
            Box::new(|| json(200, format!(r#"{{"items":[{OLD},{NEW}]}}"#))),
            "malformed_answer",
        ),
        (
            Box::new(|| json(200, r#"{"items":[{"id":"1"}]}"#)),
            "malformed_answer",
        ),
        (
            Box::new(|| refusal(403, "scope_violation", Some("resource_not_granted"))),
            "resource_not_granted",
        ),
    ] {
        let (side, _log) = with_work(CAPABILITIES, list).await;
        let (status, body) = side.query(&all("list")).await;
        assert_eq!(status, StatusCode::OK, "{reason}");
        assert_eq!(
            ids(&body),
            pairs(&[("local", "l2"), ("local", "l1")]),
            "{reason}"
        );
        assert_eq!(
            (&body["_partial"], &body["nextCursor"]),
            (&value!(true), &Value::Null)
        );
        assert_eq!(body["_failures"][0]["source"], "work");
        assert_eq!(body["_failures"][0]["reason"], reason);
    }
}

#[tokio::test]
async fn it_never_fails_whole() {
    let pki = Pki::new();
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let work = Known {
        name: "work",
        user: "amira",
        pki: &pki,
        address: gone,
    };
    let local = OwnRows(Err(DenyCode::SubjectCredentialMissing));
    let side = Side::with(&[work], local).await;
    let (status, body) = side.query(&all("list")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&body["items"], &body["_partial"]),
        (&value!([]), &value!(true))
    );
    let failures = body["_failures"].as_array().unwrap();
    let named: Vec<_> = failures
        .iter()
        .map(|one| {
            (
                one["source"].as_str().unwrap(),
                one["reason"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        named,
        [
            ("local", "subject_credential_missing"),
            ("work", "unreachable")
        ]
    );
    // Alone, its failure is the answer.
    let (status, body) = side
        .query(&value!({"source": "local", "verb": "list", "resource": "tasks"}))
        .await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        body["error"]["details"]["reason"],
        "subject_credential_missing"
    );
}

#[tokio::test]
async fn a_source_that_declares_no_order_has_one_page() {
    let list = || {
        json(
            200,
            format!(
                r#"{{"items":[{OLD},{NEW}],"nextCursor":"theirs","_partial":false,"_truncated":false}}"#
            ),
        )
    };
    let (side, log) = with_work(r#"{"resources":["tasks"]}"#, list).await;
    let (_, body) = side.query(&all("list")).await;
    let wanted = [
        ("local", "l2"),
        ("work", "w2"),
        ("work", "w1"),
        ("local", "l1"),
    ];
    assert_eq!(ids(&body), pairs(&wanted), "put into order here");
    assert_eq!(
        (&body["_partial"], &body["_truncated"]),
        (&value!(true), &value!(true))
    );
    assert_eq!(body["nextCursor"], Value::Null);
    // Its one page is still read to the end.
    let mut question = all("list");
    question["params"] = value!({"limit": 2});
    let (_, first) = side.query(&question).await;
    assert_eq!(ids(&first), pairs(&wanted[..2]));
    question["cursor"] = first["nextCursor"].clone();
    let (_, second) = side.query(&question).await;
    assert_eq!(ids(&second), pairs(&wanted[2..]));
    assert_eq!(
        (&second["_partial"], &second["nextCursor"]),
        (&value!(true), &Value::Null)
    );
    assert!(
        log.requests
            .lock()
            .iter()
            .all(|seen| !String::from_utf8_lossy(&seen.body).contains("theirs"))
    );
}

#[tokio::test]
async fn a_source_that_was_away_is_asked_again_with_the_next_page() {
    let away = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let heard = Arc::clone(&away);
    let list = move || match heard.swap(false, Ordering::SeqCst) {
        true => refusal(503, "unavailable", None),
        false => json(
            200,
            format!(r#"{{"items":[{NEW}],"_partial":false,"_truncated":false}}"#),
        ),
    };
    let (side, _log) = with_work(CAPABILITIES, list).await;
    let mut question = all("list");
    question["params"] = value!({"limit": 1});
    let (_, first) = side.query(&question).await;
    assert_eq!(
        (ids(&first), &first["_partial"]),
        (pairs(&[("local", "l2")]), &value!(true))
    );
    question["cursor"] = first["nextCursor"].clone();
    question["params"] = value!({"limit": 10});
    let (_, second) = side.query(&question).await;
    assert_eq!(ids(&second), pairs(&[("work", "w2"), ("local", "l1")]));
    assert_eq!(
        (&second["_partial"], &second["nextCursor"]),
        (&value!(false), &Value::Null)
    );
}

#[tokio::test]
async fn a_source_whose_position_has_no_room_is_named_and_the_others_go_on() {
    let pki = Pki::new();
    let script = |_, seen: &Seen| {
        if is_capabilities(seen) {
            return json(200, CAPABILITIES);
        }
        let asked: Value = serde_json::from_slice(&seen.body).unwrap();
        let first = asked["cursor"].is_null();
        let row: Value = serde_json::from_str(if first { NEW } else { OLD }).unwrap();
        let mut page = value!({"items": [row], "_partial": false, "_truncated": false});
        if first {
            // A cursor as long as there may be, and of letters that nothing makes shorter.
            page["nextCursor"] = value!("%".repeat(1_024));
        }
        json(200, page.to_string())
    };
    let (address, _log) = start_reading(pki.ordinary(BOTH), script).await;
    // As many as are read to the end of their first pages for one answer.
    let names: Vec<String> = (0..8).map(|n| format!("peer-{n}")).collect();
    let known: Vec<Known<'_>> = names
        .iter()
        .map(|name| Known {
            name,
            user: "amira",
            pki: &pki,
            address,
        })
        .collect();
    let side = Side::with(&known, OwnRows(Ok(LOCAL))).await;
    let mut question = all("list");
    question["params"] = value!({"limit": 9});
    let (_, first) = side.query(&question).await;
    assert_eq!(ids(&first).len(), 9);
    assert!(first["nextCursor"].as_str().unwrap().len() <= 8192);
    let left_out: Vec<&str> = first["_failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failure| {
            assert_eq!(failure["reason"], "cursor_full", "{failure}");
            failure["source"].as_str().unwrap()
        })
        .collect();
    assert!((1..5).contains(&left_out.len()), "{left_out:?}");
    question["cursor"] = first["nextCursor"].clone();
    let (_, second) = side.query(&question).await;
    let mut wanted: Vec<(String, String)> = names
        .iter()
        .filter(|name| !left_out.contains(&name.as_str()))
        .map(|name| (name.clone(), "w1".to_owned()))
        .collect();
    wanted.push(("local".to_owned(), "l1".to_owned()));
    assert_eq!(ids(&second), wanted);
    for page in [&first, &second] {
        assert_eq!(
            (&page["_partial"], &page["_truncated"]),
            (&value!(true), &value!(true)),
            "{:?}",
            ids(page)
        );
    }
    assert_eq!(second["nextCursor"], Value::Null);
}

#[tokio::test]
async fn a_cursor_is_its_users_and_its_questions() {
    let list = || {
        json(
            200,
            format!(r#"{{"items":[{NEW},{OLD}],"_partial":false,"_truncated":false}}"#),
        )
    };
    let (side, log) = with_work(CAPABILITIES, list).await;
    let mut question = all("list");
    question["params"] = value!({"limit": 1});
    let (_, first) = side.query(&question).await;
    let cursor = first["nextCursor"].as_str().unwrap().to_owned();
    assert!(cursor.len() <= 8192);
    let asked = log.requests.lock().len();
    let with = |cursor: &str, resource: &str| value!({"source": "all", "verb": "list", "resource": resource, "params": {"limit": 1}, "cursor": cursor});
    let mut tampered = cursor.clone().into_bytes();
    tampered[20] ^= 1;
    let tampered = String::from_utf8(tampered).unwrap();
    for (body, case) in [
        (with(&tampered, "tasks"), "tampered"),
        (with(&cursor, "notes"), "of another question"),
        (with("theirs", "tasks"), "foreign"),
        (with(&"A".repeat(8193), "tasks"), "oversized"),
    ] {
        let (status, body) = side.query(&body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{case}");
        assert_eq!(
            body["error"]["details"]["reason"], "invalid_cursor",
            "{case}"
        );
    }
    let theirs = Request::post("/v1/query")
        .header("content-type", "application/json")
        .body(Body::from(with(&cursor, "tasks").to_string()));
    let other = answer(
        &side.outbound,
        Doorway::Unix { uid: Some(1001) },
        theirs.unwrap(),
    )
    .await;
    assert_eq!(other.status(), StatusCode::BAD_REQUEST, "of another user");
    assert_eq!(log.requests.lock().len(), asked, "nobody was asked");
    assert_eq!(side.query(&with(&cursor, "tasks")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_get_and_capabilities_of_all_are_one_item_a_source() {
    let list = || json(200, format!(r#"{{"item":{NEW}}}"#));
    let pki = Pki::new();
    let script = move |_, seen: &Seen| match is_capabilities(seen) {
        true => json(200, CAPABILITIES),
        false => list(),
    };
    let (address, _log) = start_reading(pki.ordinary(BOTH), script).await;
    let work = Known {
        name: "work",
        user: "amira",
        pki: &pki,
        address,
    };
    let side = Side::with(&[work], OwnRows(Err(DenyCode::NotFound))).await;
    let get = value!({"source": "all", "verb": "get", "resource": "tasks", "id": "w2"});
    let (status, body) = side.query(&get).await;
    assert_eq!(
        (status, ids(&body)),
        (StatusCode::OK, pairs(&[("work", "w2")]))
    );
    assert_eq!(
        body["_partial"], false,
        "a source without the row has not failed"
    );
    let (_, body) = side
        .query(&value!({"source": "all", "verb": "capabilities"}))
        .await;
    assert_eq!(body["items"][0]["_source"], "work");
    assert_eq!(body["items"][0]["resources"], value!(["tasks"]));
}

#[tokio::test]
async fn a_name_of_several_peers_leads_nowhere() {
    let (one, two) = (Pki::new(), Pki::new());
    let (first, log) = start(one.ordinary(BOTH), |_| json(200, ROWS)).await;
    let (second, other) = start(two.ordinary(BOTH), |_| json(200, ROWS)).await;
    let side = Side::with(
        &[
            Known {
                name: "work",
                user: "amira",
                pki: &one,
                address: first,
            },
            Known {
                name: "club",
                user: "amira",
                pki: &two,
                address: second,
            },
            Known {
                name: "his",
                user: "bo",
                pki: &two,
                address: second,
            },
        ],
        OwnRows::EMPTY,
    )
    .await;
    let ask = async |name: &str| {
        let body =
            value!({"source": format!("federated:{name}"), "verb": "list", "resource": "tasks"});
        let (status, body) = side.query(&body).await;
        (status.as_u16(), body["error"]["details"]["reason"].clone())
    };
    assert_eq!(ask("127.0.0.1").await, (404, value!("ambiguous_peer")));
    for name in ["his", "his.example", "nobody", "", "local", "127.0.0.1:1"] {
        let found = ask(name).await;
        assert!(
            matches!(found, (404, Value::Null) | (400, _)),
            "{name}: {found:?}"
        );
    }
    assert!(log.requests.lock().is_empty() && other.requests.lock().is_empty());
    assert_eq!(
        ask(&second.to_string()).await.0,
        200,
        "with its port there is one"
    );
}

#[tokio::test]
async fn all_is_every_active_peer_of_that_user() {
    let pki = Pki::new();
    let (address, log) = start(pki.ordinary(BOTH), |_| json(200, CAPABILITIES)).await;
    let side = Side::with(
        &[
            Known {
                name: "work",
                user: "amira",
                pki: &pki,
                address,
            },
            Known {
                name: "his",
                user: "bo",
                pki: &pki,
                address,
            },
        ],
        OwnRows::EMPTY,
    )
    .await;
    let sources = async || {
        let (_, body) = side
            .query(&value!({"source": "all", "verb": "capabilities"}))
            .await;
        let items = body["items"].as_array().unwrap().clone();
        items
            .iter()
            .map(|one| one["_source"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(sources().await, ["local", "work"]);
    let before = log.requests.lock().len();
    let work = side
        .store
        .list_peers()
        .await
        .unwrap()
        .into_iter()
        .find(|peer| peer.name.as_str() == "work")
        .unwrap();
    let act = StoreAct {
        id: Uuid::now_v7(),
        actor: Actor::Sidecar("test"),
        now: UnixMillis(side.outbound.clock.unix_millis()),
    };
    let _ = side.store.suspend_peer(&act, work.id).await.unwrap();
    side.outbound.load().await.unwrap();
    assert_eq!(sources().await, ["local"], "a suspended peer is not asked");
    assert_eq!(log.requests.lock().len(), before);
}

#[tokio::test]
async fn the_query_form_refuses_by_name() {
    let (side, log) = with_work(CAPABILITIES, || json(200, ROWS)).await;
    let (status, body) = side.query(&value!({"source": "all", "verb": "list"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["error"]["details"]["reason"], "malformed_body");
    let get = Request::get("/v1/query").body(Body::empty()).unwrap();
    assert_eq!(
        answer(&side.outbound, AMIRA, get).await.status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
    let form = Request::post("/v1/query").body(Body::from("{}")).unwrap();
    assert_eq!(
        answer(&side.outbound, AMIRA, form).await.status(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    let nobody = Request::post("/v1/query").body(Body::empty()).unwrap();
    let nobody = answer(&side.outbound, Doorway::Unix { uid: None }, nobody).await;
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    assert!(log.requests.lock().is_empty());
}

#[tokio::test]
async fn a_search_of_all_has_the_best_of_each_first() {
    let pki = Pki::new();
    let script = |_, seen: &Seen| match seen.head.uri.path().ends_with("/search") {
        true => json(
            200,
            r#"{"items":[{"resource":"tasks","item":{"id":"w1"},"score":9.5},{"resource":"notes","item":{"id":"w2"},"score":0.5}],"_partial":false,"_truncated":false}"#,
        ),
        false => json(200, CAPABILITIES),
    };
    let (address, log) = start_reading(pki.ordinary(BOTH), script).await;
    let work = Known {
        name: "work",
        user: "amira",
        pki: &pki,
        address,
    };
    let local = r#"{"items":[{"resource":"tasks","item":{"_source":"local","id":"l1"},"score":1.5}],"_partial":false,"_truncated":true}"#;
    let side = Side::with(&[work], OwnRows(Ok(local))).await;
    let mut question =
        value!({"source": "all", "verb": "search", "params": {"query": "rate limit"}});
    let (status, body) = side.query(&question).await;
    assert_eq!(status, StatusCode::OK);
    let found = |body: &Value| {
        let hits = body["items"].as_array().unwrap().clone();
        let told = |hit: &Value| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&hit["item"]["_source"]), text(&hit["item"]["id"]))
        };
        hits.iter().map(told).collect::<Vec<_>>()
    };
    let wanted = pairs(&[("local", "l1"), ("work", "w1"), ("work", "w2")]);
    assert_eq!(found(&body), wanted);
    assert_eq!(body["items"][1]["score"], 9.5, "scores stay as they were");
    assert_eq!(
        (&body["_truncated"], &body["nextCursor"]),
        (&value!(true), &Value::Null)
    );
    let sent: Value = serde_json::from_slice(&log.requests.lock()[0].body).unwrap();
    assert_eq!(
        sent,
        value!({"params": {"query": "rate limit", "limit": 100}})
    );
    question["params"]["limit"] = value!(1);
    let (_, body) = side.query(&question).await;
    assert_eq!(found(&body), wanted[..1]);
    let alone =
        value!({"source": "federated:work", "verb": "search", "params": {"query": "rate limit"}});
    let (_, body) = side.query(&alone).await;
    assert_eq!(found(&body), wanted[1..]);
}
