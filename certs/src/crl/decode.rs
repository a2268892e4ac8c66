//! DER and PEM of revocation lists (RFC 5280, section 5.1), read strictly.
//!
//! Invariant: every byte is accounted for: a value that does not parse, an unknown critical extension, something left over
//! refuses the list. Signatures are verified in `issuers.rs`.

use std::collections::HashMap;

use der::asn1::{AnyRef, ContextSpecific, ObjectIdentifier};
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_cert::ext::pkix::IssuingDistributionPoint;
use x509_cert::ext::{Extension, Extensions};
use x509_cert::time::Time;

use super::{CrlError, CrlNumber, MAX_BYTES, RevocationReason, RevokedEntry};
use crate::identity::Serial;
use crate::signature::Signed;

const NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
const REASON: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
const DELTA: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.27");
const DISTRIBUTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");
const ENTRY_ISSUER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.29");
/// removeFromCRL, which complete lists do not have.
const REMOVE: u8 = 8;

/// A list as it is written, its signature not verified.
pub(super) struct Decoded<'a> {
    pub(super) signed: Signed<'a>,
    /// The issuer's name in DER.
    pub(super) issuer: &'a [u8],
    pub(super) number: Option<CrlNumber>,
    pub(super) this_update: i64,
    pub(super) next_update: i64,
    pub(super) revoked: HashMap<Serial, RevokedEntry>,
}

fn malformed(error: impl std::fmt::Display) -> CrlError {
    CrlError::Malformed {
        why: error.to_string(),
    }
}

pub(super) fn split(bytes: &[u8]) -> Result<Vec<Vec<u8>>, CrlError> {
    const BEGIN: &[u8] = b"-----BEGIN";
    if bytes.len() > MAX_BYTES {
        return Err(CrlError::TooLarge);
    }
    if bytes.trim_ascii().is_empty() {
        return Err(CrlError::Empty);
    }
    let begun = bytes.windows(BEGIN.len()).filter(|at| *at == BEGIN).count();
    // A DER list begins with its tag; what a list holds may look like anything.
    if bytes.first() == Some(&0x30) {
        return split_der(bytes);
    }
    let mut lists = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        match section.map_err(malformed)? {
            (SectionKind::Crl, der) => lists.push(der),
            (kind, _) => return Err(malformed(format!("a section of another kind ({kind:?})"))),
        }
    }
    // The reader passes over sections whose label it does not know.
    match lists.len() {
        0 if begun == 0 => Err(malformed("neither DER nor PEM")),
        read if read == begun => Ok(lists),
        _ => Err(malformed("a PEM section that is not `X509 CRL`")),
    }
}

fn split_der(bytes: &[u8]) -> Result<Vec<Vec<u8>>, CrlError> {
    let mut lists = Vec::new();
    let mut reader = SliceReader::new(bytes).map_err(malformed)?;
    while !reader.is_finished() {
        let one = reader.tlv_bytes().map_err(malformed)?;
        if one.first() != Some(&0x30) {
            return Err(malformed("something after a list that is none"));
        }
        lists.push(one.to_vec());
    }
    Ok(lists)
}

/// A list of version 2.
pub(super) fn decode(der: &[u8]) -> Result<Decoded<'_>, CrlError> {
    if der.len() > MAX_BYTES {
        return Err(CrlError::TooLarge);
    }
    let signed = Signed::decode(der).map_err(malformed)?;
    if !signed.rest.is_empty() {
        return Err(malformed("something after the signature"));
    }
    let content = AnyRef::from_der(signed.content).map_err(malformed)?;
    content.tag().assert_eq(Tag::Sequence).map_err(malformed)?;
    let mut reader = SliceReader::new(content.value()).map_err(malformed)?;
    let version = u8::decode(&mut reader).map_err(malformed)?;
    if version != 1 {
        return Err(malformed("another version than 2"));
    }
    if reader.tlv_bytes().map_err(malformed)? != signed.algorithm {
        return Err(malformed("two different signature algorithms"));
    }
    let issuer = reader.tlv_bytes().map_err(malformed)?;
    if issuer.first() != Some(&0x30) {
        return Err(malformed("an issuer that is no name"));
    }
    let this_update = time(&mut reader).map_err(malformed)?;
    if !matches!(reader.peek_byte(), Some(0x17 | 0x18)) {
        return Err(CrlError::NoNextUpdate);
    }
    let next_update = time(&mut reader).map_err(malformed)?;
    let revoked = if reader.peek_byte() == Some(0x30) {
        let entries = AnyRef::decode(&mut reader).map_err(malformed)?;
        entries_of(entries.value())?
    } else {
        HashMap::new()
    };
    let extensions = ContextSpecific::<Extensions>::decode_explicit(&mut reader, TagNumber::N0)
        .map_err(malformed)?
        .map_or_else(Vec::new, |found| found.value);
    reader.finish(()).map_err(malformed)?;
    Ok(Decoded {
        signed,
        issuer,
        number: number(&extensions)?,
        this_update,
        next_update,
        revoked,
    })
}

