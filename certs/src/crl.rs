//! Certificate revocation lists (RFC 5280, section 5).
//!
//! Invariant: a [`RevocationList`] exists only for a list whose signature was verified with the key of an issuer under the
//! trust anchors that may sign lists, that is complete for the certificates of that issuer, and that was not issued in the
//! future. Everything that is not understood refuses the whole list: none reads as empty. How old one may be is in
//! `crl/freshness.rs`, which ones count in `crl/set.rs`, making our own in `crl/publish.rs`; files and fetching are the
//! caller's.

mod decode;
pub mod freshness;
mod issuers;
pub mod publish;
mod set;

use std::collections::HashMap;
use std::fmt;

use crate::identity::{self, Serial, fingerprint};

pub use crate::identity::IssuerKey;
pub use issuers::CrlIssuers;
pub use set::{CrlRefusal, CrlSet, CrlTerms};

/// The largest text or file of lists that is read, bytes; 10,000 serial numbers take about 400 KiB.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;
/// How far ahead of our clock a list may have been issued, seconds: clocks differ.
pub const FUTURE_TOLERANCE: i64 = 60;

/// id-ce-cRLDistributionPoints, as the content of its DER.
const DISTRIBUTION_POINTS: [u8; 3] = [0x55, 0x1d, 31];

/// Why a list was refused. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CrlError {
    /// There is no list at all where there should be one.
    #[error("there is no revocation list in it; give at least one, in DER or PEM")]
    Empty,
    /// More than [`MAX_BYTES`].
    #[error("it is longer than 16 MiB; publish a shorter revocation list")]
    TooLarge,
    /// Not lists, or not only lists.
    #[error("it does not hold revocation lists only, in DER or PEM: {why}")]
    Malformed {
        /// What was found.
        why: String,
    },
    /// Signed by nobody known: of another authority.
    #[error("the revocation list is of another issuer than those trusted here ({issuer})")]
    Foreign {
        /// SHA-256 of the issuer's name.
        issuer: IssuerKey,
    },
    /// The signature is not made by the issuer named.
    #[error("the signature of the revocation list does not verify with its issuer's key")]
    BadSignature,
    /// The issuer may not sign lists.
    #[error("the issuer of the revocation list may not sign lists: its keyUsage lacks cRLSign")]
    IssuerMayNotSign,
    /// It does not say until when it is good.
    #[error("the revocation list has no nextUpdate, so nobody can tell when it is out of date")]
    NoNextUpdate,
    /// It is of a kind that does not cover its issuer's certificates by itself.
    #[error("the revocation list is not used here: {what}")]
    Unsupported {
        /// Of which kind it is.
        what: &'static str,
    },
    /// Issued in the future.
    #[error("the revocation list was issued at {this_update}, and it is {now}; check the clocks")]
    Future {
        /// Its thisUpdate.
        this_update: i64,
        /// The time of the check.
        now: i64,
    },
    /// Older than the one in force.
    #[error(
        "the revocation list has number {offered}, and number {in_force} is in force; an older list brings revoked certificates back"
    )]
    Backwards {
        /// The number in force.
        in_force: CrlNumber,
        /// The number offered.
        offered: CrlNumber,
    },
}

/// The number of a list (RFC 5280, section 5.2.3): at most 20 octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CrlNumber([u8; 20]);

impl CrlNumber {
    /// From the content octets of the DER INTEGER, if it is not negative and short enough.
    pub(crate) fn decode(content: &[u8]) -> Option<Self> {
        let magnitude = match content {
            [] => return None,
            [first, ..] if *first & 0x80 != 0 => return None,
            [0, rest @ ..] => rest,
            all => all,
        };
        let mut number = [0; 20];
        let from = number.len().checked_sub(magnitude.len())?;
        number.get_mut(from..)?.copy_from_slice(magnitude);
        Some(Self(number))
    }
}

impl From<u64> for CrlNumber {
    fn from(value: u64) -> Self {
        let mut number = [0; 20];
        for (to, from) in number.iter_mut().skip(12).zip(value.to_be_bytes()) {
            *to = from;
        }
        Self(number)
    }
}

impl fmt::Display for CrlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = self.0.split_at(4);
        match low.try_into() {
            Ok(low) if high == [0; 4] => write!(f, "{}", u128::from_be_bytes(low)),
            _ => write!(f, "0x{}", hex::encode(self.0)),
        }
    }
}

/// Why a certificate was revoked (RFC 5280, section 5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RevocationReason {
    /// Not said.
    Unspecified,
    /// Somebody else may have the key.
    KeyCompromise,
    /// Somebody else may have the authority's key.
    CaCompromise,
    /// Its holder belongs elsewhere.
    AffiliationChanged,
    /// Another one took its place.
    Superseded,
    /// It is needed no more.
    CessationOfOperation,
    /// Put on hold. Here that is as final as any other reason.
    CertificateHold,
    /// What it allowed was taken away.
    PrivilegeWithdrawn,
    /// An attribute authority's key may be known.
    AaCompromise,
}

