//! A small world for tests: one peer, one grant, one policy.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use serde_json::Value;

use super::{admit, evaluate};
use crate::decision::{Decision, Permit};
use crate::deny::Deny;
use crate::grant::{Grant, GrantStatus};
use crate::id::{SubjectId, TeamId, UserId};
use crate::mapping::Mapping;
use crate::native::NativeFacts;
use crate::peer::{Peer, PeerState};
use crate::request::AccessRequest;
use crate::resource::Resource;
use crate::revision::RevisionKey;
use crate::rules::RuleSet;
use crate::scope::Scope;
use crate::snapshot::Snapshot;
use crate::time::UnixMillis;

const OPEN: &str = r#"
schema = 1
[ceiling]
resources = ["tasks", "notes", "memory", "projects", "missions"]
"#;

/// A world of one peer, `home`, with one active grant for the user `amira`.
pub(crate) struct World {
    pub(crate) peer: Peer,
    pub(crate) grant: Grant,
    pub(crate) rules: String,
    pub(crate) mapping: Mapping,
}

pub(crate) fn world(scope: Value) -> World {
    let user = UserId::parse("amira").unwrap();
    let peer = Peer {
        id: "0190b7c4-5d3e-7a10-8a51-000000000001".parse().unwrap(),
        name: "home".parse().unwrap(),
        state: PeerState::Active,
    };
    let grant = Grant {
        id: "0190b7c4-5d3e-7a10-8a51-000000000002".parse().unwrap(),
        peer: peer.id,
        subject: SubjectId::of_user(&user),
        user,
        scope: Scope::parse(&scope, &Resource::ALL).unwrap(),
        status: GrantStatus::Active,
        edit: 0,
        created_at: UnixMillis(0),
        expires_at: None,
    };
    World {
        peer,
        grant,
        rules: OPEN.to_owned(),
        mapping: Mapping::internal_v1(),
    }
}

impl World {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let rules = RuleSet::parse(&[("policy.toml", &self.rules)]).unwrap();
        Snapshot::build(
            7,
            [self.peer.clone()],
            [self.grant.clone()],
            Arc::new(rules),
            Arc::new(self.mapping.clone()),
            &RevisionKey::new(&[1; 32]),
        )
        .unwrap()
    }

    pub(crate) fn ask<'a>(&self, verb: &'a str, resource: Option<&'a str>) -> AccessRequest<'a> {
        AccessRequest {
            grant: self.grant.id,
            subject: self.grant.subject,
            now: UnixMillis(1000),
            verb,
            resource,
            limit: None,
        }
    }

    pub(crate) fn refusal(&self, verb: &str, resource: &str) -> Deny {
        match admit(&self.snapshot(), &self.ask(verb, Some(resource))) {
            Err(deny) => deny,
            Ok(admission) => panic!("admitted: {admission:?}"),
        }
    }

    pub(crate) fn permit(&self, resource: &str, facts: &NativeFacts) -> Permit {
        match evaluate(&self.snapshot(), &self.ask("list", Some(resource)), facts) {
            Decision::Allow(permit) => permit,
            Decision::Deny(deny) => panic!("denied: {deny}"),
        }
    }
}

pub(crate) fn member_of(teams: &[&str]) -> NativeFacts {
    let mut facts = NativeFacts::builder();
    for team in teams {
        facts.team(TeamId::parse(team).unwrap()).unwrap();
    }
    facts.build()
}
