//! Signatures over DER structures, verified with the algorithms of the provider and no others.
//!
//! Invariant: what is verified is the bytes that came, never a form that was written again. Which key may sign what is for
//! the callers to say.

use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Reader, SliceReader, Tag, Tagged};

use crate::provider::provider;

/// A structure of X.509's shape, in its parts: what is signed, how, and the signature.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed<'a> {
    /// What is signed, with its tag and length.
    pub(crate) content: &'a [u8],
    /// The algorithm identifier, with its tag and length.
    pub(crate) algorithm: &'a [u8],
    signature: &'a [u8],
    /// What follows inside the structure, such as the certificates of an OCSP response.
    pub(crate) rest: &'a [u8],
}

/// A public key in its parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublicKey<'a> {
    /// The content of the algorithm identifier, without its tag and length.
    algorithm: &'a [u8],
    /// The content of the bit string.
    pub(crate) bits: &'a [u8],
}

/// The signature does not verify, or is made in a way that is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadSignature;

impl<'a> Signed<'a> {
    /// Takes one structure apart; nothing may follow it.
    pub(crate) fn decode(der: &'a [u8]) -> der::Result<Self> {
        let whole = AnyRef::from_der(der)?;
        whole.tag().assert_eq(Tag::Sequence)?;
        let mut reader = SliceReader::new(whole.value())?;
        let content = reader.tlv_bytes()?;
        let algorithm = reader.tlv_bytes()?;
        let signature = bits(&mut reader)?;
        let rest = reader.read_slice(reader.remaining_len())?;
        Ok(Self {
            content,
            algorithm,
            signature,
            rest,
        })
    }

    /// Verifies the signature with `key`.
    pub(crate) fn verify(&self, key: PublicKey<'_>) -> Result<(), BadSignature> {
        let algorithm = AnyRef::from_der(self.algorithm).map_err(|_| BadSignature)?;
        provider()
            .signature_verification_algorithms
            .all
            .iter()
            .filter(|one| {
                one.signature_alg_id().as_ref() == algorithm.value()
                    && one.public_key_alg_id().as_ref() == key.algorithm
            })
            .any(|one| {
                one.verify_signature(key.bits, self.content, self.signature)
                    .is_ok()
            })
            .then_some(())
            .ok_or(BadSignature)
    }
}

impl<'a> PublicKey<'a> {
    /// Takes a SubjectPublicKeyInfo in DER apart.
    pub(crate) fn decode(der: &'a [u8]) -> der::Result<Self> {
        let whole = AnyRef::from_der(der)?;
        whole.tag().assert_eq(Tag::Sequence)?;
        Self::content(whole.value())
    }

    /// The same without its outer tag and length, as the path validator keeps it.
    pub(crate) fn content(content: &'a [u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(content)?;
        let algorithm = AnyRef::decode(&mut reader)?;
        let key = Self {
            algorithm: algorithm.value(),
            bits: bits(&mut reader)?,
        };
        reader.finish(key)
    }
}

/// A bit string of whole octets.
fn bits<'a>(reader: &mut SliceReader<'a>) -> der::Result<&'a [u8]> {
    let bits = BitStringRef::decode(reader)?;
    bits.as_bytes().ok_or_else(|| Tag::BitString.value_error())
}
