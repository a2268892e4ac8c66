//! Lists good and bad, what looks them up, and our own list as OpenSSL reads it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod second_opinion;

use std::process::Command;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::rand::SystemRandom;
use openssl::x509::{X509, X509Crl};
use rcgen::KeyUsagePurpose;
use uuid::Uuid;

use super::freshness::Freshness;
use super::publish::{CrlIssue, Revoked};
use super::*;
use crate::ca::EmbeddedCa;
use crate::clock::{Clock, SystemClock, unix_time};
use crate::testing::{CRL_NUMBER, CrlMint, Mint, TestCa, crl_pem, tlv};
use crate::trust::RevokedSet;
use crate::verify::{ChainError, verify_listed};

static CA: LazyLock<TestCa> = LazyLock::new(|| TestCa::root("the authority"));
const DELTA: [u8; 3] = [0x55, 0x1d, 27];
const DISTRIBUTION: [u8; 3] = [0x55, 0x1d, 28];
const DAY: i64 = 86_400;

fn now() -> i64 {
    SystemClock.unix_seconds()
}

fn serial(n: u8) -> Serial {
    Serial::decode(&[0x40, n, 7]).unwrap()
}

fn issuers() -> CrlIssuers {
    CrlIssuers::new(&CA.anchors(1), &[], now())
}

fn read(der: &[u8]) -> Result<RevocationList, CrlError> {
    RevocationList::verify(der, &issuers(), now())
}

fn list(mint: &CrlMint) -> Arc<RevocationList> {
    Arc::new(read(&mint.sign_with(&CA)).unwrap())
}

#[test]
fn a_good_list_says_who_was_revoked_when_and_why() {
    let high = Serial::decode(&[0, 0xff, 1]).unwrap();
    let mint = CrlMint::number(300)
        .revoke(&serial(1))
        .revoke_for(&serial(2), 1)
        .revoke_for(&high, 6);
    let list = list(&mint);
    assert_eq!(list.number(), Some(CrlNumber::from(300)));
    assert_eq!(list.number().unwrap().to_string(), "300");
    assert_eq!(list.len(), 3);
    assert_eq!(
        list.find(&serial(1)).unwrap().reason,
        RevocationReason::Unspecified
    );
    assert_eq!(
        list.find(&serial(2)).unwrap().reason,
        RevocationReason::KeyCompromise
    );
    assert_eq!(
        list.find(&high).unwrap().reason,
        RevocationReason::CertificateHold
    );
    assert_eq!(list.find(&serial(2)).unwrap().at, list.this_update());
    assert_eq!(list.find(&serial(3)), None);
    // Nor does it say so of another number with the same beginning.
    assert_eq!(list.find(&Serial::decode(&[0x40, 1, 7, 0]).unwrap()), None);
}

