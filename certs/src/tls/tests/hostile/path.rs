//! Paths that lead nowhere, in circles, too far, or over somebody who may not sign.

use rcgen::{
    BasicConstraints, ExtendedKeyUsagePurpose as Eku, GeneralSubtree, IsCa,
    KeyUsagePurpose as Usage, NameConstraints,
};

use super::forge::*;
use super::{Agrees, EXPIRED, Laxer, Read, Row, Stricter, UNTRUSTED};
use crate::testing::{Minted, TestCa, tlv};

const DEPTH: &str =
    "OpenSSL follows a hundred certificates, we follow six authorities below the root";

fn names(permitted: &[&str], excluded: &[&str]) -> NameConstraints {
    let subtrees = |names: &[&str]| {
        let all = names
            .iter()
            .map(|name| GeneralSubtree::DnsName((*name).to_owned()));
        all.collect()
    };
    NameConstraints {
        permitted_subtrees: subtrees(permitted),
        excluded_subtrees: subtrees(excluded),
    }
}

/// A leaf with this DNS name below an authority that is constrained.
fn constrained(ca: &TestCa, constraints: NameConstraints, name: &str) -> Minted {
    let below = ca.intermediate_with("constrained", |params| {
        params.name_constraints = Some(constraints)
    });
    let names = sequence(&[&tlv(0x82, name.as_bytes())]);
    with_extension(mint(), ALT_NAME, extension(ALT_NAME, false, &names)).sign_with(&below)
}

