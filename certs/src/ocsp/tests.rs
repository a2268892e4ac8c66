//! The responder as OpenSSL's client sees it, requests that are none, and stapled answers of every kind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::Path;
use std::process::Command;

use aws_lc_rs::rand::SystemRandom;
use tempfile::TempDir;
use uuid::Uuid;

use super::stapled::{PathIssuer, StapledError, verify};
use super::*;
use crate::ca::EmbeddedCa;
use crate::clock::{Clock, SystemClock};
use crate::identity;
use crate::testing::{ExtendedKeyUsagePurpose, Mint, Minted, TestCa, tlv};
use crate::trust::certificate_to_pem;

const DAY: i64 = 86_400;

fn now() -> i64 {
    SystemClock.unix_seconds()
}

/// An authority of the product over the key of one for tests, which mints what the product would not.
struct Side {
    test: TestCa,
    ca: EmbeddedCa,
    dir: TempDir,
}

impl Side {
    fn new(name: &str) -> Self {
        let test = TestCa::root(name);
        let ca = EmbeddedCa::load(test.root_der().clone(), &test.private_key()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("root"), test.root_pem()).unwrap();
        Self { test, ca, dir }
    }

    fn client(&self) -> Minted {
        Mint::client(Uuid::from_u128(1), Uuid::from_u128(2)).sign_with(&self.test)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn issuer(&self) -> PathIssuer {
        let root = identity::parse(self.test.root_der()).unwrap();
        let key = der::asn1::AnyRef::try_from(root.public_key().raw).unwrap();
        PathIssuer {
            name: root.subject().as_raw().to_vec(),
            key: key.value().to_vec(),
        }
    }

    /// A request of OpenSSL's for `leaves`.
    fn request(&self, leaves: &[&Minted], arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new("openssl");
        command
            .args(["ocsp", "-issuer"])
            .arg(self.path("root"))
            .args(arguments);
        for (n, leaf) in leaves.iter().enumerate() {
            let file = self.path(&format!("leaf{n}"));
            std::fs::write(&file, certificate_to_pem(leaf.leaf())).unwrap();
            command.arg("-cert").arg(file);
        }
        run(command.arg("-reqout").arg(self.path("request")));
        std::fs::read(self.path("request")).unwrap()
    }

    /// What OpenSSL makes of an answer to the last request.
    fn judge(&self, answer: &[u8], leaf: usize) -> String {
        self.judge_by("-sha1", answer, leaf)
    }

    fn judge_by(&self, hash: &str, answer: &[u8], leaf: usize) -> String {
        std::fs::write(self.path("answer"), answer).unwrap();
        run(Command::new("openssl")
            // Else a nonce of its own takes the place of the one that was asked with.
            .args(["ocsp", hash, "-no_nonce", "-issuer"])
            .arg(self.path("root"))
            .arg("-CAfile")
            .arg(self.path("root"))
            .arg("-cert")
            .arg(self.path(&format!("leaf{leaf}")))
            .arg("-reqin")
            .arg(self.path("request"))
            .arg("-respin")
            .arg(self.path("answer")))
    }

    fn answer(&self, request: &[u8], statuses: &[OcspStatus]) -> Vec<u8> {
        let query = OcspQuery::decode(request).unwrap();
        self.ca.sign_ocsp(&query, statuses, window()).unwrap()
    }
}

fn run(command: &mut Command) -> String {
    let done = command.output().unwrap();
    String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
}

fn window() -> OcspTimes {
    OcspTimes {
        this_update: now() - 10,
        next_update: now() + 3_600,
    }
}

const REVOKED: OcspStatus = OcspStatus::Revoked {
    at: 1_700_000_000,
    reason: RevocationReason::KeyCompromise,
};

#[test]
fn openssl_takes_each_answer_with_and_without_a_nonce_by_each_hash() {
    let side = Side::new("responder");
    let leaf = side.client();
    for hash in ["-sha1", "-sha256", "-sha384", "-sha512"] {
        for nonce in ["-nonce", "-no_nonce"] {
            let request = side.request(&[&leaf], &[nonce, hash]);
            let query = OcspQuery::decode(&request).unwrap();
            assert_eq!(query.has_nonce(), nonce == "-nonce");
            assert_eq!(side.ca.asked(&query).unwrap(), [Some(leaf.serial())]);
            for (status, word) in [
                (OcspStatus::Good, "good"),
                (REVOKED, "revoked"),
                (OcspStatus::Unknown, "unknown"),
            ] {
                let said = side.judge_by(hash, &side.answer(&request, &[status]), 0);
                assert!(
                    said.contains("Response verify OK"),
                    "{hash} {nonce}: {said}"
                );
                assert!(said.contains(&format!("leaf0: {word}")), "{said}");
                assert!(
                    !said.contains("WARNING") && !said.contains("rror"),
                    "{said}"
                );
                assert_eq!(said.contains("keyCompromise"), word == "revoked", "{said}");
            }
        }
    }
}

#[test]
fn several_certificates_are_answered_in_one_and_others_issuers_are_not() {
    let (side, other) = (Side::new("responder"), Side::new("another"));
    let (first, second) = (side.client(), side.client());
    let request = side.request(&[&first, &second], &["-no_nonce"]);
    let query = OcspQuery::decode(&request).unwrap();
    assert_eq!(
        side.ca.asked(&query).unwrap(),
        [Some(first.serial()), Some(second.serial())]
    );
    let answer = side.answer(&request, &[OcspStatus::Good, REVOKED]);
    assert!(side.judge(&answer, 0).contains("leaf0: good"));
    assert!(side.judge(&answer, 1).contains("leaf1: revoked"));
    // A status that is missing is unknown, never good.
    let short = side.answer(&request, &[OcspStatus::Good]);
    assert!(side.judge(&short, 1).contains("leaf1: unknown"));
    assert_eq!(other.ca.asked(&query), Err(OcspRefusal::Unauthorized));
    let unauthorized = other.judge_refusal(OcspRefusal::Unauthorized);
    assert!(unauthorized.contains("unauthorized (6)"), "{unauthorized}");
    let malformed = other.judge_refusal(OcspRefusal::Malformed);
    assert!(malformed.contains("malformedrequest (1)"), "{malformed}");
    let later = other.judge_refusal(OcspRefusal::TryLater);
    assert!(later.contains("trylater (3)"), "{later}");
}

impl Side {
    fn judge_refusal(&self, refusal: OcspRefusal) -> String {
        read_text(&self.path("refusal"), &refusal.to_der())
    }
}

fn read_text(path: &Path, der: &[u8]) -> String {
    std::fs::write(path, der).unwrap();
    run(Command::new("openssl")
        .args(["ocsp", "-noverify", "-resp_text", "-respin"])
        .arg(path))
}

/// A request for one certificate with these extensions of the whole (DER, one after another).
fn request_with(extensions: &[u8]) -> Vec<u8> {
    let algorithm = tlv(
        0x30,
        &[tlv(0x06, &[0x2b, 14, 3, 2, 26]), vec![5, 0]].concat(),
    );
    let hash = tlv(0x04, &[7; 20]);
    let id = tlv(
        0x30,
        &[algorithm, hash.clone(), hash, vec![2, 1, 5]].concat(),
    );
    let list = tlv(0x30, &tlv(0x30, &id));
    let tail = if extensions.is_empty() {
        Vec::new()
    } else {
        tlv(0xa2, &tlv(0x30, extensions))
    };
    tlv(0x30, &tlv(0x30, &[list, tail].concat()))
}

fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical {
        vec![1, 1, 0xff]
    } else {
        Vec::new()
    };
    tlv(0x30, &[tlv(0x06, oid), critical, tlv(0x04, value)].concat())
}

