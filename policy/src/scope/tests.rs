//! Laws and refusals of scopes. Elsewhere on purpose: the laws of the meet (`reach.rs`).
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn problems(value: &Value) -> Vec<String> {
    Scope::parse(value, &[])
        .unwrap_err()
        .problems
        .into_iter()
        .map(|problem| problem.path)
        .collect()
}

#[test]
fn defaults_are_filled_in() {
    let scope = Scope::parse(&json!({"resources": ["tasks"]}), &[]).unwrap();
    assert_eq!(scope.max_rows_per_query(), RowLimit::DEFAULT);
    assert_eq!(scope.filter(Resource::Tasks), ScopeFilter::default());
    assert!(scope.excluded_resources().is_empty());
    assert_eq!(scope.expires_at(), None);
    let partial = json!({"resources": ["tasks"], "filters": {"tasks": {"include_teams": ["a"]}}});
    assert!(
        Scope::parse(&partial, &[])
            .unwrap()
            .filter(Resource::Tasks)
            .include_personal
    );
}

#[test]
fn each_refusal_of_resources_names_its_place() {
    let table = [
        (json!(null), ""),
        (json!([]), ""),
        (json!({}), "resources"),
        (json!({"resources": []}), "resources"),
        (json!({"resources": "tasks"}), "resources"),
        (json!({"resources": ["tasks", "tasks"]}), "resources[1]"),
        (json!({"resources": ["tasks", "users"]}), "resources[1]"),
        (json!({"resources": ["tasks", "task"]}), "resources[1]"),
        (json!({"resources": ["tasks", 1]}), "resources[1]"),
        (json!({"resources": ["tasks", "credentials"]}), "resources"),
        (
            json!({"resources": ["tasks"], "excluded_resources": ["tasks"]}),
            "excluded_resources",
        ),
        (
            json!({"resources": ["tasks"], "excluded_resources": null}),
            "excluded_resources",
        ),
    ];
    for (value, path) in table {
        assert_eq!(problems(&value), [path], "{value}");
    }
}

#[test]
fn each_refusal_below_the_resources_names_its_place() {
    let table = [
        (
            json!({"resources": ["tasks"], "filters": {"notes": {}}}),
            "filters.notes",
        ),
        (
            json!({"resources": ["tasks"], "filters": {"teams": {}}}),
            "filters.teams",
        ),
        (
            json!({"resources": ["tasks"], "filters": {"tasks": []}}),
            "filters.tasks",
        ),
        (
            json!({"resources": ["tasks"], "filters": {"tasks": {"teams": []}}}),
            "filters.tasks.teams",
        ),
        (
            json!({"resources": ["tasks"], "filters": {"tasks": {"include_teams": ["a", "a"]}}}),
            "filters.tasks.include_teams[1]",
        ),
        (
            json!({"resources": ["tasks"], "filters": {"tasks": {"include_teams": [""]}}}),
            "filters.tasks.include_teams[0]",
        ),
        (
            json!({"resources": ["tasks"], "filters": {"tasks": {"include_personal": "no"}}}),
            "filters.tasks.include_personal",
        ),
        (
            json!({"resources": ["tasks"], "max_rows_per_query": 0}),
            "max_rows_per_query",
        ),
        (
            json!({"resources": ["tasks"], "max_rows_per_query": 10001}),
            "max_rows_per_query",
        ),
        (
            json!({"resources": ["tasks"], "max_rows_per_query": 1.5}),
            "max_rows_per_query",
        ),
        (
            json!({"resources": ["tasks"], "max_rows_per_query": null}),
            "max_rows_per_query",
        ),
        (
            json!({"resources": ["tasks"], "expires_at": "tomorrow"}),
            "expires_at",
        ),
        (
            json!({"resources": ["tasks"], "rate_limit": {}}),
            "rate_limit",
        ),
        (
            json!({"resources": ["tasks"], "rate_limit": 60}),
            "rate_limit",
        ),
        (
            json!({"resources": ["tasks"], "rate_limit": {"per_minute": 0}}),
            "rate_limit.per_minute",
        ),
        (
            json!({"resources": ["tasks"], "rate_limit": {"burst": 2.5}}),
            "rate_limit.burst",
        ),
        (
            json!({"resources": ["tasks"], "rate_limit": {"burst": 2, "per_hour": 9}}),
            "rate_limit.per_hour",
        ),
        (json!({"resources": ["tasks"], "x\n": 1}), "x\\n"),
    ];
    for (value, path) in table {
        assert_eq!(problems(&value), [path], "{value}");
    }
}

