//! Leaves that say too much, too little, or the wrong thing.

use super::forge::*;
use super::{Agrees, EXPIRED, Fate, Laxer, Read, Row, Stricter, UNTRUSTED, Unauthorized};
use crate::oid::{ClaimExtension, encode};
use crate::testing::{ExtendedKeyUsagePurpose as Eku, KeyUsagePurpose as Usage, tlv};
use rustls::AlertDescription as Alert;
use uuid::Uuid;

const OURS: &str = "the two private extensions are ours: OpenSSL does not know them";
const CLIENT_AUTH: &[u8] = &[6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2];
const KEY_BITS: &str =
    "our identity layer asks for digitalSignature, which is what a TLS 1.3 client does";
const SERIALS: &str = "OpenSSL does not judge serial numbers; we list and revoke by them";

/// The content octets of 1.3.6.1.4.1.99999, as in both of our extensions.
const ARC: [u8; 8] = [0x2b, 6, 1, 4, 1, 0x86, 0x8d, 0x1f];

fn ours(last: &[u8], id: Uuid) -> Part {
    extension(&[&ARC[..], last].concat(), false, &encode(id))
}

fn seconds() -> i64 {
    *super::NOW.get().unwrap()
}

pub const ROWS: &[Row] = &[
    ("a good one", Read, Agrees, |ca| mint().sign_with(ca)),
    ("expired an hour ago", EXPIRED, Agrees, |ca| {
        mint().expired().sign_with(ca)
    }),
    ("expired by a second", EXPIRED, Agrees, |ca| {
        mint()
            .validity(seconds() - 3_600, seconds() - 1)
            .sign_with(ca)
    }),
    ("valid from tomorrow", EXPIRED, Agrees, |ca| {
        mint().not_yet_valid().sign_with(ca)
    }),
    ("valid from a minute ahead", EXPIRED, Agrees, |ca| {
        mint()
            .validity(seconds() + 60, seconds() + 3_600)
            .sign_with(ca)
    }),
    ("ends before it begins", UNTRUSTED, Agrees, |ca| {
        mint()
            .validity(seconds() + 3_600, seconds() - 3_600)
            .sign_with(ca)
    }),
    (
        "extended usage missing",
        Unauthorized,
        Laxer("absent means any purpose to OpenSSL; the specification asks for clientAuth"),
        |ca| mint().eku(&[]).sign_with(ca),
    ),
    ("for servers only", UNTRUSTED, Agrees, |ca| {
        mint().eku(&[Eku::ServerAuth]).sign_with(ca)
    }),
    ("for code signing only", UNTRUSTED, Agrees, |ca| {
        mint().eku(&[Eku::CodeSigning]).sign_with(ca)
    }),
    ("for any purpose", UNTRUSTED, Agrees, |ca| {
        mint().eku(&[Eku::Any]).sign_with(ca)
    }),
    ("for any purpose and clients", Read, Agrees, |ca| {
        mint().eku(&[Eku::Any, Eku::ClientAuth]).sign_with(ca)
    }),
    ("for servers and clients", Read, Agrees, |ca| {
        mint()
            .eku(&[Eku::ServerAuth, Eku::ClientAuth])
            .sign_with(ca)
    }),
    ("extended usage of nothing", UNTRUSTED, Agrees, |ca| {
        with_extension(
            mint(),
            EXTENDED_USAGE,
            extension(EXTENDED_USAGE, false, &sequence(&[])),
        )
        .sign_with(ca)
    }),
    ("extended usage twice", UNTRUSTED, Agrees, |ca| {
        let again = extension(EXTENDED_USAGE, false, &sequence(&[CLIENT_AUTH]));
        with_extensions(mint(), move |all| all.push(again)).sign_with(ca)
    }),
    ("extended usage that is critical", Read, Agrees, |ca| {
        let critical = extension(EXTENDED_USAGE, true, &sequence(&[CLIENT_AUTH]));
        with_extension(mint(), EXTENDED_USAGE, critical).sign_with(ca)
    }),
    ("key usage missing", Read, Agrees, |ca| {
        mint().key_usage(&[]).sign_with(ca)
    }),
    (
        "key usage for encryption only",
        Unauthorized,
        Agrees,
        |ca| mint().key_usage(&[Usage::KeyEncipherment]).sign_with(ca),
    ),
    (
        "key usage for agreement only",
        Unauthorized,
        Laxer(KEY_BITS),
        |ca| mint().key_usage(&[Usage::KeyAgreement]).sign_with(ca),
    ),
    (
        "key usage for certificates only",
        Unauthorized,
        Agrees,
        |ca| mint().key_usage(&[Usage::KeyCertSign]).sign_with(ca),
    ),
    (
        "key usage for certificates too",
        Unauthorized,
        Agrees,
        |ca| {
            mint()
                .key_usage(&[Usage::DigitalSignature, Usage::KeyCertSign])
                .sign_with(ca)
        },
    ),
    ("key usage without a bit", Unauthorized, Agrees, |ca| {
        with_extension(mint(), KEY_USAGE, extension(KEY_USAGE, true, &[3, 2, 7, 0])).sign_with(ca)
    }),
    (
        "key usage that is no bit string",
        Unauthorized,
        Agrees,
        |ca| {
            with_extension(mint(), KEY_USAGE, extension(KEY_USAGE, true, &[4, 1, 0x80]))
                .sign_with(ca)
        },
    ),
    (
        "key usage with bytes behind it",
        Unauthorized,
        Laxer("OpenSSL reads the first element of an extension and stops"),
        |ca| {
            with_extension(
                mint(),
                KEY_USAGE,
                extension(KEY_USAGE, true, &[3, 2, 7, 0x80, 5, 0]),
            )
            .sign_with(ca)
        },
    ),
    ("key usage twice", UNTRUSTED, Agrees, |ca| {
        with_extensions(mint(), |all| {
            all.push(extension(KEY_USAGE, true, &[3, 2, 7, 0x80]))
        })
        .sign_with(ca)
    }),
    (
        "a CA certificate",
        UNTRUSTED,
        Laxer("OpenSSL lets a CA certificate identify a client"),
        |ca| mint().as_ca().sign_with(ca),
    ),
    ("constraints twice", UNTRUSTED, Agrees, |ca| {
        with_extensions(mint(), |all| {
            all.push(extension(BASIC, true, &sequence(&[])))
        })
        .sign_with(ca)
    }),
    ("constraints missing", Read, Agrees, |ca| {
        without(mint(), BASIC).sign_with(ca)
    }),
    (
        "a path length without being a CA",
        Unauthorized,
        Agrees,
        |ca| {
            with_extension(
                mint(),
                BASIC,
                extension(BASIC, true, &sequence(&[&[2, 1, 0]])),
            )
            .sign_with(ca)
        },
    ),
    ("an unknown critical extension", UNTRUSTED, Agrees, |ca| {
        mint()
            .with_critical_extension_raw(&[1, 3, 6, 1, 4, 1, 99_999, 9], &[5, 0])
            .sign_with(ca)
    }),
    ("an unknown extension", Read, Agrees, |ca| {
        mint()
            .with_extension_raw(&[1, 3, 6, 1, 4, 1, 99_999, 9], &[5, 0])
            .sign_with(ca)
    }),
    (
        "an unknown extension twice",
        Unauthorized,
        Laxer("OpenSSL looks for repetition in what it knows"),
        |ca| {
            let twice = [1, 3, 6, 1, 4, 1, 99_999, 9];
            mint()
                .with_extension_raw(&twice, &[5, 0])
                .with_extension_raw(&twice, &[5, 0])
                .sign_with(ca)
        },
    ),
    ("a grant that is critical", UNTRUSTED, Agrees, |ca| {
        let id = encode(Uuid::from_u128(1));
        mint()
            .without_claim(ClaimExtension::Grant)
            .with_critical_extension_raw(ClaimExtension::Grant.arcs(), &id)
            .sign_with(ca)
    }),
    ("no grant", Unauthorized, Laxer(OURS), |ca| {
        mint().without_claim(ClaimExtension::Grant).sign_with(ca)
    }),
    ("no subject user", Unauthorized, Laxer(OURS), |ca| {
        mint().without_claim(ClaimExtension::Subject).sign_with(ca)
    }),
    ("two grants", Unauthorized, Laxer(OURS), |ca| {
        mint()
            .with_extension_raw(ClaimExtension::Grant.arcs(), &encode(Uuid::from_u128(7)))
            .sign_with(ca)
    }),
    (
        "two grants that are the same",
        Unauthorized,
        Laxer(OURS),
        |ca| {
            mint()
                .with_extension_raw(ClaimExtension::Grant.arcs(), &encode(Uuid::from_u128(1)))
                .sign_with(ca)
        },
    ),
    (
        "a second grant under a padded identifier",
        Unauthorized,
        Agrees,
        |ca| {
            with_extensions(mint(), |all| {
                all.push(ours(&[0x80, 0x01], Uuid::from_u128(7)))
            })
            .sign_with(ca)
        },
    ),
    (
        "a grant under a padded identifier only",
        Unauthorized,
        Agrees,
        |ca| {
            let mint = mint().without_claim(ClaimExtension::Grant);
            with_extensions(mint, |all| {
                all.push(ours(&[0x80, 0x01], Uuid::from_u128(1)))
            })
            .sign_with(ca)
        },
    ),
    ("a grant one arc deeper", Unauthorized, Laxer(OURS), |ca| {
        let mint = mint().without_claim(ClaimExtension::Grant);
        with_extensions(mint, |all| all.push(ours(&[1, 1], Uuid::from_u128(1)))).sign_with(ca)
    }),
    (
        "a grant under a longer arc",
        Unauthorized,
        Laxer(OURS),
        |ca| {
            let mint = mint().without_claim(ClaimExtension::Grant);
            with_extensions(mint, |all| {
                all.push(ours(&[0x81, 0x01], Uuid::from_u128(1)))
            })
            .sign_with(ca)
        },
    ),
    (
        "a grant in a constructed string",
        Unauthorized,
        Laxer(OURS),
        |ca| {
            let inner = encode(Uuid::from_u128(1));
            mint()
                .claim_raw(ClaimExtension::Grant, &tlv(0x2c, &inner))
                .sign_with(ca)
        },
    ),
    (
        "a grant with a NUL behind it",
        Unauthorized,
        Laxer(OURS),
        |ca| {
            let id = format!("{}\0", Uuid::from_u128(1));
            mint()
                .claim_raw(ClaimExtension::Grant, &tlv(0x0c, id.as_bytes()))
                .sign_with(ca)
        },
    ),
    (
        "a grant and a subject in one extension",
        Unauthorized,
        Laxer(OURS),
        |ca| {
            let both = [encode(Uuid::from_u128(1)), encode(Uuid::from_u128(2))].concat();
            mint().claim_raw(ClaimExtension::Grant, &both).sign_with(ca)
        },
    ),
    (
        "a serial number of zero",
        Unauthorized,
        Laxer(SERIALS),
        |ca| with_part(mint(), SERIAL, tlv(2, &[0])).sign_with(ca),
    ),
    (
        "a negative serial number",
        Unauthorized,
        Laxer(SERIALS),
        |ca| with_part(mint(), SERIAL, tlv(2, &[0x85, 1, 2, 3])).sign_with(ca),
    ),
    (
        "a negative serial number that is padded",
        Unauthorized,
        Agrees,
        |ca| mint().negative_serial().sign_with(ca),
    ),
    (
        "a serial number of 21 octets",
        Unauthorized,
        Laxer(SERIALS),
        |ca| with_part(mint(), SERIAL, tlv(2, &[0x55; 21])).sign_with(ca),
    ),
    ("a serial number of 20 octets", Read, Agrees, |ca| {
        with_part(mint(), SERIAL, tlv(2, &[0x55; 20])).sign_with(ca)
    }),
    (
        "a serial number of 4,000 octets",
        Unauthorized,
        Laxer(SERIALS),
        |ca| with_part(mint(), SERIAL, tlv(2, &[0x55; 4_000])).sign_with(ca),
    ),
    ("signed by itself", UNTRUSTED, Agrees, |_| {
        mint().self_signed()
    }),
    (
        "signed by itself under the name of the root",
        UNTRUSTED,
        Agrees,
        |ca| {
            let root = parts(content(&outside(ca.der())[0]));
            let name = root[SUBJECT].clone();
            with_parts(mint(), move |all| {
                all[ISSUER] = name.clone();
                all[SUBJECT] = name;
            })
            .self_signed()
        },
    ),
    (
        "no key identifier of its authority",
        Read,
        Stricter("RFC 5280, section 4.2.1.1, asks it of authorities; a path is judged without it"),
        |ca| without(mint(), AUTHORITY_KEY_ID).sign_with(ca),
    ),
    (
        "another authority's key identifier",
        Read,
        Stricter(
            "RFC 5280 builds paths by key identifiers and judges them by signatures, and this one's holds",
        ),
        |ca| {
            let other = extension(AUTHORITY_KEY_ID, false, &sequence(&[&tlv(0x80, &[7; 20])]));
            with_extension(mint(), AUTHORITY_KEY_ID, other).sign_with(ca)
        },
    ),
    ("a key identifier of somebody else", Read, Agrees, |ca| {
        let other = extension(SUBJECT_KEY_ID, false, &tlv(4, &[7; 20]));
        with_extension(mint(), SUBJECT_KEY_ID, other).sign_with(ca)
    }),
    (
        "nothing at all",
        Fate::Alert(Alert::CertificateRequired),
        Agrees,
        |ca| {
            let mut minted = mint().sign_with(ca);
            minted.chain.clear();
            minted
        },
    ),
];
