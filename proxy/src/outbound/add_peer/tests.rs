//! Enrollment from both ends: a real enrollment listener, a real store on each side.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use certs::publish::channel;
use certs::testing::Mint;
use certs::{
    CertificateAuthority, EmbeddedCa, LiveServerResolver, RevokedSet, Sealer, SealingSecret,
    SystemClock,
};
use policy::scope::Scope;
use policy::time::UnixMillis;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::super::fixture::{
    BOTH, OwnRows, Pki, QUICK, cursors, json as answer_json, reaches, start,
};
use super::super::reach::ReachRules;
use super::super::{OutboundParts, PeerRoute};
use super::*;
use crate::audit::{AuditLog, AuditWriter};
use crate::enrollment::{
    ApplyChanges, EnrollmentLimits, EnrollmentTerms, EnrollmentToken, Redeemer, enrollment_url,
    router, serve,
};
use crate::store::{Act, CertificateState, NewGrant, NewToken, SqliteOptions, SqliteStore, Store};

mod sides;

use sides::{Asking, Serving, act, now};

fn order(url: &str) -> AddPeer {
    AddPeer {
        actor: Actor::Operator { uid: 0 },
        url: url.to_owned(),
        user: "amira".to_owned(),
        name: "work".to_owned(),
        endpoint: None,
        fingerprint: None,
        trust_root: None,
    }
}

#[tokio::test]
async fn two_sides_enroll_and_the_path_is_proved() {
    let (serving, asking) = (Serving::new().await, Asking::new().await);
    let grant = serving.grant().await;
    let added = asking
        .outbound
        .add_peer(order(&serving.url(grant).await))
        .await
        .unwrap();
    assert_eq!(
        (added.grant_id, added.reenrolled, &added.unproven),
        (grant, false, &None)
    );
    assert_eq!(added.capabilities, Some(json!({"resources": ["tasks"]})));
    assert_eq!(
        serving.applied.0.load(Ordering::SeqCst),
        1,
        "in force before it was answered"
    );
    let certificates = serving.store.list_certificates(grant).await.unwrap();
    assert_eq!(
        certificates
            .iter()
            .map(|one| one.entry.state)
            .collect::<Vec<_>>(),
        [CertificateState::Active]
    );
    let route = asking.route("work").unwrap();
    assert_eq!(
        route.client.as_ref().unwrap().serial,
        certificates.first().unwrap().entry.serial
    );
    assert!(
        asking
            .outbound
            .routes()
            .find(&UserId::parse("bo").unwrap(), "work")
            .is_err()
    );
}

#[tokio::test]
async fn a_token_is_good_once() {
    let (serving, asking) = (Serving::new().await, Asking::new().await);
    let url = serving.url(serving.grant().await).await;
    asking.outbound.add_peer(order(&url)).await.unwrap();
    let again = AddPeer {
        name: "again".to_owned(),
        ..order(&url)
    };
    assert_eq!(
        asking.outbound.add_peer(again).await,
        Err(AddPeerError::TokenSpent)
    );
    assert!(asking.route("again").is_none());
}

#[tokio::test]
async fn many_at_once_and_one_certificate() {
    let serving = Serving::new().await;
    let grant = serving.grant().await;
    let url = serving.url(grant).await;
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let url = url.clone();
        tries.spawn(async move {
            let asking = Asking::new().await;
            asking.outbound.add_peer(order(&url)).await.map(drop)
        });
    }
    let ended = tries.join_all().await;
    assert_eq!(ended.iter().filter(|one| one.is_ok()).count(), 1);
    assert_eq!(
        ended
            .iter()
            .filter(|one| **one == Err(AddPeerError::TokenSpent))
            .count(),
        7
    );
    assert_eq!(
        serving.store.list_certificates(grant).await.unwrap().len(),
        1
    );
}

#[tokio::test]
async fn what_is_wrong_here_does_not_spend_the_token() {
    let (serving, asking) = (Serving::new().await, Asking::new().await);
    let url = serving.url(serving.grant().await).await;
    let (bare, _) = url.split_once('#').unwrap();
    let other_pin = format!("{bare}#sha256={}", "00".repeat(32));
    let try_one = |order: AddPeer| asking.outbound.add_peer(order);
    assert_eq!(try_one(order(bare)).await, Err(AddPeerError::NoTrust));
    assert!(matches!(
        try_one(order(&other_pin)).await,
        Err(AddPeerError::Untrusted(_))
    ));
    let reserved = AddPeer {
        name: "local".to_owned(),
        ..order(&url)
    };
    assert!(matches!(
        try_one(reserved).await,
        Err(AddPeerError::Name(_))
    ));
    let twice = AddPeer {
        fingerprint: Some("11".repeat(32)),
        ..order(&url)
    };
    assert_eq!(try_one(twice).await, Err(AddPeerError::AmbiguousTrust));
    let unknown = url.replace(bare.rsplit('/').next().unwrap(), &"ab".repeat(32));
    assert_eq!(
        try_one(order(&unknown)).await,
        Err(AddPeerError::UnknownToken)
    );
    // All of that, and the token is still good; a fingerprint in place of the fragment will do.
    let by_fingerprint = AddPeer {
        fingerprint: Some(hex::encode(serving.pin)),
        ..order(bare)
    };
    assert!(try_one(by_fingerprint).await.is_ok());
    let taken = AddPeer {
        user: "bo".to_owned(),
        ..order(&url)
    };
    assert_eq!(
        try_one(taken).await,
        Err(AddPeerError::NameTaken(PeerName::parse("work").unwrap()))
    );
}

