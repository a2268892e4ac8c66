//! Certificates that are not what DER or X.509 says they are.

use super::forge::*;
use super::{Agrees, Laxer, Read, Row, Stricter, UNTRUSTED, Unauthorized};
use crate::testing::tlv;

const BER: &str =
    "OpenSSL reads BER; a certificate that can be spelled in two ways has two fingerprints";
const FORMS: &str = "OpenSSL is content with forms that RFC 5280 forbids";
const NO_SUBJECT: &str = "nobody here reads the subject: the identity is in the two extensions";

const BOOLEAN_TRUE: [u8; 3] = [1, 1, 0xff];

/// A name of one common name, of this string type and content.
fn name(kind: u8, text: &[u8]) -> Part {
    let common_name = sequence(&[&oid(&[0x55, 4, 3]), &tlv(kind, text)]);
    tlv(0x30, &tlv(0x31, &common_name))
}

/// A validity of these two times, as they are written.
fn validity(from: (u8, &str), to: (u8, &str)) -> Part {
    sequence(&[&tlv(from.0, from.1.as_bytes()), &tlv(to.0, to.1.as_bytes())])
}

const UTC: u8 = 0x17;
const GENERALIZED: u8 = 0x18;

/// The last octet of the length of `der` in a longer form than needed: `82 xx xx` becomes `83 00 xx xx`.
fn longer(der: &[u8]) -> Vec<u8> {
    assert_eq!(der[1], 0x82, "a length of two octets");
    [&[der[0], 0x83, 0], &der[2..]].concat()
}

