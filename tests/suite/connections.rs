//! What connections of the federation listener are like, and what ends them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use serde_json::json;
use tests::{Home, Wire, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_is_answered_on_both_protocols() {
    let world = World::start().await;
    let holder = world.amira().await;
    for wire in Wire::BOTH {
        let answer = world
            .ask_on(wire, &holder.minted, "/list/tasks", &json!({}))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(!answer.items().is_empty());
        let row = tests::audit::audit_row(world.control(), answer.request_id()).await;
        assert_eq!(row["outcome"], "allowed");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asking_side_is_answered_through_its_door() {
    let world = World::start().await;
    world.let_in(reference_gateway::plan::AMIRA).await;
    let grant = world
        .pending(
            reference_gateway::plan::AMIRA,
            json!({"resources": ["tasks"]}),
        )
        .await;
    let url = world.enrollment_url(grant.id).await;
    let home = Home::start().await;
    home.add_peer(&url, "amira", "work").await.unwrap();
    let token = home.session("amira").await;
    let answer = home.ask(&token, "work", "/list/tasks", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.items().is_empty());
    home.stop().await;
    world.stop().await;
}