impl RevocationReason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::CertificateHold,
        Self::PrivilegeWithdrawn,
        Self::AaCompromise,
    ];

    /// As RFC 5280 spells it, in lower case with underscores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key_compromise",
            Self::CaCompromise => "ca_compromise",
            Self::AffiliationChanged => "affiliation_changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation_of_operation",
            Self::CertificateHold => "certificate_hold",
            Self::PrivilegeWithdrawn => "privilege_withdrawn",
            Self::AaCompromise => "aa_compromise",
        }
    }

    /// The code of CRLReason.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::CertificateHold => 6,
            Self::PrivilegeWithdrawn => 9,
            Self::AaCompromise => 10,
        }
    }

    /// The reason with that code; `None` for removeFromCRL and codes that mean nothing.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// One entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokedEntry {
    /// When the certificate was revoked, Unix seconds.
    pub at: i64,
    /// Why.
    pub reason: RevocationReason,
}

/// A list that was verified.
#[derive(Clone, PartialEq, Eq)]
pub struct RevocationList {
    issuer: IssuerKey,
    number: Option<CrlNumber>,
    this_update: i64,
    next_update: i64,
    revoked: HashMap<Serial, RevokedEntry>,
    sha256: [u8; 32],
}

impl RevocationList {
    /// Decodes and verifies one list in DER against the issuers that may have signed it.
    ///
    /// # Errors
    /// [`CrlError`]; [`CrlError::Foreign`] when none of `issuers` has the name of the list's.
    pub fn verify(der: &[u8], issuers: &CrlIssuers, now: i64) -> Result<Self, CrlError> {
        let decoded = decode::decode(der)?;
        issuers.verify(&decoded)?;
        if decoded.this_update > now.saturating_add(FUTURE_TOLERANCE) {
            return Err(CrlError::Future {
                this_update: decoded.this_update,
                now,
            });
        }
        Ok(Self {
            issuer: IssuerKey::of(decoded.issuer),
            number: decoded.number,
            this_update: decoded.this_update,
            next_update: decoded.next_update,
            revoked: decoded.revoked,
            sha256: fingerprint(der),
        })
    }

    /// Whether it may take the place of `in_force`, a list of the same issuer from the same place.
    ///
    /// # Errors
    /// [`CrlError::Backwards`] when it is older, by number where both have one.
    pub fn may_replace(&self, in_force: &Self) -> Result<(), CrlError> {
        if self.issuer != in_force.issuer || self.sha256 == in_force.sha256 {
            return Ok(());
        }
        let older = match (self.number, in_force.number) {
            (Some(offered), Some(known)) if offered != known => offered < known,
            _ => self.this_update < in_force.this_update,
        };
        if older {
            let zero = CrlNumber::from(0);
            return Err(CrlError::Backwards {
                in_force: in_force.number.unwrap_or(zero),
                offered: self.number.unwrap_or(zero),
            });
        }
        Ok(())
    }

    /// Whose certificates it is about.
    #[must_use]
    pub fn issuer(&self) -> IssuerKey {
        self.issuer
    }

    /// Its number, if it has one.
    #[must_use]
    pub fn number(&self) -> Option<CrlNumber> {
        self.number
    }

    /// When it was issued, Unix seconds.
    #[must_use]
    pub fn this_update(&self) -> i64 {
        self.this_update
    }

    /// When the next one is due, Unix seconds.
    #[must_use]
    pub fn next_update(&self) -> i64 {
        self.next_update
    }

    /// SHA-256 of its DER.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// The entry of a serial number, if it has one.
    #[must_use]
    pub fn find(&self, serial: &Serial) -> Option<RevokedEntry> {
        self.revoked.get(serial).copied()
    }

    /// Whether it has an entry of a serial number in lower-case hex.
    #[must_use]
    pub fn names(&self, serial: &str) -> bool {
        self.revoked.contains_key(serial)
    }

    /// How many certificates it lists.
    #[must_use]
    pub fn len(&self) -> usize {
        self.revoked.len()
    }

    /// Whether it lists none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.revoked.is_empty()
    }
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationList")
            .field("issuer", &self.issuer)
            .field("number", &self.number)
            .field("this_update", &self.this_update)
            .field("next_update", &self.next_update)
            .field("revoked", &self.revoked.len())
            .finish_non_exhaustive()
    }
}

/// Whether a certificate (DER) says where revocation lists of its issuer are (RFC 5280, section 4.2.1.13).
#[must_use]
pub fn says_where(certificate: &[u8]) -> bool {
    identity::parse(certificate).is_ok_and(|parsed| {
        parsed
            .extensions()
            .iter()
            .any(|extension| extension.oid.as_bytes() == DISTRIBUTION_POINTS)
    })
}

/// The lists of a text or file in DER, in order: any number of PEM sections, or of DER values one after another.
///
/// # Errors
/// [`CrlError::Empty`], [`CrlError::TooLarge`] or [`CrlError::Malformed`]: what is not a list refuses the whole.
pub fn split(bytes: &[u8]) -> Result<Vec<Vec<u8>>, CrlError> {
    decode::split(bytes)
}

#[cfg(test)]
mod tests;
