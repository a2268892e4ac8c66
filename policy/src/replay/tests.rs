//! What another policy would change is told, and nothing else. Elsewhere on purpose: the records themselves (the proxy).
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::collection::btree_set;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::evaluate::world::{World, member_of, world};
use crate::grant::GrantStatus;
use crate::reach::tests::any_team;
use crate::recorded::RecordedDecision;

fn scoped() -> World {
    let filters = json!({"tasks": {"include_teams": ["a", "b"]}});
    world(json!({"resources": ["tasks", "notes"], "filters": filters, "max_rows_per_query": 200}))
}

fn under(world: &World, rules: &str) -> Snapshot {
    let mut other = World {
        peer: world.peer.clone(),
        grant: world.grant.clone(),
        rules: format!("schema = 1\n[ceiling]\n{rules}\n"),
        mapping: world.mapping.clone(),
    };
    other.grant.edit = world.grant.edit;
    other.snapshot()
}

/// A permit for tasks as it was recorded, for a member of these teams.
fn then(world: &World, teams: &[&str], limit: Option<u64>) -> DecidedThen {
    let snapshot = world.snapshot();
    let mut request = world.ask("list", Some("tasks"));
    request.limit = limit.map(|rows| RowLimit::new(rows).unwrap());
    let facts = member_of(teams);
    let Ok(Admission::Rows(admitted)) = admit(&snapshot, &request) else {
        panic!("refused");
    };
    let permit = admitted.decide(&facts);
    let mut recorded = RecordedDecision::under(permit.entry().unwrap());
    recorded.permitted(&permit);
    recorded.decode().unwrap()
}

fn replayed(
    world: &World,
    candidate: &str,
    resource: &str,
    denied: Option<DenyCode>,
    then: Option<&DecidedThen>,
) -> Replayed {
    let was = RecordedAnswer {
        request: world.ask("list", Some(resource)),
        denied,
        then,
    };
    replay(&world.snapshot(), &under(world, candidate), &was)
}

fn changed(lines: &[&str]) -> Replayed {
    Replayed::Changed(lines.iter().map(|line| (*line).to_owned()).collect())
}

const SAME: &str = "resources = [\"tasks\", \"notes\", \"memory\", \"projects\", \"missions\"]";

#[test]
fn a_permit_is_compared_with_what_it_held() {
    let world = scoped();
    let permit = then(&world, &["a", "c"], None);
    let again = |candidate: &str| replayed(&world, candidate, "tasks", None, Some(&permit));
    assert_eq!(again(SAME), Replayed::Same);
    assert_eq!(
        again("resources = [\"notes\"]"),
        changed(&["let through -> refused, ceiling"])
    );
    assert_eq!(
        again(
            "resources = [\"tasks\"]\nteams = [\"b\"]\ninclude_personal = false\nmax_rows_per_query = 50"
        ),
        changed(&[
            "tasks: no longer of teams a",
            "tasks: no longer personal rows",
            "tasks: rows of the answer: 200 -> 50",
        ])
    );
    // The user was no member of b: taking it away changes nothing for this question.
    assert_eq!(
        again("resources = [\"tasks\"]\nteams = [\"a\"]"),
        Replayed::Same
    );
}

#[test]
fn rows_that_were_asked_for_stay_asked_for() {
    let world = scoped();
    let permit = then(&world, &["a"], Some(20));
    let again = |cap: u64| {
        let candidate = format!("{SAME}\nmax_rows_per_query = {cap}");
        replayed(&world, &candidate, "tasks", None, Some(&permit))
    };
    assert_eq!(again(150), Replayed::Same);
    assert_eq!(again(10), changed(&["tasks: rows of the answer: 20 -> 10"]));
}

#[test]
fn a_wider_policy_is_told_against_the_one_in_force() {
    let mut world = scoped();
    world.rules =
        format!("schema = 1\n[ceiling]\n{SAME}\nteams = [\"a\"]\ninclude_personal = false\n");
    let permit = then(&world, &["a", "b"], None);
    let again = replayed(&world, SAME, "tasks", None, Some(&permit));
    assert_eq!(
        again,
        changed(&[
            "tasks: also of teams b, where the user is a member",
            "tasks: also personal rows",
        ])
    );
}

#[test]
fn refusals_of_policy_are_decided_again_and_others_are_not() {
    let mut world = scoped();
    world.rules = "schema = 1\n[ceiling]\nresources = [\"notes\"]\n".to_owned();
    let again = |resource: &str, code| replayed(&world, SAME, resource, Some(code), None);
    assert_eq!(
        again("tasks", DenyCode::Ceiling),
        changed(&["refused, ceiling -> let through"])
    );
    assert_eq!(
        again("memory", DenyCode::ResourceNotGranted),
        Replayed::Same
    );
    assert_eq!(
        again("memory", DenyCode::ResourceExcluded),
        changed(&["refused, resource_excluded -> refused, resource_not_granted"])
    );
    for code in [
        DenyCode::GrantRevoked,
        DenyCode::InvalidCursor,
        DenyCode::AuditUnavailable,
    ] {
        let expected = Replayed::Not(NotReplayed::NotDecidedByPolicy);
        assert_eq!(again("tasks", code), expected, "{code}");
    }
    // The gateway failed behind the decision: policy had let it through.
    let open = scoped();
    let again = replayed(
        &open,
        "resources = [\"notes\"]",
        "tasks",
        Some(DenyCode::GatewayTimeout),
        None,
    );
    assert_eq!(again, changed(&["let through -> refused, ceiling"]));
}

