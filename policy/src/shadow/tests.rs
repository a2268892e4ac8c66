//! A shadow tells what differs, from closed sets, and nothing where the candidate decides the same.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::decision::Decision;
use crate::evaluate::evaluate;
use crate::evaluate::world::{World, member_of, world};
use crate::reach::RowLimit;

const ALL: &str = "resources = [\"tasks\", \"notes\", \"memory\", \"projects\", \"missions\"]";

fn scoped() -> World {
    let filters = json!({"tasks": {"include_teams": ["a", "b"]}});
    world(json!({"resources": ["tasks", "notes"], "filters": filters, "max_rows_per_query": 200}))
}

fn under(world: &World, rules: &str) -> Snapshot {
    World {
        peer: world.peer.clone(),
        grant: world.grant.clone(),
        rules: format!("schema = 1\n[ceiling]\n{rules}\n"),
        mapping: world.mapping.clone(),
    }
    .snapshot()
}

/// The shadow of one question, as the proxy takes it.
fn shadow(
    world: &World,
    candidate: &str,
    (verb, resource, limit): (&str, Option<&str>, Option<u64>),
) -> Option<Difference> {
    let (current, candidate) = (world.snapshot(), under(world, candidate));
    let mut request = world.ask(verb, resource);
    request.limit = limit.map(|rows| RowLimit::new(rows).unwrap());
    let decided = admit(&current, &request);
    let told = admission(&candidate, &request, decided.as_ref());
    let facts = member_of(&["a", "c"]);
    match decided {
        Ok(Admission::Rows(admitted)) => {
            assert_eq!(told, None, "rows are told of by their permit");
            permitted(&candidate, &request, &facts, &admitted.decide(&facts))
        }
        _ => told,
    }
}

fn told(difference: Option<Difference>) -> (Change, String, String) {
    let found = difference.unwrap();
    (found.change, found.now, found.then)
}

#[test]
fn the_same_policy_shows_no_difference() {
    let world = scoped();
    for asked in [
        ("list", Some("tasks"), None),
        ("get", Some("tasks"), None),
        ("search", Some("notes"), Some(3)),
        ("list", Some("projects"), None),
        ("list", Some("nothing"), None),
        ("nothing", Some("tasks"), None),
        ("capabilities", None, None),
    ] {
        assert_eq!(shadow(&world, ALL, asked), None, "{asked:?}");
    }
}

#[test]
fn what_a_candidate_refuses_or_lets_through_is_told_by_its_code() {
    let world = scoped();
    let refused = shadow(
        &world,
        "resources = [\"notes\"]",
        ("list", Some("tasks"), None),
    );
    assert_eq!(
        told(refused),
        (
            Change::Refused,
            "let through".into(),
            "refused, ceiling".into()
        )
    );
    let mut narrow = scoped();
    narrow.rules = "schema = 1\n[ceiling]\nresources = [\"notes\"]\n".to_owned();
    let allowed = shadow(&narrow, ALL, ("list", Some("tasks"), None));
    assert_eq!(
        told(allowed),
        (
            Change::Allowed,
            "refused, ceiling".into(),
            "let through".into()
        )
    );
    let other = format!("{ALL}\n[peers.home]\ncompat = \"upstream-m3\"");
    let mut projects = world_of_projects();
    projects.rules = "schema = 1\n[ceiling]\nresources = [\"notes\"]\n".to_owned();
    let otherwise = shadow(&projects, &other, ("list", Some("projects"), None));
    assert_eq!(
        told(otherwise),
        (
            Change::RefusedOtherwise,
            "refused, ceiling".into(),
            "refused, resource_unsupported".into()
        )
    );
}

fn world_of_projects() -> World {
    world(json!({"resources": ["projects"]}))
}

