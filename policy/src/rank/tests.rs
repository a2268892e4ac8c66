//! Laws of search: what it finds is what a slow reading finds, and nothing that is not sent has any influence.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::evaluate::world::{member_of, world};
use crate::mapping::Mapping;
use crate::rows::{RowFilter, RowMatch, RowReader, RowsAt, Step};

mod reference;

const BUDGET: usize = 1 << 20;

fn fields() -> FieldMap {
    Mapping::internal_v1().sources(Resource::Tasks)[0]
        .fields
        .clone()
}

fn key(id: &str, nanos: i64) -> RowKey<'_> {
    RowKey {
        created_at_raw: "",
        created_at_nanos: nanos,
        id,
    }
}

fn query(text: &str) -> Query {
    Query::parse(text).unwrap()
}

/// Ranks rows made of titles, the later ones newer.
fn ranked(text: &str, titles: &[&str], limit: usize) -> Vec<(String, String)> {
    let mut ranker = Ranker::new(&query(text), Resource::Tasks, limit, BUDGET);
    ranker.turn_to(&fields());
    for (at, title) in titles.iter().enumerate() {
        let id = format!("r{at}");
        let row = json!({"_source": "local", "id": id, "createdAt": "x", "title": title});
        let nanos = i64::try_from(at).unwrap();
        ranker.row(row.to_string().as_bytes(), Some(key(&id, nanos)));
    }
    let ranking = merge(vec![ranker], limit);
    ranking
        .hits
        .iter()
        .map(|hit| {
            let row: Value = serde_json::from_slice(&hit.row).unwrap();
            (
                row["title"].as_str().unwrap().to_owned(),
                hit.score.to_string(),
            )
        })
        .collect()
}

fn titles(text: &str, rows: &[&str]) -> Vec<String> {
    let ranked = ranked(text, rows, 100);
    ranked.into_iter().map(|(title, _)| title).collect()
}

#[test]
fn a_known_ranking() {
    let rows = [
        "the search of the peer",
        "search search search",
        "a peer without it",
        "Search the peer's search",
        "nothing",
    ];
    assert_eq!(
        ranked("search peer", &rows, 10),
        [
            ("Search the peer's search", "1.246289"),
            ("the search of the peer", "1.054671"),
            ("search search search", "0.842117"),
            ("a peer without it", "0.541993"),
        ]
        .map(|(title, score)| (title.to_owned(), score.to_owned()))
    );
}

