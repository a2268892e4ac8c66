//! What the laws build on: ids, acts, a peer with a grant at each stage.
//!
//! Invariant: everything is derived from small numbers, so that a failing law can be read.

use policy::id::{GrantId, PeerId, UserId};
use policy::peer::PeerName;
use policy::scope::Scope;
use policy::time::UnixMillis;
use uuid::Uuid;

use super::super::{
    Act, Actor, Committed, EnrolledCertificate, Enrollment, IssueIntent, NewGrant, NewToken,
    Sha256, Store, TokenClaim,
};
use crate::audit::{AuditFilter, AuditRow};

/// The time the laws begin at.
pub(super) const START: UnixMillis = UnixMillis(1_700_000_000_000);
/// A life that outlasts every law.
pub(super) const YEAR: i64 = 365 * 24 * 3_600_000;

/// A UUIDv7 from a small number, far enough from its neighbours for the further records of an act.
pub(super) fn uuid(n: u64) -> Uuid {
    Uuid::from_u64_pair(0x018b_cfe5_6800_7000, 0x8000_0000_0000_0000 | n << 20)
}

pub(super) fn digest(n: u64) -> Sha256 {
    let mut digest = [7; 32];
    digest[..8].copy_from_slice(&n.to_be_bytes());
    digest
}

pub(super) fn after(millis: i64) -> UnixMillis {
    UnixMillis(START.0 + millis)
}

/// The n-th act, `millis` after the start.
pub(super) fn act_at(n: u64, millis: i64) -> Act {
    Act {
        id: uuid(1_000_000 + n),
        actor: Actor::Operator { uid: 1000 },
        now: after(millis),
    }
}

pub(super) fn act(n: u64) -> Act {
    act_at(n, 0)
}

pub(super) fn grant_id(n: u64) -> GrantId {
    GrantId::new(uuid(10_000 + n))
}

pub(super) fn name(text: &str) -> PeerName {
    text.parse().unwrap()
}

pub(super) fn user(text: &str) -> UserId {
    text.parse().unwrap()
}

pub(super) fn scope() -> Scope {
    Scope::parse(&serde_json::json!({"resources": ["tasks"]}), &[]).unwrap()
}

/// The n-th grant, for the peer `home`.
pub(super) fn new_grant(n: u64) -> NewGrant {
    NewGrant {
        id: grant_id(n),
        peer_name: name("home"),
        peer_id: PeerId::new(uuid(20_000 + n)),
        user: user("amira"),
        scope: scope(),
        expires_at: None,
    }
}

/// A token with number `n` for grant `grant`, lapsing 900 s after `from` milliseconds.
pub(super) fn new_token(n: u64, grant: u64, from: i64) -> NewToken {
    NewToken {
        grant: grant_id(grant),
        sha256: digest(n),
        prefix: format!("{n:08x}"),
        expires_at: after(from + 900_000),
    }
}

pub(super) fn intent(n: u64, grant: u64) -> IssueIntent {
    IssueIntent {
        id: uuid(30_000 + n),
        grant: grant_id(grant),
        csr_sha256: digest(n),
    }
}

pub(super) fn enrollment(n: u64, grant: u64, not_after: UnixMillis) -> Enrollment {
    Enrollment {
        intent: uuid(30_000 + n),
        grant: grant_id(grant),
        certificate: EnrolledCertificate {
            fingerprint: digest(40_000 + n),
            serial: format!("{n:032x}"),
            not_before: START,
            not_after,
            der: vec![0x30, 0x00],
        },
    }
}

/// Brings grant `n` to life: grant, token, claim, intent, certificate. Acts `base` to `base + 4`.
pub(super) async fn active_grant(store: &dyn Store, n: u64, base: u64) {
    changed(store.create_grant(&act(base), new_grant(n)).await);
    enroll(store, n, n, base + 1).await;
}

/// Enrolls a pending grant with token, intent and certificate number `number`. Acts `base` to `base + 3`.
pub(super) async fn enroll(store: &dyn Store, grant: u64, number: u64, base: u64) {
    changed(
        store
            .create_token(&act(base), new_token(number, grant, 0))
            .await,
    );
    let claim = changed(store.claim_token(&act(base + 1), &digest(number)).await);
    assert!(matches!(claim, TokenClaim::Claimed(_)), "{claim:?}");
    changed(
        store
            .record_issue_intent(&act(base + 2), intent(number, grant))
            .await,
    );
    let end = after(YEAR);
    changed(
        store
            .complete_enrollment(&act(base + 3), enrollment(number, grant, end))
            .await,
    );
}

/// The value of a call that must have changed something.
pub(super) fn changed<T, E: std::fmt::Debug>(result: Result<Committed<T>, E>) -> T {
    let committed = result.unwrap();
    assert!(committed.changed);
    committed.value
}

/// Every row of the log.
pub(super) async fn log(store: &dyn Store) -> Vec<AuditRow> {
    let filter = AuditFilter {
        limit: u32::MAX,
        ..AuditFilter::default()
    };
    store.query_audit(&filter).await.unwrap()
}

/// The admin acts in the log with their revisions, in order.
pub(super) async fn acts(store: &dyn Store) -> Vec<(u64, String)> {
    log(store)
        .await
        .into_iter()
        .map(|row| {
            let action = row.record.action.unwrap().as_str().to_owned();
            (row.record.revision.unwrap(), action)
        })
        .collect()
}
