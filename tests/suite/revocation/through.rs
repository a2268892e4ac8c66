//! What an operator of the serving side takes away, as it is met on every way to it: a row for each kind of act.
//!
//! Invariant: the same certificate is held by clients of the test's own and by an asking side, so that every way is one to the
//! same grant.

use std::sync::atomic::Ordering;

use proxy::admin::{ForgetUser, ImportPeers, RevokeCertificate};
use reference_gateway::plan;
use rustls::AlertDescription;
use serde_json::Value;
use tests::grants::BASE;
use tests::tickets::{Tickets, collect_tickets, remembering};
use tests::{Home, RawConnection, Response, tls};

use super::support::acts::scope_of;
use super::support::upstream::{SECRET, sealed};
use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    GrantRevoke,
    CertRevoke,
    PeerSuspend,
    PeerRemove,
    GrantEdit,
    PolicyReload,
    /// Last: it ends the grants of the user to every peer.
    UserForget,
}

const KINDS: [Kind; 7] = [
    Kind::GrantRevoke,
    Kind::CertRevoke,
    Kind::PeerSuspend,
    Kind::PeerRemove,
    Kind::GrantEdit,
    Kind::PolicyReload,
    Kind::UserForget,
];

/// What is met afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    /// Refused for this, at the handshake for a revoked certificate.
    Revoked(&'static str),
    /// Refused until that is lifted.
    Suspended,
    /// Answered with fewer rows.
    Narrowed,
}

impl Kind {
    const fn met(self) -> Met {
        match self {
            Self::GrantRevoke | Self::PeerRemove | Self::UserForget => {
                Met::Revoked("grant_revoked")
            }
            Self::CertRevoke => Met::Revoked("certificate_revoked"),
            Self::PeerSuspend => Met::Suspended,
            Self::GrantEdit | Self::PolicyReload => Met::Narrowed,
        }
    }

    async fn act(self, world: &World, peer: &str, holder: &Holder) {
        let (control, actor) = (world.control(), operator());
        match self {
            Self::GrantRevoke => {
                let _applied = world.revoke(holder.grant).await;
            }
            Self::CertRevoke => {
                let serial = holder.minted.serial();
                let why = RevokeCertificate::default();
                let revoked = control.revoke_certificate(&actor, serial.as_str(), why);
                assert_eq!(revoked.await.unwrap().left, 0);
            }
            Self::PeerSuspend => {
                let _applied = world.suspend(peer).await;
            }
            Self::PeerRemove => {
                let _applied = world.remove(peer).await;
            }
            Self::GrantEdit => {
                let _applied = world.edit(holder.grant, scope_of(NARROWED)).await;
            }
            Self::PolicyReload => {
                world.write_policy(&narrowed(peer));
                let _applied = control.reload_policy(&actor).await.unwrap();
            }
            Self::UserForget => {
                let request = ForgetUser { reason: None };
                let forgotten = control.forget_user(&actor, plan::AMIRA, request);
                let _applied = forgotten.await.unwrap();
            }
        }
    }
}

const LIST: &str = "/list/tasks";

fn question() -> Value {
    json!({"params": {"limit": 10_000}})
}

/// Gives the asking side the holder's own certificate and key.
async fn hand_over(world: &World, home: &Home, peer: &str, holder: &Holder) {
    let order: ImportPeers = serde_json::from_value(json!({
        "rows": [{
            "common_name": peer,
            "state": "active",
            "endpoint_url": format!("https://{}", world.federation()),
            "cert_pem": holder.minted.chain_pem(),
            "client_key_pem": sealed(SECRET, &holder.minted.private_key().to_pem()),
        }],
        "secret": SECRET,
        "user": "alex",
        "trust_root_pem": world.ca.root_pem(),
    }))
    .unwrap();
    let view = home.control().import_peers(&operator(), order).await;
    assert_eq!(view.unwrap().imported.len(), 1);
}

/// Checks an answer that came; `refusal` are the reasons that may be given.
fn check(what: &str, met: Met, answer: &Response, refusal: &[&str]) {
    let said = answer.text();
    match met {
        Met::Revoked(_) | Met::Suspended => {
            assert_eq!(answer.status, 403, "{what}: {said}");
            let reason = answer.reason().unwrap();
            assert!(refusal.contains(&reason.as_str()), "{what}: {said}");
        }
        Met::Narrowed => {
            assert_eq!(answer.status, 200, "{what}: {said}");
            assert_eq!(answer.items().len(), NARROWED, "{what}");
        }
    }
}

