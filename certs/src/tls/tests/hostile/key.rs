//! Keys and signatures that are too weak, of the wrong kind, or not what they are said to be.

use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};

use super::forge::*;
use super::{Agrees, Alert, Fate, Laxer, Read, Row, UNTRUSTED};
use crate::testing::{
    Mint, Minted, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
    TestCa, tlv,
};

const KINDS: &str =
    "the specification names the kinds of keys of peers (section 4.2), and this is none of them";

fn edwards(kind: Id) -> PKey<Private> {
    match kind {
        Id::ED448 => PKey::generate_ed448().unwrap(),
        _ => PKey::generate_x25519().unwrap(),
    }
}

fn dsa() -> PKey<Private> {
    PKey::from_dsa(openssl::dsa::Dsa::generate(2_048).unwrap()).unwrap()
}

/// An RSA key with this public exponent.
fn with_exponent(exponent: u32) -> PKey<Private> {
    let exponent = openssl::bn::BigNum::from_u32(exponent).unwrap();
    PKey::from_rsa(openssl::rsa::Rsa::generate_with_e(2_048, &exponent).unwrap()).unwrap()
}

fn holds(ca: &TestCa, key: &PKey<Private>) -> Minted {
    with_key(mint(), key).sign_with(ca)
}

/// A key's last octets changed, so that its point is not on the curve.
fn off_the_curve(mint: Mint) -> Mint {
    with_parts(mint, |all| {
        let last = all[KEY].len() - 1;
        all[KEY][last] ^= 1;
    })
}

/// The certificate is a good one, and nobody can have the key to it: what the client signs is not signed with that.
const NOBODYS: Fate = Fate::Alert(Alert::DecryptError);

