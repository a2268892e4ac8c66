//! Just enough DER to change a certificate and sign it again.
//!
//! Invariant: what is changed is signed for real. Not a parser: it reads only what was minted here.

use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;

pub(super) type Tamper = Box<dyn FnOnce(&mut Vec<u8>)>;

/// Applies `tamper` to the TBSCertificate's content and signs the result again.
pub(super) fn resign(
    certificate: &CertificateDer<'static>,
    tamper: Vec<Tamper>,
    key: &KeyPair,
) -> CertificateDer<'static> {
    if tamper.is_empty() {
        return certificate.clone();
    }
    let (outer, _) = read_tlv(certificate);
    let (tbs, rest) = read_tlv(outer);
    let (algorithm, _) = read_tlv(rest);
    let mut tbs = tbs.to_vec();
    for change in tamper {
        change(&mut tbs);
    }
    let tbs = tlv(0x30, &tbs);
    let signature = rcgen::SigningKey::sign(key, &tbs).unwrap();
    let signature = tlv(0x03, &[&[0], signature.as_slice()].concat());
    let body = [tbs, tlv(0x30, algorithm), signature].concat();
    tlv(0x30, &body).into()
}

/// One DER element: tag, length, content.
#[must_use]
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut der = vec![tag];
    if length < 0x80 {
        der.push(u8::try_from(length).unwrap());
    } else {
        let octets = length.to_be_bytes();
        let octets = &octets[octets.iter().position(|octet| *octet != 0).unwrap()..];
        der.push(0x80 | u8::try_from(octets.len()).unwrap());
        der.extend_from_slice(octets);
    }
    der.extend_from_slice(content);
    der
}

/// The content of the first DER element, and what follows it.
fn read_tlv(der: &[u8]) -> (&[u8], &[u8]) {
    let (header, length) = match der[1] {
        short if short < 0x80 => (2, usize::from(short)),
        long => {
            let octets = &der[2..2 + usize::from(long & 0x7f)];
            let length = octets
                .iter()
                .fold(0, |sum, octet| (sum << 8) | usize::from(*octet));
            (2 + octets.len(), length)
        }
    };
    (&der[header..header + length], &der[header + length..])
}
