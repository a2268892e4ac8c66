//! Each refusal by its name, and the laws of the decision. Elsewhere on purpose: the laws of the meet (`reach.rs`).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use proptest::collection::btree_set;
use proptest::prelude::*;
use serde_json::json;

use super::world::{World, member_of, world};
use super::*;
use crate::deny::DenyStage;
use crate::id::UserId;
use crate::reach::tests::any_team;

fn tasks() -> World {
    world(json!({"resources": ["tasks"]}))
}

#[track_caller]
fn assert_refused(deny: &Deny, code: DenyCode, stage: DenyStage) {
    assert_eq!((deny.code(), deny.stage()), (code, stage));
    let trace = deny.trace().render();
    assert!(trace.contains(code.as_str()), "{trace}");
}

#[test]
fn grant_unknown() {
    let world = tasks();
    let mut request = world.ask("list", Some("tasks"));
    request.grant = "0190b7c4-5d3e-7a10-8a51-000000000009".parse().unwrap();
    let deny = admit(&world.snapshot(), &request).err().unwrap();
    assert_refused(&deny, DenyCode::GrantUnknown, DenyStage::Identity);
}

#[test]
fn subject_mismatch() {
    let world = tasks();
    let mut request = world.ask("list", Some("tasks"));
    request.subject = SubjectId::of_user(&UserId::parse("ben").unwrap());
    let deny = admit(&world.snapshot(), &request).err().unwrap();
    assert_refused(&deny, DenyCode::SubjectMismatch, DenyStage::Identity);
}

#[test]
fn peer_suspended() {
    let mut world = tasks();
    world.peer.state = PeerState::Suspended;
    world.grant.status = GrantStatus::Revoked;
    assert_refused(
        &world.refusal("list", "tasks"),
        DenyCode::PeerSuspended,
        DenyStage::Identity,
    );
}

#[test]
fn peer_unknown() {
    let mut world = tasks();
    world.peer.state = PeerState::Pending;
    assert_refused(
        &world.refusal("list", "tasks"),
        DenyCode::PeerUnknown,
        DenyStage::Identity,
    );
}

#[test]
fn grant_pending() {
    let mut world = tasks();
    world.grant.status = GrantStatus::Pending;
    assert_refused(
        &world.refusal("list", "tasks"),
        DenyCode::GrantPending,
        DenyStage::Identity,
    );
}

#[test]
fn grant_revoked() {
    let mut world = tasks();
    world.grant.status = GrantStatus::Revoked;
    assert_refused(
        &world.refusal("list", "tasks"),
        DenyCode::GrantRevoked,
        DenyStage::Identity,
    );
    let mut world = tasks();
    world.peer.state = PeerState::Revoked;
    assert_refused(
        &world.refusal("list", "tasks"),
        DenyCode::GrantRevoked,
        DenyStage::Identity,
    );
}

#[test]
fn grant_expired() {
    let mut world = tasks();
    world.grant.expires_at = Some(UnixMillis(1001));
    assert!(admit(&world.snapshot(), &world.ask("list", Some("tasks"))).is_ok());
    world.grant.expires_at = Some(UnixMillis(1000));
    assert_refused(
        &world.refusal("list", "tasks"),
        DenyCode::GrantExpired,
        DenyStage::Identity,
    );
    let by_scope =
        self::world(json!({"resources": ["tasks"], "expires_at": "1970-01-01T00:00:01Z"}));
    assert_refused(
        &by_scope.refusal("list", "tasks"),
        DenyCode::GrantExpired,
        DenyStage::Identity,
    );
}

#[test]
fn unknown_verb() {
    for verb in ["Search", "LIST", "", "renew"] {
        assert_refused(
            &tasks().refusal(verb, "tasks"),
            DenyCode::UnknownVerb,
            DenyStage::Verb,
        );
    }
}

#[test]
fn unknown_resource() {
    for resource in ["task", "", "Tasks"] {
        assert_refused(
            &tasks().refusal("list", resource),
            DenyCode::UnknownResource,
            DenyStage::Resource,
        );
    }
    let world = tasks();
    let deny = admit(&world.snapshot(), &world.ask("get", None))
        .err()
        .unwrap();
    assert_refused(&deny, DenyCode::UnknownResource, DenyStage::Resource);
}

#[test]
fn reserved_resource() {
    for resource in ["conversations", "teams", "users"] {
        assert_refused(
            &tasks().refusal("list", resource),
            DenyCode::ReservedResource,
            DenyStage::Resource,
        );
    }
}

