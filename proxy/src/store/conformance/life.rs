//! Any history of acts keeps the laws: a long pseudo-random walk, checked after every step.

use std::collections::HashMap;

use policy::grant::GrantStatus;
use policy::id::GrantId;
use uuid::Uuid;

use super::super::*;
use super::fixture::*;

/// SplitMix64: a failing walk is the same walk again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// One random act on one of a few grants, new ones as time goes on; the revision it reports, and whether it
/// changed anything. `intents` remembers the last intent of each grant.
async fn step(
    store: &dyn Store,
    dice: &mut Dice,
    intents: &mut HashMap<u64, Uuid>,
    n: u64,
) -> Option<(u64, bool)> {
    fn told<T>(result: Result<Committed<T>, StoreError>) -> Option<(u64, bool)> {
        match result {
            Ok(committed) => Some((committed.revision, committed.changed)),
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }
    let millis = i64::try_from(n).unwrap() * 1000;
    let (grant, act) = (n / 60 + dice.roll(3), act_at(n, millis));
    let token = || new_token(n, grant, millis);
    match dice.roll(11) {
        10 => {
            let resources = [["tasks"], ["notes"]][usize::from(dice.roll(2) == 0)];
            let scope = serde_json::json!({"resources": resources});
            let scope = Scope::parse(&scope, &[]).unwrap();
            told(store.edit_grant(&act, grant_id(grant), scope).await)
        }
        0 => {
            let expires_at = (dice.roll(2) == 0).then(|| after(millis + 40_000));
            let new = NewGrant {
                expires_at,
                ..new_grant(grant)
            };
            told(store.create_grant(&act, new).await)
        }
        1 => told(store.create_token(&act, token()).await),
        2 => told(store.replace_token(&act, token()).await),
        3 | 4 => told(
            store
                .claim_token(&act, &digest(n - dice.roll(5).min(n)))
                .await,
        ),
        5 => {
            intents.insert(grant, intent(n, grant).id);
            told(store.record_issue_intent(&act, intent(n, grant)).await)
        }
        6 | 7 => {
            let enrollment = Enrollment {
                intent: *intents.get(&grant)?,
                ..enrollment(n, grant, after(YEAR))
            };
            told(store.complete_enrollment(&act, enrollment).await)
        }
        8 if dice.roll(4) == 0 => told(store.revoke_grant(&act, grant_id(grant), None).await),
        8 => told(store.expire_grants(&act).await),
        _ => {
            let peer = store.list_peers().await.unwrap().first()?.id;
            if dice.roll(2) == 0 {
                told(store.suspend_peer(&act, peer).await)
            } else {
                told(store.resume_peer(&act, peer).await)
            }
        }
    }
}

pub(super) async fn any_history_keeps_the_laws(store: &dyn Store) {
    let mut dice = Dice(0x6d6f_7361_6963);
    let mut intents = HashMap::new();
    let mut revision = 0;
    let mut edits: HashMap<GrantId, (u64, GrantStatus)> = HashMap::new();
    let mut reached = HashMap::new();
    for n in 0..600 {
        match step(store, &mut dice, &mut intents, n).await {
            Some((reported, true)) => {
                revision += 1;
                assert_eq!(reported, revision, "step {n}");
            }
            Some((reported, false)) => assert_eq!(reported, revision, "step {n}"),
            None => {}
        }
        assert_eq!(store.revision().await.unwrap(), revision, "step {n}");
        for record in store.list_grants().await.unwrap() {
            let grant = &record.grant;
            let now = (grant.edit, grant.status);
            let before = *edits.entry(grant.id).or_insert(now);
            assert!(now.0 >= before.0, "step {n}: an edit counter went back");
            if before.1 != now.1 {
                before.1.transition(now.1).unwrap();
                let narrowed = now.1 != GrantStatus::Active;
                assert!(
                    !narrowed || now.0 > before.0,
                    "step {n}: narrowed without an edit"
                );
            }
            edits.insert(grant.id, now);
            let certificates = store.list_certificates(grant.id).await.unwrap();
            let live = certificates
                .iter()
                .filter(|one| one.entry.state == CertificateState::Active);
            match grant.status {
                GrantStatus::Active => assert_eq!(live.count(), 1, "step {n}"),
                GrantStatus::Pending | GrantStatus::Revoked => {
                    assert_eq!(live.count(), 0, "step {n}")
                }
                GrantStatus::Expired => {}
            }
            *reached.entry(grant.status).or_insert(0) += 1;
        }
    }
    assert_eq!(
        reached.len(),
        GrantStatus::ALL.len(),
        "not every status was reached: {reached:?}"
    );
    let acts = acts(store).await;
    let mut revisions: Vec<_> = acts.iter().map(|act| act.0).collect();
    revisions.dedup();
    assert!(
        revisions.into_iter().eq(1..=revision),
        "a commit without an audit row"
    );
}
