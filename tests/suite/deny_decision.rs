//! Every way of asking for what one may not have, and every way the gateway cannot give it
//! (specification, sections 5 and 6).
//!
//! Invariant: the identity is good and the request well formed, so a refusal is a decision. What is
//! refused before the gateway is needed must not reach it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use policy::deny::DenyCode;
use proxy::admin::CreateGrant;
use reference_gateway::plan;
use reference_gateway::record::Collection;
use serde_json::{Value, json};
use tests::database::Value as Bound;
use tests::grants::{BASE, PEER};
use tests::world::{POLICY, operator};
use tests::{Denial, Holder, Wire, World};

const fn outside(reason: DenyCode) -> Denial {
    Denial::new(403, "scope_violation", reason)
}

const fn unavailable(status: u16, reason: DenyCode) -> Denial {
    Denial::new(status, "unavailable", reason)
}

/// Lists and gets `resource` on both protocols and expects this refusal.
async fn refused(world: &World, holder: &Holder, resource: &str, denial: Denial) {
    for wire in Wire::BOTH {
        for path in [format!("/list/{resource}"), format!("/get/{resource}/1")] {
            let answer = world.ask_on(wire, &holder.minted, &path, &json!({})).await;
            let row = denial.check(world, &answer).await;
            assert_eq!(row["resource"], resource, "{row}");
        }
    }
}

async fn refused_before_the_gateway(
    world: &World,
    holder: &Holder,
    resource: &str,
    denial: Denial,
) {
    refused(world, holder, resource, denial).await;
    assert!(world.gateway.requests().await.is_empty());
}