#[test]
fn ties_go_to_the_newest_then_to_the_greater_id() {
    assert_eq!(
        titles("word", &["word a", "word b", "word c"]),
        ["word c", "word b", "word a"]
    );
    let mut ranker = Ranker::new(&query("w"), Resource::Tasks, 9, BUDGET);
    for id in ["b", "c", "a"] {
        let row = format!(r#"{{"id":"{id}","t":"w"}}"#);
        ranker.row(row.as_bytes(), Some(key(id, 5)));
    }
    let ids: Vec<_> = merge(vec![ranker], 9)
        .hits
        .iter()
        .map(|hit| String::from_utf8_lossy(&hit.row).into_owned())
        .collect();
    assert_eq!(
        ids,
        [
            r#"{"id":"c","t":"w"}"#,
            r#"{"id":"b","t":"w"}"#,
            r#"{"id":"a","t":"w"}"#
        ]
    );
}

#[test]
fn words_are_whole_phrases_follow_and_prefixes_begin() {
    let rows = [
        "rate limits",
        "rate, limit!",
        "limit rate",
        "separate limit",
        "Ratecard\nlimit",
    ];
    assert_eq!(
        titles("rate", &rows),
        ["limit rate", "rate limits", "rate, limit!"]
    );
    assert_eq!(titles("\"rate limit\"", &rows), ["rate, limit!"]);
    assert_eq!(
        titles("\"rate limit*\"", &rows),
        ["rate limits", "rate, limit!"]
    );
    assert_eq!(titles("rateca* ", &rows), ["Ratecard\nlimit"]);
    assert_eq!(titles("rates", &rows), Vec::<String>::new());
    assert_eq!(titles("大き", &["その大きさ", "小さい"]), ["その大きさ"]);
    assert_eq!(titles("GRÖSSE", &["größe", "grosse"]), ["größe"]);
    assert_eq!(
        titles("re\u{301}sume\u{301}", &["résumé", "resume"]),
        ["résumé"]
    );
    assert_eq!(titles("e", &["e\u{301}"]), Vec::<String>::new());
    assert_eq!(
        titles("\"b c\"", &["a \"b\\c\" d", "b d"]),
        ["a \"b\\c\" d"]
    );
}

#[test]
fn memory_is_bounded_and_the_best_stay() {
    let limit = 3;
    let mut ranker = Ranker::new(&query("word"), Resource::Tasks, limit, 20_000);
    for at in 0..5_000_i64 {
        let id = format!("r{at:04}");
        let title = "word ".repeat(usize::from(at % 1_000 == 7) * 4 + 1);
        let row = json!({"id": id, "title": title, "pad": "x".repeat(100)}).to_string();
        ranker.row(row.as_bytes(), Some(key(&id, at)));
        assert!(ranker.bytes <= 21_000, "{}", ranker.bytes);
    }
    let ranking = merge(vec![ranker], limit);
    assert!(ranking.cut && ranking.more);
    let ids: Vec<_> = ranking
        .hits
        .iter()
        .map(|hit| serde_json::from_slice::<Value>(&hit.row).unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, ["r4007", "r3007", "r2007"]);
}

#[test]
fn a_candidate_is_not_counted_and_shows_only_what_is_sent() {
    let query = query("alpha beta");
    let collect = |candidates: &[(&str, Option<usize>)]| {
        let mut ranker = Ranker::new(&query, Resource::Memory, 9, BUDGET);
        ranker.row(br#"{"id":"1","t":"alpha"}"#, Some(key("1", 1)));
        ranker.row(br#"{"id":"2","t":"gamma"}"#, Some(key("2", 2)));
        for (row, term) in candidates {
            let id = &row[7..8];
            ranker.candidate(row.as_bytes(), id, 9, &["score".to_owned()], *term);
        }
        merge(vec![ranker], 9).hits
    };
    let alone = collect(&[]);
    let both = collect(&[
        (r#"{"id":"3","t":"beta","score":0.99}"#, Some(1)),
        (r#"{"id":"4","t":"beta","score":0.99}"#, Some(0)),
        (r#"{"id":"5","t":"delta","score":"alpha"}"#, Some(0)),
        (r#"{"id":"1","t":"alpha","score":1}"#, Some(0)),
    ]);
    assert_eq!(both.len(), 2);
    assert!(both.contains(&alone[0]), "its score is what it was");
    assert_eq!(&*both[0].row, br#"{"id":"3","t":"beta"}"#);
    let semantic = collect(&[(r#"{"id":"6","score":3,"t":"delta"}"#, None)]);
    assert_eq!(&*semantic[1].row, br#"{"id":"6","t":"delta"}"#);
    assert_eq!(semantic[1].score.to_string(), "0.000000");
}

/// Reads a gateway's body through the filter of a permit and ranks what passes.
fn search(body: &str, text: &str) -> Ranking {
    let mut world =
        world(json!({"resources": ["tasks"], "filters": {"tasks": {"include_teams": ["a"]}}}));
    world.rules += "[redaction]\nfields.tasks = [\"internalNote\", \"meta.cost\"]\n";
    let facts = member_of(&["a"]);
    let permit = world.permit("tasks", &facts);
    let fields = fields();
    let filter = RowFilter::new(&permit, Arc::new(facts), &fields, &RowMatch::default()).unwrap();
    let mut reader = RowReader::new(
        Arc::new(filter),
        RowsAt::rows(&crate::mapping::MemberPath::default()),
    );
    let mut ranker = Ranker::new(&query(text), Resource::Tasks, 5, BUDGET);
    ranker.turn_to(&fields);
    let mut out = Vec::new();
    reader.push(body.as_bytes());
    reader.close();
    loop {
        out.clear();
        match reader.step(&mut out).unwrap() {
            Step::Row => ranker.row(&out, reader.key()),
            Step::End => return merge(vec![ranker], 5),
            _ => {}
        }
    }
}

/// Words of rows, queries and secrets, so that they meet often.
const WORDS: [&str; 8] = [
    "alpha", "Beta", "gamma-7", "hunter2", "größe", "delta", "del", "x",
];

fn any_words() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(WORDS.to_vec()), 1..5)
        .prop_map(|words| words.join(" "))
}

#[derive(Clone, Debug)]
struct Given {
    mine: bool,
    title: String,
    secret: String,
    other: String,
}

fn any_row() -> impl Strategy<Value = Given> {
    (any::<bool>(), any_words(), any_words(), any_words()).prop_map(
        |(mine, title, secret, other)| Given {
            mine,
            title,
            secret,
            other,
        },
    )
}

fn body(rows: &[Given], secret: impl Fn(&Given) -> String, strangers: bool) -> String {
    let rows = rows
        .iter()
        .enumerate()
        .filter(|(_, row)| row.mine || strangers);
    let rows: Vec<Value> = rows
        .map(|(at, row)| {
            let team = if row.mine { "a" } else { "b" };
            let hidden = secret(row);
            json!({
                "id": format!("r{at}"), "createdAt": format!("2026-01-01T00:00:{:02}.000Z", 59 - at),
                "ownerId": "someone", "teamId": team, "title": row.title, "apiKey": hidden,
                "meta": {"cost": hidden, "text": row.title}, "list": [{"password": {"deep": hidden}}],
                "internalNote": hidden, "_hidden": hidden,
            })
        })
        .collect();
    Value::from(rows).to_string()
}

proptest! {
    #[test]
    fn what_is_not_sent_has_no_influence(rows in proptest::collection::vec(any_row(), 0..20), text in any_words()) {
        let answer = search(&body(&rows, |row| row.secret.clone(), true), &text);
        // Other secrets, and no row of anybody else: hits, scores, order and flags are the same.
        prop_assert_eq!(&answer, &search(&body(&rows, |row| row.other.clone(), true), &text));
        prop_assert_eq!(&answer, &search(&body(&rows, |_| String::new(), false), &text));
        for hit in &answer.hits {
            let row: Value = serde_json::from_slice(&hit.row).unwrap();
            prop_assert_eq!(&row["teamId"], "a");
            for gone in ["apiKey", "internalNote", "_hidden"] {
                prop_assert!(row.get(gone).is_none());
            }
        }
    }

    #[test]
    fn a_query_that_is_a_secret_finds_nothing(rows in proptest::collection::vec(any_row(), 0..20), secret in "[a-z]{9,20}") {
        let body = body(&rows, |_| secret.clone(), true);
        for text in [secret.clone(), format!("\"{secret}\""), format!("{}*", &secret[..8])] {
            prop_assert_eq!(search(&body, &text), Ranking::default());
        }
    }
}
