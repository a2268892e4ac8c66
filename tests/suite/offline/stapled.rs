//! What a server staples to its certificate, as a whole asking side meets it.
//!
//! Invariant: only an answer that is good is as good as none; whatever else is stapled, the peer is not asked, and that says
//! nothing about our grant.

use std::path::Path;
use std::process::Command;

use certs::ca::EmbeddedCa;
use certs::crl::RevocationReason;
use certs::ocsp::{OcspQuery, OcspRefusal, OcspStatus, OcspTimes};
use certs::testing::{Mint, Minted, TestCa};
use certs::trust::certificate_to_pem;

use super::mistaken::{Scene, answer, say};
use super::stage::{self, After, End, Play};
use super::*;

const UNTRUSTED: &str = "server_certificate_untrusted";
const HOUR: i64 = 3_600;
const REVOKED: OcspStatus = OcspStatus::Revoked {
    at: 1_700_000_000,
    reason: RevocationReason::KeyCompromise,
};
/// The feature extension of RFC 7633, and its value for status_request.
const FEATURE: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 24];
const MUST_STAPLE: [u8; 5] = [0x30, 3, 2, 1, 5];

/// What a client of OpenSSL's would ask about `leaf`.
fn query(dir: &Path, issuer: &TestCa, leaf: &Minted) -> OcspQuery {
    let file = |name: &str| dir.join(name);
    std::fs::write(file("issuer"), issuer.root_pem()).unwrap();
    std::fs::write(file("leaf"), certificate_to_pem(leaf.leaf())).unwrap();
    let done = Command::new("openssl")
        .args(["ocsp", "-no_nonce", "-issuer"])
        .arg(file("issuer"))
        .arg("-cert")
        .arg(file("leaf"))
        .arg("-reqout")
        .arg(file("request"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    OcspQuery::decode(&std::fs::read(file("request")).unwrap()).unwrap()
}

/// An answer of `signer`, looked up `from` seconds from now and good until `until`.
fn signed(
    signer: &TestCa,
    query: &OcspQuery,
    status: OcspStatus,
    from: i64,
    until: i64,
) -> Vec<u8> {
    let signer = EmbeddedCa::load(signer.root_der().clone(), &signer.private_key()).unwrap();
    let now = SystemClock.unix_seconds();
    let times = OcspTimes {
        this_update: now + from,
        next_update: now + until,
    };
    signer.sign_ocsp(query, &[status], times).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_staples_anything_but_good_is_not_asked() {
    let mut scene = Scene::start().await;
    scene.works().await;
    let dir = tempfile::tempdir().unwrap();
    let ca = &scene.world.ca;
    let server = || Mint::server(&["127.0.0.1"]);
    let peer = server().sign_with(ca);
    let other = server().sign_with(ca);
    let demanding = server()
        .with_extension_raw(&FEATURE, &MUST_STAPLE)
        .sign_with(ca);
    // Another authority, and one that takes the name of the peer's.
    let (stranger, forger) = (TestCa::root("another"), TestCa::root("work authority"));
    let about = query(dir.path(), ca, &peer);
    let about_demanding = query(dir.path(), ca, &demanding);
    let about_other = query(dir.path(), ca, &other);
    let good = OcspStatus::Good;
    let rows: Vec<(&str, &Minted, Vec<u8>, bool)> = vec![
        ("nothing", &peer, Vec::new(), true),
        ("good", &peer, signed(ca, &about, good, -10, HOUR), true),
        (
            "good, and demanded",
            &demanding,
            signed(ca, &about_demanding, good, -10, HOUR),
            true,
        ),
        ("nothing, and demanded", &demanding, Vec::new(), false),
        (
            "revoked",
            &peer,
            signed(ca, &about, REVOKED, -10, HOUR),
            false,
        ),
        (
            "unknown",
            &peer,
            signed(ca, &about, OcspStatus::Unknown, -10, HOUR),
            false,
        ),
        (
            "out of date",
            &peer,
            signed(ca, &about, good, -2 * HOUR, -HOUR),
            false,
        ),
        (
            "of the future",
            &peer,
            signed(ca, &about, good, HOUR, 2 * HOUR),
            false,
        ),
        (
            "of a stranger",
            &peer,
            signed(&stranger, &about, good, -10, HOUR),
            false,
        ),
        (
            "of a forger",
            &peer,
            signed(&forger, &about, good, -10, HOUR),
            false,
        ),
        (
            "about another certificate",
            &peer,
            signed(ca, &about_other, good, -10, HOUR),
            false,
        ),
        (
            "that the responder is busy",
            &peer,
            OcspRefusal::TryLater.to_der(),
            false,
        ),
        ("no answer at all", &peer, b"good".to_vec(), false),
    ];
    let said = answer(
        200,
        "application/json",
        r#"{"items":[],"_partial":false,"_truncated":false}"#,
    );
    for (what, minted, staple, is_asked) in rows {
        let tls = stage::stapling(minted, staple);
        let play = say(Some(&tls), After::Request, said.as_str(), End::Closed);
        scene.stage.play(play).await;
        let answer = scene.ask("work").await;
        let refused = answer.reason().as_deref() == Some(UNTRUSTED);
        assert_eq!(!refused, is_asked, "{what}: {}", answer.text());
        assert_eq!(answer.status == 200, is_asked, "{what}: {}", answer.text());
        let (credential, state) = scene.state("work").await;
        assert_eq!(credential, "active", "{what}");
        assert_ne!(state, "revoked", "{what}");
    }
    scene.stage.play(Play::Relay).await;
    scene.works().await;
    scene.stop().await;
}
