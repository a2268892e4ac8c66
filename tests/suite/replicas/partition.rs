//! A replica whose network is parted from that of its database: packets vanish, no connection is ended, and its peers still reach it.

use tests::World;
use tests::grants::BASE;

use super::side::Side;
use super::support::acts::member;
use super::support::hole::Namespace;
use super::support::{rounds, skipped};
use super::{ACCEPTS, LEASE, ON_SQLITE, answers, asked, connect};

/// Longer than a busy machine keeps a heartbeat waiting, since the replica has to be seen serving before it is parted.
const FENCE: u64 = 1_500;

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_parted_from_its_database_serves_nothing_and_comes_back() {
    let what = "a replica in a network that is parted from its database";
    if !tests::database::is_postgres() {
        return skipped(what, ON_SQLITE);
    }
    let namespace = match Namespace::make() {
        Ok(namespace) => namespace,
        Err(why) => return skipped(what, &why),
    };
    let world = World::builder()
        .lease(&format!("duration_ms = {LEASE}"))
        .settings(&format!(
            "[replicas]\nfence_ms = {FENCE}\nname = \"first\"\n"
        ))
        .start()
        .await;
    let side = Side::start_inside(&world, "second", &namespace).await;
    let path = format!("{BASE}/list/tasks");
    for round in 0..rounds(3, 50) {
        let gone = member(&world, &format!("gone-{round}")).await;
        let kept = member(&world, &format!("kept-{round}")).await;
        for holder in [&gone, &kept] {
            answers(side.federation, &world, holder, 200).await;
        }
        let mut open = connect(side.federation, &world, &gone).await;
        let before = open.post_with(&path, &ACCEPTS, "{}").await.unwrap();
        assert_eq!(before.status, 200);
        namespace.vanish_to(namespace.other);
        let waited = world.revoke(gone.grant).await.waited_ms;
        println!("round {round}: revoked beside a parted replica in {waited} ms");
        // Its peers reach it as before, on the connection that was open and on new ones.
        if let Ok(answer) = open.post_with(&path, &ACCEPTS, "{}").await {
            assert_eq!(answer.status, 503);
        }
        for holder in [&gone, &kept] {
            let (status, reason) = asked(side.federation, &world, holder).await;
            assert_eq!((status, reason.as_str()), (503, "replica_fenced"));
        }
        assert_eq!(asked(world.federation(), &world, &kept).await.0, 200);
        namespace.appear_to(namespace.other);
        answers(side.federation, &world, &kept, 200).await;
        assert_eq!(asked(side.federation, &world, &gone).await.0, 403);
    }
    drop(side);
    world.stop().await;
}
