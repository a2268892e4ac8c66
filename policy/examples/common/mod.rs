//! What the measurements of this crate share: a filter, a clock of the processor, and numbers that are always the same.
// Each of them is a program of its own and uses what it needs.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::Duration;

use policy::evaluate::{Admission, admit};
use policy::grant::{Grant, GrantStatus};
use policy::id::{GrantId, PeerId, SubjectId, TeamId, UserId};
use policy::mapping::{FieldMap, Mapping};
use policy::native::NativeFacts;
use policy::peer::{Peer, PeerName, PeerState};
use policy::request::AccessRequest;
use policy::resource::Resource;
use policy::revision::RevisionKey;
use policy::rows::{RowFilter, RowMatch};
use policy::rules::RuleSet;
use policy::scope::Scope;
use policy::snapshot::Snapshot;
use policy::time::UnixMillis;
use uuid::Uuid;

/// What this thread has used of the processor so far.
pub fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// The filter for tasks of team `team-platform` and of `user-e1`, through a decision like any other, and its fields.
pub fn filter(verb: &str) -> (RowFilter, FieldMap) {
    let user = UserId::parse("user-e1").unwrap();
    let peer = Peer {
        id: PeerId::new(Uuid::from_u128(1)),
        name: PeerName::parse("home").unwrap(),
        state: PeerState::Active,
    };
    let scope =
        r#"{"resources":["tasks"],"filters":{"tasks":{"include_teams":["team-platform"]}}}"#;
    let grant = Grant {
        id: GrantId::new(Uuid::from_u128(2)),
        peer: peer.id,
        subject: SubjectId::of_user(&user),
        user,
        scope: Scope::parse_text(scope, &[]).unwrap(),
        status: GrantStatus::Active,
        edit: 1,
        created_at: UnixMillis(0),
        expires_at: None,
    };
    let request = AccessRequest {
        grant: grant.id,
        subject: grant.subject,
        now: UnixMillis(1),
        verb,
        resource: Some("tasks"),
        limit: None,
    };
    let rules = "schema = 1\n[ceiling]\nresources = [\"tasks\"]\nmax_rows_per_query = 10000\n";
    let rules = Arc::new(RuleSet::parse(&[("bench.toml", rules)]).unwrap());
    let mapping = Arc::new(Mapping::internal_v1());
    let key = RevisionKey::new(&[0; 32]);
    let snapshot = Snapshot::build(1, [peer], [grant], rules, Arc::clone(&mapping), &key).unwrap();
    let mut facts = NativeFacts::builder();
    facts.team(TeamId::parse("team-platform").unwrap()).unwrap();
    let facts = Arc::new(facts.build());
    let Ok(Admission::Rows(admitted)) = admit(&snapshot, &request) else {
        panic!("the scope allows tasks");
    };
    let permit = admitted.decide(&facts);
    let fields = mapping.sources(Resource::Tasks)[0].fields.clone();
    let filter = RowFilter::new(&permit, facts, &fields, &RowMatch::default()).unwrap();
    (filter, fields)
}

/// A fixed scramble, so that bodies are the same in every run.
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
