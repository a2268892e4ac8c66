//! What is kept of a decision tells the same story again. Elsewhere on purpose: keeping it (the proxy).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use proptest::collection::btree_set;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::evaluate::world::{World, member_of, world};
use crate::reach::tests::any_team;

fn permit_of(world: &World, teams: &[&str]) -> Permit {
    world.permit("tasks", &member_of(teams))
}

fn request<'a>(
    world: &'a World,
    resource: &'a str,
    denied: Option<DenyCode>,
) -> RecordedRequest<'a> {
    RecordedRequest {
        grant: world.grant.id,
        of: Some((&world.peer.name, &world.grant.user)),
        verb: "list",
        resource: Some(resource),
        denied,
    }
}

fn kept(permit: &Permit) -> RecordedDecision {
    let mut recorded = RecordedDecision::under(permit.entry().unwrap());
    recorded.permitted(permit);
    RecordedDecision::from_bytes(recorded.as_bytes().to_vec()).unwrap()
}

fn with_teams(teams: Value) -> World {
    world(json!({"resources": ["tasks"], "filters": {"tasks": {"include_teams": teams}}}))
}

#[test]
fn a_permit_is_told_again_word_for_word() {
    let mut world = with_teams(json!(["a", "b"]));
    world
        .rules
        .push_str("[redaction]\nfields.tasks = [\"meta.cost\"]\n");
    world.grant.edit = 300;
    let permit = permit_of(&world, &["b", "c"]);
    let then = kept(&permit).decode().unwrap();
    assert_eq!(then.edit, 300);
    let told = then.traces(
        &request(&world, "tasks", None),
        Some(permit.entry().unwrap()),
    );
    assert_eq!(told, [permit.trace()]);
}

#[test]
fn a_failure_behind_the_permit_is_the_last_step() {
    let world = with_teams(json!(["a"]));
    let permit = permit_of(&world, &["a"]);
    let request = request(&world, "tasks", Some(DenyCode::GatewayTimeout));
    let told = kept(&permit)
        .decode()
        .unwrap()
        .traces(&request, Some(permit.entry().unwrap()));
    let last = told[0].steps.last().unwrap();
    assert_eq!(told[0].steps[..8], permit.trace().steps[..]);
    assert_eq!(last.name, "gateway");
    assert!(
        last.outcome.starts_with("denied, gateway_timeout: "),
        "{last:?}"
    );
}

#[test]
fn scope_and_ceiling_are_told_only_from_the_grant_that_was_decided_on() {
    let mut world = with_teams(json!(["a"]));
    let permit = permit_of(&world, &["a"]);
    let then = kept(&permit).decode().unwrap();
    // The grant as it is after an edit.
    world.grant.edit += 1;
    let now = permit_of(&world, &["a"]);
    let request = request(&world, "tasks", None);
    let other = then.traces(&request, Some(now.entry().unwrap()));
    let nothing = then.traces(&request, None);
    assert_eq!(other, nothing);
    let text = nothing[0].render();
    assert!(!text.contains("peer home: tasks"), "{text}");
    for kept in [
        "1. identity: grant",
        "(active) of peer home (active) for user amira -> in force",
        "4. ceiling: tasks -> in reach",
        "-> teams a; personal rows yes",
        "allowed: at most 100 rows",
    ] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
}

#[test]
fn refusals_are_told_again_word_for_word() {
    let mut worlds = [
        (world(json!({"resources": ["notes"]})), "tasks"),
        (
            world(json!({"resources": ["notes"], "excluded_resources": ["tasks"]})),
            "tasks",
        ),
        (world(json!({"resources": ["credentials"]})), "credentials"),
        (world(json!({"resources": ["tasks"]})), "tasks"),
    ];
    worlds[3].0.rules = "schema = 1\n[ceiling]\nresources = [\"notes\"]\n".to_owned();
    for (world, resource) in &worlds {
        let deny = world.refusal("list", resource);
        let entry = deny.entry().unwrap();
        let mut recorded = RecordedDecision::under(entry);
        recorded.refused(&deny);
        let request = request(world, resource, Some(deny.code()));
        let told = recorded.decode().unwrap().traces(&request, Some(entry));
        assert_eq!(told, [deny.trace()], "{deny}");
    }
}

#[test]
fn what_ended_before_a_permit_says_so() {
    let world = with_teams(json!(["a"]));
    let permit = permit_of(&world, &[]);
    let begun = RecordedDecision::under(permit.entry().unwrap())
        .decode()
        .unwrap();
    let facts = begun.traces(
        &request(&world, "tasks", Some(DenyCode::FactsUnavailable)),
        Some(permit.entry().unwrap()),
    );
    let names: Vec<_> = facts[0].steps.iter().map(|step| step.name).collect();
    assert_eq!(names, ["identity", "verb", "resource", "ceiling", "native"]);
    let cut = begun.traces(&request(&world, "tasks", None), None);
    assert_eq!(cut[0].steps.len(), 2);
    let revoked = request(&world, "tasks", Some(DenyCode::GrantRevoked)).undecided();
    assert_eq!(revoked.steps.len(), 1);
    assert!(
        revoked.steps[0]
            .input
            .ends_with("of peer home for user amira"),
        "{revoked}"
    );
    let capabilities = RecordedRequest {
        verb: "capabilities",
        resource: None,
        ..request(&world, "tasks", None)
    };
    let told = begun.traces(&capabilities, None);
    assert_eq!(told[0].steps.last().unwrap().outcome, "allowed");
}