#[tokio::test]
async fn an_endpoint_elsewhere_needs_the_operators_word() {
    let serving = Serving::at("localhost").await;
    let asking = Asking::new().await;
    let grant = serving.grant().await;
    let refused = asking
        .outbound
        .add_peer(order(&serving.url(grant).await))
        .await;
    assert!(
        matches!(&refused, Err(AddPeerError::OtherHost(_))),
        "{refused:?}"
    );
    assert!(asking.route("work").is_none());
}

#[tokio::test]
async fn a_peer_that_cannot_be_reached_yet_is_kept_and_says_so() {
    let (serving, asking) = (Serving::new().await, Asking::new().await);
    let gone: SocketAddr = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let elsewhere = AddPeer {
        endpoint: Some(format!("https://{gone}")),
        ..order(&serving.url(serving.grant().await).await)
    };
    let added = asking.outbound.add_peer(elsewhere).await.unwrap();
    assert!(
        added
            .unproven
            .unwrap()
            .contains("query capabilities --peer work")
    );
    assert_eq!(added.endpoint_url, format!("https://{gone}"));
    assert!(asking.route("work").is_some());
}

#[tokio::test]
async fn a_replaced_token_renews_the_same_peer() {
    let (serving, asking) = (Serving::new().await, Asking::new().await);
    let grant = serving.grant().await;
    asking
        .outbound
        .add_peer(order(&serving.url(grant).await))
        .await
        .unwrap();
    let before = asking.route("work").unwrap();
    let token = EnrollmentToken::draw().unwrap();
    let new = NewToken {
        grant,
        sha256: token.sha256(),
        prefix: token.prefix().to_owned(),
        expires_at: now().saturating_add(600_000),
    };
    let _ = serving.store.replace_token(&act(), new).await.unwrap();
    let url = enrollment_url(&serving.public_url, &token, &serving.pin);
    let added = asking.outbound.add_peer(order(&url)).await.unwrap();
    assert!(added.reenrolled);
    let after = asking.route("work").unwrap();
    assert_ne!(
        before.client.as_ref().unwrap().serial,
        after.client.as_ref().unwrap().serial
    );
    // The name stays with its grant: another one cannot take it.
    let other = serving.url(serving.grant().await).await;
    assert!(matches!(
        asking.outbound.add_peer(order(&other)).await,
        Err(AddPeerError::Store {
            cause: crate::store::StoreError::Conflict { .. },
            spent: true
        })
    ));
    assert_eq!(asking.store.list_peers().await.unwrap().len(), 1);
}

/// One request to the enrollment listener, written by hand.
async fn post(serving: &Serving, url: &str, body: &str) -> (u16, serde_json::Value) {
    let parsed = EnrollmentUrl::parse(url).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let config = certs::tls::pinned_client_config(serving.pin, Arc::clone(&clock)).unwrap();
    let client = PeerClient::new(parsed.listener.clone(), config, QUICK, clock);
    let question = Question {
        method: Method::POST,
        path: parsed.path().to_string(),
        body: Bytes::from(body.to_owned()),
        request_id: "r".to_owned(),
        trace: None,
        attempt: 1,
        repeatable: false,
    };
    let reply = client.ask(&question).await.unwrap();
    let status = reply.head.status.as_u16();
    let body = reply.body.collect(MAX_ANSWER).await.unwrap().unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn a_bad_request_is_400_and_does_not_spend_the_token() {
    let serving = Serving::new().await;
    let url = serving.url(serving.grant().await).await;
    let key = PrivateKey::generate_p256().unwrap();
    let good = json!({ "csrPem": key.csr_pem("work").unwrap() });
    let mut unknown = good.clone();
    if let Some(members) = unknown.as_object_mut() {
        members.insert("grantId".to_owned(), json!("x"));
    }
    for bad in [
        "{}".to_owned(),
        "not json".to_owned(),
        unknown.to_string(),
        json!({ "csrPem": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n" }).to_string(),
    ] {
        let (status, body) = post(&serving, &url, &bad).await;
        assert_eq!((status, body.pointer("/error/code")), (400, Some(&json!("invalid_request"))), "{bad}");
    }
    let (status, _) = post(
        &serving,
        &url,
        &json!({ "csrPem": "x".repeat(40_000) }).to_string(),
    )
    .await;
    assert_eq!(status, 413);
    let (status, body) = post(&serving, &url, &good.to_string()).await;
    assert_eq!(status, 200);
    for part in [
        "certPem",
        "certChainPem",
        "trustBundlePem",
        "grantId",
        "subjectUserId",
        "endpointUrl",
        "commonName",
    ] {
        assert!(
            body.get(part).is_some_and(|value| value.is_string()),
            "{part}"
        );
    }
    let (status, body) = post(&serving, &url, &good.to_string()).await;
    assert_eq!(
        (status, body.pointer("/error/details/reason")),
        (410, Some(&json!("token_used")))
    );
}
