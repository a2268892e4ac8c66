//! Snapshots are whole, and revisions move exactly when they must.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::evaluate::world::{World, world};
use crate::id::UserId;
use crate::peer::PeerState;

fn tasks() -> World {
    world(json!({"resources": ["tasks"], "filters": {"tasks": {"include_teams": ["a", "b"]}}}))
}

fn revision(world: &World) -> EffectiveRevision {
    let snapshot = world.snapshot();
    snapshot.grant(world.grant.id).unwrap().effective_revision
}

#[test]
fn the_effective_revision_moves_with_what_it_stands_for() {
    let base = revision(&tasks());
    let changed = |change: &dyn Fn(&mut World)| {
        let mut world = tasks();
        change(&mut world);
        revision(&world)
    };
    assert_eq!(base, changed(&|_| ()));
    // Another peer's rules touch nothing of this grant.
    assert_eq!(
        base,
        changed(&|w| w.rules.push_str("[peers.other]\nresources = []\n"))
    );
    assert_ne!(base, changed(&|w| w.grant.edit += 1));
    assert_ne!(base, changed(&|w| w.rules.push_str("teams = [\"a\"]\n")));
    assert_ne!(
        base,
        changed(&|w| w.rules.push_str("max_rows_per_query = 5\n"))
    );
    assert_ne!(
        base,
        changed(&|w| w.rules.push_str("[redaction.fields]\ntasks = [\"x\"]\n"))
    );
    assert_ne!(base, changed(&|w| w.mapping = Mapping::mosaic()));
    assert_ne!(
        base,
        changed(&|w| w.grant.scope = world(json!({"resources": ["tasks"]})).grant.scope)
    );
}

#[test]
fn one_bad_entry_rejects_the_whole() {
    let World { peer, grant, .. } = tasks();
    let build = |peers: Vec<Peer>, grants: Vec<Grant>| {
        Snapshot::build(
            1,
            peers,
            grants,
            Arc::new(RuleSet::deny_all()),
            Arc::new(Mapping::internal_v1()),
            &RevisionKey::new(&[0; 32]),
        )
        .err()
        .unwrap_or_default()
    };
    assert_eq!(build(vec![peer.clone()], vec![grant.clone()]), []);
    assert_eq!(
        build(vec![], vec![grant.clone()]),
        [SnapshotProblem::PeerMissing {
            grant: grant.id,
            peer: peer.id
        }]
    );
    assert_eq!(
        build(vec![peer.clone()], vec![grant.clone(), grant.clone()]),
        [SnapshotProblem::GrantTwice(grant.id)]
    );
    assert_eq!(
        build(vec![peer.clone(), peer.clone()], vec![]),
        [
            SnapshotProblem::NameTwice(peer.name.clone()),
            SnapshotProblem::PeerTwice(peer.id)
        ]
    );
    let mut wrong = grant.clone();
    wrong.user = UserId::parse("ben").unwrap();
    let expected = SubjectId::of_user(&wrong.user);
    assert_eq!(
        build(vec![peer], vec![wrong]),
        [SnapshotProblem::SubjectWrong {
            grant: grant.id,
            found: grant.subject,
            expected
        }]
    );
}

#[test]
fn policy_that_no_longer_allows_a_sensitive_resource_takes_it_away() {
    let mut world = world(json!({"resources": ["tasks", "credentials"]}));
    world.rules = "schema = 1\n[ceiling]\nresources = [\"tasks\", \"credentials\"]\n".to_owned();
    let reach = |world: &World| {
        world
            .snapshot()
            .grant(world.grant.id)
            .unwrap()
            .effective
            .resources
            .len()
    };
    assert_eq!(reach(&world), 1);
    world
        .rules
        .push_str("[peers.home]\nallow_sensitive = [\"credentials\"]\n");
    assert_eq!(reach(&world), 2);
}

#[test]
fn grants_that_have_ended_stay_known() {
    let mut world = tasks();
    world.peer.state = PeerState::Suspended;
    world.grant.status = crate::grant::GrantStatus::Revoked;
    let snapshot = world.snapshot();
    assert_eq!(snapshot.revision(), 7);
    assert_eq!(snapshot.grants().count(), 1);
}
