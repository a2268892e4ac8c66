//! Employees of the plan and their homes: the grant, the peer, and what they must see.

use std::collections::{BTreeMap, BTreeSet};

use reference_gateway::plan;
use reference_gateway::record::User;
use serde_json::{Value, json};
use tests::{Home, Response, World};

use super::truth::{Key, Reach, Rows};

/// The resources of a whole scope.
pub const RESOURCES: [&str; 5] = ["tasks", "notes", "memory", "projects", "missions"];

pub fn users() -> BTreeMap<String, User> {
    let users = plan::plan().users.into_iter();
    users.map(|user| (user.id.clone(), user)).collect()
}

pub fn teams_of(user: &str) -> BTreeSet<String> {
    let memberships = plan::plan().memberships.into_iter();
    memberships
        .filter(|membership| membership.user_id == user)
        .map(|membership| membership.team_id)
        .collect()
}

/// Everything that is native to a user.
pub fn whole_scope(user: &str) -> Value {
    let filter = json!({"include_teams": teams_of(user)});
    let filters = BTreeMap::from(RESOURCES.map(|name| (name, filter.clone())));
    json!({"resources": RESOURCES, "filters": filters, "max_rows_per_query": 1_000})
}

/// What the scope above shows of a resource, newest first.
pub fn truth(resource: &str, user: &str) -> Vec<Key> {
    let reach = Reach {
        teams: teams_of(user),
        personal: true,
    };
    Rows::of(plan::plan().rows).granted(resource, &users()[user], &reach)
}

pub fn keys(answer: &Response) -> Vec<Key> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = answer.items();
    rows.iter()
        .map(|row| (text(row, "createdAt"), text(row, "id")))
        .collect()
}

/// A grant at work for `user`, held by a home of the same local name, under `peer` at work.
pub async fn onboard(world: &World, home: &Home, peer: &str, user: &str, local: &str) -> String {
    if world.config.gateway.auth == proxy::config::GatewayAuth::SubjectToken {
        world.let_in(user).await;
    }
    let grant = world.pending_for(peer, user, whole_scope(user)).await;
    let url = world.enrollment_url(grant.id).await;
    let added = home.add_peer(&url, local, "work").await.unwrap();
    assert_eq!(added.grant, grant.id);
    assert_eq!(added.notice, None, "the path is proved at once");
    assert!(added.capabilities.is_some());
    grant.id.to_string()
}
