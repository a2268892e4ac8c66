//! Certificates that no library would make: the parts of a good one changed, and signed for real.
//!
//! Invariant: unless the signature itself is what is wrong, it holds, so that a row of the table fails at its own
//! defect. Reads only what was minted here.

use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use rustls_pki_types::CertificateDer;
use uuid::Uuid;

use crate::testing::{KeyUsagePurpose, Mint, Minted, TestCa, tlv};

// Places of the parts of a TBSCertificate (RFC 5280, section 4.1).
pub const VERSION: usize = 0;
pub const SERIAL: usize = 1;
pub const ALGORITHM: usize = 2;
pub const ISSUER: usize = 3;
pub const VALIDITY: usize = 4;
pub const SUBJECT: usize = 5;
pub const KEY: usize = 6;
pub const EXTENSIONS: usize = 7;

// Object identifiers of extensions, content octets.
pub const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
pub const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
pub const ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
pub const BASIC: &[u8] = &[0x55, 0x1d, 0x13];
pub const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
pub const EXTENDED_USAGE: &[u8] = &[0x55, 0x1d, 0x25];

pub type Part = Vec<u8>;

/// A good leaf, not yet signed.
pub fn mint() -> Mint {
    Mint::client(Uuid::from_u128(1), Uuid::from_u128(2))
}

/// The elements of a content, each with its tag and length.
pub fn parts(mut content: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    while !content.is_empty() {
        let whole = header(content).0 + header(content).1;
        parts.push(content[..whole].to_vec());
        content = &content[whole..];
    }
    parts
}

/// What is in one element.
pub fn content(element: &[u8]) -> &[u8] {
    let (header, length) = header(element);
    &element[header..header + length]
}

/// How long the header of an element is, and its content.
fn header(der: &[u8]) -> (usize, usize) {
    let more = usize::from(der[1] & 0x7f);
    if der[1] < 0x80 {
        return (2, more);
    }
    let octets = &der[2..2 + more];
    let length = octets
        .iter()
        .fold(0, |sum, octet| (sum << 8) | usize::from(*octet));
    (2 + more, length)
}

pub fn sequence(parts: &[&[u8]]) -> Part {
    tlv(0x30, &parts.concat())
}

/// An object identifier of these content octets.
pub fn oid(octets: &[u8]) -> Part {
    tlv(0x06, octets)
}

pub fn extension(id: &[u8], critical: bool, value: &[u8]) -> Part {
    let mark: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
    sequence(&[&oid(id), mark, &tlv(0x04, value)])
}

/// With the parts of what is signed changed.
pub fn with_parts(mint: Mint, change: impl FnOnce(&mut Vec<Part>) + 'static) -> Mint {
    mint.tamper_tbs(move |tbs| {
        let mut all = parts(tbs);
        change(&mut all);
        *tbs = all.concat();
    })
}

/// With another element in the place of one part.
pub fn with_part(mint: Mint, at: usize, element: Part) -> Mint {
    with_parts(mint, move |all| all[at] = element)
}

/// With the list of extensions changed.
pub fn with_extensions(mint: Mint, change: impl FnOnce(&mut Vec<Part>) + 'static) -> Mint {
    with_parts(mint, move |all| {
        let mut extensions = parts(content(content(&all[EXTENSIONS])));
        change(&mut extensions);
        all[EXTENSIONS] = tlv(0xa3, &tlv(0x30, &extensions.concat()));
    })
}

/// With this in the place of the extension of that kind, or behind all others.
pub fn with_extension(mint: Mint, id: &'static [u8], element: Part) -> Mint {
    with_extensions(mint, move |all| put(all, id, element))
}

fn is_of(id: &[u8], extension: &[u8]) -> bool {
    content(extension).starts_with(&oid(id))
}

fn put(all: &mut Vec<Part>, id: &[u8], element: Part) {
    match all.iter_mut().find(|one| is_of(id, one)) {
        Some(old) => *old = element,
        None => all.push(element),
    }
}

pub fn without(mint: Mint, id: &'static [u8]) -> Mint {
    with_extensions(mint, move |all| all.retain(|one| !is_of(id, one)))
}

/// With the public key of this pair, for which the holder of the certificate signs with another: it is looked at only
/// if the certificate itself was good.
pub fn with_key(mint: Mint, key: &PKey<Private>) -> Mint {
    let spki = key.public_key_to_der().unwrap();
    with_part(mint, KEY, spki)
}

/// Certificate, signed bytes, algorithm and signature taken apart: `[tbs, algorithm, signature]`.
pub fn outside(certificate: &[u8]) -> Vec<Part> {
    parts(content(certificate))
}

/// The same leaf with its outer parts changed after it was signed.
pub fn after_signing(mut minted: Minted, change: impl FnOnce(&mut Vec<Part>)) -> Minted {
    let mut all = outside(minted.leaf());
    change(&mut all);
    minted.chain[0] = tlv(0x30, &all.concat()).into();
    minted
}