#[test]
fn what_is_no_request_is_malformed() {
    const NONCE: [u8; 9] = [0x2b, 6, 1, 5, 5, 7, 48, 1, 2];
    let nonce = |length: usize| extension(&NONCE, false, &tlv(0x04, &vec![1; length]));
    for good in [
        vec![],
        nonce(1),
        nonce(32),
        extension(&[0x2a, 3, 4], false, &[5, 0]),
    ] {
        assert!(
            OcspQuery::decode(&request_with(&good)).is_ok(),
            "{good:02x?}"
        );
    }
    let id = request_with(&[]);
    let bad = [
        vec![],
        b"GET /".to_vec(),
        id[..id.len() - 1].to_vec(),
        [id.as_slice(), &[0]].concat(),
        request_with(&nonce(0)),
        request_with(&nonce(33)),
        request_with(&extension(&NONCE, false, &[1, 2, 3])),
        request_with(&[nonce(8), nonce(8)].concat()),
        request_with(&extension(&[0x2a, 3, 4], true, &[5, 0])),
        // Nobody at all.
        tlv(0x30, &tlv(0x30, &tlv(0x30, &[]))),
        vec![0x30; MAX_REQUEST + 1],
    ];
    for request in bad {
        assert_eq!(
            OcspQuery::decode(&request),
            Err(OcspRefusal::Malformed),
            "{request:02x?}"
        );
    }
}

