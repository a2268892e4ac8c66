//! `X-Mosaic-Checkpoint`: how far the history of a grant has got, as an answer says it.
//!
//! Invariant: a value that parses is written in exactly one way. The signature is Ed25519 with the key of the store's checkpoints
//! under a context of its own, over the grant, the place and the time, so that it means nothing for another grant.
//!
//! `<chain>.<gseq>.<ghash>`, or `<chain>.<gseq>.<ghash>.<at>.<signature>`: a UUID in lower case, a decimal number, base64url
//! without padding of 32 bytes, milliseconds since the epoch, base64url of 64 bytes. When a value is signed is `publish.rs`'s.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use policy::id::GrantId;
use policy::time::UnixMillis;
use uuid::Uuid;

use super::HistoryHead;
use crate::audit::checkpoint::{CheckpointSigner, CheckpointVerifier};

/// What a signature is over, besides the values.
const CONTEXT: &[u8] = b"mosaic-federation grant checkpoint v1\0";
/// The longest value, bytes.
const LONGEST: usize = 256;

/// A signature and when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderSignature {
    /// When, by the clock of whoever signed.
    pub at: UnixMillis,
    /// The signature.
    pub signature: [u8; 64],
}

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointHeader {
    /// The place.
    pub head: HistoryHead,
    /// Over it, at most once a second.
    pub signed: Option<HeaderSignature>,
}

fn message(grant: GrantId, head: &HistoryHead, at: UnixMillis) -> Vec<u8> {
    let mut bytes = CONTEXT.to_vec();
    bytes.extend_from_slice(grant.as_bytes());
    bytes.extend_from_slice(&head.to_bytes());
    bytes.extend_from_slice(&at.0.to_le_bytes());
    bytes
}

impl HeaderSignature {
    /// Signs a place in the history of a grant.
    #[must_use]
    pub fn over(
        signer: &CheckpointSigner,
        grant: GrantId,
        head: &HistoryHead,
        at: UnixMillis,
    ) -> Option<Self> {
        let signature = signer.sign_bytes(&message(grant, head, at));
        let signature = signature.as_slice().try_into().ok()?;
        Some(Self { at, signature })
    }

    /// Whether `key` signed this place in the history of that grant.
    #[must_use]
    pub fn is_by(&self, key: &CheckpointVerifier, grant: GrantId, head: &HistoryHead) -> bool {
        key.has_signed(&message(grant, head, self.at), &self.signature)
    }
}

impl CheckpointHeader {
    /// The value of the header.
    #[must_use]
    pub fn value(&self) -> String {
        let HistoryHead { chain, gseq, ghash } = &self.head;
        let mut text = String::with_capacity(LONGEST);
        // Writing to a String cannot fail.
        let _ = write!(text, "{chain}.{gseq}.");
        URL_SAFE_NO_PAD.encode_string(ghash, &mut text);
        if let Some(HeaderSignature { at, signature }) = &self.signed {
            let _ = write!(text, ".{}.", at.0);
            URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        }
        text
    }

    /// Reads a value; `None` for anything that [`value`](Self::value) does not write.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.len() > LONGEST {
            return None;
        }
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.split('.');
        let mut next = || parts.next();
        let (chain, gseq, ghash) = (next()?, next()?, next()?);
        let head = HistoryHead {
            chain: Uuid::try_parse(chain).ok()?,
            gseq: gseq.parse().ok().filter(|gseq| *gseq > 0)?,
            ghash: bytes(ghash)?,
        };
        let signed = match (next(), next()) {
            (None, _) => None,
            (Some(at), Some(signature)) => Some(HeaderSignature {
                at: UnixMillis(at.parse().ok()?),
                signature: bytes(signature)?,
            }),
            (Some(_), None) => return None,
        };
        let parsed = Self { head, signed };
        (next().is_none() && parsed.value() == text).then_some(parsed)
    }
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    bytes.as_slice().try_into().ok()
}