#[test]
fn all_problems_are_reported_together() {
    let value = json!({
        "resources": ["users", "nope", "credentials"],
        "filters": {"tasks": {}},
        "max_rows_per_query": -1,
        "colour": "red"
    });
    assert_eq!(
        problems(&value),
        [
            "resources[0]",
            "resources[1]",
            "resources",
            "filters.tasks",
            "max_rows_per_query",
            "colour"
        ]
    );
}

#[test]
fn sensitive_resources_need_policy() {
    let value = json!({"resources": ["credentials", "api_keys"]});
    assert!(Scope::parse(&value, &[]).is_err());
    assert!(Scope::parse(&value, &[Resource::Credentials]).is_err());
    assert!(Scope::parse(&value, &[Resource::Credentials, Resource::ApiKeys]).is_ok());
    let excluded = json!({"resources": ["tasks"], "excluded_resources": ["credentials"]});
    assert!(Scope::parse(&excluded, &[]).is_ok());
}

#[test]
fn a_doubled_name_in_the_text_is_refused() {
    assert!(Scope::parse_text(r#"{"resources":["tasks"],"resources":["notes"]}"#, &[]).is_err());
    assert!(Scope::parse_text(r#"{"resources":["tasks"]}"#, &[]).is_ok());
    assert!(
        serde_json::from_str::<Scope>(r#"{"resources":["tasks"],"resources":["tasks"]}"#).is_err()
    );
}

#[test]
fn the_schema_knows_the_keys_the_parser_knows() {
    let schema = schemars::schema_for!(Scope).to_value();
    let scope = Scope::parse(
        &json!({"resources": ["tasks"], "rate_limit": {"burst": 1}, "expires_at": "2026-01-01T00:00:00Z"}),
        &[],
    )
    .unwrap();
    let written = serde_json::to_value(&scope).unwrap();
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(keys(schema.get("properties").unwrap()), keys(&written));
    assert_eq!(schema.get("additionalProperties"), Some(&json!(false)));
}

pub(crate) fn any_scope() -> impl Strategy<Value = Scope> {
    use proptest::collection::{btree_map, btree_set};
    let resources = btree_set(proptest::sample::select(Resource::ALL.to_vec()), 1..6);
    let filter = (
        btree_set(crate::reach::tests::any_team(), 0..4),
        any::<bool>(),
    );
    let filters = btree_map(
        proptest::sample::select(Resource::ALL.to_vec()),
        filter,
        0..6,
    );
    let excluded = btree_set(proptest::sample::select(Resource::ALL.to_vec()), 0..3);
    let expiry = proptest::option::of(0i64..4_000_000_000_000);
    let rate = proptest::option::of((1u64..=1000, proptest::option::of(1u64..=1000)));
    (resources, excluded, filters, 1u64..=10_000, expiry, rate).prop_map(
        |(resources, excluded, filters, rows, expiry, rate)| {
            Scope(Arc::new(Written {
                filters: filters
                    .into_iter()
                    .filter(|(resource, _)| resources.contains(resource))
                    .map(|(resource, (include_teams, include_personal))| {
                        (
                            resource,
                            ScopeFilter {
                                include_teams: include_teams.into(),
                                include_personal,
                            },
                        )
                    })
                    .collect(),
                excluded_resources: excluded.difference(&resources).copied().collect(),
                resources: resources.into_iter().collect(),
                max_rows_per_query: RowLimit::new(rows).unwrap(),
                rate_limit: rate.map(|(minute, burst)| RateRule::new(Some(minute), burst).unwrap()),
                expires_at: expiry.map(UnixMillis),
            }))
        },
    )
}

proptest! {
    #[test]
    fn json_round_trips(scope in any_scope()) {
        let text = serde_json::to_string(&scope).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Scope>(&text).unwrap(), &scope);
        prop_assert_eq!(&Scope::parse_text(&text, &Resource::ALL).unwrap(), &scope);
    }

    #[test]
    fn the_reach_of_a_scope_is_what_it_names(scope in any_scope()) {
        let reach = scope.reach();
        prop_assert_eq!(reach.resources.keys().copied().collect::<BTreeSet<_>>(), scope.resources().iter().copied().collect());
    }
}