#[test]
fn how_far_a_permit_reaches_is_told_on_the_facts_it_had() {
    let world = scoped();
    let narrower = "resources = [\"tasks\"]\nteams = [\"b\"]\ninclude_personal = false\nmax_rows_per_query = 50";
    let found = shadow(&world, narrower, ("list", Some("tasks"), None));
    assert_eq!(
        told(found),
        (
            Change::Otherwise,
            "teams a; personal rows; at most 200 rows".into(),
            "no team; no personal rows; at most 50 rows".into()
        )
    );
    // Of 20 rows that were asked for both let through 20; and 120 of them are told by the caps.
    let fewer = format!("{ALL}\nmax_rows_per_query = 50");
    assert_eq!(
        shadow(&world, &fewer, ("list", Some("tasks"), Some(20))),
        None
    );
    assert_eq!(shadow(&world, &fewer, ("get", Some("tasks"), None)), None);
    for asked in [60, 120, 9_999] {
        let found = shadow(&world, &fewer, ("list", Some("tasks"), Some(asked)));
        assert_eq!(
            told(found),
            (
                Change::Otherwise,
                "at most 200 rows".into(),
                "at most 50 rows".into()
            )
        );
    }
    let redacted = format!("{ALL}\n[redaction.fields]\ntasks = [\"cost\"]");
    let found = shadow(&world, &redacted, ("get", Some("tasks"), None));
    assert_eq!(
        told(found),
        (
            Change::Otherwise,
            "removes nothing by name".into(),
            "removes cost".into()
        )
    );
}

#[test]
fn what_capabilities_say_is_compared() {
    let world = scoped();
    let other = "resources = [\"tasks\"]\nrate_limit = { per_minute = 60 }\nrows_per_day = 9";
    let (change, now, then) = told(shadow(&world, other, ("capabilities", None, None)));
    assert_eq!(change, Change::Otherwise);
    assert_eq!(
        (now.as_str(), then.as_str()),
        (
            "tasks notes; 120 a minute, 30 at once; any number of rows a day",
            "tasks; 60 a minute, 30 at once; 9 rows a day"
        )
    );
}

#[test]
fn a_search_tells_of_resources_that_only_the_candidate_would_search() {
    let mut world = scoped();
    world.rules = "schema = 1\n[ceiling]\nresources = [\"notes\"]\n".to_owned();
    let (current, candidate) = (world.snapshot(), under(&world, ALL));
    let request = world.ask("search", None);
    let decided = admit_search(&current, &request, None).unwrap();
    let found = search(&candidate, &request, None, Ok(&decided));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].resource, found[0].change),
        (Some(Resource::Tasks), Change::Otherwise)
    );
    let named = ["tasks".to_owned()];
    let refused = admit_search(&current, &request, Some(&named)).unwrap_err();
    let found = search(&candidate, &request, Some(&named), Err(&refused));
    assert_eq!(found[0].change, Change::Allowed);
    assert_eq!(search(&current, &request, Some(&named), Err(&refused)), []);
}

proptest! {
    /// A difference is told if and only if the two policies decide differently, and the shadow of a policy under itself
    /// is none.
    #[test]
    fn a_difference_is_told_exactly_where_there_is_one(
        teams in proptest::sample::subsequence(vec!["a", "b", "c"], 1..=3),
        personal: bool,
        rows in 1_u64..400,
        limit in proptest::option::of(1_u64..400),
    ) {
        let world = scoped();
        let names: Vec<String> = teams.iter().map(|team| format!("\"{team}\"")).collect();
        let rules = format!("{ALL}\nteams = [{}]\ninclude_personal = {personal}\nmax_rows_per_query = {rows}", names.join(", "));
        let other = under(&world, &rules);
        let facts = member_of(&["a", "c"]);
        let mut request = world.ask("list", Some("tasks"));
        request.limit = limit.map(|rows| RowLimit::new(rows).unwrap());
        let permit = |snapshot: &Snapshot| match evaluate(snapshot, &request, &facts) {
            Decision::Allow(permit) => permit,
            Decision::Deny(deny) => panic!("{deny}"),
        };
        let (now, then) = (permit(&world.snapshot()), permit(&other));
        let same = Arc::clone(now.teams()) == Arc::clone(then.teams())
            && now.include_personal() == then.include_personal()
            && now.row_limit() == then.row_limit();
        prop_assert_eq!(permitted(&other, &request, &facts, &now).is_none(), same);
        prop_assert_eq!(permitted(&other, &request, &facts, &then), None);
    }
}