#[test]
fn resource_not_granted() {
    for resource in ["notes", "credentials"] {
        assert_refused(
            &tasks().refusal("get", resource),
            DenyCode::ResourceNotGranted,
            DenyStage::Resource,
        );
    }
}

#[test]
fn resource_excluded() {
    let world = world(json!({"resources": ["tasks"], "excluded_resources": ["notes"]}));
    assert_refused(
        &world.refusal("list", "notes"),
        DenyCode::ResourceExcluded,
        DenyStage::Resource,
    );
}

#[test]
fn resource_unsupported() {
    let mut world = world(json!({"resources": ["credentials", "api_keys", "tasks"]}));
    world
        .rules
        .push_str("[peers.home]\nallow_sensitive = [\"credentials\", \"api_keys\"]\n");
    for resource in ["credentials", "api_keys"] {
        assert_refused(
            &world.refusal("list", resource),
            DenyCode::ResourceUnsupported,
            DenyStage::Resource,
        );
    }
    world.mapping.sources.remove(&Resource::Tasks);
    assert_refused(
        &world.refusal("list", "tasks"),
        DenyCode::ResourceUnsupported,
        DenyStage::Resource,
    );
}

#[test]
fn ceiling() {
    let mut world = tasks();
    world.rules = "schema = 1\n[ceiling]\nresources = [\"notes\"]\n".to_owned();
    assert_refused(
        &world.refusal("list", "tasks"),
        DenyCode::Ceiling,
        DenyStage::Ceiling,
    );
}

#[test]
fn without_rules_everything_is_denied() {
    let mut world =
        world(json!({"resources": ["tasks", "notes", "memory", "projects", "missions"]}));
    world.rules = "schema = 1\n".to_owned();
    for resource in Resource::SERVED {
        assert_eq!(
            world.refusal("list", resource.as_str()).code(),
            DenyCode::Ceiling
        );
    }
    let answer = admit(&world.snapshot(), &world.ask("capabilities", None)).unwrap();
    let Admission::Capabilities(answer) = answer else {
        panic!("rows")
    };
    assert_eq!(answer.resources, []);
}

#[test]
fn capabilities_are_narrowed_by_the_ceiling() {
    let mut world = world(json!({
        "resources": ["tasks", "notes", "credentials"],
        "excluded_resources": ["api_keys"],
        "filters": {"tasks": {"include_teams": ["a", "b"]}},
        "max_rows_per_query": 500,
        "rate_limit": {"per_minute": 60}
    }));
    world.rules = "schema = 1\n[ceiling]\nresources = [\"tasks\"]\nteams = [\"b\"]\nmax_rows_per_query = 50\n\
        include_personal = false\nrate_limit = { per_minute = 90, burst = 10 }\nrows_per_day = 7\n"
        .to_owned();
    let answer = admit(&world.snapshot(), &world.ask("capabilities", None)).unwrap();
    let Admission::Capabilities(answer) = answer else {
        panic!("rows")
    };
    assert_eq!(
        serde_json::to_value(answer).unwrap(),
        json!({
            "resources": ["tasks"],
            "excluded_resources": ["api_keys"],
            "max_rows_per_query": 50,
            "supported_verbs": ["list", "get", "search", "capabilities"],
            "filters": {"tasks": {"include_teams": ["b"], "include_personal": false}},
            "order": "created_desc",
            "rate_limit": {"per_minute": 60, "burst": 10},
            "rows_per_day": 7
        })
    );
}

#[test]
fn the_limit_is_the_smaller_of_what_is_asked_and_the_cap() {
    let world = world(json!({"resources": ["tasks"], "max_rows_per_query": 20}));
    let facts = NativeFacts::default();
    for (asked, answered) in [(None, 20), (Some(5), 5), (Some(20), 20), (Some(10_000), 20)] {
        let mut request = world.ask("list", Some("tasks"));
        request.limit = asked.map(|rows| RowLimit::new(rows).unwrap());
        let Decision::Allow(permit) = evaluate(&world.snapshot(), &request, &facts) else {
            panic!("denied")
        };
        assert_eq!(
            (permit.row_limit().rows(), permit.row_cap().rows()),
            (answered, 20)
        );
    }
}