#[test]
fn each_defect_refuses_the_whole_list_by_name() {
    let other = TestCa::root("another authority");
    let forger = TestCa::root("the authority");
    let good = CrlMint::number(1).revoke(&serial(1));
    let is = |result: Result<RevocationList, CrlError>, name: &str| match result {
        Err(error) => {
            let found = format!("{error:?}");
            assert!(found.starts_with(name), "{name}: {found}");
        }
        Ok(list) => panic!("{name}: {list:?}"),
    };
    is(read(&good.sign_with(&other)), "Foreign");
    is(read(&good.sign_with(&forger)), "BadSignature");
    is(read(&good.sign_as(&CA, &other)), "Foreign");
    is(
        read(&good.clone().window(now() - 5, None).sign_with(&CA)),
        "NoNextUpdate",
    );
    let future = good.clone().window(now() + 120, now() + DAY);
    is(read(&future.sign_with(&CA)), "Future");
    let delta = good.clone().extension(&DELTA, true, &tlv(0x02, &[1]));
    is(read(&delta.sign_with(&CA)), "Unsupported");
    let delta = good.clone().extension(&DELTA, false, &tlv(0x02, &[1]));
    is(read(&delta.sign_with(&CA)), "Unsupported");
    for (tag, value) in [(0x82, 0xff), (0x84, 0xff), (0x85, 0xff)] {
        let point = tlv(0x30, &tlv(tag, &[value]));
        let part = good.clone().extension(&DISTRIBUTION, true, &point);
        is(read(&part.sign_with(&CA)), "Unsupported");
    }
    let some = tlv(0x30, &tlv(0x83, &[6, 0x40]));
    let some = good.clone().extension(&DISTRIBUTION, true, &some);
    is(read(&some.sign_with(&CA)), "Unsupported");
    let unknown = good.clone().extension(&[0x2a, 3, 4], true, &[5, 0]);
    is(read(&unknown.sign_with(&CA)), "Unsupported");
    let twice = good.clone().extension(&CRL_NUMBER, false, &tlv(0x02, &[1]));
    is(read(&twice.sign_with(&CA)), "Malformed");
    for number in [
        &[0x02, 1, 0x80][..],
        &[0x02, 0],
        &tlv(0x02, &[1; 21]),
        &[0x04, 1, 1],
    ] {
        let odd = good
            .clone()
            .without_number()
            .extension(&CRL_NUMBER, false, number);
        is(read(&odd.sign_with(&CA)), "Malformed");
    }
    let taken_back = CrlMint::number(1).revoke_for(&serial(1), 8);
    is(read(&taken_back.sign_with(&CA)), "Unsupported");
    let of_others = tlv(
        0x30,
        &[
            tlv(0x06, &[0x55, 0x1d, 29]),
            vec![1, 1, 0xff],
            tlv(0x04, &[0x30, 0]),
        ]
        .concat(),
    );
    is(
        read(
            &CrlMint::number(1)
                .revoke_with(&serial(1), &of_others)
                .sign_with(&CA),
        ),
        "Unsupported",
    );
    let critical = tlv(
        0x30,
        &[
            tlv(0x06, &[0x2a, 3, 4]),
            vec![1, 1, 0xff],
            tlv(0x04, &[5, 0]),
        ]
        .concat(),
    );
    is(
        read(
            &CrlMint::number(1)
                .revoke_with(&serial(1), &critical)
                .sign_with(&CA),
        ),
        "Unsupported",
    );
    for version in [&[2, 1, 0][..], &[2, 1, 2], &[]] {
        is(
            read(&good.clone().version(version).sign_with(&CA)),
            "Malformed",
        );
    }
    is(
        read(&good.clone().trailing(&[5, 0]).sign_with(&CA)),
        "Malformed",
    );
    // A list of entries that breaks off in the middle must not read as none.
    let whole = good.sign_with(&CA);
    for cut in [1, 10, whole.len() / 2, whole.len() - 1] {
        is(read(&whole[..cut]), "Malformed");
    }
    is(read(&[whole.as_slice(), &[0]].concat()), "Malformed");
    is(read(b""), "Malformed");
    is(read(CA.der()), "Malformed");
}

