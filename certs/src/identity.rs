//! Who a verified peer certificate says it is.
//!
//! Invariant: a [`PeerIdentity`] exists only for a leaf that states exactly one grant and one
//! subject, in canonical form, and that may be used for client authentication. It says nothing
//! about trust: the chain is verified in `verify.rs`, and what the grant may do is decided
//! elsewhere. This layer checks what the path validator does not: key usage, duplicate extensions,
//! odd serial numbers, and spellings that are not DER.

use std::fmt;

use aws_lc_rs::digest;
use der::asn1::AnyRef;
use der::{Decode as _, Encode as _};
use uuid::Uuid;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ParsedExtension, X509Extension};

use crate::oid::{self, ClaimDefect, ClaimExtension};

/// The longest serial number, in octets of its DER INTEGER (RFC 5280, section 4.1.2.2).
const SERIAL_MAX_OCTETS: usize = 20;

/// Why a leaf certificate gives no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bytes are not one DER certificate.
    #[error("the certificate is not valid DER; issue a new one")]
    MalformedCertificate,
    /// A standard extension does not parse, or says what none may say.
    #[error("a standard extension of the certificate does not parse; issue a new certificate")]
    MalformedExtension,
    /// The same extension, any extension, occurs twice (RFC 5280, section 4.2).
    #[error("the certificate repeats an extension; issue a new one")]
    DuplicateExtension,
    /// The serial number is zero, negative, padded or longer than 20 octets.
    #[error("the certificate's serial number is not a positive integer of at most 20 octets")]
    OddSerial,
    /// The certificate is a certificate authority's.
    #[error("the certificate is a CA certificate, which cannot identify a peer")]
    CaCertificate,
    /// keyUsage is present without digitalSignature.
    #[error("the certificate's keyUsage lacks digitalSignature")]
    NoDigitalSignature,
    /// keyUsage has keyCertSign, which only a CA certificate may have (RFC 5280, section 4.2.1.3).
    #[error("the certificate's keyUsage has keyCertSign, but it is no CA certificate")]
    MaySignCertificates,
    /// extendedKeyUsage is absent or lacks clientAuth.
    #[error("the certificate's extendedKeyUsage lacks clientAuth")]
    NoClientAuth,
    /// One of the two private extensions is missing or malformed.
    #[error("the certificate's {extension} extension {defect}")]
    Claim {
        /// Which extension.
        extension: ClaimExtension,
        /// What is wrong with it.
        defect: ClaimDefect,
    },
}

/// A certificate serial number: lower-case hex of its magnitude, two digits an octet, without the
/// sign octet that DER puts before a high bit. At most 40 digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(Box<str>);

impl Serial {
    /// Decodes the content octets of the DER INTEGER.
    ///
    /// # Errors
    /// [`IdentityError::OddSerial`] when it is zero, negative, not minimally encoded or longer than
    /// 20 octets.
    pub fn decode(content: &[u8]) -> Result<Self, IdentityError> {
        if content.len() > SERIAL_MAX_OCTETS {
            return Err(IdentityError::OddSerial);
        }
        let magnitude = match content {
            // A sign octet is allowed only where the next octet needs it.
            [0, rest @ ..] if rest.first().is_some_and(|next| next & 0x80 != 0) => rest,
            [first, ..] if *first != 0 && first & 0x80 == 0 => content,
            _ => return Err(IdentityError::OddSerial),
        };
        Ok(Self(hex::encode(magnitude).into_boxed_str()))
    }

    /// The hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number in decimal, as other tools write it.
    #[must_use]
    pub fn to_decimal(&self) -> String {
        // Digits, lowest first; each hex digit multiplies by 16 and adds itself.
        let mut digits: Vec<u32> = vec![0];
        for hex in self.0.chars().filter_map(|c| c.to_digit(16)) {
            let mut carry = hex;
            for digit in &mut digits {
                let sum = *digit * 16 + carry;
                *digit = sum % 10;
                carry = sum / 10;
            }
            while carry > 0 {
                digits.push(carry % 10);
                carry /= 10;
            }
        }
        digits
            .iter()
            .rev()
            .filter_map(|digit| char::from_digit(*digit, 10))
            .collect()
    }
}

impl std::borrow::Borrow<str> for Serial {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of an issuer's distinguished name (DER): lists cover certificates by the name of their issuer (RFC 5280, section
/// 6.3.3), and only issuers under the trust anchors are looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IssuerKey([u8; 32]);

impl IssuerKey {
    /// That of a distinguished name in DER.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        Self(fingerprint(name))
    }
}

impl fmt::Display for IssuerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuerKey({self})")
    }
}

/// SHA-256 of a certificate's DER.
#[must_use]
pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let hash = digest::digest(&digest::SHA256, der);
    // Both are 32 bytes by definition of SHA-256.
    for (to, from) in out.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    out
}

/// The identity of a peer, computed once per connection from its leaf certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerIdentity {
    /// The grant being used.
    pub grant: Uuid,
    /// The subject user the certificate was issued for.
    pub subject: Uuid,
    /// The certificate's serial number.
    pub serial: Serial,
    /// Whose revocation lists are about it.
    pub issuer: IssuerKey,
    /// SHA-256 of the leaf's DER.
    pub fingerprint: [u8; 32],
    /// Start of validity, Unix seconds.
    pub not_before: i64,
    /// End of validity, Unix seconds, inclusive.
    pub not_after: i64,
    /// The generation of the trust anchors the chain was last verified against.
    pub trust_generation: u64,
}