pub const ROWS: &[Row] = &[
    (
        "a byte behind the certificate",
        UNTRUSTED,
        Laxer("OpenSSL is given where it ends, and looks no further"),
        |ca| bytes(mint().sign_with(ca), |der| der.push(0)),
    ),
    (
        "a second certificate behind the first",
        UNTRUSTED,
        Laxer("OpenSSL is given where it ends, and looks no further"),
        |ca| {
            let other = mint().sign_with(ca);
            bytes(mint().sign_with(ca), move |der| {
                der.extend_from_slice(other.leaf())
            })
        },
    ),
    ("cut short by a byte", UNTRUSTED, Agrees, |ca| {
        bytes(mint().sign_with(ca), |der| {
            der.pop();
        })
    }),
    ("an empty certificate", UNTRUSTED, Agrees, |ca| {
        bytes(mint().sign_with(ca), Vec::clear)
    }),
    ("text instead of a certificate", UNTRUSTED, Agrees, |ca| {
        let mut minted = mint().sign_with(ca);
        minted.chain[0] = minted.chain_pem().into_bytes().into();
        minted
    }),
    (
        "an outer length in a longer form",
        UNTRUSTED,
        Laxer(BER),
        |ca| bytes(mint().sign_with(ca), |der| *der = longer(der)),
    ),
    (
        "an outer length of no definite form",
        UNTRUSTED,
        Laxer(BER),
        |ca| {
            bytes(mint().sign_with(ca), |der| {
                let inside = content(der).to_vec();
                *der = [&[0x30, 0x80], inside.as_slice(), &[0, 0]].concat();
            })
        },
    ),
    (
        "a signed length in a longer form",
        UNTRUSTED,
        Laxer(BER),
        |ca| {
            let minted = mint().sign_with(ca);
            let key = Ca::root(ca).key;
            after_signing(minted, move |all| {
                let tbs = longer(&all[0]);
                *all = signed(&tbs, &key, ECDSA_SHA256);
            })
        },
    ),
    (
        "criticality that is neither true nor false",
        UNTRUSTED,
        Laxer(BER),
        |ca| {
            with_extensions(mint(), |all| {
                let odd = sequence(&[&oid(KEY_USAGE), &[1, 1, 1], &tlv(4, &[3, 2, 7, 0x80])]);
                all.retain(|one| !content(one).starts_with(&oid(KEY_USAGE)));
                all.push(odd);
            })
            .sign_with(ca)
        },
    ),
    (
        "criticality that is spelled out as false",
        Unauthorized,
        Laxer(BER),
        |ca| {
            with_extensions(mint(), |all| {
                let odd = sequence(&[&oid(KEY_USAGE), &[1, 1, 0], &tlv(4, &[3, 2, 7, 0x80])]);
                all.retain(|one| !content(one).starts_with(&oid(KEY_USAGE)));
                all.push(odd);
            })
            .sign_with(ca)
        },
    ),
    ("criticality said twice", UNTRUSTED, Agrees, |ca| {
        with_extensions(mint(), |all| {
            let twice = [BOOLEAN_TRUE, BOOLEAN_TRUE].concat();
            all.retain(|one| !content(one).starts_with(&oid(KEY_USAGE)));
            all.push(sequence(&[
                &oid(KEY_USAGE),
                &twice,
                &tlv(4, &[3, 2, 7, 0x80]),
            ]));
        })
        .sign_with(ca)
    }),
    (
        "a byte behind an extension's value",
        UNTRUSTED,
        Agrees,
        |ca| {
            with_extensions(mint(), |all| {
                all.retain(|one| !content(one).starts_with(&oid(KEY_USAGE)));
                all.push(sequence(&[
                    &oid(KEY_USAGE),
                    &BOOLEAN_TRUE,
                    &tlv(4, &[3, 2, 7, 0x80]),
                    &[5, 0],
                ]));
            })
            .sign_with(ca)
        },
    ),
    ("an empty list of extensions", Unauthorized, Agrees, |ca| {
        with_extensions(mint(), Vec::clear).sign_with(ca)
    }),
    ("no extensions", Unauthorized, Agrees, |ca| {
        with_parts(mint(), |all| all.truncate(EXTENSIONS)).sign_with(ca)
    }),
    ("extensions twice", UNTRUSTED, Agrees, |ca| {
        with_parts(mint(), |all| {
            let again = all[EXTENSIONS].clone();
            all.push(again);
        })
        .sign_with(ca)
    }),
    ("something behind the extensions", UNTRUSTED, Agrees, |ca| {
        with_parts(mint(), |all| all.push(vec![5, 0])).sign_with(ca)
    }),
    ("version 1", UNTRUSTED, Agrees, |ca| {
        with_parts(mint(), |all| drop(all.remove(VERSION))).sign_with(ca)
    }),
    (
        "version 1 without extensions",
        UNTRUSTED,
        Laxer("OpenSSL takes certificates of version 1 for leaves"),
        |ca| {
            with_parts(mint(), |all| {
                all.truncate(EXTENSIONS);
                all.remove(VERSION);
            })
            .sign_with(ca)
        },
    ),
    ("version 2", UNTRUSTED, Agrees, |ca| {
        with_part(mint(), VERSION, tlv(0xa0, &[2, 1, 1])).sign_with(ca)
    }),
    ("version 4", UNTRUSTED, Laxer(FORMS), |ca| {
        with_part(mint(), VERSION, tlv(0xa0, &[2, 1, 3])).sign_with(ca)
    }),
    (
        "a unique identifier of its issuer",
        UNTRUSTED,
        Laxer(FORMS),
        |ca| with_parts(mint(), |all| all.insert(EXTENSIONS, tlv(0x81, &[0, 1, 2]))).sign_with(ca),
    ),
    ("a month that there is not", UNTRUSTED, Agrees, |ca| {
        with_part(
            mint(),
            VALIDITY,
            validity((UTC, "201301000000Z"), (UTC, "491231235959Z")),
        )
        .sign_with(ca)
    }),
    ("a time without seconds", UNTRUSTED, Agrees, |ca| {
        with_part(
            mint(),
            VALIDITY,
            validity((UTC, "2001010000Z"), (UTC, "491231235959Z")),
        )
        .sign_with(ca)
    }),
    ("a time of another zone", UNTRUSTED, Agrees, |ca| {
        with_part(
            mint(),
            VALIDITY,
            validity((UTC, "200101000000+0100"), (UTC, "491231235959Z")),
        )
        .sign_with(ca)
    }),
    ("fractions of a second", UNTRUSTED, Agrees, |ca| {
        with_part(
            mint(),
            VALIDITY,
            validity((UTC, "200101000000Z"), (GENERALIZED, "20991231235959.5Z")),
        )
        .sign_with(ca)
    }),
    ("a year before 2050 in four digits", Read, Agrees, |ca| {
        with_part(
            mint(),
            VALIDITY,
            validity((GENERALIZED, "20200101000000Z"), (UTC, "491231235959Z")),
        )
        .sign_with(ca)
    }),
    ("without an end in time", Read, Agrees, |ca| {
        with_part(
            mint(),
            VALIDITY,
            validity((UTC, "200101000000Z"), (GENERALIZED, "99991231235959Z")),
        )
        .sign_with(ca)
    }),
    ("a NUL in its name", Read, Agrees, |ca| {
        with_part(mint(), SUBJECT, name(0x0c, b"grant\0.example")).sign_with(ca)
    }),
    (
        "a name that is not UTF-8",
        Read,
        Stricter(NO_SUBJECT),
        |ca| with_part(mint(), SUBJECT, name(0x0c, &[0xff, 0xfe, 0x80])).sign_with(ca),
    ),
    (
        "a printable name with what is not printable",
        Read,
        Agrees,
        |ca| with_part(mint(), SUBJECT, name(0x13, b"a@b*\x07\n")).sign_with(ca),
    ),
    ("no name", Read, Stricter(NO_SUBJECT), |ca| {
        with_part(mint(), SUBJECT, sequence(&[])).sign_with(ca)
    }),
    ("a name of 60,000 bytes", Read, Agrees, |ca| {
        with_part(mint(), SUBJECT, name(0x0c, &[b'a'; 60_000])).sign_with(ca)
    }),
    (
        "its issuer's name in another string type",
        UNTRUSTED,
        Laxer(
            "OpenSSL compares names as RFC 5280, section 7.1, does; here they are compared octet by octet",
        ),
        |ca| {
            with_parts(mint(), |all| {
                let issuer = all[ISSUER].clone();
                let text = content(&parts(content(content(content(&issuer))))[1]).to_vec();
                all[ISSUER] = name(0x13, &text);
            })
            .sign_with(ca)
        },
    ),
    (
        "its issuer's name in another case",
        UNTRUSTED,
        Laxer(
            "OpenSSL compares names as RFC 5280, section 7.1, does; here they are compared octet by octet",
        ),
        |ca| {
            with_parts(mint(), |all| {
                let issuer = all[ISSUER].clone();
                let text =
                    content(&parts(content(content(content(&issuer))))[1]).to_ascii_uppercase();
                all[ISSUER] = name(0x0c, &text);
            })
            .sign_with(ca)
        },
    ),
    ("another issuer's name", UNTRUSTED, Agrees, |ca| {
        with_part(mint(), ISSUER, name(0x0c, b"somebody else")).sign_with(ca)
    }),
    ("an alternative name with a NUL", Read, Agrees, |ca| {
        let names = sequence(&[&tlv(0x82, b"home.example\0.other.example")]);
        with_extension(mint(), ALT_NAME, extension(ALT_NAME, false, &names)).sign_with(ca)
    }),
    (
        "an alternative name that is no name",
        UNTRUSTED,
        Agrees,
        |ca| with_extension(mint(), ALT_NAME, extension(ALT_NAME, false, &[5, 0])).sign_with(ca),
    ),
];