pub const ROWS: &[Row] = &[
    ("a key on P-384", Read, Agrees, |ca| {
        mint().key_algorithm(&PKCS_ECDSA_P384_SHA384).sign_with(ca)
    }),
    ("an Ed25519 key", Read, Agrees, |ca| {
        mint().key_algorithm(&PKCS_ED25519).sign_with(ca)
    }),
    ("an RSA key of 2048 bits", Read, Agrees, |ca| {
        mint().key_algorithm(&PKCS_RSA_SHA256).sign_with(ca)
    }),
    ("an RSA key of 512 bits", UNTRUSTED, Agrees, |ca| {
        holds(ca, &rsa(512))
    }),
    ("an RSA key of 1024 bits", UNTRUSTED, Agrees, |ca| {
        holds(ca, &rsa(1_024))
    }),
    (
        "an RSA key of 2047 bits",
        UNTRUSTED,
        Laxer("OpenSSL counts 112 bits of security for it, as for 2048"),
        |ca| holds(ca, &rsa(2_047)),
    ),
    (
        "an RSA key with the exponent 3",
        UNTRUSTED,
        Laxer("OpenSSL judges the modulus only"),
        |ca| holds(ca, &with_exponent(3)),
    ),
    (
        "an RSA key under the name of PSS",
        UNTRUSTED,
        Laxer(KINDS),
        |ca| {
            with_parts(mint(), |all| {
                let key = parts(content(&rsa(2_048).public_key_to_der().unwrap()));
                let pss = sequence(&[&oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10])]);
                all[KEY] = sequence(&[&pss, &key[1]]);
            })
            .sign_with(ca)
        },
    ),
    ("a DSA key", UNTRUSTED, Laxer(KINDS), |ca| holds(ca, &dsa())),
    ("an Ed448 key", UNTRUSTED, Laxer(KINDS), |ca| {
        holds(ca, &edwards(Id::ED448))
    }),
    ("a key that cannot sign", UNTRUSTED, Laxer(KINDS), |ca| {
        holds(ca, &edwards(Id::X25519))
    }),
    ("a key on P-521", UNTRUSTED, Laxer(KINDS), |ca| {
        mint().key_algorithm(&PKCS_ECDSA_P521_SHA512).sign_with(ca)
    }),
    ("a key on P-224", UNTRUSTED, Laxer(KINDS), |ca| {
        holds(ca, &ec(Nid::SECP224R1))
    }),
    ("a key on P-192", UNTRUSTED, Agrees, |ca| {
        holds(ca, &ec(Nid::X9_62_PRIME192V1))
    }),
    ("a key on secp256k1", UNTRUSTED, Laxer(KINDS), |ca| {
        holds(ca, &ec(Nid::SECP256K1))
    }),
    ("a key on brainpoolP256r1", UNTRUSTED, Laxer(KINDS), |ca| {
        holds(ca, &ec(Nid::BRAINPOOL_P256R1))
    }),
    (
        "a key on a curve that is spelled out",
        UNTRUSTED,
        Agrees,
        |ca| {
            let mut group = openssl::ec::EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
            group.set_asn1_flag(openssl::ec::Asn1Flag::EXPLICIT_CURVE);
            let key = openssl::ec::EcKey::generate(&group).unwrap();
            holds(ca, &PKey::from_ec_key(key).unwrap())
        },
    ),
    ("a key that is not on its curve", NOBODYS, Agrees, |ca| {
        off_the_curve(mint()).sign_with(ca)
    }),
    ("a key of no bits", NOBODYS, Agrees, |ca| {
        with_parts(mint(), |all| {
            let algorithm = parts(content(&all[KEY])).remove(0);
            all[KEY] = sequence(&[&algorithm, &tlv(3, &[0])]);
        })
        .sign_with(ca)
    }),
    ("signed with SHA-1", UNTRUSTED, Agrees, |ca| {
        after_signing(mint().sign_with(ca), |all| {
            let mut tbs = parts(content(&all[0]));
            tbs[ALGORITHM] = ECDSA_SHA1.algorithm.to_vec();
            *all = signed(&tlv(0x30, &tbs.concat()), &Ca::root(ca).key, ECDSA_SHA1);
        })
    }),
    ("signed with SHA-1 and RSA", UNTRUSTED, Agrees, |ca| {
        Ca::rsa(ca, 2_048).issue(mint().sign_with(ca), RSA_SHA1)
    }),
    ("signed with MD5 and RSA", UNTRUSTED, Agrees, |ca| {
        Ca::rsa(ca, 2_048).issue(mint().sign_with(ca), RSA_MD5)
    }),
    ("signed with SHA-256 and RSA", Read, Agrees, |ca| {
        Ca::rsa(ca, 2_048).issue(mint().sign_with(ca), RSA_SHA256)
    }),
    ("signed with RSA of 1024 bits", UNTRUSTED, Agrees, |ca| {
        Ca::rsa(ca, 1_024).issue(mint().sign_with(ca), RSA_SHA256)
    }),
    ("signed with SHA-512 and P-256", Read, Agrees, |ca| {
        after_signing(mint().sign_with(ca), |all| {
            let mut tbs = parts(content(&all[0]));
            tbs[ALGORITHM] = ECDSA_SHA512.algorithm.to_vec();
            *all = signed(&tlv(0x30, &tbs.concat()), &Ca::root(ca).key, ECDSA_SHA512);
        })
    }),
    (
        "one algorithm outside, another inside",
        UNTRUSTED,
        Agrees,
        |ca| {
            after_signing(mint().sign_with(ca), |all| {
                all[1] = ECDSA_SHA512.algorithm.to_vec()
            })
        },
    ),
    ("SHA-1 outside, SHA-256 inside", UNTRUSTED, Agrees, |ca| {
        after_signing(mint().sign_with(ca), |all| {
            all[1] = ECDSA_SHA1.algorithm.to_vec()
        })
    }),
    (
        "an algorithm with parameters it has not",
        UNTRUSTED,
        Laxer("OpenSSL compares the two identifiers with each other only"),
        |ca| {
            after_signing(mint().sign_with(ca), |all| {
                let odd = sequence(&[content(ECDSA_SHA256.algorithm), &[5, 0]]);
                let mut tbs = parts(content(&all[0]));
                tbs[ALGORITHM] = odd.clone();
                *all = signed(&tlv(0x30, &tbs.concat()), &Ca::root(ca).key, ECDSA_SHA256);
                all[1] = odd;
            })
        },
    ),
    ("a bit of the signature turned", UNTRUSTED, Agrees, |ca| {
        bytes(mint().sign_with(ca), |der| *der.last_mut().unwrap() ^= 1)
    }),
    ("a bit of what is signed turned", UNTRUSTED, Agrees, |ca| {
        after_signing(mint().sign_with(ca), |all| {
            let mut tbs = parts(content(&all[0]));
            let last = tbs[SERIAL].len() - 1;
            tbs[SERIAL][last] ^= 1;
            all[0] = tlv(0x30, &tbs.concat());
        })
    }),
    (
        "the signature of another certificate",
        UNTRUSTED,
        Agrees,
        |ca| {
            let other = outside(mint().sign_with(ca).leaf());
            after_signing(mint().sign_with(ca), move |all| all[2] = other[2].clone())
        },
    ),
    ("a signature of zeroes", UNTRUSTED, Agrees, |ca| {
        after_signing(mint().sign_with(ca), |all| {
            all[2] = tlv(3, &[0, 0x30, 6, 2, 1, 0, 2, 1, 0])
        })
    }),
    ("no signature", UNTRUSTED, Agrees, |ca| {
        after_signing(mint().sign_with(ca), |all| all[2] = tlv(3, &[0]))
    }),
    (
        "a signature of a number of bits that is no number of bytes",
        UNTRUSTED,
        Agrees,
        |ca| {
            after_signing(mint().sign_with(ca), |all| {
                let mut bits = content(&all[2]).to_vec();
                bits[0] = 4;
                all[2] = tlv(3, &bits);
            })
        },
    ),
    ("a byte behind the signature", UNTRUSTED, Agrees, |ca| {
        after_signing(mint().sign_with(ca), |all| {
            let bits = [content(&all[2]), &[0]].concat();
            all[2] = tlv(3, &bits);
        })
    }),
    (
        "signed by another key under the root's name",
        UNTRUSTED,
        Agrees,
        |_| mint().sign_with(&TestCa::root("clients")),
    ),
    (
        "signed by its own key under the root's name",
        UNTRUSTED,
        Agrees,
        |ca| {
            let minted = mint().sign_with(ca);
            let own = PKey::private_key_from_pem(minted.key_pem().as_bytes()).unwrap();
            after_signing(minted, |all| {
                *all = signed(&all[0].clone(), &own, ECDSA_SHA256)
            })
        },
    ),
];
