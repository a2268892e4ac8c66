//! The generated data, answered as its generator says it must be.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod harness;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use harness::{Gateway, text};
use proptest::prelude::*;
use reference_gateway::generate::World;
use reference_gateway::ownership::{Parents, Resolved};
use reference_gateway::record::{Collection, Record};
use reference_gateway::store::seed::Data;

/// Every row with what it resolves to, computed without the gateway.
fn truth(world: World) -> Vec<(Record, Resolved)> {
    let mut parents = Parents::default();
    world
        .all_rows()
        .map(|row| {
            let resolved = parents.resolve(&row).unwrap();
            (row, resolved)
        })
        .collect()
}

fn teams_of(world: World, user: u64) -> HashSet<String> {
    let memberships = world.teams_of(user).into_iter();
    memberships.map(|membership| membership.team_id).collect()
}

#[tokio::test]
async fn every_user_is_answered_exactly_their_rows_in_order_page_by_page() {
    let world = World::sized(30, 5_000);
    let gateway = Gateway::start(Data::Generated(world)).await;
    let truth = truth(world);
    for user in [0, 1, 7, 9, 28] {
        let (person, teams) = (world.user(user), teams_of(world, user));
        for (name, collection) in [
            ("tasks", Collection::Tasks),
            ("projects", Collection::Projects),
            ("missions", Collection::Missions),
            ("notes", Collection::Notes),
            ("insights", Collection::Insights),
            ("preferences", Collection::Preferences),
        ] {
            let mut expected: Vec<(String, String)> = truth
                .iter()
                .filter(|(row, resolved)| {
                    row.collection == collection
                        && (collection != Collection::Notes || row.text.is_some())
                        && match &resolved.team {
                            Some(team) => teams.contains(team),
                            None => resolved.owner.as_ref() == Some(&person.id),
                        }
                })
                .map(|(row, _)| (row.created_at.clone(), row.id.clone()))
                .collect();
            expected.sort_unstable_by(|left, right| right.cmp(left));
            let answered = all_pages(&gateway, &person.token(), name, 13).await;
            assert_eq!(answered, expected, "{name} of {}", person.handle);
        }
    }
}

async fn all_pages(
    gateway: &Gateway,
    token: &str,
    name: &str,
    limit: usize,
) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    loop {
        let before = all.last().map_or_else(String::new, |(created_at, id)| {
            format!("&before={created_at},{id}")
        });
        let path = format!("/internal/v1/{name}?limit={limit}{before}");
        let rows = gateway.ask(token, &path).await.rows();
        all.extend(
            rows.iter()
                .map(|row| (text(row, "createdAt"), text(row, "id"))),
        );
        if rows.len() < limit {
            return all;
        }
    }
}

#[tokio::test]
async fn both_shapes_hold_the_same_rows() {
    let world = World::sized(30, 3_000);
    let gateway = Gateway::start(Data::Generated(world)).await;
    let token = world.user(3).token();
    for name in ["tasks", "projects", "missions"] {
        let internal = gateway
            .ask(&token, &format!("/internal/v1/{name}?limit=10001"))
            .await
            .ids();
        let mosaic = gateway.ask(&token, &format!("/api/{name}")).await.ids();
        if name == "tasks" {
            assert_ne!(internal, mosaic, "the mosaic shape is not in order of time");
        }
        let sorted = |ids: Vec<String>| ids.into_iter().collect::<BTreeSet<_>>();
        assert_eq!(sorted(internal), sorted(mosaic));
    }
}

#[tokio::test]
async fn every_visible_reference_resolves_in_the_facts() {
    let world = World::sized(30, 5_000);
    let gateway = Gateway::start(Data::Generated(world)).await;
    for user in [0, 1, 2, 9] {
        let token = world.user(user).token();
        let facts = gateway.ask(&token, "/internal/v1/facts").await.json();
        assert!(facts["next"].is_null());
        let known = |kind: &str| -> HashSet<String> {
            let list = facts[kind].as_array().unwrap();
            list.iter().map(|fact| text(fact, "id")).collect()
        };
        let (projects, missions) = (known("projects"), known("missions"));
        assert_eq!(known("teams"), teams_of(world, user));
        let rows = gateway
            .ask(&token, "/internal/v1/tasks?limit=10001")
            .await
            .rows();
        for row in rows {
            let resolves = |name: &str, known: &HashSet<String>| {
                row[name].as_str().is_none_or(|id| known.contains(id))
            };
            assert!(resolves("projectId", &projects), "{row}");
            assert!(resolves("missionId", &missions), "{row}");
        }
    }
}

#[test]
fn the_default_world_has_every_kind_of_ownership() {
    let world = World::default();
    assert_eq!(world.rows, 200_000);
    let mut kinds: BTreeMap<(bool, bool, bool, bool), u64> = BTreeMap::new();
    let mut instants: BTreeMap<String, u64> = BTreeMap::new();
    for (row, resolved) in truth(world) {
        assert!(resolved.team.is_some() || resolved.owner.is_some());
        if row.collection == Collection::Tasks {
            let kind = (
                row.owner.is_some(),
                row.team.is_some(),
                row.project.is_some(),
                row.mission.is_some(),
            );
            *kinds.entry(kind).or_default() += 1;
            *instants.entry(row.created_at).or_default() += 1;
        }
    }
    for kind in [
        (true, false, false, false),
        (true, true, false, false),
        (true, false, true, false),
        (false, false, true, false),
        (true, false, false, true),
        (false, false, false, true),
        (true, false, true, true),
        (false, false, true, true),
    ] {
        assert!(
            kinds.get(&kind).is_some_and(|count| *count > 100),
            "{kind:?}"
        );
    }
    assert!(instants.values().any(|rows| *rows > 3), "ties are rare");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn counts_add_up_and_rows_are_unique_and_resolvable(
        users in 1_u64..60, rows in 0_u64..900, seed in any::<u64>(),
    ) {
        let world = World { seed, ..World::sized(users, rows) };
        prop_assert_eq!(world.counts().iter().map(|(_, count)| count).sum::<u64>(), rows);
        let truth = truth(world);
        let ids: HashSet<_> = truth
            .iter()
            .map(|(row, _)| (row.collection, row.id.clone()))
            .collect();
        prop_assert_eq!(ids.len() as u64, rows);
        for (row, resolved) in &truth {
            prop_assert_eq!(row.created_at.len(), 24);
            prop_assert!(resolved.team.is_some() || resolved.owner.is_some());
        }
        prop_assert!(world.row(rows).is_none());
        let people: HashSet<_> = (0..users).map(|user| world.user(user).id).collect();
        prop_assert_eq!(people.len() as u64, users);
    }
}
