//! What is asked of which gateway. Elsewhere on purpose: path templates (`mapping/path.rs`).
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::evaluate::world::{World, member_of, world};
use crate::id::{ProjectId, UserId};
use crate::native::ProjectFacts;

fn open(resource: &str, teams: &[&str], personal: bool) -> World {
    let filter = json!({"include_teams": teams, "include_personal": personal});
    world(json!({"resources": [resource], "filters": {resource: filter}}))
}

fn filter(resource: Resource, value: Value) -> QueryFilter {
    QueryFilter::parse(resource, &value).unwrap()
}

fn targets(plan: &QueryPlan, after: Option<Position<'_>>) -> Vec<String> {
    plan.sources()
        .iter()
        .map(|source| source.target(21, after))
        .collect()
}

#[test]
fn internal_lists_are_narrowed_and_paged() {
    let facts = member_of(&["a b", "c", "d"]);
    let permit = open("tasks", &["a b", "c"], false).permit("tasks", &facts);
    let wanted = filter(
        Resource::Tasks,
        json!({"status": "in progress", "missionId": "m&1"}),
    );
    let plan = QueryPlan::list(&permit, &Mapping::internal_v1(), &wanted, &facts).unwrap();
    let base = "/internal/v1/tasks?missionId=m%261&status=in%20progress&personal=false&team=a%20b&team=c&limit=21";
    assert_eq!(targets(&plan, None), [base]);
    let after = Position {
        created_at: "2026-01-02T03:04:05+00:00",
        id: "x",
    };
    assert_eq!(
        targets(&plan, Some(after)),
        [format!(
            "{base}&before=2026-01-02T03%3A04%3A05%2B00%3A00%2Cx"
        )]
    );
    let source = plan.sources().first().unwrap();
    assert_eq!(source.shape(), SourceShape::Rows);
    let equals = [("missionId", "m&1"), ("status", "in progress")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(source.row_match().equals, equals);
}

#[test]
fn nothing_in_reach_asks_nothing() {
    let facts = member_of(&["a"]);
    let none = QueryFilter::default();
    let id = ItemId::parse("1").unwrap();
    for (resource, teams) in [("tasks", vec!["b"]), ("memory", vec!["a"])] {
        let permit = open(resource, &teams, false).permit(resource, &facts);
        for mapping in [Mapping::internal_v1(), Mapping::mosaic()] {
            assert!(
                QueryPlan::list(&permit, &mapping, &none, &facts)
                    .unwrap()
                    .sources()
                    .is_empty()
            );
            assert!(
                QueryPlan::get(&permit, &mapping, &id, &facts)
                    .sources()
                    .is_empty()
            );
        }
    }
}

#[test]
fn memory_has_two_sources_and_kind_chooses() {
    let facts = member_of(&["a"]);
    let permit = open("memory", &["a"], true).permit("memory", &facts);
    let mapping = Mapping::internal_v1();
    let all = QueryPlan::list(&permit, &mapping, &QueryFilter::default(), &facts).unwrap();
    assert_eq!(
        targets(&all, None),
        [
            "/internal/v1/insights?personal=true&limit=21",
            "/internal/v1/preferences?personal=true&limit=21"
        ]
    );
    let kind = filter(Resource::Memory, json!({"kind": "preference"}));
    let one = QueryPlan::list(&permit, &mapping, &kind, &facts).unwrap();
    assert_eq!(
        targets(&one, None),
        ["/internal/v1/preferences?personal=true&limit=21"]
    );
    assert!(one.sources().first().unwrap().row_match().equals.is_empty());
    let id = ItemId::parse("a/b").unwrap();
    assert_eq!(
        targets(&QueryPlan::get(&permit, &mapping, &id, &facts), None),
        [
            "/internal/v1/insights/a%2Fb",
            "/internal/v1/preferences/a%2Fb"
        ]
    );
}

#[test]
fn a_long_list_of_teams_is_left_to_the_row_filter() {
    let names: Vec<_> = (0..400).map(|number| format!("team-{number:09}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let facts = member_of(&names);
    let permit = open("tasks", &names, true).permit("tasks", &facts);
    let plan = QueryPlan::list(
        &permit,
        &Mapping::internal_v1(),
        &QueryFilter::default(),
        &facts,
    )
    .unwrap();
    assert_eq!(
        targets(&plan, None),
        ["/internal/v1/tasks?personal=true&limit=21"]
    );
}

fn missions() -> NativeFacts {
    let user = |name: &str| Some(UserId::parse(name).unwrap());
    let team = |name: &str| Some(TeamId::parse(name).unwrap());
    let project = |name: &str| Some(ProjectId::parse(name).unwrap());
    let mut facts = NativeFacts::builder();
    facts.team(TeamId::parse("a").unwrap()).unwrap();
    let of_team = ProjectFacts {
        team: team("a"),
        owner: user("ben"),
    };
    facts.project(project("p").unwrap(), of_team).unwrap();
    for (id, project, team, owner) in [
        ("by-project", project("p"), None, None),
        ("by-team", None, team("a"), user("ben")),
        ("own", None, None, user("amira")),
        ("foreign", None, None, user("ben")),
        ("other-team", None, team("z"), user("amira")),
        ("unresolved", project("gone"), team("a"), user("amira")),
        ("nobody", None, None, None),
    ] {
        let mission = MissionFacts {
            project,
            team,
            owner,
        };
        facts
            .mission(MissionId::parse(id).unwrap(), mission)
            .unwrap();
    }
    facts.build()
}

#[test]
fn notes_of_mosaic_are_asked_for_in_the_missions_that_pass() {
    let facts = missions();
    let mapping = Mapping::mosaic();
    let none = QueryFilter::default();
    let asked = |teams: &[&str], personal: bool, wanted: &QueryFilter| {
        let permit = open("notes", teams, personal).permit("notes", &facts);
        targets(
            &QueryPlan::list(&permit, &mapping, wanted, &facts).unwrap(),
            None,
        )
    };
    let path = |id: &str| format!("/api/missions/{id}/tasks");
    assert_eq!(
        asked(&["a"], true, &none),
        ["by-project", "by-team", "own"].map(path)
    );
    assert_eq!(
        asked(&["a"], false, &none),
        ["by-project", "by-team"].map(path)
    );
    assert_eq!(asked(&[], true, &none), ["own"].map(path));
    let one = filter(Resource::Notes, json!({"missionId": "own"}));
    assert_eq!(asked(&["a"], true, &one), ["own"].map(path));
    let foreign = filter(Resource::Notes, json!({"missionId": "foreign"}));
    assert!(asked(&["a"], true, &foreign).is_empty());
}

#[test]
fn a_get_without_a_path_of_its_own_searches_the_list() {
    let facts = missions();
    let permit = open("notes", &[], true).permit("notes", &facts);
    let plan = QueryPlan::get(
        &permit,
        &Mapping::mosaic(),
        &ItemId::parse("n1").unwrap(),
        &facts,
    );
    let source = plan.sources().first().unwrap();
    assert_eq!(source.shape(), SourceShape::Rows);
    assert_eq!(
        source.row_match().equals,
        [("id".to_owned(), "n1".to_owned())]
    );
    assert_eq!(source.row_match().non_empty.as_deref(), Some("notes"));
}

#[test]
fn a_filter_without_effect_is_refused() {
    let facts = member_of(&[]);
    let permit = open("tasks", &[], true).permit("tasks", &facts);
    let mut mapping = Mapping::mosaic();
    let source = mapping
        .sources
        .get_mut(&Resource::Tasks)
        .unwrap()
        .first_mut()
        .unwrap();
    Arc::make_mut(source).fields.mission = None;
    let wanted = filter(Resource::Tasks, json!({"missionId": "m"}));
    assert_eq!(
        QueryPlan::list(&permit, &mapping, &wanted, &facts),
        Err(PlanError::FilterUnsupported {
            resource: Resource::Tasks,
            key: "missionId"
        })
    );
}