fn time(reader: &mut SliceReader<'_>) -> der::Result<i64> {
    let time = Time::decode(reader)?;
    i64::try_from(time.to_unix_duration().as_secs()).map_err(|_| Tag::GeneralizedTime.value_error())
}

/// The number, after every extension was looked at.
fn number(extensions: &[Extension]) -> Result<Option<CrlNumber>, CrlError> {
    let mut number = None;
    for (at, extension) in extensions.iter().enumerate() {
        let id = extension.extn_id;
        if extensions
            .iter()
            .skip(at + 1)
            .any(|other| other.extn_id == id)
        {
            return Err(malformed("an extension twice"));
        }
        let value = extension.extn_value.as_bytes();
        if id == NUMBER {
            let integer = AnyRef::from_der(value).map_err(malformed)?;
            integer.tag().assert_eq(Tag::Integer).map_err(malformed)?;
            let read = CrlNumber::decode(integer.value());
            number = Some(read.ok_or_else(|| malformed("a number that is negative or too long"))?);
        } else if id == DELTA {
            return Err(CrlError::Unsupported {
                what: "it is a delta to another list",
            });
        } else if id == DISTRIBUTION {
            complete(value)?;
        } else if extension.critical {
            return Err(CrlError::Unsupported {
                what: "it has a critical extension that is not known here",
            });
        }
    }
    Ok(number)
}

/// Refuses a list that does not cover every client certificate of its issuer.
fn complete(value: &[u8]) -> Result<(), CrlError> {
    let point = IssuingDistributionPoint::from_der(value).map_err(malformed)?;
    let what = if point.only_contains_ca_certs || point.only_contains_attribute_certs {
        "it does not cover the certificates of clients"
    } else if point.only_some_reasons.is_some() {
        "it covers some reasons only"
    } else if point.indirect_crl {
        "it may list certificates of other issuers"
    } else {
        return Ok(());
    };
    Err(CrlError::Unsupported { what })
}

fn entries_of(content: &[u8]) -> Result<HashMap<Serial, RevokedEntry>, CrlError> {
    // An entry has at least 30 bytes.
    let mut revoked = HashMap::with_capacity(content.len() / 32);
    let mut reader = SliceReader::new(content).map_err(malformed)?;
    if reader.is_finished() {
        return Err(malformed("an empty list of entries"));
    }
    while !reader.is_finished() {
        let entry = AnyRef::decode(&mut reader).map_err(malformed)?;
        entry.tag().assert_eq(Tag::Sequence).map_err(malformed)?;
        let mut inside = SliceReader::new(entry.value()).map_err(malformed)?;
        let serial = AnyRef::decode(&mut inside).map_err(malformed)?;
        serial.tag().assert_eq(Tag::Integer).map_err(malformed)?;
        let at = time(&mut inside).map_err(malformed)?;
        let reason = if inside.is_finished() {
            RevocationReason::Unspecified
        } else {
            let extensions = Extensions::decode(&mut inside).map_err(malformed)?;
            inside.finish(()).map_err(malformed)?;
            reason(&extensions)?
        };
        // No certificate that is accepted has an odd serial number, so such an entry says nothing.
        if let Ok(serial) = Serial::decode(serial.value()) {
            revoked.insert(serial, RevokedEntry { at, reason });
        }
    }
    Ok(revoked)
}

fn reason(extensions: &[Extension]) -> Result<RevocationReason, CrlError> {
    let mut reason = RevocationReason::Unspecified;
    for extension in extensions {
        if extension.extn_id == REASON {
            let code = match extension.extn_value.as_bytes() {
                // ENUMERATED of one octet.
                [0x0a, 1, code] => *code,
                _ => return Err(malformed("a reason that cannot be read")),
            };
            if code == REMOVE {
                return Err(CrlError::Unsupported {
                    what: "it takes entries back, which only deltas do",
                });
            }
            // A code of later standards revokes as well.
            reason = RevocationReason::from_code(code).unwrap_or(RevocationReason::Unspecified);
        } else if extension.extn_id == ENTRY_ISSUER {
            return Err(CrlError::Unsupported {
                what: "it lists certificates of other issuers",
            });
        } else if extension.critical {
            return Err(CrlError::Unsupported {
                what: "an entry has a critical extension that is not known here",
            });
        }
    }
    Ok(reason)
}
