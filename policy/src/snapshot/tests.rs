//! Snapshots are whole, and revisions move exactly when they must.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

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

proptest::proptest! {
    /// What is kept once for all that it holds for never mixes: each grant of many is what it is in a snapshot of its own. Equal
    /// scopes are one, and only they.
    #[test]
    fn each_grant_of_many_is_as_it_is_alone(
        scopes in proptest::collection::vec(crate::scope::tests::any_scope(), 1..4),
        choices in proptest::collection::vec((0_usize..4, proptest::prelude::any::<bool>()), 1..12),
    ) {
        let World { peer, grant, rules, .. } = tasks();
        let rules = format!("{rules}[peers.other]\nteams = [\"a\"]\nallow_sensitive = [\"credentials\"]\n");
        let rules = Arc::new(RuleSet::parse(&[("policy.toml", &rules)]).unwrap());
        let key = RevisionKey::new(&[1; 32]);
        let other = Peer {
            id: "0190b7c4-5d3e-7a10-8a51-0000000000e1".parse().unwrap(),
            name: "other".parse().unwrap(),
            state: PeerState::Active,
        };
        let build = |grants: Vec<Grant>| {
            let (peers, mapping) = ([peer.clone(), other.clone()], Arc::new(Mapping::internal_v1()));
            Snapshot::build(1, peers, grants, Arc::clone(&rules), mapping, &key).unwrap()
        };
        let grants: Vec<Grant> = choices.iter().enumerate().map(|(number, (scope, is_other))| Grant {
            id: format!("0190b7c4-5d3e-7a10-8a51-{number:012x}").parse().unwrap(),
            peer: if *is_other { other.id } else { peer.id },
            // Read again, as from a store: nothing is shared yet.
            scope: serde_json::from_str(&serde_json::to_string(&scopes[scope % scopes.len()]).unwrap()).unwrap(),
            ..grant.clone()
        }).collect();
        let all = build(grants.clone());
        for one in &grants {
            let alone = build(vec![one.clone()]);
            let (found, alone) = (all.grant(one.id).unwrap(), alone.grant(one.id).unwrap());
            proptest::prop_assert_eq!(format!("{found:?}"), format!("{alone:?}"));
            proptest::prop_assert_eq!(&found.grant, one);
            for other in &grants {
                let beside = all.grant(other.id).unwrap();
                proptest::prop_assert_eq!(
                    std::ptr::eq(found.grant.scope.filters(), beside.grant.scope.filters()),
                    one.scope == other.scope
                );
            }
        }
    }
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

/// What a snapshot says of every grant.
fn said(snapshot: &Snapshot) -> Vec<String> {
    let mut lines: Vec<String> = snapshot
        .grants()
        .map(|entry| format!("{entry:?}"))
        .collect();
    lines.sort();
    lines
}

#[test]
fn one_grant_changed_is_the_same_as_building_all_anew() {
    let World {
        peer, grant, rules, ..
    } = tasks();
    let key = RevisionKey::new(&[1; 32]);
    let rules = Arc::new(RuleSet::parse(&[("policy.toml", &rules)]).unwrap());
    let build = |revision, peers: &[Peer], grants: &[Grant]| {
        let mapping = Arc::new(Mapping::internal_v1());
        let (peers, grants) = (peers.to_vec(), grants.to_vec());
        Snapshot::build(revision, peers, grants, Arc::clone(&rules), mapping, &key).unwrap()
    };
    let second = Grant {
        id: "0190b7c4-5d3e-7a10-8a51-0000000000f1".parse().unwrap(),
        ..grant.clone()
    };
    let base = build(
        1,
        std::slice::from_ref(&peer),
        &[grant.clone(), second.clone()],
    );
    let edited = Grant {
        edit: 3,
        scope: world(json!({"resources": ["notes"]})).grant.scope,
        ..grant.clone()
    };
    let after = base.with_grant(2, grant.id, Some((edited.clone(), &peer)), &key);
    let after = after.unwrap().unwrap();
    let whole = build(2, std::slice::from_ref(&peer), &[edited, second.clone()]);
    assert_eq!((said(&after), after.revision()), (said(&whole), 2));
    assert_eq!(said(&base).len(), 2, "the one before is as it was");
    let without = base.with_grant(2, grant.id, None, &key).unwrap().unwrap();
    let whole = build(
        2,
        std::slice::from_ref(&peer),
        std::slice::from_ref(&second),
    );
    assert_eq!(said(&without), said(&whole));
    // A peer that differs changes its other grants, too.
    let suspended = Peer {
        state: PeerState::Suspended,
        ..peer.clone()
    };
    let both = base.with_grant(2, grant.id, Some((grant.clone(), &suspended)), &key);
    assert!(both.unwrap().is_none());
    let alone = without.with_grant(3, second.id, Some((second.clone(), &suspended)), &key);
    let whole = build(
        3,
        std::slice::from_ref(&suspended),
        std::slice::from_ref(&second),
    );
    assert_eq!(said(&alone.unwrap().unwrap()), said(&whole));
    // A new one comes along with its first grant, unless its name is taken.
    let other = Peer {
        id: "0190b7c4-5d3e-7a10-8a51-0000000000e1".parse().unwrap(),
        name: "other".parse().unwrap(),
        state: PeerState::Pending,
    };
    let first = Grant {
        id: "0190b7c4-5d3e-7a10-8a51-0000000000f2".parse().unwrap(),
        peer: other.id,
        ..grant.clone()
    };
    let more = base.with_grant(2, first.id, Some((first.clone(), &other)), &key);
    let whole = build(
        2,
        &[peer.clone(), other.clone()],
        &[grant.clone(), second, first.clone()],
    );
    assert_eq!(said(&more.unwrap().unwrap()), said(&whole));
    let namesake = Peer {
        name: peer.name,
        ..other
    };
    let taken = base.with_grant(2, first.id, Some((first, &namesake)), &key);
    assert!(taken.unwrap().is_none());
    // What does not hold together makes no snapshot.
    let wrong = Grant {
        user: UserId::parse("somebody-else").unwrap(),
        ..grant
    };
    let error = base.with_grant(2, wrong.id, Some((wrong.clone(), &tasks().peer)), &key);
    assert!(matches!(error, Err(SnapshotProblem::SubjectWrong { .. })));
}