#[test]
fn a_stapled_answer_has_to_be_good() {
    let (side, other) = (Side::new("responder"), Side::new("another"));
    let server = Mint::server(&["b.example"]).sign_with(&side.test);
    let second = Mint::server(&["b.example"]).sign_with(&side.test);
    let request = side.request(&[&server], &["-no_nonce"]);
    let query = OcspQuery::decode(&request).unwrap();
    let sign = |status, from: i64, until: i64| {
        let times = OcspTimes {
            this_update: now() + from,
            next_update: now() + until,
        };
        side.ca.sign_ocsp(&query, &[status], times).unwrap()
    };
    let judge = |answer: &[u8]| verify(answer, server.leaf(), &side.issuer(), now());
    assert_eq!(judge(&sign(OcspStatus::Good, -10, 3_600)), Ok(()));
    assert_eq!(
        judge(&sign(REVOKED, -10, 3_600)),
        Err(StapledError::Revoked)
    );
    assert_eq!(
        judge(&sign(OcspStatus::Unknown, -10, 3_600)),
        Err(StapledError::Unknown)
    );
    assert_eq!(
        judge(&sign(OcspStatus::Good, -2 * DAY, -DAY)),
        Err(StapledError::TooOld)
    );
    assert!(matches!(
        judge(&sign(OcspStatus::Good, DAY, 2 * DAY)),
        Err(StapledError::Future { .. })
    ));
    let good = sign(OcspStatus::Good, -10, 3_600);
    assert_eq!(
        verify(&good, second.leaf(), &side.issuer(), now()),
        Err(StapledError::OtherCertificate)
    );
    assert_eq!(
        verify(&good, server.leaf(), &other.issuer(), now()),
        Err(StapledError::OtherCertificate)
    );
    // Signed by another authority that claims to answer for this one.
    let forged = other
        .ca
        .sign_ocsp(&query, &[OcspStatus::Good], window())
        .unwrap();
    assert_eq!(judge(&forged), Err(StapledError::BadSignature));
    assert_eq!(
        judge(&OcspRefusal::TryLater.to_der()),
        Err(StapledError::NoAnswer)
    );
    for broken in [
        &b"nonsense"[..],
        &good[..good.len() - 1],
        &[good.as_slice(), &[0]].concat(),
    ] {
        assert_eq!(judge(broken), Err(StapledError::Malformed));
    }
    for at in 0..good.len() {
        let mut bent = good.clone();
        bent[at] ^= 0x10;
        assert!(judge(&bent).is_err(), "octet {at}");
    }
}