#[test]
fn a_user_of_many_teams_is_kept_within_the_bound() {
    let names: Vec<String> = (0..300)
        .map(|n| format!("{n:03}{}", "t".repeat(60)))
        .collect();
    let world = with_teams(json!(names));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let permit = permit_of(&world, &names);
    let mut recorded = RecordedDecision::under(permit.entry().unwrap());
    for _ in 0..7 {
        recorded.permitted(&permit);
    }
    assert!(recorded.as_bytes().len() <= RecordedDecision::MAX_BYTES);
    let then = recorded.decode().unwrap();
    assert_eq!(then.answers.len(), 7);
    let AnswerThen::Permitted(first) = &then.answers[0] else {
        panic!()
    };
    assert_eq!(first.teams.len(), 4);
    assert_eq!(first.unnamed_teams, 296);
    let text = then.traces(&request(&world, "tasks", None), None)[0].render();
    assert!(text.contains(" and 296 more; personal rows"), "{text}");
    let more = vec![0; RecordedDecision::MAX_BYTES + 1];
    assert_eq!(
        RecordedDecision::from_bytes(more),
        Err(RecordedDecisionError)
    );
}

/// What a request pays for being explained later. The bound is far above what it takes, so that other load cannot
/// fail the test; the figure itself is printed (`--nocapture`).
#[test]
fn keeping_a_decision_costs_little() {
    const ROUNDS: u32 = 20_000;
    let world = with_teams(json!(["platform", "sales"]));
    let permit = permit_of(&world, &["platform", "sales"]);
    #[allow(clippy::disallowed_methods, reason = "a figure, not a decision")]
    let began = std::time::Instant::now();
    let entry = permit.entry().unwrap();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let mut recorded = RecordedDecision::under(std::hint::black_box(entry));
        recorded.permitted(std::hint::black_box(&permit));
        bytes = std::hint::black_box(recorded).as_bytes().len();
    }
    let each = began.elapsed() / ROUNDS;
    println!("{each:?} for {bytes} bytes");
    assert!(bytes < 64 && each.as_micros() < 50, "{each:?}, {bytes}");
}

#[test]
fn each_resource_has_one_number() {
    for resource in Resource::ALL {
        let code = code_of(Some(resource));
        assert_eq!(Bytes(&[code]).resource(), Ok(Some(resource)));
    }
    assert_eq!(Bytes(&[0]).resource(), Ok(None));
}

proptest! {
    #[test]
    fn every_permit_reads_back_as_it_was(
        scope in crate::scope::tests::any_scope(),
        member in btree_set(any_team(), 0..4),
        edit: u64,
        asked in proptest::sample::select(Resource::SERVED.to_vec()),
        limit in proptest::option::of(1u64..=10_000),
    ) {
        let mut world = world(json!({"resources": ["tasks"]}));
        world.grant.scope = scope;
        world.grant.edit = edit;
        let mut facts = crate::native::NativeFacts::builder();
        for team in member {
            facts.team(team).unwrap();
        }
        let mut question = world.ask("list", Some(asked.as_str()));
        question.limit = limit.map(|rows| RowLimit::new(rows).unwrap());
        let snapshot = world.snapshot();
        let decision = crate::evaluate::evaluate(&snapshot, &question, &facts.build());
        let told = |recorded: RecordedDecision, denied, entry: &GrantEntry| {
            let request = request(&world, asked.as_str(), denied);
            recorded.decode().unwrap().traces(&request, Some(entry))
        };
        match &decision {
            crate::decision::Decision::Allow(permit) => {
                prop_assert_eq!(told(kept(permit), None, permit.entry().unwrap()), [decision.trace()]);
            }
            crate::decision::Decision::Deny(deny) if deny.entry().is_some() => {
                let entry = deny.entry().unwrap();
                let mut recorded = RecordedDecision::under(entry);
                recorded.refused(deny);
                prop_assert_eq!(told(recorded, Some(deny.code()), entry), [decision.trace()]);
            }
            crate::decision::Decision::Deny(_) => {}
        }
    }

    #[test]
    fn numbers_have_one_form(number: u64, tail: Vec<u8>) {
        let mut bytes = Vec::new();
        push_number(&mut bytes, number);
        bytes.extend_from_slice(&tail);
        let mut rest = Bytes(&bytes);
        prop_assert_eq!(rest.number(), Ok(number));
        prop_assert_eq!(rest.0, &tail[..]);
    }

    #[test]
    fn bytes_of_any_kind_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(recorded) = RecordedDecision::from_bytes(bytes) {
            let _ = recorded.decode();
        }
    }

    #[test]
    fn a_changed_byte_never_reads_as_the_same(at in 0usize..40, flip in 1u8..=255) {
        let world = with_teams(json!(["a", "b"]));
        let recorded = kept(&permit_of(&world, &["a", "b"]));
        let mut bytes = recorded.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        let other = RecordedDecision::from_bytes(bytes).unwrap().decode();
        prop_assert_ne!(other, recorded.decode());
    }
}
