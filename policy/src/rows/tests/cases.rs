//! The rules case by case: ownership, members the sidecar writes itself, redaction, matching.

use crate::resource::Resource;
use crate::rows::{FilterError, RowFilter};

use super::{Reading, Rules, Seen, read, rows_at};

const KEY: &str = r#""id":"r","createdAt":"2026-01-02T03:04:05.678Z""#;

/// Reads one row made of the usual key and `members`.
fn one(rules: &Rules, members: &str) -> Seen {
    raw(rules, &format!("{{{KEY},{members}}}"))
}

fn raw(rules: &Rules, row: &str) -> Seen {
    let reading = reading(rules, row);
    assert_eq!(reading.end, Ok(()), "{row}");
    reading.seen.into_iter().next().unwrap()
}

fn reading(rules: &Rules, row: &str) -> Reading {
    read(&rules.filter(), rows_at(""), format!("[{row}]").as_bytes(), &[])
}

fn passes(rules: &Rules, members: &str) -> bool {
    matches!(one(rules, members), Seen::Row(_))
}

fn text(rules: &Rules, members: &str) -> String {
    match one(rules, members) {
        Seen::Row(text) => text,
        other => panic!("{other:?}: {members}"),
    }
}

#[test]
fn tasks_pass_by_team_else_by_owner() {
    let rules = Rules::usual(Resource::Tasks);
    for (members, expected) in [
        (r#""teamId":"t1","ownerId":"u2""#, true),
        (r#""teamId":"t1""#, true),
        (r#""teamId":"t2","ownerId":"u1""#, false),
        (r#""teamId":"t9","ownerId":"u1""#, false),
        (r#""ownerId":"u1""#, true),
        (r#""ownerId":"u2""#, false),
        (r#""ownerId":"""#, false),
        (r#""teamId":"","ownerId":"u1""#, false),
        (r#""teamId":null,"projectId":null,"missionId":null,"ownerId":"u1""#, true),
        (r#""title":"nobody's""#, false),
        (r#""projectId":"p1""#, true),
        (r#""projectId":"p2","ownerId":"u1""#, false),
        (r#""projectId":"p2","teamId":"t1""#, true),
        (r#""projectId":"p3""#, true),
        (r#""projectId":"p3","ownerId":"u2""#, false),
        (r#""projectId":"p4""#, false),
        (r#""projectId":"p4","ownerId":"u1""#, true),
        (r#""missionId":"m1""#, true),
        (r#""missionId":"m2""#, false),
        (r#""missionId":"m3""#, true),
        (r#""missionId":"m4""#, false),
        (r#""missionId":"m4","ownerId":"u1""#, true),
        (r#""missionId":"m6""#, true),
        (r#""missionId":"m3","projectId":"p1""#, true),
        (r#""missionId":"m1","projectId":"p2""#, false),
        // Owner: the mission's before the project's.
        (r#""missionId":"m4","projectId":"p3""#, false),
        (r#""missionId":"m3","projectId":"p4""#, true),
        // Of a mission without owner, the project of the row counts, not the project of the mission.
        (r#""missionId":"m7""#, false),
        (r#""missionId":"m7","projectId":"p3""#, true),
    ] {
        assert_eq!(passes(&rules, members), expected, "{members}");
    }
}

#[test]
fn what_cannot_be_resolved_is_withheld() {
    let rules = Rules::usual(Resource::Tasks);
    for members in [
        r#""teamId":"t1","projectId":"gone""#,
        r#""teamId":"t1","missionId":"gone""#,
        r#""ownerId":"u1","projectId":"gone""#,
        r#""teamId":"t1","missionId":"m5""#,
        r#""ownerId":"u1","missionId":"""#,
    ] {
        assert_eq!(one(&rules, members), Seen::Withheld, "{members}");
    }
}

#[test]
fn ownership_of_another_shape_or_twice_is_withheld() {
    let rules = Rules::usual(Resource::Tasks);
    for members in [
        r#""teamId":"t1","ownerId":1"#,
        r#""teamId":"t1","ownerId":{}"#,
        r#""teamId":["t1"]"#,
        r#""teamId":true,"ownerId":"u1""#,
        r#""teamId":"t1","projectId":false"#,
        r#""teamId":"t1","teamId":"t1""#,
        r#""ownerId":"u1","ownerId":"u2""#,
        r#""ownerId":"u1","\u006fwnerId":"u1""#,
        r#""ownerId":"u1","id":"again""#,
        r#""ownerId":"u1","createdAt":null"#,
    ] {
        assert_eq!(one(&rules, members), Seen::Withheld, "{members}");
    }
    assert!(passes(&rules, r#""ownerId":"u1","title":1,"title":2"#));
}

#[test]
fn escapes_in_names_and_values_hide_nothing() {
    let rules = Rules::usual(Resource::Tasks);
    assert!(passes(&rules, r#""\u006fwnerId":"u1""#));
    assert!(passes(&rules, r#""ownerId":"\u0075\u0031""#));
    assert!(passes(&rules, r#""team\u0049d":"\u00741""#));
    assert!(!passes(&rules, r#""\u006fwnerId":"u2""#));
    let row = text(&rules, r#""ownerId":"u1","\u005fsource":"x","p\u0061ssword":"x","a":1"#);
    assert_eq!(row, format!(r#"{{"_source":"local",{KEY},"ownerId":"u1","a":1}}"#));
}

#[test]
fn notes_need_owner_and_mission() {
    let rules = Rules::usual(Resource::Notes);
    for (members, expected) in [
        (r#""ownerId":"u1","missionId":"m1""#, true),
        (r#""ownerId":"u2","missionId":"m1""#, false),
        (r#""ownerId":"u1","missionId":"m2""#, false),
        (r#""ownerId":"u1","missionId":"m3""#, true),
        (r#""ownerId":"u1","missionId":"m4""#, false),
        (r#""ownerId":"u1","missionId":"m5""#, false),
        (r#""ownerId":"u1","missionId":"m7""#, true),
        (r#""ownerId":"u1""#, false),
        (r#""ownerId":"u1","teamId":"t1""#, false),
        (r#""ownerId":"u2","missionId":"m3""#, false),
        (r#""missionId":"m3""#, true),
    ] {
        assert_eq!(passes(&rules, members), expected, "{members}");
    }
    let shared_only = Rules {
        include_personal: false,
        ..rules
    };
    assert!(passes(&shared_only, r#""ownerId":"u1","missionId":"m1""#));
    assert!(!passes(&shared_only, r#""ownerId":"u1","missionId":"m3""#));
}

#[test]
fn memory_is_personal() {
    let rules = Rules::usual(Resource::Memory);
    assert!(passes(&rules, r#""ownerId":"u1""#));
    assert!(!passes(&rules, r#""ownerId":"u2""#));
    assert!(!passes(&rules, r#""teamId":"t1""#));
    let shared_only = Rules {
        include_personal: false,
        ..rules
    };
    assert!(!passes(&shared_only, r#""ownerId":"u1""#));
}

#[test]
fn without_personal_rows_only_teams_pass() {
    for resource in [Resource::Tasks, Resource::Projects, Resource::Missions] {
        let rules = Rules {
            include_personal: false,
            ..Rules::usual(resource)
        };
        assert!(passes(&rules, r#""ownerId":"u1","teamId":"t1""#));
        assert!(!passes(&rules, r#""ownerId":"u1""#));
    }
}

#[test]
fn sensitive_resources_have_no_rows() {
    for resource in [Resource::Credentials, Resource::ApiKeys] {
        assert!(!passes(&Rules::usual(resource), r#""ownerId":"u1","teamId":"t1""#));
    }
}

#[test]
fn ids_and_instants() {
    let rules = Rules::usual(Resource::Tasks);
    let row = |id: &str, at: &str| raw(&rules, &format!(r#"{{"id":{id},"createdAt":{at},"ownerId":"u1"}}"#));
    let at = r#""2026-01-02T03:04:05.678Z""#;
    let passed = |id: &str, at: &str| {
        Seen::Row(format!(r#"{{"_source":"local","id":{id},"createdAt":{at},"ownerId":"u1"}}"#))
    };
    assert_eq!(row("\"r\"", at), passed("\"r\"", at));
    assert_eq!(row("42", at), passed("\"42\"", at));
    assert_eq!(row("-7", at), passed("\"-7\"", at));
    let longest = format!("\"{}\"", "x".repeat(256));
    assert_eq!(row(&longest, at), passed(&longest, at));
    let longer = format!("\"{}\"", "x".repeat(257));
    for id in ["\"\"", "null", "1.0", "1e3", "-0", "true", "[]", "{}", "\"\\u0000\"", "111111111111111111111", &longer] {
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
        assert_eq!(row("\"r\"", &format!("\"{given}\"")), passed("\"r\"", &format!("\"{written}\"")));
    }
    for at in ["\"yesterday\"", "1767323045678", "null", "\"2026-13-02T03:04:05Z\"", "\"\""] {
        assert_eq!(row("\"r\"", at), Seen::Withheld, "{at}");
    }
    assert_eq!(raw(&rules, r#"{"id":"r","ownerId":"u1"}"#), Seen::Withheld);
    assert_eq!(raw(&rules, &format!(r#"{{"createdAt":{at},"ownerId":"u1"}}"#)), Seen::Withheld);
    assert_eq!(raw(&rules, "{}"), Seen::Withheld);
}

#[test]
fn a_key_is_known_even_of_a_withheld_row() {
    let rules = Rules::usual(Resource::Tasks);
    let reading = reading(&rules, r#"{"id":"a\"b","createdAt":"2026-01-02T03:04:05Z","ownerId":"u2"},{"ownerId":"u2"}"#);
    let key = Some(("2026-01-02T03:04:05Z".to_owned(), 1_767_323_045_000_000_000, "a\"b".to_owned()));
    assert_eq!(reading.seen, [Seen::Withheld, Seen::Withheld]);
    assert_eq!(reading.keys, [key.clone(), key]);
}

#[test]
fn renamed_fields_leave_under_the_usual_names() {
    let mut rules = Rules::usual(Resource::Tasks);
    rules.map.id = "_id".to_owned();
    rules.map.created_at = "made".to_owned();
    let row = raw(&rules, r#"{ "id":1, "id":2, "_id":7, "x":0, "made":"2026-01-02T03:04:05Z", "createdAt":3, "ownerId":"u1" }"#);
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
        (r#""ownerId":"u1","gone":{"a":[1,{"token":2}]}"#, r#""ownerId":"u1""#),
        (r#""ownerId":"u1" , "gone" : 1 , "b" : 2 "#, r#""ownerId":"u1"  , "b" : 2 "#),
        (r#""ownerId":"u1","meta":{"cost":1}"#, r#""ownerId":"u1","meta":{}"#),
        (r#""ownerId":"u1","meta":{"cost":1,"b":2}"#, r#""ownerId":"u1","meta":{"b":2}"#),
        (r#""ownerId":"u1","meta":{ "cost":1 , "token":2 , "b":3 , "cost":4 }"#, r#""ownerId":"u1","meta":{ "b":3  }"#),
        (r#""ownerId":"u1","meta":[[{"cost":1},{"x":{"cost":1}}]]"#, r#""ownerId":"u1","meta":[[{},{"x":{"cost":1}}]]"#),
        (r#""ownerId":"u1","usage":{"tokenCount":1,"token":2}"#, r#""ownerId":"u1","usage":{"tokenCount":1}"#),
        (r#""ownerId":"u1","tokenCount":1"#, r#""ownerId":"u1""#),
        (r#""ownerId":"u1","secretary":1,"tokenizer":{}"#, r#""ownerId":"u1","secretary":1,"tokenizer":{}"#),
        (r#""ownerId":"u1","a":[{"accessToken":1,"b":{"pwd":1,"c":[]}}]"#, r#""ownerId":"u1","a":[{"b":{"c":[]}}]"#),
    ] {
        assert_eq!(text(&rules, members), format!(r#"{{"_source":"local",{KEY},{left}}}"#), "{members}");
    }
    let first = raw(&rules, &format!(r#"{{ "pwd":1, "_a":2, "token":3, {KEY},"ownerId":"u1"}}"#));
    assert_eq!(first, Seen::Row(format!(r#"{{"_source":"local",{KEY},"ownerId":"u1"}}"#)));
    let counted = reading(&rules, &format!(r#"{{"pwd":1,"_a":2,{KEY},"ownerId":"u1","a":{{"token":{{"token":1}}}}}}"#));
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
    assert!(matches!(row(r#""status":"done","notes":"x""#), Seen::Row(_)));
    assert!(matches!(row(r#""status":"\u0064one","notes":"x""#), Seen::Row(_)));
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
    assert_eq!(row(r#""status":"done","status":"done","notes":"x""#), Seen::Withheld);
    assert_eq!(one(&rules, r#""teamId":"t2","status":"todo""#), Seen::Withheld);
}

#[test]
fn filters_that_could_not_hold_are_refused() {
    let usual = || Rules::usual(Resource::Tasks);
    let refused = |rules: &Rules| rules.try_filter().map(|filter: RowFilter| filter.resource());
    let removed = Rules { fields: vec!["ownerId"], ..usual() };
    assert_eq!(refused(&removed), Err(FilterError::RemovesOwnership("ownerId".to_owned())));
    let oracle = Rules { fields: vec!["status"], equals: vec![("status", "x")], ..usual() };
    assert_eq!(refused(&oracle), Err(FilterError::MatchesRemoved("status".to_owned())));
    let secret = Rules { equals: vec![("token", "x")], ..usual() };
    assert_eq!(refused(&secret), Err(FilterError::MatchesRemoved("token".to_owned())));
    let mut ambiguous = usual();
    ambiguous.map.project = Some("id".to_owned());
    assert_eq!(refused(&ambiguous), Err(FilterError::Ambiguous("id".to_owned())));
    let many = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s"];
    let many = Rules { equals: many.map(|name| (name, "x")).to_vec(), ..usual() };
    assert_eq!(refused(&many), Err(FilterError::TooManyNames));
}