#[test]
fn a_scope_without_personal_rows_and_a_user_without_its_teams_reaches_nothing() {
    let filters = json!({"tasks": {"include_teams": ["a"], "include_personal": false}});
    let world = world(json!({"resources": ["tasks"], "filters": filters}));
    assert!(world.permit("tasks", &member_of(&["b"])).reaches_nothing());
    assert!(!world.permit("tasks", &member_of(&["a"])).reaches_nothing());
}

#[test]
fn a_permit_explains_itself() {
    let filters = json!({"tasks": {"include_teams": ["a", "b"]}});
    let world = world(json!({"resources": ["tasks"], "filters": filters}));
    let trace = world.permit("tasks", &member_of(&["b", "c"])).trace();
    let names: Vec<_> = trace.steps.iter().map(|step| step.name).collect();
    assert_eq!(
        names,
        [
            "identity",
            "verb",
            "resource",
            "ceiling",
            "native facts",
            "teams and personal rows",
            "redaction",
            "row cap"
        ]
    );
    let text = trace.render();
    assert!(
        text.contains("6. teams and personal rows: tasks, teams a b"),
        "{text}"
    );
    assert!(text.contains("-> teams b; personal rows yes"), "{text}");
    assert!(text.ends_with("at most 100 rows"), "{text}");
}

proptest! {
    #[test]
    fn a_permit_holds_nothing_that_scope_ceiling_and_facts_do_not(
        scope in crate::scope::tests::any_scope(),
        listed in btree_set(proptest::sample::select(Resource::ALL.to_vec()), 1..6),
        teams in proptest::option::of(btree_set(any_team(), 0..4)),
        cap in 1u64..=10_000,
        ceiling_personal: bool,
        member in btree_set(any_team(), 0..4),
        asked in proptest::sample::select(Resource::ALL.to_vec()),
    ) {
        let mut world = tasks();
        world.grant.scope = scope;
        world.grant.status = GrantStatus::Active;
        let names = |list: &BTreeSet<Resource>| json!(list).to_string();
        world.rules = format!(
            "schema = 1\n[ceiling]\nresources = {}\nmax_rows_per_query = {cap}\ninclude_personal = {ceiling_personal}\n{}",
            names(&listed),
            teams.as_ref().map_or_else(String::new, |teams| format!("teams = {}\n", json!(teams))),
        );
        let mut facts = NativeFacts::builder();
        for team in &member {
            facts.team(team.clone()).unwrap();
        }
        let mut request = world.ask("list", Some(asked.as_str()));
        request.now = UnixMillis(0);
        let decision = evaluate(&world.snapshot(), &request, &facts.build());
        let scope = &world.grant.scope;
        let filter = scope.filter(asked);
        let open = scope.resources().contains(&asked)
            && asked.is_served()
            && listed.contains(&asked)
            && scope.expires_at() != Some(UnixMillis(0));
        match decision {
            Decision::Deny(_) => prop_assert!(!open),
            Decision::Allow(permit) => {
                prop_assert!(open);
                let expected: Vec<_> = filter
                    .include_teams
                    .iter()
                    .filter(|team| member.contains(*team) && teams.as_ref().is_none_or(|teams| teams.contains(*team)))
                    .cloned()
                    .collect();
                prop_assert_eq!(permit.teams().as_ref(), expected.as_slice());
                prop_assert_eq!(permit.include_personal(), filter.include_personal && ceiling_personal);
                prop_assert_eq!(
                    u64::from(permit.row_limit().rows()),
                    cap.min(u64::from(scope.max_rows_per_query().rows()))
                );
            }
        }
    }

    #[test]
    fn rules_for_a_peer_never_widen(
        scope in crate::scope::tests::any_scope(),
        listed in btree_set(proptest::sample::select(Resource::ALL.to_vec()), 0..6),
        teams in btree_set(any_team(), 0..4),
        cap in 1u64..=10_000,
    ) {
        let mut world = tasks();
        world.grant.scope = scope;
        world.rules.push_str("teams = [\"a\", \"b\"]\nmax_rows_per_query = 500\n");
        let before = world.snapshot();
        world.rules.push_str(&format!(
            "[peers.home]\nresources = {}\nteams = {}\nmax_rows_per_query = {cap}\n",
            json!(listed),
            json!(teams),
        ));
        let after = world.snapshot();
        let reach = |snapshot: &Snapshot| Arc::clone(&snapshot.grant(world.grant.id).unwrap().effective);
        prop_assert!(reach(&after).is_within(&reach(&before)));
    }
}
