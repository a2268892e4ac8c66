//! The hostile lists: one row for each, whether a certificate is let in under it, and what OpenSSL makes of the same chain
//! and lists (`openssl verify -crl_check`).
//!
//! Invariant: the two agree on every row but those that say why they do not; and those do differ.

use std::fs;
use std::process::Command;

use super::*;
use crate::testing::Minted;

/// What OpenSSL makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Second {
    /// The same.
    Agrees,
    /// The opposite: why.
    Differs(&'static str),
}

use Second::{Agrees, Differs};

/// A certificate of [`CA`], and the lists that are in the file, DER.
type Lists = fn(&Minted) -> Vec<Vec<u8>>;

fn good() -> CrlMint {
    CrlMint::number(7)
}

static OTHER: LazyLock<TestCa> = LazyLock::new(|| TestCa::root("another authority"));

const ROWS: [(&str, bool, Second, Lists); 20] = [
    ("a list that does not name it", true, Agrees, |_| {
        vec![good().sign_with(&CA)]
    }),
    ("no list at all", false, Agrees, |_| Vec::new()),
    ("listed", false, Agrees, |minted| {
        vec![good().revoke(&minted.serial()).sign_with(&CA)]
    }),
    ("listed for a copied key", false, Agrees, |minted| {
        vec![good().revoke_for(&minted.serial(), 1).sign_with(&CA)]
    }),
    ("listed among others", false, Agrees, |minted| {
        let mint = good()
            .revoke(&serial(1))
            .revoke(&minted.serial())
            .revoke(&serial(2));
        vec![mint.sign_with(&CA)]
    }),
    ("on hold", false, Agrees, |minted| {
        vec![good().revoke_for(&minted.serial(), 6).sign_with(&CA)]
    }),
    ("thisUpdate in the future", false, Agrees, |_| {
        vec![good().window(now() + 600, now() + DAY).sign_with(&CA)]
    }),
    ("over", false, Agrees, |_| {
        vec![good().window(now() - DAY, now() - 60).sign_with(&CA)]
    }),
    ("over, and listed", false, Agrees, |minted| {
        vec![
            good()
                .window(now() - DAY, now() - 60)
                .revoke(&minted.serial())
                .sign_with(&CA),
        ]
    }),
    (
        "without nextUpdate",
        false,
        Differs("RFC 5280, 5.1.2.5, wants one: nobody could say when it is too old"),
        |_| vec![good().window(now() - 60, None).sign_with(&CA)],
    ),
    ("a foreign list alone", false, Agrees, |_| {
        vec![good().sign_with(&OTHER)]
    }),
    ("a foreign list beside a good one", true, Agrees, |_| {
        vec![good().sign_with(&OTHER), good().sign_with(&CA)]
    }),
    (
        "a foreign list with the same serial, beside a good one",
        true,
        Agrees,
        |minted| {
            vec![
                good().revoke(&minted.serial()).sign_with(&OTHER),
                good().sign_with(&CA),
            ]
        },
    ),
    (
        "two lists in a file, the newer names it",
        false,
        Agrees,
        |minted| {
            let newer = CrlMint::number(8)
                .window(now() - 30, now() + DAY)
                .revoke(&minted.serial());
            vec![good().sign_with(&CA), newer.sign_with(&CA)]
        },
    ),
    (
        "two lists in a file, the older names it",
        false,
        Differs("there the newest alone counts; what any list of the issuer says is believed here"),
        |minted| {
            let older = CrlMint::number(6)
                .window(now() - 600, now() + DAY)
                .revoke(&minted.serial());
            vec![older.sign_with(&CA), good().sign_with(&CA)]
        },
    ),
    (
        "signed with another key in the issuer's name",
        false,
        Agrees,
        |_| vec![good().sign_with(&TestCa::root("the authority"))],
    ),
    ("a critical extension nobody knows", false, Agrees, |_| {
        vec![
            good()
                .extension(&[0x2a, 3, 4], true, &[5, 0])
                .sign_with(&CA),
        ]
    }),
    (
        "a delta list",
        false,
        Differs("RFC 5280, 5.2.4: it says only what has changed; OpenSSL takes it for a whole one"),
        |_| {
            vec![
                good()
                    .extension(&DELTA, true, &tlv(0x02, &[1]))
                    .sign_with(&CA),
            ]
        },
    ),
    (
        "taken back in a list that is no delta",
        false,
        Differs(
            "RFC 5280, 5.3.1: the reason belongs to delta lists; OpenSSL takes it for not revoked",
        ),
        |minted| vec![good().revoke_for(&minted.serial(), 8).sign_with(&CA)],
    ),
    ("bytes behind what is signed", false, Agrees, |_| {
        vec![good().trailing(&[5, 0]).sign_with(&CA)]
    }),
];

fn we_accept(minted: &Minted, lists: &[Vec<u8>]) -> bool {
    let terms = CrlTerms {
        required: true,
        grace: 0,
    };
    let mut set = CrlSet::new(terms);
    for der in lists {
        match read(der) {
            Ok(list) => set = set.with(Arc::new(list)),
            Err(error) => println!("    {error}"),
        }
    }
    let (anchors, rows) = (CA.anchors(1), RevokedSet::default());
    let verdict = verify_listed(&minted.chain, &anchors, &rows, Some(&set), unix_time(now()));
    if let Err(error) = &verdict {
        println!("    {error}");
    }
    verdict.is_ok()
}

fn openssl_accepts(minted: &Minted, lists: &[Vec<u8>]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let pem =
        |der: &[u8]| String::from_utf8(X509::from_der(der).unwrap().to_pem().unwrap()).unwrap();
    let (root, leaf) = (
        file("root.pem", pem(CA.root_der())),
        file("leaf.pem", pem(minted.leaf())),
    );
    let lists = file("lists.pem", lists.iter().map(|der| crl_pem(der)).collect());
    let said = Command::new("openssl")
        .args(["verify", "-x509_strict", "-crl_check", "-CAfile"])
        .arg(root)
        .arg("-CRLfile")
        .arg(lists)
        .arg(leaf)
        .output()
        .unwrap();
    println!(
        "    OpenSSL: {}",
        String::from_utf8_lossy(&said.stderr).trim()
    );
    said.status.success()
}

#[test]
fn every_hostile_list_meets_its_fate_and_openssl_agrees() {
    let minted = Mint::client(Uuid::from_u128(1), Uuid::from_u128(2)).sign_with(&CA);
    let mut wrong = Vec::new();
    for (name, expected, second, make) in ROWS {
        println!("{name}");
        let lists = make(&minted);
        let ours = we_accept(&minted, &lists);
        if ours != expected {
            wrong.push(format!("{name}: accepted: {ours}"));
        }
        let theirs = openssl_accepts(&minted, &lists);
        if (theirs == expected) != (second == Agrees) {
            wrong.push(format!("{name}: OpenSSL accepts: {theirs}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