#[test]
fn a_delegated_responder_needs_its_purpose_and_its_issuer() {
    let side = Side::new("responder");
    let server = Mint::server(&["b.example"]).sign_with(&side.test);
    let request = side.path("delegated-request");
    side.request(&[&server], &["-no_nonce"]);
    std::fs::copy(side.path("request"), &request).unwrap();
    let issuer = Side::new("another");
    let usage = [ExtendedKeyUsagePurpose::OcspSigning];
    let cases = [
        (&side.test, &usage[..], false, Ok(())),
        (
            &side.test,
            &[ExtendedKeyUsagePurpose::ServerAuth][..],
            false,
            Err(StapledError::BadSignature),
        ),
        (&side.test, &[][..], false, Err(StapledError::BadSignature)),
        (
            &side.test,
            &usage[..],
            true,
            Err(StapledError::BadSignature),
        ),
        (
            &issuer.test,
            &usage[..],
            false,
            Err(StapledError::BadSignature),
        ),
    ];
    for (ca, usages, expired, expected) in cases {
        let mint = Mint::server(&["ocsp.example"]).eku(usages);
        let mint = if expired { mint.expired() } else { mint };
        let responder = mint.sign_with(ca);
        std::fs::write(side.path("responder"), certificate_to_pem(responder.leaf())).unwrap();
        std::fs::write(side.path("key"), responder.key().to_pem().as_bytes()).unwrap();
        let serial = server.serial().as_str().to_uppercase();
        let index = format!("V\t400101000000Z\t\t{serial}\tunknown\t/CN=b.example\n");
        std::fs::write(side.path("index"), index).unwrap();
        let said = run(Command::new("openssl")
            .args(["ocsp", "-ndays", "1", "-index"])
            .arg(side.path("index"))
            .arg("-CA")
            .arg(side.path("root"))
            .arg("-rsigner")
            .arg(side.path("responder"))
            .arg("-rkey")
            .arg(side.path("key"))
            .arg("-reqin")
            .arg(&request)
            .arg("-respout")
            .arg(side.path("delegated")));
        let answer = std::fs::read(side.path("delegated")).unwrap_or_else(|_| panic!("{said}"));
        let judged = verify(&answer, server.leaf(), &side.issuer(), now());
        assert_eq!(judged, expected, "{usages:?} {expired}");
    }
}

#[test]
fn only_a_certificate_that_demands_an_answer_misses_it() {
    const FEATURE: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 24];
    let side = Side::new("responder");
    let judge = |feature: Option<&[u8]>| {
        let mint = Mint::server(&["b.example"]);
        let mint = match feature {
            Some(value) => mint.with_extension_raw(&FEATURE, value),
            None => mint,
        };
        verify(
            &[],
            mint.sign_with(&side.test).leaf(),
            &side.issuer(),
            now(),
        )
    };
    assert_eq!(judge(None), Ok(()));
    assert_eq!(judge(Some(&[0x30, 3, 2, 1, 17])), Ok(()));
    assert_eq!(judge(Some(&[0x30, 3, 2, 1, 5])), Err(StapledError::Missing));
    assert_eq!(
        judge(Some(&[0x30, 6, 2, 1, 17, 2, 1, 5])),
        Err(StapledError::Missing)
    );
    for odd in [&[5, 0][..], &[0x30, 3, 4, 1, 5], &[0x30, 4, 2, 1, 5]] {
        assert_eq!(judge(Some(odd)), Err(StapledError::Malformed), "{odd:02x?}");
    }
}

#[test]
fn the_authority_makes_a_new_root_that_answers_too() {
    let material = EmbeddedCa::generate("fresh", now(), &SystemRandom::new()).unwrap();
    let ca = EmbeddedCa::load(material.root, &material.key).unwrap();
    let query = OcspQuery::decode(&request_with(&[])).unwrap();
    assert_eq!(ca.asked(&query), Err(OcspRefusal::Unauthorized));
}
