//! What an operator takes away, and what is answered afterwards.

use proxy::directory::Applied;
use reference_gateway::plan;
use reference_gateway::record::User;
use serde_json::{Value, json};
use tests::world::{POLICY, operator};
use tests::{Holder, Wire, World};

use super::enlist::{credentials, enlist};
use super::stream::{Answer, Connection, Shape};

/// Rows a narrowed policy leaves.
pub const NARROWED: usize = 5;

/// What an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// `grant revoke`
    Revoke,
    /// `grant token --replace`
    Replace,
    /// `peer suspend`
    Suspend,
    /// `peer remove`
    Remove,
    /// A policy that leaves fewer rows, and `policy reload`
    Narrow,
    /// `grant edit` to a scope with fewer rows
    Edit,
}

pub const ACTS: [Act; 6] = [
    Act::Revoke,
    Act::Replace,
    Act::Suspend,
    Act::Remove,
    Act::Narrow,
    Act::Edit,
];

pub fn amira() -> User {
    let mut users = plan::plan().users.into_iter();
    users.find(|user| user.id == plan::AMIRA).unwrap()
}

pub fn scope() -> Value {
    scope_of(10_000)
}

/// The same with another cap on rows.
pub fn scope_of(rows: usize) -> Value {
    json!({"resources": ["tasks", "notes"], "max_rows_per_query": rows,
        "filters": {"tasks": {"include_teams": ["platform"]}}})
}

pub async fn member(world: &World, peer: &str) -> Holder {
    enlist(world, peer, &amira(), scope()).await
}

pub fn narrowed(peer: &str) -> String {
    format!("{POLICY}\n[peers.{peer}]\nmax_rows_per_query = {NARROWED}\n")
}

pub async fn act(world: &World, act: Act, peer: &str, holder: &Holder) -> Applied {
    match act {
        Act::Revoke => world.revoke(holder.grant).await,
        Act::Replace => world.replace_token(holder.grant).await.applied,
        Act::Suspend => world.suspend(peer).await,
        Act::Remove => world.remove(peer).await,
        Act::Narrow => {
            world.write_policy(&narrowed(peer));
            world.control().reload_policy(&operator()).await.unwrap()
        }
        Act::Edit => world.edit(holder.grant, scope_of(NARROWED)).await,
    }
}

/// Asks on a fresh connection; `None` when the handshake or the connection is refused.
pub async fn ask_afresh(world: &World, holder: &Holder, wire: Wire) -> Option<Answer> {
    let config = credentials(world, holder);
    let address = world.federation();
    let mut connection = Connection::open(address, &config, Shape::of(wire))
        .await
        .ok()?;
    let question = json!({"params": {"limit": 10_000}});
    connection.list("tasks", &question).await.ok()
}

/// What is answered once the act has returned.
pub async fn check_after(world: &World, done: Act, peer: &str, holder: &Holder, wire: Wire) {
    let answer = ask_afresh(world, holder, wire).await;
    match done {
        // The certificate is revoked with the grant: the handshake says so.
        Act::Revoke | Act::Replace | Act::Remove => assert!(answer.is_none(), "{answer:?}"),
        Act::Suspend => {
            let answer = answer.unwrap();
            assert_eq!(answer.head.status, 403);
            assert_eq!(
                answer.json()["error"]["details"]["reason"],
                "peer_suspended"
            );
            let resumed = world.resume(peer).await;
            assert_eq!(resumed.connections_reset, 0);
            let answer = ask_afresh(world, holder, wire).await.unwrap();
            assert_eq!(answer.head.status, 200);
        }
        Act::Narrow | Act::Edit => {
            let answer = answer.unwrap();
            assert_eq!(answer.head.status, 200);
            let rows = answer.json()["items"].as_array().unwrap().len();
            assert_eq!(rows, NARROWED);
            if done == Act::Narrow {
                world.reload_policy(POLICY).await;
            }
        }
    }
}