/// Every replica lists tasks, and has the subject's facts from then on.
async fn lists(world: &World, holder: &Holder) {
    for answer in world
        .ask_each(&holder.minted, "/list/tasks", &json!({}))
        .await
    {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

async fn capabilities(world: &World, holder: &Holder) -> Value {
    let answer = world.ask(&holder.minted, "/capabilities", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

// Resources.

#[tokio::test(flavor = "multi_thread")]
async fn unknown_resource() {
    let world = World::start().await;
    let holder = world.amira().await;
    for name in [
        "nothing", "Tasks", "TASKS", "task", "_tasks", "all", "local",
    ] {
        let denial = outside(DenyCode::UnknownResource);
        refused_before_the_gateway(&world, &holder, name, denial).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_resource() {
    let world = World::start().await;
    let holder = world.amira().await;
    for name in ["conversations", "teams", "users"] {
        let denial = outside(DenyCode::ReservedResource);
        refused_before_the_gateway(&world, &holder, name, denial).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resource_not_granted() {
    let world = World::start().await;
    let holder = world
        .holder(plan::AMIRA, json!({"resources": ["tasks"]}))
        .await;
    for name in [
        "notes",
        "memory",
        "projects",
        "missions",
        "credentials",
        "api_keys",
    ] {
        let denial = outside(DenyCode::ResourceNotGranted);
        refused_before_the_gateway(&world, &holder, name, denial).await;
    }
    assert_eq!(
        capabilities(&world, &holder).await["resources"],
        json!(["tasks"])
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resource_excluded() {
    let world = World::start().await;
    let scope = json!({"resources": ["tasks"], "excluded_resources": ["notes", "credentials"]});
    let holder = world.holder(plan::AMIRA, scope).await;
    for name in ["notes", "credentials"] {
        let denial = outside(DenyCode::ResourceExcluded);
        refused_before_the_gateway(&world, &holder, name, denial).await;
    }
    world.stop().await;
}

fn sensitive_policy() -> String {
    format!(
        "{POLICY}\n[peers.{PEER}]\n\
         resources = [\"tasks\", \"credentials\", \"api_keys\"]\n\
         allow_sensitive = [\"credentials\", \"api_keys\"]\n"
    )
}

/// Sensitive resources may be granted where policy says so, and are still not served: neither
/// preset has a rule for their rows.
#[tokio::test(flavor = "multi_thread")]
async fn sensitive_resource_even_when_allowed() {
    for preset in ["internal-v1", "mosaic"] {
        let world = World::builder()
            .preset(preset)
            .policy(&sensitive_policy())
            .start()
            .await;
        let scope = json!({"resources": ["tasks", "credentials", "api_keys"]});
        let holder = world.holder(plan::AMIRA, scope).await;
        world
            .gateway
            .behave(&json!({"over_share": ["rows", "secrets"]}))
            .await;
        for name in ["credentials", "api_keys"] {
            let denial = outside(DenyCode::ResourceUnsupported);
            refused_before_the_gateway(&world, &holder, name, denial).await;
        }
        assert_eq!(
            capabilities(&world, &holder).await["resources"],
            json!(["tasks"])
        );
        world.stop().await;
    }
}

async fn scope_refused(world: &World, scope: Value) {
    let request = CreateGrant {
        user: plan::AMIRA.to_owned(),
        peer: PEER.to_owned(),
        scope: scope.clone(),
        expires_at: None,
        expires_in_s: None,
    };
    let made = world.control().create_grant(&operator(), request).await;
    assert!(made.is_err(), "{scope} was granted");
    assert!(world.control().list_grants().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_that_cannot_be_granted() {
    let world = World::start().await;
    for scope in [
        // Sensitive, and policy does not allow it.
        json!({"resources": ["credentials"]}),
        json!({"resources": ["tasks", "api_keys"]}),
        // Reserved.
        json!({"resources": ["conversations"]}),
        json!({"resources": ["teams"]}),
        json!({"resources": ["users"]}),
        // Malformed.
        json!({}),
        json!({"resources": []}),
        json!({"resources": ["nothing"]}),
        json!({"resources": ["tasks"], "excluded_resources": ["tasks"]}),
        json!({"resources": ["tasks"], "filters": {"notes": {}}}),
        json!({"resources": ["tasks"], "max_rows_per_query": 0}),
        json!({"resources": ["tasks"], "max_rows_per_query": 10_001}),
        json!({"resources": ["tasks"], "unknown": true}),
        json!([]),
    ] {
        scope_refused(&world, scope).await;
    }
    world.stop().await;
}

// Ceilings.

#[tokio::test(flavor = "multi_thread")]
async fn ceiling_of_the_peer() {
    let policy = format!("{POLICY}\n[peers.{PEER}]\nresources = [\"tasks\"]\n");
    let world = World::builder().policy(&policy).start().await;
    let holder = world.amira().await;
    for name in ["notes", "memory"] {
        let denial = outside(DenyCode::Ceiling);
        refused_before_the_gateway(&world, &holder, name, denial).await;
    }
    assert_eq!(
        capabilities(&world, &holder).await["resources"],
        json!(["tasks"])
    );
    let tasks = world.ask(&holder.minted, "/list/tasks", &json!({})).await;
    assert_eq!(tasks.status, 200);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rule_denies_everything() {
    let world = World::builder().policy("schema = 1\n").start().await;
    let holder = world.amira().await;
    for name in ["tasks", "notes", "memory"] {
        let denial = outside(DenyCode::Ceiling);
        refused_before_the_gateway(&world, &holder, name, denial).await;
    }
    assert_eq!(capabilities(&world, &holder).await["resources"], json!([]));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_cap_of_scope_and_ceiling() {
    let policy = POLICY.replace("max_rows_per_query = 10000", "max_rows_per_query = 5");
    let world = World::builder().policy(&policy).start().await;
    let scope = |rows: u32| {
        json!({"resources": ["tasks"], "max_rows_per_query": rows,
            "filters": {"tasks": {"include_teams": ["platform"]}}})
    };
    for (cap, expected) in [(3, 3), (100, 5)] {
        let holder = world.holder(plan::AMIRA, scope(cap)).await;
        for body in [json!({}), json!({"params": {"limit": 10_000}})] {
            let answer = world.ask(&holder.minted, "/list/tasks", &body).await;
            assert_eq!(answer.items().len(), expected);
            assert_eq!(answer.json()["_truncated"], true);
            assert!(answer.cursor().is_some());
        }
    }
    world.stop().await;
}

// Rows.

/// Rows of others, of other teams, and rows that do not exist are answered alike.
#[tokio::test(flavor = "multi_thread")]
async fn row_outside_the_scope() {
    for preset in ["internal-v1", "mosaic"] {
        for honest in [true, false] {
            let world = World::builder().preset(preset).start().await;
            let holder = world.amira().await;
            if !honest {
                world.gateway.behave(&json!({"over_share": ["rows"]})).await;
            }
            let task = |number| plan::id(Collection::Tasks, number);
            let research = plan::id(Collection::Projects, 2);
            let of_research = plan::plan()
                .rows
                .into_iter()
                .find(|row| {
                    row.collection == Collection::Tasks && row.project.as_ref() == Some(&research)
                })
                .unwrap();
            let denial = Denial::new(404, "not_found", DenyCode::NotFound);
            let mut bodies = Vec::new();
            for id in [
                // Ben's and Chloe's own, the research team's, nobody's, no id of a task.
                task(812),
                task(813),
                task(862),
                of_research.id,
                task(9_999),
                "nothing".to_owned(),
            ] {
                let path = format!("/get/tasks/{id}");
                let answer = world.ask(&holder.minted, &path, &json!({})).await;
                denial.check(&world, &answer).await;
                bodies.push(answer.text().replace(answer.request_id(), "ID"));
            }
            bodies.dedup();
            assert_eq!(bodies.len(), 1, "{bodies:?}");
            let own = format!("/get/tasks/{}", task(811));
            let answer = world.ask(&holder.minted, &own, &json!({})).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            world.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn personal_rows_without_include_personal() {
    let world = World::start().await;
    let scope = json!({"resources": ["tasks", "memory"],
        "filters": {"tasks": {"include_personal": false}, "memory": {"include_personal": false}}});
    let holder = world.holder(plan::AMIRA, scope).await;
    for resource in ["tasks", "memory"] {
        let path = format!("/list/{resource}");
        let answer = world.ask(&holder.minted, &path, &json!({})).await;
        assert!(answer.items().is_empty(), "{}", answer.text());
    }
    let own = format!("/get/tasks/{}", plan::id(Collection::Tasks, 811));
    let answer = world.ask(&holder.minted, &own, &json!({})).await;
    let denial = Denial::new(404, "not_found", DenyCode::NotFound);
    denial.check(&world, &answer).await;
    world.stop().await;
}

/// A team in the scope that the subject is not in opens nothing, whatever the gateway answers.
#[tokio::test(flavor = "multi_thread")]
async fn team_of_which_the_subject_is_no_member() {
    let world = World::start().await;
    let scope = |teams: Value, personal: bool| {
        json!({"resources": ["tasks"],
            "filters": {"tasks": {"include_teams": teams, "include_personal": personal}}})
    };
    let with = world
        .holder(plan::AMIRA, scope(json!(["research"]), true))
        .await;
    let without = world.holder(plan::AMIRA, scope(json!([]), true)).await;
    let nothing = world
        .holder(plan::AMIRA, scope(json!(["research"]), false))
        .await;
    world.gateway.behave(&json!({"over_share": ["rows"]})).await;
    let with = world.ask(&with.minted, "/list/tasks", &json!({})).await;
    let without = world.ask(&without.minted, "/list/tasks", &json!({})).await;
    assert_eq!(with.items(), without.items());
    assert!(!with.items().is_empty());
    let row = tests::audit::audit_row(world.control(), with.request_id()).await;
    assert!(row["rows_withheld"].as_u64().unwrap() > 0, "{row}");
    let nothing = world.ask(&nothing.minted, "/list/tasks", &json!({})).await;
    assert!(nothing.items().is_empty(), "{}", nothing.text());
    world.stop().await;
}

// The gateway.

#[tokio::test(flavor = "multi_thread")]
async fn gateway_denies_the_subject() {
    for preset in ["internal-v1", "mosaic"] {
        let world = World::builder().preset(preset).start().await;
        let holder = world.amira().await;
        // The facts are fetched while the user is still welcome.
        lists(&world, &holder).await;
        world
            .gateway
            .behave(&json!({"banned": [plan::AMIRA]}))
            .await;
        for wire in Wire::BOTH {
            let list = world
                .ask_on(wire, &holder.minted, "/list/tasks", &json!({}))
                .await;
            let reason = DenyCode::GatewayDenied;
            outside(reason).check(&world, &list).await;
        }
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credential_for_the_subject() {
    let world = World::start().await;
    let grant = world
        .pending(plan::AMIRA, json!({"resources": ["tasks"]}))
        .await;
    let subject = grant.subject.uuid();
    let holder = Holder {
        grant: grant.id,
        subject,
        minted: world.mint(grant.id.uuid(), subject).sign_with(&world.ca),
    };
    world.register(grant.id, &holder.minted).await;
    let denial = unavailable(503, DenyCode::SubjectCredentialMissing);
    refused_before_the_gateway(&world, &holder, "tasks", denial).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credential_of_the_subject_is_rejected() {
    for preset in ["internal-v1", "mosaic"] {
        let world = World::builder().preset(preset).start().await;
        let holder = world.amira().await;
        world.let_in_with(plan::AMIRA, "not-a-token").await;
        let denial = unavailable(503, DenyCode::SubjectCredentialRejected);
        refused(&world, &holder, "tasks", denial).await;
        world.stop().await;
    }
}

/// A fault of the gateway in the rows, met after its facts were good.
async fn row_fault(modes: Value, denial: Denial) {
    for preset in ["internal-v1", "mosaic"] {
        let world = World::builder()
            .preset(preset)
            .gateway("read_timeout_ms = 500")
            .settings("[limits]\nfacts_cache_ms = 10000\n")
            .start()
            .await;
        let holder = world.amira().await;
        lists(&world, &holder).await;
        world.gateway.behave(&json!({"over_share": modes})).await;
        for wire in Wire::BOTH {
            let answer = world
                .ask_on(wire, &holder.minted, "/list/tasks", &json!({}))
                .await;
            denial.check(&world, &answer).await;
        }
        world.gateway.behave_honestly().await;
        let answer = world.ask(&holder.minted, "/list/tasks", &json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_answers_500() {
    row_fault(
        json!(["status500"]),
        unavailable(502, DenyCode::GatewayMalformed),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_hangs() {
    row_fault(json!(["hang"]), unavailable(504, DenyCode::GatewayTimeout)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_answers_garbage() {
    row_fault(
        json!(["garbage"]),
        unavailable(502, DenyCode::GatewayMalformed),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_cuts_its_answer() {
    row_fault(
        json!(["truncate"]),
        unavailable(502, DenyCode::GatewayMalformed),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_is_not_there() {
    let mut world = World::start().await;
    let holder = world.amira().await;
    world.stop_gateway().await;
    for wire in Wire::BOTH {
        let answer = world
            .ask_on(wire, &holder.minted, "/list/tasks", &json!({}))
            .await;
        // Nothing is known of the subject yet, so this is where it fails.
        unavailable(503, DenyCode::FactsUnavailable)
            .check(&world, &answer)
            .await;
    }
    assert_eq!(
        capabilities(&world, &holder).await["resources"],
        json!(["tasks", "notes", "memory"])
    );
    world.stop().await;
}

/// Facts that cannot be had are never replaced by narrower ones.
#[tokio::test(flavor = "multi_thread")]
async fn facts_unavailable() {
    for preset in ["internal-v1", "mosaic"] {
        for mode in ["facts_status500", "facts_hang", "facts_garbage"] {
            let world = World::builder()
                .preset(preset)
                .gateway("read_timeout_ms = 500")
                .start()
                .await;
            let holder = world.amira().await;
            world.gateway.behave(&json!({"over_share": [mode]})).await;
            let denial = unavailable(503, DenyCode::FactsUnavailable);
            refused(&world, &holder, "tasks", denial).await;
            world.gateway.behave_honestly().await;
            let answer = world.ask(&holder.minted, "/list/tasks", &json!({})).await;
            assert_eq!(answer.status, 200, "{mode}: {}", answer.text());
            world.stop().await;
        }
    }
}

// Ourselves.

/// A committed change that cannot be applied is never answered past.
#[tokio::test(flavor = "multi_thread")]
async fn change_that_could_not_be_applied() {
    let world = World::start().await;
    let holder = world.amira().await;
    let mut open = world.client(Wire::H1, &holder.minted).await;
    let path = format!("{BASE}/list/tasks");
    assert_eq!(open.post(&path, "{}").await.unwrap().status, 200);
    let mut database = world.database().await;
    const SCOPE: &str = "UPDATE grants SET scope = $1";
    let damaged = "{\"resources\":[\"everything\"]}";
    database.commit(SCOPE, &[Bound::Text(damaged)]).await;
    for control in world.controls() {
        assert!(control.directory.refresh().await.is_err());
    }
    let denial = unavailable(503, DenyCode::Fenced);
    denial.check_response(&open.post(&path, "{}").await.unwrap());
    for wire in Wire::BOTH {
        let answer = world
            .ask_on(wire, &holder.minted, "/capabilities", &json!({}))
            .await;
        denial.check(&world, &answer).await;
    }
    let whole = "{\"resources\":[\"tasks\"]}";
    database.commit(SCOPE, &[Bound::Text(whole)]).await;
    world.refresh().await;
    let answer = world.ask(&holder.minted, "/list/tasks", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    world.stop().await;
}