impl PeerIdentity {
    /// Decodes the identity of `leaf` (DER). Does not verify the chain: call this only for a chain
    /// that verified against the anchors of `trust_generation`.
    ///
    /// # Errors
    /// The first defect found, as [`IdentityError`].
    pub fn decode(leaf: &[u8], trust_generation: u64) -> Result<Self, IdentityError> {
        let certificate = parse(leaf)?;
        refuse_duplicates(certificate.extensions())?;
        let serial = Serial::decode(certificate.raw_serial())?;
        refuse_other_spellings(leaf, certificate.extensions())?;
        check_usage(&certificate)?;
        let validity = certificate.validity();
        Ok(Self {
            grant: claim(certificate.extensions(), ClaimExtension::Grant)?,
            subject: claim(certificate.extensions(), ClaimExtension::Subject)?,
            serial,
            issuer: IssuerKey::of(certificate.issuer().as_raw()),
            fingerprint: fingerprint(leaf),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            trust_generation,
        })
    }

    /// The same identity after its kept chain was verified again, against `trust_generation`.
    #[must_use]
    pub fn reverified(self, trust_generation: u64) -> Self {
        Self {
            trust_generation,
            ..self
        }
    }
}

/// Parses one DER certificate with nothing after it; every standard extension must parse.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|_| IdentityError::MalformedCertificate)?;
    if !rest.is_empty() {
        return Err(IdentityError::MalformedCertificate);
    }
    Ok(certificate)
}

/// DER has one spelling of each value. A certificate that could be spelled in another way would have another fingerprint
/// with the same signature, or show other readers of it what we do not see.
fn refuse_other_spellings(
    leaf: &[u8],
    extensions: &[X509Extension<'_>],
) -> Result<(), IdentityError> {
    if extensions
        .iter()
        .any(|extension| is_padded(extension.oid.as_bytes()))
    {
        return Err(IdentityError::MalformedCertificate);
    }
    let strict = x509_cert::Certificate::from_der(leaf);
    match strict.and_then(|certificate| certificate.to_der()) {
        Ok(spelled) if spelled == leaf => Ok(()),
        _ => Err(IdentityError::MalformedCertificate),
    }
}

/// Whether an arc of an object identifier begins with an octet that only pads it (X.690, section 8.19.2): the strict reader
/// compares these octets as they are, too.
fn is_padded(oid: &[u8]) -> bool {
    let mut begins = true;
    oid.iter().any(|octet| {
        let padding = begins && *octet == 0x80;
        begins = octet & 0x80 == 0;
        padding
    })
}

/// The parser reads the first element of an extension's value and no further.
fn refuse_trailing_bytes(extension: &X509Extension<'_>) -> Result<(), IdentityError> {
    match extension.parsed_extension() {
        ParsedExtension::UnsupportedExtension { .. } => Ok(()),
        _ => AnyRef::from_der(extension.value)
            .map(drop)
            .map_err(|_| IdentityError::MalformedExtension),
    }
}

/// Who issued a certificate (DER), and its serial number: what revocation lists know it by. `None` for one that does not
/// parse or has an odd serial number, which no list can name.
#[must_use]
pub fn issued_by(der: &[u8]) -> Option<(IssuerKey, Serial)> {
    let certificate = parse(der).ok()?;
    let serial = Serial::decode(certificate.raw_serial()).ok()?;
    Some((IssuerKey::of(certificate.issuer().as_raw()), serial))
}

fn refuse_duplicates(extensions: &[X509Extension<'_>]) -> Result<(), IdentityError> {
    for (at, extension) in extensions.iter().enumerate() {
        if !extensions
            .iter()
            .skip(at + 1)
            .any(|other| other.oid == extension.oid)
        {
            continue;
        }
        let claim = ClaimExtension::ALL
            .into_iter()
            .find(|claim| extension.oid.as_bytes() == claim.der_content());
        return Err(
            claim.map_or(IdentityError::DuplicateExtension, |extension| {
                IdentityError::Claim {
                    extension,
                    defect: ClaimDefect::Duplicate,
                }
            }),
        );
    }
    Ok(())
}

fn check_usage(certificate: &X509Certificate<'_>) -> Result<(), IdentityError> {
    let mut client_auth = false;
    for extension in certificate.extensions() {
        refuse_trailing_bytes(extension)?;
        match extension.parsed_extension() {
            ParsedExtension::ParseError { .. } => return Err(IdentityError::MalformedExtension),
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                return Err(IdentityError::CaCertificate);
            }
            ParsedExtension::BasicConstraints(constraints)
                if constraints.path_len_constraint.is_some() =>
            {
                return Err(IdentityError::MalformedExtension);
            }
            ParsedExtension::KeyUsage(usage) if !usage.digital_signature() => {
                return Err(IdentityError::NoDigitalSignature);
            }
            ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() => {
                return Err(IdentityError::MaySignCertificates);
            }
            ParsedExtension::ExtendedKeyUsage(usage) => client_auth = usage.client_auth,
            _ => {}
        }
    }
    if client_auth {
        Ok(())
    } else {
        Err(IdentityError::NoClientAuth)
    }
}

fn claim(
    extensions: &[X509Extension<'_>],
    extension: ClaimExtension,
) -> Result<Uuid, IdentityError> {
    let refuse = |defect| IdentityError::Claim { extension, defect };
    let found = extensions
        .iter()
        .find(|candidate| candidate.oid.as_bytes() == extension.der_content())
        .ok_or(refuse(ClaimDefect::Missing))?;
    oid::decode(found.value).map_err(refuse)
}

#[cfg(test)]
mod tests;