fn below(ca: &TestCa, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Minted {
    mint().sign_with(&ca.intermediate_with("below", change))
}

fn deep(ca: &TestCa, levels: usize) -> Minted {
    let mut at = ca.clone();
    for level in 0..levels {
        at = at.intermediate(&format!("level {level}"));
    }
    mint().sign_with(&at)
}

/// A leaf of an authority whose certificate was changed.
fn of_changed(
    ca: &TestCa,
    change: impl FnOnce(crate::testing::Mint) -> crate::testing::Mint,
) -> Minted {
    Ca::of(change(ca_mint()).sign_with(ca)).issue(mint().sign_with(ca), ECDSA_SHA256)
}

/// Two authorities that have signed each other.
fn crossed(ca: &TestCa) -> (Minted, [Ca; 2]) {
    let [one, other] = [0, 1].map(|_| ca_mint().sign_with(ca));
    let [first, second] = [one.clone(), other.clone()].map(Ca::of);
    let mut minted = first.issue(mint().sign_with(ca), ECDSA_SHA256);
    minted.chain.truncate(1);
    let by_second = second.issue(one, ECDSA_SHA256).chain.remove(0);
    let by_first = first.issue(other, ECDSA_SHA256).chain.remove(0);
    minted.chain.extend([by_second, by_first]);
    (minted, [first, second])
}

pub const ROWS: &[Row] = &[
    ("of another authority", UNTRUSTED, Agrees, |_| {
        mint().sign_with(&TestCa::root("foreign"))
    }),
    (
        "of another authority, its root sent along",
        UNTRUSTED,
        Agrees,
        |_| {
            mint()
                .root_in_chain(true)
                .sign_with(&TestCa::root("foreign"))
        },
    ),
    (
        "of another authority, our root sent along",
        UNTRUSTED,
        Agrees,
        |ca| {
            let mut minted = mint().sign_with(&TestCa::root("foreign"));
            minted.chain.push(ca.root_der().clone());
            minted
        },
    ),
    ("our root sent along", Read, Agrees, |ca| {
        mint().root_in_chain(true).sign_with(ca)
    }),
    ("certificates of strangers sent along", Read, Agrees, |ca| {
        let mut minted = mint().sign_with(ca);
        minted
            .chain
            .extend([1, 2, 3].map(|n| TestCa::root(&format!("stranger {n}")).der().clone()));
        minted
    }),
    (
        "garbage sent along",
        Read,
        Stricter(
            "what leads nowhere is passed over, whatever it is: what counts is that some path holds",
        ),
        |ca| {
            let mut minted = mint().sign_with(&ca.intermediate("below"));
            minted.chain.insert(1, vec![0x30, 1, 0].into());
            minted
        },
    ),
    (
        "the authority in between not sent",
        UNTRUSTED,
        Agrees,
        |ca| {
            let mut minted = deep(ca, 1);
            minted.chain.truncate(1);
            minted
        },
    ),
    ("in the wrong order", Read, Agrees, |ca| {
        let mut minted = deep(ca, 3);
        minted.chain[1..].reverse();
        minted
    }),
    ("six authorities below the root", Read, Agrees, |ca| {
        deep(ca, 6)
    }),
    (
        "seven authorities below the root",
        UNTRUSTED,
        Laxer(DEPTH),
        |ca| deep(ca, 7),
    ),
    (
        "sixty authorities below the root",
        UNTRUSTED,
        Laxer(DEPTH),
        |ca| deep(ca, 60),
    ),
    (
        "a hundred authorities of one name",
        UNTRUSTED,
        Agrees,
        |_| {
            let mut minted = mint().sign_with(&TestCa::root("many"));
            minted
                .chain
                .extend((0..100).map(|_| TestCa::root("many").intermediate("many").der().clone()));
            minted
        },
    ),
    ("itself sent along forty times", Read, Agrees, |ca| {
        let mut minted = mint().sign_with(ca);
        let again = vec![minted.leaf().clone(); 40];
        minted.chain.extend(again);
        minted
    }),
    (
        "two authorities that signed each other",
        UNTRUSTED,
        Agrees,
        |ca| crossed(ca).0,
    ),
    (
        "two authorities that signed each other, with a way out",
        Read,
        Agrees,
        |ca| {
            let (mut minted, [first, _]) = crossed(ca);
            minted.chain.push(first.der);
            minted
        },
    ),
    (
        "an authority that signed itself anew",
        UNTRUSTED,
        Agrees,
        |_| {
            let own = Ca::of(ca_mint().self_signed());
            let mut minted = own.issue(mint().self_signed(), ECDSA_SHA256);
            let again = vec![own.der.clone(); 20];
            minted.chain.extend(again);
            minted
        },
    ),
    ("issued by a leaf", UNTRUSTED, Agrees, |ca| {
        Ca::of(mint().sign_with(ca)).issue(mint().sign_with(ca), ECDSA_SHA256)
    }),
    (
        "issued by a leaf that may sign certificates",
        UNTRUSTED,
        Agrees,
        |ca| {
            let issuer = mint()
                .key_usage(&[Usage::DigitalSignature, Usage::KeyCertSign])
                .sign_with(ca);
            Ca::of(issuer).issue(mint().sign_with(ca), ECDSA_SHA256)
        },
    ),
    ("an authority that is none", UNTRUSTED, Agrees, |ca| {
        below(ca, |params| params.is_ca = IsCa::ExplicitNoCa)
    }),
    (
        "an authority without constraints",
        UNTRUSTED,
        Agrees,
        |ca| of_changed(ca, |mint| without(mint, BASIC)),
    ),
    (
        "an authority that may sign lists only",
        UNTRUSTED,
        Agrees,
        |ca| below(ca, |params| params.key_usages = vec![Usage::CrlSign]),
    ),
    (
        "an authority without key usage",
        Read,
        Stricter("RFC 5280, section 6.1.4 (n), asks for keyCertSign where there is key usage"),
        |ca| below(ca, |params| params.key_usages = Vec::new()),
    ),
    (
        "an authority whose constraints are not critical",
        Read,
        Stricter(
            "RFC 5280, section 4.2.1.9, asks it of authorities; section 6.1.4 judges the value",
        ),
        |ca| {
            of_changed(ca, |mint| {
                with_extension(
                    mint,
                    BASIC,
                    extension(BASIC, false, &sequence(&[&[1, 1, 0xff]])),
                )
            })
        },
    ),
    ("an authority for servers only", UNTRUSTED, Agrees, |ca| {
        below(ca, |params| {
            params.extended_key_usages = vec![Eku::ServerAuth]
        })
    }),
    ("an authority for clients", Read, Agrees, |ca| {
        below(ca, |params| {
            params.extended_key_usages = vec![Eku::ClientAuth]
        })
    }),
    ("an authority for any purpose", UNTRUSTED, Agrees, |ca| {
        below(ca, |params| params.extended_key_usages = vec![Eku::Any])
    }),
    (
        "an authority with an unknown critical extension",
        UNTRUSTED,
        Agrees,
        |ca| {
            of_changed(ca, |mint| {
                mint.with_critical_extension_raw(&[1, 3, 6, 1, 4, 1, 99_999, 9], &[5, 0])
            })
        },
    ),
    (
        "an authority with repeated extensions",
        UNTRUSTED,
        Agrees,
        |ca| {
            of_changed(ca, |mint| {
                with_extensions(mint, |all| {
                    all.push(extension(KEY_USAGE, true, &[3, 2, 1, 6]))
                })
            })
        },
    ),
    ("an authority of version 1", UNTRUSTED, Agrees, |ca| {
        of_changed(ca, |mint| with_parts(mint, |all| drop(all.remove(VERSION))))
    }),
    ("an authority that has expired", EXPIRED, Agrees, |ca| {
        of_changed(ca, |mint| mint.expired())
    }),
    (
        "an authority that is not valid yet",
        EXPIRED,
        Agrees,
        |ca| of_changed(ca, |mint| mint.not_yet_valid()),
    ),
    (
        "an authority with another key identifier",
        Read,
        Stricter(
            "RFC 5280 builds paths by key identifiers and judges them by signatures, and this one's holds",
        ),
        |ca| {
            let below = Ca::of(ca_mint().sign_with(ca));
            let mut minted = below.issue(mint().sign_with(ca), ECDSA_SHA256);
            let other = extension(AUTHORITY_KEY_ID, false, &sequence(&[&tlv(0x80, &[7; 20])]));
            minted = after_signing(minted, |all| {
                let mut tbs = parts(content(&all[0]));
                let mut extensions = parts(content(content(&tbs[EXTENSIONS])));
                extensions.retain(|one| !content(one).starts_with(&oid(AUTHORITY_KEY_ID)));
                extensions.push(other);
                tbs[EXTENSIONS] = tlv(0xa3, &tlv(0x30, &extensions.concat()));
                *all = signed(&tlv(0x30, &tbs.concat()), &below.key, ECDSA_SHA256);
            });
            minted
        },
    ),
    (
        "a path length of 0 above an authority",
        UNTRUSTED,
        Agrees,
        |ca| {
            let shallow = ca.intermediate_with("shallow", |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            });
            mint().sign_with(&shallow.intermediate("too deep"))
        },
    ),
    ("a path length of 0 above the leaf", Read, Agrees, |ca| {
        below(ca, |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))
        })
    }),
    (
        "a path length of 1 above two authorities",
        UNTRUSTED,
        Agrees,
        |ca| {
            let shallow = ca.intermediate_with("shallow", |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
            });
            deep(&shallow, 2)
        },
    ),
    ("a negative path length", UNTRUSTED, Agrees, |ca| {
        let negative = sequence(&[&[1, 1, 0xff], &[2, 1, 0xff]]);
        of_changed(ca, |mint| {
            with_extension(mint, BASIC, extension(BASIC, true, &negative))
        })
    }),
    ("a name within what is permitted", Read, Agrees, |ca| {
        constrained(ca, names(&["home.example"], &[]), "a.home.example")
    }),
    (
        "a name outside of what is permitted",
        UNTRUSTED,
        Agrees,
        |ca| constrained(ca, names(&["home.example"], &[]), "work.example"),
    ),
    ("a name that is excluded", UNTRUSTED, Agrees, |ca| {
        constrained(ca, names(&[], &["work.example"]), "a.work.example")
    }),
    (
        "a name that only looks permitted",
        UNTRUSTED,
        Agrees,
        |ca| constrained(ca, names(&["home.example"], &[]), "evilhome.example"),
    ),
];
