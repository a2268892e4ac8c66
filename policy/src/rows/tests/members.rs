//! Identity, members the sidecar writes itself, redaction and matching, case by case.

use crate::resource::Resource;
use crate::rows::{FilterError, RowFilter};

use super::cases::{KEY, one, raw, reading, text};
use super::{Rules, Seen};

#[test]
fn ids_and_instants() {
    let rules = Rules::usual(Resource::Tasks);
    let row = |id: &str, at: &str| {
        raw(
            &rules,
            &format!(r#"{{"id":{id},"createdAt":{at},"ownerId":"u1"}}"#),
        )
    };
    let at = r#""2026-01-02T03:04:05.678Z""#;
    let passed = |id: &str, at: &str| {
        Seen::Row(format!(
            r#"{{"_source":"local","id":{id},"createdAt":{at},"ownerId":"u1"}}"#
        ))
    };
    assert_eq!(row("\"r\"", at), passed("\"r\"", at));
    assert_eq!(row("42", at), passed("\"42\"", at));
    assert_eq!(row("-7", at), passed("\"-7\"", at));
    let longest = format!("\"{}\"", "x".repeat(256));
    assert_eq!(row(&longest, at), passed(&longest, at));
    let longer = format!("\"{}\"", "x".repeat(257));
    for id in [
        "\"\"",
        "null",
        "1.0",
        "1e3",
        "-0",
        "true",
        "[]",
        "{}",
        "\"\\u0000\"",
        "111111111111111111111",
        &longer,
    ] {
        assert_eq!(row(id, at), Seen::Withheld, "{id}");
    }
    for (given, written) in [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z"),
        ("2026-01-02T03:04:05.6789Z", "2026-01-02T03:04:05.678Z"),
        ("2026-01-02t03:04:05.678z", "2026-01-02T03:04:05.678Z"),
        ("2026-01-02T05:04:05.678+02:00", "2026-01-02T03:04:05.678Z"),
        ("2026-01-02T03:04:05.678\\u005a", "2026-01-02T03:04:05.678Z"),
        ("2026-01-02T03:04:05-00:30", "2026-01-02T03:34:05.000Z"),
    ] {
        assert_eq!(
            row("\"r\"", &format!("\"{given}\"")),
            passed("\"r\"", &format!("\"{written}\""))
        );
    }
    for at in [
        "\"yesterday\"",
        "1767323045678",
        "null",
        "\"2026-13-02T03:04:05Z\"",
        "\"\"",
    ] {
        assert_eq!(row("\"r\"", at), Seen::Withheld, "{at}");
    }
    assert_eq!(raw(&rules, r#"{"id":"r","ownerId":"u1"}"#), Seen::Withheld);
    assert_eq!(
        raw(&rules, &format!(r#"{{"createdAt":{at},"ownerId":"u1"}}"#)),
        Seen::Withheld
    );
    assert_eq!(raw(&rules, "{}"), Seen::Withheld);
}

#[test]
fn a_key_is_known_even_of_a_withheld_row() {
    let rules = Rules::usual(Resource::Tasks);
    let reading = reading(
        &rules,
        r#"{"id":"a\"b","createdAt":"2026-01-02T03:04:05Z","ownerId":"u2"},{"ownerId":"u2"}"#,
    );
    let key = Some((
        "2026-01-02T03:04:05Z".to_owned(),
        1_767_323_045_000_000_000,
        "a\"b".to_owned(),
    ));
    assert_eq!(reading.seen, [Seen::Withheld, Seen::Withheld]);
    assert_eq!(reading.keys, [key.clone(), key]);
}

#[test]
fn renamed_fields_leave_under_the_usual_names() {
    let mut rules = Rules::usual(Resource::Tasks);
    rules.map.id = "_id".to_owned();
    rules.map.created_at = "made".to_owned();
    let row = raw(
        &rules,
        r#"{ "id":1, "id":2, "_id":7, "x":0, "made":"2026-01-02T03:04:05Z", "createdAt":3, "ownerId":"u1" }"#,
    );
    let expected = r#"{"_source":"local","id":"7","createdAt":"2026-01-02T03:04:05.000Z","x":0, "made":"2026-01-02T03:04:05Z", "ownerId":"u1" }"#;
    assert_eq!(row, Seen::Row(expected.to_owned()));
}

#[test]
fn members_go_with_their_commas() {
    let rules = Rules {
        fields: vec!["gone", "meta.cost"],
        exempt: vec!["usage.tokenCount"],
        ..Rules::usual(Resource::Tasks)
    };
    for (members, left) in [
        (r#""gone":1,"ownerId":"u1""#, r#""ownerId":"u1""#),
        (
            r#""ownerId":"u1","gone":{"a":[1,{"token":2}]}"#,
            r#""ownerId":"u1""#,
        ),
        (
            r#""ownerId":"u1" , "gone" : 1 , "b" : 2 "#,
            r#""ownerId":"u1"  , "b" : 2 "#,
        ),
        (
            r#""ownerId":"u1","meta":{"cost":1}"#,
            r#""ownerId":"u1","meta":{}"#,
        ),
        (
            r#""ownerId":"u1","meta":{"cost":1,"b":2}"#,
            r#""ownerId":"u1","meta":{"b":2}"#,
        ),
        (
            r#""ownerId":"u1","meta":{ "cost":1 , "token":2 , "b":3 , "cost":4 }"#,
            r#""ownerId":"u1","meta":{ "b":3  }"#,
        ),
        (
            r#""ownerId":"u1","meta":[[{"cost":1},{"x":{"cost":1}}]]"#,
            r#""ownerId":"u1","meta":[[{},{"x":{"cost":1}}]]"#,
        ),
        (
            r#""ownerId":"u1","usage":{"tokenCount":1,"token":2}"#,
            r#""ownerId":"u1","usage":{"tokenCount":1}"#,
        ),
        (r#""ownerId":"u1","tokenCount":1"#, r#""ownerId":"u1""#),
        (
            r#""ownerId":"u1","secretary":1,"tokenizer":{}"#,
            r#""ownerId":"u1","secretary":1,"tokenizer":{}"#,
        ),
        (
            r#""ownerId":"u1","a":[{"accessToken":1,"b":{"pwd":1,"c":[]}}]"#,
            r#""ownerId":"u1","a":[{"b":{"c":[]}}]"#,
        ),
    ] {
        assert_eq!(
            text(&rules, members),
            format!(r#"{{"_source":"local",{KEY},{left}}}"#),
            "{members}"
        );
    }
    let first = raw(
        &rules,
        &format!(r#"{{ "pwd":1, "_a":2, "token":3, {KEY},"ownerId":"u1"}}"#),
    );
    assert_eq!(
        first,
        Seen::Row(format!(r#"{{"_source":"local",{KEY},"ownerId":"u1"}}"#))
    );
    let counted = reading(
        &rules,
        &format!(r#"{{"pwd":1,"_a":2,{KEY},"ownerId":"u1","a":{{"token":{{"token":1}}}}}}"#),
    );
    assert_eq!(counted.tally.redacted_members, 2);
}

#[test]
fn rows_that_were_not_asked_for_are_skipped() {
    let rules = Rules {
        equals: vec![("status", "done"), ("projectId", "p1")],
        non_empty: Some("notes"),
        ..Rules::usual(Resource::Tasks)
    };
    let row = |rest: &str| one(&rules, &format!(r#""teamId":"t1","projectId":"p1",{rest}"#));
    assert!(matches!(
        row(r#""status":"done","notes":"x""#),
        Seen::Row(_)
    ));
    assert!(matches!(
        row(r#""status":"\u0064one","notes":"x""#),
        Seen::Row(_)
    ));
    for rest in [
        r#""status":"todo","notes":"x""#,
        r#""status":null,"notes":"x""#,
        r#""status":1,"notes":"x""#,
        r#""notes":"x""#,
        r#""status":"done","notes":"""#,
        r#""status":"done","notes":null"#,
        r#""status":"done","notes":["x"]"#,
        r#""status":"done""#,
    ] {
        assert_eq!(row(rest), Seen::Unmatched, "{rest}");
    }
    assert_eq!(
        row(r#""status":"done","status":"done","notes":"x""#),
        Seen::Withheld
    );
    assert_eq!(
        one(&rules, r#""teamId":"t2","status":"todo""#),
        Seen::Withheld
    );
}

#[test]
fn filters_that_could_not_hold_are_refused() {
    let usual = || Rules::usual(Resource::Tasks);
    let refused = |rules: &Rules| {
        rules
            .try_filter()
            .map(|filter: RowFilter| filter.resource())
    };
    let removed = Rules {
        fields: vec!["ownerId"],
        ..usual()
    };
    assert_eq!(
        refused(&removed),
        Err(FilterError::RemovesOwnership("ownerId".to_owned()))
    );
    let oracle = Rules {
        fields: vec!["status"],
        equals: vec![("status", "x")],
        ..usual()
    };
    assert_eq!(
        refused(&oracle),
        Err(FilterError::MatchesRemoved("status".to_owned()))
    );
    let secret = Rules {
        equals: vec![("token", "x")],
        ..usual()
    };
    assert_eq!(
        refused(&secret),
        Err(FilterError::MatchesRemoved("token".to_owned()))
    );
    let mut ambiguous = usual();
    ambiguous.map.project = Some("id".to_owned());
    assert_eq!(
        refused(&ambiguous),
        Err(FilterError::Ambiguous("id".to_owned()))
    );
    let many = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r",
        "s",
    ];
    let many = Rules {
        equals: many.map(|name| (name, "x")).to_vec(),
        ..usual()
    };
    assert_eq!(refused(&many), Err(FilterError::TooManyNames));
}