#[test]
fn a_flipped_bit_anywhere_refuses_the_list_or_changes_nothing_it_says() {
    let whole = CrlMint::number(1).revoke(&serial(1)).sign_with(&CA);
    let good = read(&whole).unwrap();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bent = whole.clone();
            bent[at] ^= 1 << bit;
            if let Ok(list) = read(&bent) {
                assert_eq!(list.revoked, good.revoked, "octet {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn an_issuer_signs_lists_only_where_it_may_and_leads_to_an_anchor() {
    let may_not = TestCa::root_with("no lists", |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    let of = |ca: &TestCa, issuers: &CrlIssuers| {
        RevocationList::verify(&CrlMint::number(1).sign_with(ca), issuers, now()).map(drop)
    };
    let issuers = CrlIssuers::new(&may_not.anchors(1), &[], now());
    assert_eq!(of(&may_not, &issuers), Err(CrlError::IssuerMayNotSign));

    let upper = CA.intermediate("upper");
    let lower = upper.intermediate("lower");
    let leaf_like = TestCa::root("the authority").intermediate("stranger");
    let others = [
        lower.der().clone(),
        leaf_like.der().clone(),
        upper.der().clone(),
    ];
    let issuers = CrlIssuers::new(&CA.anchors(1), &others, now());
    assert_eq!(
        issuers.certificates().count(),
        3,
        "the stranger's leads nowhere"
    );
    assert_eq!(of(&lower, &issuers), Ok(()));
    assert_eq!(of(&upper, &issuers), Ok(()));
    assert!(matches!(
        of(&leaf_like, &issuers),
        Err(CrlError::Foreign { .. })
    ));
    // Without the one in between nothing leads from the lower one to the anchor.
    let issuers = CrlIssuers::new(&CA.anchors(1), &[lower.der().clone()], now());
    assert!(matches!(
        of(&lower, &issuers),
        Err(CrlError::Foreign { .. })
    ));
    // Nor does one that is over.
    let over = CrlIssuers::new(&CA.anchors(1), &others, now() + 11 * 365 * DAY);
    assert!(matches!(of(&CA, &over), Err(CrlError::Foreign { .. })));
}

#[test]
fn a_text_of_lists_is_all_of_them_or_none() {
    let (one, two) = (
        CrlMint::number(1).sign_with(&CA),
        CrlMint::number(2).sign_with(&CA),
    );
    let both = vec![one.clone(), two.clone()];
    assert_eq!(split(&one), Ok(vec![one.clone()]));
    assert_eq!(split(&both.concat()), Ok(both.clone()));
    let pem = format!("# ours\n{}\n# theirs\n{}", crl_pem(&one), crl_pem(&two));
    assert_eq!(split(pem.as_bytes()), Ok(both));
    assert_eq!(split(b""), Err(CrlError::Empty));
    assert_eq!(split(b" \n\n"), Err(CrlError::Empty));
    let bent = [
        b"no list at all".to_vec(),
        vec![0xff; 100],
        vec![0; 100],
        one[..one.len() - 1].to_vec(),
        [one.as_slice(), b"\n"].concat(),
        [one.as_slice(), pem.as_bytes()].concat(),
        pem.replacen("END X509 CRL", "END X509 CRK", 1).into_bytes(),
        pem.replacen("BEGIN X509 CRL", "BEGIN X509 CRK", 1)
            .into_bytes(),
        pem.replacen("X509 CRL", "CERTIFICATE", 2).into_bytes(),
        pem.as_bytes()[..pem.len() - 40].to_vec(),
        CA.root_pem().into_bytes(),
        format!("{pem}{}", CA.root_pem()).into_bytes(),
    ];
    for text in bent {
        let shown = String::from_utf8_lossy(&text).into_owned();
        assert!(
            matches!(split(&text), Err(CrlError::Malformed { .. })),
            "{shown}"
        );
    }
    assert_eq!(split(&vec![0x30; MAX_BYTES + 1]), Err(CrlError::TooLarge));
}

#[test]
fn a_list_does_not_go_backwards() {
    let at = |number: u64, age: i64| {
        list(&CrlMint::number(number).window(now() - age, now() + DAY - age))
    };
    let bare = |age: i64| {
        list(
            &CrlMint::number(0)
                .without_number()
                .window(now() - age, now() + DAY),
        )
    };
    let (five, older, six) = (at(5, 100), at(4, 50), at(6, 200));
    assert_eq!(six.may_replace(&five), Ok(()));
    assert_eq!(five.may_replace(&five), Ok(()));
    let refused = older.may_replace(&five).unwrap_err();
    assert!(refused.to_string().contains("number 4"), "{refused}");
    // Without numbers, or with the same, time decides.
    assert_eq!(at(5, 50).may_replace(&five), Ok(()));
    assert!(at(5, 150).may_replace(&five).is_err());
    assert_eq!(bare(10).may_replace(&bare(20)), Ok(()));
    assert!(bare(20).may_replace(&bare(10)).is_err());
    assert!(bare(200).may_replace(&five).is_err());
    // Another issuer's says nothing about it.
    let other = TestCa::root("another authority");
    let issuers = CrlIssuers::new(&other.anchors(1), &[], now());
    let first = RevocationList::verify(&CrlMint::number(1).sign_with(&other), &issuers, now());
    assert_eq!(first.unwrap().may_replace(&five), Ok(()));
}

#[test]
fn a_list_is_fresh_then_late_then_too_old() {
    for (at, expected) in [
        (0, "fresh"),
        (100, "fresh"),
        (101, "late"),
        (130, "late"),
        (131, "too_old"),
        (i64::MAX, "too_old"),
    ] {
        let state = Freshness::of(100, 30, at);
        assert_eq!(state.as_str(), expected, "{at}");
        assert_eq!(state.counts(), expected != "too_old");
    }
    assert_eq!(Freshness::of(100, 0, 101).as_str(), "too_old");
    assert!(!Freshness::Missing.counts());
}

#[test]
fn a_set_refuses_what_is_listed_and_what_nobody_can_vouch_for() {
    let issuer = list(&CrlMint::number(1)).issuer();
    let other = IssuerKey::of(b"somebody else");
    let terms = |required| CrlTerms {
        required,
        grace: 30,
    };
    let end = now() + 100;
    let list = list(
        &CrlMint::number(1)
            .window(now() - 50, end)
            .revoke(&serial(1)),
    );
    for required in [false, true] {
        let set = CrlSet::new(terms(required)).with(Arc::clone(&list));
        let revoked = set.check(&issuer, &serial(1), end + 1_000);
        assert!(
            matches!(revoked, Err(CrlRefusal::Revoked(_))),
            "old lists still list"
        );
        assert_eq!(set.check(&issuer, &serial(2), end), Ok(()));
        assert_eq!(set.check(&issuer, &serial(2), end + 30), Ok(()));
        let too_old = Err(CrlRefusal::TooOld { since: end });
        assert_eq!(set.check(&issuer, &serial(2), end + 31), too_old);
        // The same serial number of another issuer is another certificate, and the list does not cover it.
        let elsewhere = set.check(&other, &serial(1), end);
        assert_eq!(elsewhere.is_ok(), !required);
        if required {
            assert_eq!(elsewhere, Err(CrlRefusal::Missing));
        }
        assert_eq!(set.check_listed(&other, &serial(1)), Ok(()));
    }
    let ours = CrlSet::new(terms(true)).with_ours(list);
    assert_eq!(ours.check(&issuer, &serial(2), end + 1_000), Ok(()));
    assert!(ours.check(&issuer, &serial(1), end + 1_000).is_err());
}

#[test]
fn every_list_of_an_issuer_counts_and_the_newest_says_how_old_they_are() {
    let old = list(
        &CrlMint::number(1)
            .window(now() - DAY, now() - 100)
            .revoke(&serial(1)),
    );
    let new = list(&CrlMint::number(2).revoke(&serial(2)));
    let issuer = new.issuer();
    let terms = CrlTerms {
        required: true,
        grace: 0,
    };
    let set = CrlSet::new(terms).with(new).with(old);
    for listed in [1, 2] {
        assert!(set.check(&issuer, &serial(listed), now()).is_err());
    }
    assert_eq!(set.check(&issuer, &serial(3), now()), Ok(()));
}

#[test]
fn the_verifier_looks_up_the_leaf_and_what_is_above_it() {
    let middle = CA.intermediate("middle");
    let minted = Mint::client(Uuid::from_u128(1), Uuid::from_u128(2)).sign_with(&middle);
    let (anchors, rows) = (CA.anchors(1), RevokedSet::default());
    let verify =
        |set: &CrlSet| verify_listed(&minted.chain, &anchors, &rows, Some(set), unix_time(now()));
    let others = [middle.der().clone()];
    let issuers = CrlIssuers::new(&anchors, &others, now());
    let of = |ca: &TestCa, mint: CrlMint| {
        let der = mint.sign_with(ca);
        Arc::new(RevocationList::verify(&der, &issuers, now()).unwrap())
    };
    let required = CrlTerms {
        required: true,
        grace: 0,
    };
    let none = CrlSet::new(required);
    assert_eq!(verify(&CrlSet::default()), Ok(()));
    assert_eq!(verify(&none), Err(ChainError::NoRevocationList));
    // The root's own list does not cover what the intermediate has issued.
    let roots = none.clone().with(of(&CA, CrlMint::number(1)));
    assert_eq!(verify(&roots), Err(ChainError::NoRevocationList));
    let both = roots.with(of(&middle, CrlMint::number(1)));
    assert_eq!(verify(&both), Ok(()));
    let leaf = of(&middle, CrlMint::number(2).revoke(&minted.serial()));
    assert_eq!(verify(&both.clone().with(leaf)), Err(ChainError::Revoked));
    let (_, above) = identity::issued_by(middle.der()).unwrap();
    let above = of(&CA, CrlMint::number(2).revoke(&above));
    assert_eq!(verify(&both.with(above)), Err(ChainError::Revoked));
    let old = of(&middle, CrlMint::number(1).window(now() - DAY, now() - 1));
    let since = now() - 1;
    let error = verify(&none.with(old)).unwrap_err();
    assert!(
        matches!(error, ChainError::RevocationListTooOld { since: said } if (said - since).abs() < 3)
    );
}

fn embedded() -> EmbeddedCa {
    let material = EmbeddedCa::generate("work root", now(), &SystemRandom::new()).unwrap();
    EmbeddedCa::load(material.root, &material.key).unwrap()
}

#[test]
fn our_own_list_is_what_openssl_and_we_read() {
    let ca = embedded();
    let root = X509::from_der(ca.root()).unwrap();
    let anchors = crate::trust::TrustAnchors::new(1, vec![ca.root().clone()]).unwrap();
    let issuers = CrlIssuers::new(&anchors, &[], now());
    let mut revoked: Vec<Revoked> = RevocationReason::ALL
        .into_iter()
        .zip(1..)
        .map(|(reason, n)| Revoked {
            serial: serial(n),
            at: now() - 5,
            reason,
        })
        .collect();
    let high = Serial::decode(&[0, 0xff, 1]).unwrap();
    revoked.push(Revoked {
        serial: high.clone(),
        at: now(),
        reason: RevocationReason::Superseded,
    });
    for (number, listed) in [(1, vec![]), (0x80, revoked.clone()), (u64::MAX, revoked)] {
        let issue = CrlIssue {
            number,
            now: now(),
            revoked: listed.clone(),
        };
        let der = ca.sign_crl(&issue).unwrap();
        let theirs = X509Crl::from_der(&der).unwrap();
        assert!(theirs.verify(&root.public_key().unwrap()).unwrap());
        let count = theirs
            .get_revoked()
            .map_or(0, openssl::stack::StackRef::len);
        assert_eq!(count, listed.len());
        let read = RevocationList::verify(&der, &issuers, now()).unwrap();
        assert_eq!(read.number(), Some(CrlNumber::from(number)));
        assert_eq!(read.next_update() - read.this_update(), 24 * 3_600);
        assert_eq!(read.len(), listed.len());
        for one in &listed {
            let entry = RevokedEntry {
                at: one.at,
                reason: one.reason,
            };
            assert_eq!(read.find(&one.serial), Some(entry));
        }
        // As the command reads it: its words for number, authority key and reasons.
        let dir = tempfile::tempdir().unwrap();
        let (list, anchor) = (dir.path().join("list"), dir.path().join("root"));
        std::fs::write(&list, &der).unwrap();
        std::fs::write(&anchor, crate::trust::certificate_to_pem(ca.root())).unwrap();
        let said = Command::new("openssl")
            .args([
                "crl",
                "-inform",
                "DER",
                "-noout",
                "-text",
                "-crlnumber",
                "-CAfile",
            ])
            .arg(&anchor)
            .arg("-in")
            .arg(&list)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned()
            + &String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "{text}");
        assert!(text.contains("verify OK"), "{text}");
        assert!(
            text.contains(&format!("crlNumber=0x{}", hex_number(number))),
            "{text}"
        );
        assert!(text.contains("X509v3 Authority Key Identifier"), "{text}");
        if !listed.is_empty() {
            for words in [
                "Key Compromise",
                "Superseded",
                "Cessation Of Operation",
                "Privilege Withdrawn",
            ] {
                assert!(text.contains(words), "{words}: {text}");
            }
        }
    }
}

fn hex_number(number: u64) -> String {
    let text = format!("{number:X}");
    if text.len() % 2 == 0 {
        text
    } else {
        format!("0{text}")
    }
}

#[test]
fn client_certificates_say_where_revocations_are_published() {
    use crate::ca::embedded::StatusUrls;
    use crate::ca::{CLIENT_LIFETIME, CertificateAuthority as _, ClientIssue};
    use crate::{PrivateKey, VerifiedCsr};
    let ca = embedded();
    let issue = || {
        let key = PrivateKey::generate_p256().unwrap();
        let csr = VerifiedCsr::parse(&key.csr_pem("peer").unwrap()).unwrap();
        let asked = ClientIssue {
            id: Uuid::from_u128(1),
            csr,
            grant: Uuid::from_u128(2),
            subject: Uuid::from_u128(3),
            lifetime: CLIENT_LIFETIME,
            not_after_cap: None,
            now: now(),
        };
        let mut issuing = ca.issue_client(asked);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match issuing.as_mut().poll(&mut context) {
            std::task::Poll::Ready(issued) => issued.unwrap(),
            std::task::Poll::Pending => panic!("the embedded authority waits for nobody"),
        }
    };
    let before = X509::from_der(issue().leaf()).unwrap();
    assert!(before.crl_distribution_points().is_none());
    let (crl, ocsp) = (
        "https://b.example:8444/api/federation/crl",
        "https://b.example:8444/api/federation/ocsp",
    );
    ca.say_where(Arc::new(StatusUrls {
        crl: crl.to_owned(),
        ocsp: ocsp.to_owned(),
    }));
    let after = X509::from_der(issue().leaf()).unwrap();
    let points = after.crl_distribution_points().unwrap();
    let name = points[0].distpoint().unwrap().fullname().unwrap();
    assert_eq!(name[0].uri(), Some(crl));
    let responders = after.ocsp_responders().unwrap();
    assert_eq!(responders.len(), 1);
    assert_eq!(&*responders[0], ocsp);
}
