//! An answer that a server sends along with its certificate, as its client judges it (RFC 6960, section 3.2; RFC 7633).
//!
//! Invariant: a stapled answer that is there has to be good: for this certificate, signed by its issuer or by whom the issuer
//! has named for that, in its window. One that is missing is missed only where the certificate says that there is one.

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Encode, Reader, SliceReader, Tag, Tagged};
use rustls_pki_types::CertificateDer;
use x509_ocsp::{
    BasicOcspResponse, CertStatus, OcspGeneralizedTime, OcspResponse, OcspResponseStatus,
    ResponderId, ResponseData,
};

use super::{is_of, serial_of};
use crate::identity::{self, Serial};
use crate::signature::{PublicKey, Signed};

const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
/// id-pe-tlsfeature (RFC 7633), as the content of its DER.
const TLS_FEATURE: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 1, 24];
/// How far apart the clocks may be, seconds.
const SKEW: i64 = 300;
/// status_request.
const STATUS_REQUEST: &[u8] = &[5];

/// Why a server's certificate is refused for its status. Times are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StapledError {
    /// The certificate demands an answer, and there is none.
    #[error("the certificate demands a stapled OCSP response, and there is none")]
    Missing,
    /// It cannot be read.
    #[error("the stapled OCSP response cannot be read")]
    Malformed,
    /// The responder did not answer.
    #[error("the stapled OCSP response is an error of its responder")]
    NoAnswer,
    /// It is about other certificates.
    #[error("the stapled OCSP response is about another certificate")]
    OtherCertificate,
    /// Neither the issuer nor a responder of the issuer has signed it.
    #[error(
        "the stapled OCSP response is not signed by the issuer of the certificate or a responder of it"
    )]
    BadSignature,
    /// It is of the future.
    #[error("the stapled OCSP response is from {this_update}, and it is {now}; check the clocks")]
    Future {
        /// Its thisUpdate.
        this_update: i64,
        /// The time of the check.
        now: i64,
    },
    /// It is out of date, or does not say until when it is good.
    #[error("the stapled OCSP response is out of date")]
    TooOld,
    /// The certificate is revoked.
    #[error("the certificate is revoked, its stapled OCSP response says")]
    Revoked,
    /// The responder does not know the certificate.
    #[error("the responder of the stapled OCSP response does not know the certificate")]
    Unknown,
}

/// The issuer of a certificate, as its verified path has it.
#[derive(Debug, Clone)]
pub(crate) struct PathIssuer {
    /// Its name in DER.
    pub(crate) name: Vec<u8>,
    /// The content of its SubjectPublicKeyInfo, without the outer tag and length.
    pub(crate) key: Vec<u8>,
}

/// Judges what was stapled to `leaf`; `response` is empty when nothing was. `now` is Unix seconds.
pub(crate) fn verify(
    response: &[u8],
    leaf: &CertificateDer<'_>,
    issuer: &PathIssuer,
    now: i64,
) -> Result<(), StapledError> {
    if response.is_empty() {
        return if demands_one(leaf)? {
            Err(StapledError::Missing)
        } else {
            Ok(())
        };
    }
    let malformed = |_| StapledError::Malformed;
    let outer = OcspResponse::from_der(response).map_err(malformed)?;
    if outer.response_status != OcspResponseStatus::Successful {
        return Err(StapledError::NoAnswer);
    }
    let bytes = outer.response_bytes.ok_or(StapledError::Malformed)?;
    if bytes.response_type != BASIC {
        return Err(StapledError::Malformed);
    }
    let basic = bytes.response.as_bytes();
    // The whole has to parse, certificates and all.
    BasicOcspResponse::from_der(basic).map_err(malformed)?;
    let signed = Signed::decode(basic).map_err(malformed)?;
    let data = ResponseData::from_der(signed.content).map_err(malformed)?;
    if data
        .response_extensions
        .iter()
        .flatten()
        .any(|extension| extension.critical)
    {
        return Err(StapledError::Malformed);
    }
    let key = PublicKey::content(&issuer.key).map_err(malformed)?;
    let parsed = identity::parse(leaf).map_err(|_| StapledError::Malformed)?;
    let serial = Serial::decode(parsed.raw_serial()).map_err(|_| StapledError::Malformed)?;
    let single = data
        .responses
        .iter()
        .find(|one| {
            is_of(&one.cert_id, &issuer.name, key.bits)
                && serial_of(&one.cert_id).is_some_and(|said| said == serial)
        })
        .ok_or(StapledError::OtherCertificate)?;
    verify_signature(&signed, &data.responder_id, issuer, key, now)?;
    if single
        .single_extensions
        .iter()
        .flatten()
        .any(|extension| extension.critical)
    {
        return Err(StapledError::Malformed);
    }
    let this_update = seconds(single.this_update);
    if this_update > now.saturating_add(SKEW) {
        return Err(StapledError::Future { this_update, now });
    }
    let next_update = single.next_update.map(seconds);
    if next_update.is_none_or(|until| until < now.saturating_sub(SKEW)) {
        return Err(StapledError::TooOld);
    }
    match single.cert_status {
        CertStatus::Good(_) => Ok(()),
        CertStatus::Revoked(_) => Err(StapledError::Revoked),
        CertStatus::Unknown(_) => Err(StapledError::Unknown),
    }
}