/// The same leaf with its bytes changed after it was signed.
pub fn bytes(mut minted: Minted, change: impl FnOnce(&mut Vec<u8>)) -> Minted {
    let mut leaf = minted.chain[0].to_vec();
    change(&mut leaf);
    minted.chain[0] = leaf.into();
    minted
}

/// An algorithm of signatures: its identifier, its digest.
#[derive(Clone, Copy)]
pub struct How {
    pub algorithm: &'static [u8],
    pub digest: fn() -> MessageDigest,
}

pub const ECDSA_SHA256: How = How {
    algorithm: &[0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
    digest: MessageDigest::sha256,
};
pub const ECDSA_SHA1: How = How {
    algorithm: &[0x30, 0x09, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1],
    digest: MessageDigest::sha1,
};
pub const ECDSA_SHA512: How = How {
    algorithm: &[0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4],
    digest: MessageDigest::sha512,
};
pub const RSA_SHA256: How = How {
    algorithm: &[
        0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0,
    ],
    digest: MessageDigest::sha256,
};
pub const RSA_SHA1: How = How {
    algorithm: &[
        0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5, 5, 0,
    ],
    digest: MessageDigest::sha1,
};
pub const RSA_MD5: How = How {
    algorithm: &[
        0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4, 5, 0,
    ],
    digest: MessageDigest::md5,
};

/// A CA certificate of our own making with its key, below the real one.
#[derive(Clone)]
pub struct Ca {
    pub der: CertificateDer<'static>,
    pub key: PKey<Private>,
    /// What its holders send above it.
    pub above: Vec<CertificateDer<'static>>,
}

/// A CA certificate in the making: as a good leaf, but for what makes it one.
pub fn ca_mint() -> Mint {
    let (grant, subject) = (Uuid::new_v4(), Uuid::from_u128(2));
    Mint::client(grant, subject)
        .as_ca()
        .eku(&[])
        .key_usage(&[KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign])
}

impl Ca {
    /// Of a minted certificate and its own key.
    pub fn of(minted: Minted) -> Self {
        let key = PKey::private_key_from_pem(minted.key_pem().as_bytes()).unwrap();
        Self::with_key(minted, key)
    }

    /// Of a minted certificate in which this key stands.
    pub fn with_key(mut minted: Minted, key: PKey<Private>) -> Self {
        let der = minted.chain.remove(0);
        Self {
            der,
            key,
            above: minted.chain,
        }
    }

    /// The root of the table.
    pub fn root(ca: &TestCa) -> Self {
        Self {
            der: ca.der().clone(),
            key: PKey::private_key_from_pem(ca.key_pem().as_bytes()).unwrap(),
            above: Vec::new(),
        }
    }

    /// A CA with an RSA key of that many bits, signed by `ca`.
    pub fn rsa(ca: &TestCa, bits: u32) -> Self {
        let key = rsa(bits);
        Self::with_key(with_key(ca_mint(), &key).sign_with(ca), key)
    }

    /// Issues what is in `minted` anew: its issuer, key identifier and signature become this one's.
    pub fn issue(&self, minted: Minted, how: How) -> Minted {
        let mut issued = after_signing(minted, |all| {
            let mut tbs = parts(content(&all[0]));
            let mine = parts(content(&outside(&self.der)[0]));
            tbs[ISSUER] = mine[SUBJECT].clone();
            tbs[ALGORITHM] = how.algorithm.to_vec();
            let mut extensions = parts(content(content(&tbs[EXTENSIONS])));
            let authority = extension(
                AUTHORITY_KEY_ID,
                false,
                &sequence(&[&tlv(0x80, &key_id(&mine))]),
            );
            put(&mut extensions, AUTHORITY_KEY_ID, authority);
            tbs[EXTENSIONS] = tlv(0xa3, &tlv(0x30, &extensions.concat()));
            *all = signed(&tlv(0x30, &tbs.concat()), &self.key, how);
        });
        issued.chain.truncate(1);
        issued.chain.push(self.der.clone());
        issued.chain.extend(self.above.iter().cloned());
        issued
    }
}

/// What a certificate calls its own key.
fn key_id(tbs: &[Part]) -> Vec<u8> {
    let extensions = parts(content(content(tbs.last().unwrap())));
    let own = extensions
        .iter()
        .find(|one| is_of(SUBJECT_KEY_ID, one))
        .unwrap();
    let value = parts(content(own)).pop().unwrap();
    content(content(&value)).to_vec()
}

/// The outer parts of a certificate of these bytes.
pub fn signed(tbs: &[u8], key: &PKey<Private>, how: How) -> Vec<Part> {
    let mut signer = Signer::new((how.digest)(), key).unwrap();
    let signature = signer.sign_oneshot_to_vec(tbs).unwrap();
    let bits = tlv(0x03, &[&[0], signature.as_slice()].concat());
    vec![tbs.to_vec(), how.algorithm.to_vec(), bits]
}

pub fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(openssl::rsa::Rsa::generate(bits).unwrap()).unwrap()
}

/// A key on a curve of that name.
pub fn ec(curve: openssl::nid::Nid) -> PKey<Private> {
    let group = openssl::ec::EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap()
}
