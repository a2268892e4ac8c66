//! The rule of ownership case by case.

use crate::resource::Resource;

use super::{Reading, Rules, Seen, read, rows_at};

pub(super) const KEY: &str = r#""id":"r","createdAt":"2026-01-02T03:04:05.678Z""#;

/// Reads one row made of the usual key and `members`.
pub(super) fn one(rules: &Rules, members: &str) -> Seen {
    raw(rules, &format!("{{{KEY},{members}}}"))
}

pub(super) fn raw(rules: &Rules, row: &str) -> Seen {
    let reading = reading(rules, row);
    assert_eq!(reading.end, Ok(()), "{row}");
    reading.seen.into_iter().next().unwrap()
}

pub(super) fn reading(rules: &Rules, row: &str) -> Reading {
    read(
        &rules.filter(),
        rows_at(""),
        format!("[{row}]").as_bytes(),
        &[],
    )
}

pub(super) fn passes(rules: &Rules, members: &str) -> bool {
    matches!(one(rules, members), Seen::Row(_))
}

pub(super) fn text(rules: &Rules, members: &str) -> String {
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
        (
            r#""teamId":null,"projectId":null,"missionId":null,"ownerId":"u1""#,
            true,
        ),
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
    let row = text(
        &rules,
        r#""ownerId":"u1","\u005fsource":"x","p\u0061ssword":"x","a":1"#,
    );
    assert_eq!(
        row,
        format!(r#"{{"_source":"local",{KEY},"ownerId":"u1","a":1}}"#)
    );
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
fn a_row_that_calls_itself_sensitive_is_withheld_from_every_list() {
    for resource in [Resource::Tasks, Resource::Projects, Resource::Memory] {
        let rules = Rules::usual(resource);
        for said in [
            "credential",
            "Credentials",
            "api_key",
            "apiKeys",
            "API-KEY",
            "\\u0063redential",
        ] {
            let row = format!(r#""ownerId":"u1","type":"{said}""#);
            assert_eq!(one(&rules, &row), Seen::Withheld, "{row}");
        }
        for said in [
            r#""credentialing""#,
            r#""task""#,
            r#""""#,
            "null",
            "7",
            r#"["credential"]"#,
        ] {
            let row = format!(r#""ownerId":"u1","type":{said}"#);
            assert!(passes(&rules, &row), "{row}");
        }
        let twice = r#""ownerId":"u1","type":"task","type":"credential""#;
        assert_eq!(one(&rules, twice), Seen::Withheld);
    }
}

#[test]
fn sensitive_resources_have_no_rows() {
    for resource in [Resource::Credentials, Resource::ApiKeys] {
        assert!(!passes(
            &Rules::usual(resource),
            r#""ownerId":"u1","teamId":"t1""#
        ));
    }
}