#[test]
fn a_grant_that_ended_is_not_decided_again() {
    let mut world = scoped();
    let permit = then(&world, &["a"], None);
    world.grant.status = GrantStatus::Revoked;
    let again = replayed(
        &world,
        "resources = [\"notes\"]",
        "tasks",
        None,
        Some(&permit),
    );
    assert_eq!(again, Replayed::Not(NotReplayed::GrantNotInForce));
}

#[test]
fn a_record_without_its_decision_is_compared_with_what_is_in_force() {
    let world = scoped();
    let again = |candidate: &str| replayed(&world, candidate, "tasks", None, None);
    assert_eq!(again(SAME), Replayed::Same);
    assert_eq!(
        again("resources = [\"tasks\"]\nteams = [\"a\"]"),
        changed(&["tasks: no longer of teams b"])
    );
}

#[test]
fn changes_of_a_grant_are_named() {
    let world = scoped();
    let snapshot = world.snapshot();
    let before = snapshot.grant(world.grant.id).unwrap();
    let of = |rules: &str| {
        let snapshot = under(&world, rules);
        grant_changes(before, snapshot.grant(world.grant.id).unwrap())
    };
    assert_eq!(of(SAME), [""; 0]);
    assert_eq!(
        of(
            "resources = [\"tasks\"]\nteams = [\"a\"]\nmax_rows_per_query = 9\n[redaction]\nfields.tasks = [\"x\"]\nexempt = [\"tasks.token\"]"
        ),
        [
            "tasks: no longer of teams b",
            "notes: no longer in reach",
            "rows of an answer: 200 -> 9",
            "tasks: rule to remove added: x",
            "tasks: exemption added: token",
        ]
    );
}

#[test]
fn changed_limits_of_a_grant_are_named() {
    let rated = |limits: &str| {
        let mut world = scoped();
        world.rules = format!("schema = 1\n[ceiling]\n{SAME}\n{limits}\n");
        world
    };
    let world = rated("rate_limit = { per_minute = 60, burst = 9 }\nrows_per_day = 500");
    let snapshot = world.snapshot();
    let before = snapshot.grant(world.grant.id).unwrap();
    let of = |limits: &str| {
        let snapshot = under(&world, &format!("{SAME}\n{limits}"));
        grant_changes(before, snapshot.grant(world.grant.id).unwrap())
    };
    let same = "rate_limit = { per_minute = 60, burst = 9 }\nrows_per_day = 500";
    assert_eq!(of(same), [""; 0]);
    assert_eq!(
        of("rate_limit = { per_minute = 60, burst = 8 }\nrows_per_day = 501"),
        [
            "requests at once: 9 -> 8",
            "different rows a day: 500 -> 501"
        ]
    );
    // What no rule says is the usual rate, and any number of rows.
    assert_eq!(
        of(""),
        [
            "requests a minute: 60 -> 120",
            "requests at once: 9 -> 30",
            "different rows a day: 500 -> any number",
        ]
    );
    let peer = world.peer.name.as_str();
    assert_eq!(
        of(&format!(
            "{same}\n[mapping]\nsemantic = true\n[peers.{peer}]\ncompat = \"upstream-m3\"\nrows_per_day = 7"
        )),
        [
            "different rows a day: 500 -> 7",
            "the protocol of its peer: as it is -> upstream-m3",
            "hits without a word of the search: never -> too",
        ]
    );
}

proptest! {
    /// A policy that reaches the same is told to change nothing, and one that refuses is told to refuse.
    #[test]
    fn replaying_agrees_with_deciding(
        listed in btree_set(proptest::sample::select(Resource::SERVED.to_vec()), 1..5),
        teams in proptest::option::of(btree_set(any_team(), 0..4)),
        personal: bool,
        cap in 1u64..300,
        member in btree_set(any_team(), 0..4),
    ) {
        let world = scoped();
        let names: Vec<&str> = member.iter().map(TeamId::as_str).collect();
        let permit = then(&world, &names, None);
        let teams = teams.map_or_else(String::new, |teams| format!("teams = {}\n", json!(teams)));
        let candidate = format!(
            "resources = {}\n{teams}include_personal = {personal}\nmax_rows_per_query = {cap}",
            json!(listed)
        );
        let replayed = replayed(&world, &candidate, "tasks", None, Some(&permit));
        let snapshot = under(&world, &candidate);
        let facts = member_of(&names);
        match admit(&snapshot, &world.ask("list", Some("tasks"))) {
            Ok(Admission::Rows(admitted)) => {
                let now = admitted.decide(&facts);
                let old = world.permit("tasks", &facts);
                let same = now.teams() == old.teams()
                    && now.include_personal() == old.include_personal()
                    && now.row_limit() == old.row_limit();
                prop_assert_eq!(replayed == Replayed::Same, same, "{:?}", replayed);
            }
            _ => prop_assert_eq!(replayed, changed(&["let through -> refused, ceiling"])),
        }
    }
}