/// State of the credential and of the peer, as the asking side has them.
async fn state(home: &Home, peer: &str) -> (String, String) {
    let peers = home.control().list_peers().await.unwrap();
    let peers = serde_json::to_value(peers).unwrap();
    let mut peers = peers.as_array().unwrap().iter();
    let peer = peers.find(|one| one["name"] == peer).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&peer["credentials"][0]["state"]), text(&peer["state"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_act_is_met_on_every_way_and_only_a_revocation_is_remembered_as_one() {
    let world = World::start().await;
    // With a cache: what it holds must not outlive the act either.
    let home = Home::start_with("[cache]\nmax_bytes = 10000000\n").await;
    let session = home.session("alex").await;
    let path = format!("{BASE}{LIST}");
    let body = question().to_string();
    for kind in KINDS {
        let peer = format!("{kind:?}").to_lowercase();
        let holder = member(&world, &peer).await;
        hand_over(&world, &home, &peer, &holder).await;
        let through = async || home.ask(&session, &peer, LIST, &question()).await;
        let mut kept = Vec::new();
        for wire in Wire::BOTH {
            let mut client = world.client(wire, &holder.minted).await;
            let answer = client.post(&path, &body).await.unwrap();
            assert!(answer.items().len() > NARROWED);
            kept.push((wire, client));
        }
        let tickets = Tickets::new();
        let resuming = remembering(&world, Some(&holder.minted), &tickets);
        collect_tickets(&world, &resuming).await;
        for cached in [false, true] {
            let answer = through().await;
            assert_eq!(answer.status, 200, "{kind:?}: {}", answer.text());
            assert!(answer.items().len() > NARROWED);
            assert_eq!(answer.json()["_cached"] == true, cached, "{kind:?}");
        }

        kind.act(&world, &peer, &holder).await;

        let met = kind.met();
        let reasons: &[&str] = match met {
            Met::Revoked(reason) => &[reason, "certificate_revoked"],
            Met::Suspended => &["peer_suspended"],
            Met::Narrowed => &[],
        };
        // Through the asking side first, so that it finds out by itself; and again, on what it has learned.
        for again in ["first", "again"] {
            let what = format!("{kind:?}, through, {again}");
            // It may have heard of it on a connection that it keeps, before it is asked.
            let reasons = match met {
                Met::Revoked(_) => &["grant_revoked", "certificate_revoked"],
                _ => reasons,
            };
            check(&what, met, &through().await, reasons);
        }
        for (wire, client) in &mut kept {
            let what = format!("{kind:?}, kept, {wire:?}");
            match client.post(&path, &body).await {
                Ok(answer) => check(&what, met, &answer, reasons),
                // One that was idle may be closed instead of told, and HTTP/2 is cut after any answer of the old revision:
                // what of that has reached the kernel is not known.
                Err(error) => {
                    let may_end = met != Met::Narrowed || *wire == Wire::H2;
                    assert!(may_end, "{what}: {error}");
                }
            }
        }
        let before = tickets.offered.load(Ordering::SeqCst);
        if let Met::Revoked(_) = met {
            for wire in Wire::BOTH {
                let fresh = tls::client(Some(&holder.minted), world.root(), &[wire.alpn()]);
                let alert = tls::refusal(world.federation(), fresh).await;
                assert_eq!(alert, AlertDescription::CertificateRevoked, "{kind:?}");
            }
            let alert = tls::refusal(world.federation(), Arc::clone(&resuming)).await;
            assert_eq!(alert, AlertDescription::CertificateRevoked, "{kind:?}");
        } else {
            for wire in Wire::BOTH {
                let mut fresh = world.client(wire, &holder.minted).await;
                let answer = fresh.post(&path, &body).await.unwrap();
                check(&format!("{kind:?}, fresh, {wire:?}"), met, &answer, reasons);
            }
            let resumed = RawConnection::open(world.federation(), Arc::clone(&resuming));
            let mut resumed = resumed.await.unwrap();
            resumed.post(&path, &body).await.unwrap();
            let answer = resumed.response().await.unwrap();
            check(&format!("{kind:?}, resumed"), met, &answer, reasons);
        }
        let offered = tickets.offered.load(Ordering::SeqCst);
        assert_eq!(offered, before + 1, "{kind:?}: the ticket was tried");

        let expected = match met {
            Met::Revoked(_) => ("revoked", "revoked"),
            Met::Suspended => ("suspended", "active"),
            Met::Narrowed => ("active", "active"),
        };
        let found = state(&home, &peer).await;
        assert_eq!((found.0.as_str(), found.1.as_str()), expected, "{kind:?}");
        match kind {
            Kind::PeerSuspend => {
                let _lifted = world.resume(&peer).await;
                assert_eq!(through().await.status, 200, "{kind:?}, lifted");
                assert_eq!(state(&home, &peer).await.0, "active", "{kind:?}");
            }
            Kind::PolicyReload => {
                world.reload_policy(POLICY).await;
                let answer = through().await;
                assert!(answer.items().len() > NARROWED, "{kind:?}, lifted");
            }
            _ => {}
        }
    }
    home.stop().await;
    world.stop().await;
}