fn seconds(time: OcspGeneralizedTime) -> i64 {
    i64::try_from(time.0.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

/// Whether the certificate says that its server staples.
fn demands_one(leaf: &CertificateDer<'_>) -> Result<bool, StapledError> {
    let parsed = identity::parse(leaf).map_err(|_| StapledError::Malformed)?;
    let Some(feature) = parsed
        .extensions()
        .iter()
        .find(|extension| extension.oid.as_bytes() == TLS_FEATURE)
    else {
        return Ok(false);
    };
    let malformed = |_| StapledError::Malformed;
    let features = AnyRef::from_der(feature.value).map_err(malformed)?;
    features.tag().assert_eq(Tag::Sequence).map_err(malformed)?;
    let mut reader = SliceReader::new(features.value()).map_err(malformed)?;
    let mut demanded = false;
    while !reader.is_finished() {
        let one = AnyRef::decode(&mut reader).map_err(malformed)?;
        one.tag().assert_eq(Tag::Integer).map_err(malformed)?;
        demanded |= one.value() == STATUS_REQUEST;
    }
    Ok(demanded)
}

/// RFC 6960, section 4.2.2.2: the issuer itself, or a certificate of the issuer's for signing such answers.
fn verify_signature(
    signed: &Signed<'_>,
    responder: &ResponderId,
    issuer: &PathIssuer,
    key: PublicKey<'_>,
    now: i64,
) -> Result<(), StapledError> {
    if is_responder(responder, &issuer.name, key.bits) && signed.verify(key).is_ok() {
        return Ok(());
    }
    let certificates = certificates(signed.rest).map_err(|_| StapledError::Malformed)?;
    let delegated = certificates
        .into_iter()
        .any(|der| is_delegated(der, signed, responder, issuer, key, now));
    delegated.then_some(()).ok_or(StapledError::BadSignature)
}

fn is_delegated(
    der: &[u8],
    signed: &Signed<'_>,
    responder: &ResponderId,
    issuer: &PathIssuer,
    key: PublicKey<'_>,
    now: i64,
) -> bool {
    let Ok(parsed) = identity::parse(&CertificateDer::from(der)).map(|parsed| {
        let purpose =
            matches!(parsed.extended_key_usage(), Ok(Some(usage)) if usage.value.ocsp_signing);
        let signs = match parsed.key_usage() {
            Ok(None) => true,
            Ok(Some(usage)) => usage.value.digital_signature(),
            Err(_) => false,
        };
        let validity = parsed.validity();
        let in_force =
            validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp();
        let named = parsed.issuer().as_raw() == issuer.name;
        (
            purpose && signs && in_force && named,
            parsed.subject().as_raw().to_vec(),
            parsed.public_key().raw.to_vec(),
        )
    }) else {
        return false;
    };
    let (fit, name, public) = parsed;
    let (Ok(own), Ok(certificate)) = (PublicKey::decode(&public), Signed::decode(der)) else {
        return false;
    };
    fit && is_responder(responder, &name, own.bits)
        && certificate.verify(key).is_ok()
        && signed.verify(own).is_ok()
}

fn is_responder(responder: &ResponderId, name: &[u8], key: &[u8]) -> bool {
    use aws_lc_rs::digest;
    match responder {
        ResponderId::ByName(said) => said.to_der().is_ok_and(|said| said == name),
        ResponderId::ByKey(hash) => {
            digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key).as_ref() == hash.as_bytes()
        }
    }
}

/// The certificates that come with a response: `[0] EXPLICIT SEQUENCE OF Certificate`, each as it was written.
fn certificates(rest: &[u8]) -> der::Result<Vec<&[u8]>> {
    let mut found = Vec::new();
    if rest.is_empty() {
        return Ok(found);
    }
    let tagged = AnyRef::from_der(rest)?;
    let list = AnyRef::from_der(tagged.value())?;
    list.tag().assert_eq(Tag::Sequence)?;
    let mut reader = SliceReader::new(list.value())?;
    while !reader.is_finished() {
        found.push(reader.tlv_bytes()?);
    }
    Ok(found)
}
