//! Each refusal of a local question by its name, and what a local permit reaches.
#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::collection::btree_set;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::evaluate::world::{World, member_of, world};
use crate::reach::tests::any_team;

fn side() -> World {
    world(json!({"resources": ["tasks"]}))
}

fn amira() -> UserId {
    UserId::parse("amira").unwrap()
}

fn refusal(world: &World, verb: &str, resource: Option<&str>) -> DenyCode {
    match admit_local(&world.snapshot(), &amira(), verb, resource, None) {
        Err(deny) => deny.code(),
        Ok(admission) => panic!("admitted: {admission:?}"),
    }
}

fn permit(world: &World, resource: &str, limit: Option<RowLimit>, facts: &NativeFacts) -> Permit {
    match admit_local(&world.snapshot(), &amira(), "list", Some(resource), limit) {
        Ok(Admission::Rows(admitted)) => admitted.decide(facts),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_refusal_by_name() {
    let world = side();
    for (verb, resource, code) in [
        ("delete", Some("tasks"), DenyCode::UnknownVerb),
        ("list", None, DenyCode::UnknownResource),
        ("list", Some("secrets"), DenyCode::UnknownResource),
        ("list", Some("users"), DenyCode::ReservedResource),
        ("list", Some("credentials"), DenyCode::ResourceNotGranted),
        ("get", Some("api_keys"), DenyCode::ResourceNotGranted),
    ] {
        assert_eq!(refusal(&world, verb, resource), code, "{verb} {resource:?}");
    }
}

#[test]
fn no_policy_opens_a_sensitive_resource() {
    let mut world = side();
    world
        .rules
        .push_str("[peers.home]\nallow_sensitive = [\"credentials\", \"api_keys\"]\n");
    assert_eq!(
        refusal(&world, "list", Some("credentials")),
        DenyCode::ResourceNotGranted
    );
    let Ok(Admission::Capabilities(capabilities)) =
        admit_local(&world.snapshot(), &amira(), "capabilities", None, None)
    else {
        panic!("capabilities are admitted");
    };
    assert_eq!(capabilities.resources, Resource::SERVED);
    assert_eq!(capabilities.order, "created_desc");
}

#[test]
fn a_search_reaches_what_lists_reach() {
    let world = side();
    let snapshot = world.snapshot();
    let open = admit_local_search(&snapshot, &amira(), None, None).unwrap();
    let resources: Vec<Resource> = open.iter().map(Admitted::resource).collect();
    assert_eq!(resources, Resource::SERVED);
    let named = ["tasks".to_owned(), "credentials".to_owned()];
    let refused = admit_local_search(&snapshot, &amira(), Some(&named), None).err();
    assert_eq!(
        refused.map(|deny| deny.code()),
        Some(DenyCode::ResourceNotGranted)
    );
}

#[test]
fn ceilings_are_about_peers() {
    let mut world = side();
    world.rules = "schema = 1\n".to_owned();
    let permit = permit(&world, "notes", None, &member_of(&["a"]));
    assert!(permit.include_personal() && permit.grant().is_none() && permit.entry().is_none());
    assert_eq!(permit.row_limit(), RowLimit::DEFAULT);
    let trace = permit.trace().render();
    assert!(trace.contains("a local session of amira"), "{trace}");
}

#[test]
fn the_revision_follows_redaction_and_is_no_grants() {
    let mut world = side();
    let of = |world: &World| permit(world, "tasks", None, &member_of(&[])).effective_revision();
    let before = of(&world);
    assert_eq!(of(&world), before);
    let grants = world.permit("tasks", &member_of(&[])).effective_revision();
    assert_ne!(grants, before);
    world.grant.edit += 1;
    assert_eq!(of(&world), before, "no grant has a say in it");
    world
        .rules
        .push_str("[redaction]\nfields.tasks = [\"internalNote\"]\n");
    assert_ne!(of(&world), before);
}

proptest! {
    #[test]
    fn it_reaches_the_teams_of_the_user_and_no_others(teams in btree_set(any_team(), 0..4), rows in 1u64..=10_000) {
        let names: Vec<&str> = teams.iter().map(|team| team.as_str()).collect();
        let limit = RowLimit::new(rows).unwrap();
        let permit = permit(&side(), "tasks", Some(limit), &member_of(&names));
        prop_assert_eq!(permit.teams().to_vec(), teams.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(permit.row_limit(), limit);
        prop_assert_eq!(permit.user(), &amira());
    }
}
