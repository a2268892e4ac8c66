//! The key of a step-ca JWK provisioner: read, decrypted, used to sign one-time tokens.
//!
//! Invariant: only asymmetric keys are taken, so what signs here could never be verified with a secret that the CA and
//! someone else share; key material is wiped when dropped and never in `Debug`. Sources: RFC 7517 (JWK), RFC 7638
//! (thumbprint), RFC 7518 (algorithms); the encrypted form is opened in `jwe.rs`.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::jwe;
use super::key_error::{ProvisionerKeyError, malformed};

/// The longest text of a provisioner key, bytes.
const MAX_TEXT: usize = 64 * 1024;
/// The smallest RSA modulus, octets.
const RSA_MIN_OCTETS: usize = 256;

/// Signs one-time tokens as a provisioner. Wiped on drop by the cryptographic library.
pub struct ProvisionerKey {
    signer: Signer,
    algorithm: &'static str,
    kid: String,
}

enum Signer {
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// The members of a JWK that are looked at; none is copied out of the text.
#[derive(Deserialize)]
struct Jwk<'a> {
    #[serde(borrow)]
    kty: &'a str,
    #[serde(default, borrow)]
    kid: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    alg: Option<&'a str>,
    #[serde(default, borrow)]
    crv: Option<&'a str>,
    #[serde(default, borrow)]
    x: Option<&'a str>,
    #[serde(default, borrow)]
    y: Option<&'a str>,
    #[serde(default, borrow)]
    d: Option<&'a str>,
    #[serde(default, borrow)]
    n: Option<&'a str>,
    #[serde(default, borrow)]
    e: Option<&'a str>,
    #[serde(default, borrow)]
    p: Option<&'a str>,
    #[serde(default, borrow)]
    q: Option<&'a str>,
    #[serde(default, borrow)]
    dp: Option<&'a str>,
    #[serde(default, borrow)]
    dq: Option<&'a str>,
    #[serde(default, borrow)]
    qi: Option<&'a str>,
}

impl ProvisionerKey {
    /// Reads a private JWK, or one encrypted as JWE (compact or JSON, RFC 7516) that `password` opens.
    ///
    /// # Errors
    /// [`ProvisionerKeyError`].
    pub fn parse(text: &str, password: Option<&[u8]>) -> Result<Self, ProvisionerKeyError> {
        if text.len() > MAX_TEXT {
            return Err(malformed("it is longer than 64 KiB"));
        }
        let text = text.trim();
        match jwe::Encrypted::recognise(text)? {
            None => Self::from_jwk(text),
            Some(encrypted) => {
                let password = password.ok_or(ProvisionerKeyError::PasswordMissing)?;
                let opened = encrypted.open(password)?;
                let jwk = std::str::from_utf8(&opened)
                    .map_err(|_| malformed("what was encrypted is not text"))?;
                Self::from_jwk(jwk)
            }
        }
    }

    fn from_jwk(text: &str) -> Result<Self, ProvisionerKeyError> {
        let jwk: Jwk<'_> = serde_json::from_str(text).map_err(|error| {
            // The parser's message could quote the text.
            malformed(&format!("line {}, column {}", error.line(), error.column()))
        })?;
        let (signer, algorithm) = jwk.signer()?;
        if let Some(named) = jwk.alg.filter(|named| *named != algorithm) {
            return Err(ProvisionerKeyError::Unsupported {
                kind: format!("for the algorithm `{named}`, where its kind signs with {algorithm}"),
            });
        }
        let kid = match &jwk.kid {
            Some(kid) if !kid.is_empty() => kid.clone().into_owned(),
            _ => jwk.thumbprint()?,
        };
        Ok(Self {
            signer,
            algorithm,
            kid,
        })
    }

    /// The id by which the CA knows the key.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The JWS algorithm of its signatures.
    #[must_use]
    pub const fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// The JWS signature over `message`; `None` when the library fails.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match &self.signer {
            Signer::Ec(key) => key
                .sign(&SystemRandom::new(), message)
                .ok()
                .map(|signature| signature.as_ref().to_vec()),
            Signer::Ed25519(key) => Some(key.sign(message).as_ref().to_vec()),
            Signer::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(
                    &RSA_PKCS1_SHA256,
                    &SystemRandom::new(),
                    message,
                    &mut signature,
                )
                .ok()?;
                Some(signature)
            }
        }
    }
}

impl fmt::Debug for ProvisionerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvisionerKey")
            .field("algorithm", &self.algorithm)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl Jwk<'_> {
    fn signer(&self) -> Result<(Signer, &'static str), ProvisionerKeyError> {
        match self.kty {
            "EC" => self.ec(),
            "OKP" => self.okp(),
            "RSA" => self.rsa(),
            "oct" => Err(ProvisionerKeyError::Symmetric),
            other => Err(unsupported(format!("of kind `{}`", shown(other)))),
        }
    }

    fn ec(&self) -> Result<(Signer, &'static str), ProvisionerKeyError> {
        let curve = self.crv.unwrap_or_default();
        let (algorithm, size, name): (&'static EcdsaSigningAlgorithm, usize, &'static str) =
            match curve {
                "P-256" => (&ECDSA_P256_SHA256_FIXED_SIGNING, 32, "ES256"),
                "P-384" => (&ECDSA_P384_SHA384_FIXED_SIGNING, 48, "ES384"),
                "P-521" => (&ECDSA_P521_SHA512_FIXED_SIGNING, 66, "ES512"),
                other => return Err(unsupported(format!("on the curve `{}`", shown(other)))),
            };
        let (d, x, y) = (
            padded(member("d", self.d)?, size)?,
            padded(member("x", self.x)?, size)?,
            padded(member("y", self.y)?, size)?,
        );
        // SEC 1, section 2.3.3: an uncompressed point.
        let mut point = vec![4];
        point.extend_from_slice(&x);
        point.extend_from_slice(&y);
        let key = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &d, &point)
            .map_err(|_| ProvisionerKeyError::Inconsistent)?;
        Ok((Signer::Ec(key), name))
    }

    fn okp(&self) -> Result<(Signer, &'static str), ProvisionerKeyError> {
        match self.crv {
            Some("Ed25519") => {}
            other => {
                let curve = shown(other.unwrap_or_default());
                return Err(unsupported(format!("on the curve `{curve}`")));
            }
        }
        let (d, x) = (member("d", self.d)?, member("x", self.x)?);
        let key = Ed25519KeyPair::from_seed_and_public_key(&d, &x)
            .map_err(|_| ProvisionerKeyError::Inconsistent)?;
        Ok((Signer::Ed25519(key), "EdDSA"))
    }

    fn rsa(&self) -> Result<(Signer, &'static str), ProvisionerKeyError> {
        let n = member("n", self.n)?;
        if n.len() < RSA_MIN_OCTETS {
            let bits = n.len().saturating_mul(8);
            return Err(unsupported(format!("RSA of {bits} bits")));
        }
        let e = member("e", self.e)?;
        let (d, p, q) = (
            member("d", self.d)?,
            member("p", self.p)?,
            member("q", self.q)?,
        );
        let (dp, dq, qi) = (
            member("dp", self.dp)?,
            member("dq", self.dq)?,
            member("qi", self.qi)?,
        );
        let components = KeyPairComponents {
            public_key: PublicKeyComponents {
                n: n.as_slice(),
                e: e.as_slice(),
            },
            d: d.as_slice(),
            p: p.as_slice(),
            q: q.as_slice(),
            dP: dp.as_slice(),
            dQ: dq.as_slice(),
            qInv: qi.as_slice(),
        };
        let key = RsaKeyPair::from_components(&components)
            .map_err(|_| ProvisionerKeyError::Inconsistent)?;
        Ok((Signer::Rsa(key), "RS256"))
    }

    /// The key's thumbprint (RFC 7638): how step-ca names a key that has no name.
    fn thumbprint(&self) -> Result<String, ProvisionerKeyError> {
        let need = |name, value: Option<&str>| value.map(shown).ok_or_else(|| missing(name));
        // Members in lexicographic order, no white space.
        let canonical = match self.kty {
            "EC" => format!(
                r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#,
                need("crv", self.crv)?,
                need("x", self.x)?,
                need("y", self.y)?
            ),
            "OKP" => format!(
                r#"{{"crv":"{}","kty":"OKP","x":"{}"}}"#,
                need("crv", self.crv)?,
                need("x", self.x)?
            ),
            _ => format!(
                r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#,
                need("e", self.e)?,
                need("n", self.n)?
            ),
        };
        let hash = digest::digest(&digest::SHA256, canonical.as_bytes());
        Ok(URL_SAFE_NO_PAD.encode(hash.as_ref()))
    }
}

/// A member's octets.
fn member(
    name: &'static str,
    value: Option<&str>,
) -> Result<Zeroizing<Vec<u8>>, ProvisionerKeyError> {
    let text = value.ok_or_else(|| missing(name))?;
    URL_SAFE_NO_PAD
        .decode(text)
        .map(Zeroizing::new)
        .map_err(|_| malformed(&format!("`{name}` is not base64url")))
}

/// `octets` with zeros before them up to `size`: some writers leave leading zeros out.
fn padded(
    octets: Zeroizing<Vec<u8>>,
    size: usize,
) -> Result<Zeroizing<Vec<u8>>, ProvisionerKeyError> {
    let room = size
        .checked_sub(octets.len())
        .ok_or(ProvisionerKeyError::Inconsistent)?;
    let mut whole = Zeroizing::new(vec![0; room]);
    whole.extend_from_slice(&octets);
    Ok(whole)
}

/// Text of a file that is not trusted to be short or printable.
fn shown(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_+./".contains(*c))
        .take(1024)
        .collect()
}

fn missing(name: &str) -> ProvisionerKeyError {
    match name {
        "d" | "p" | "q" | "dp" | "dq" | "qi" => {
            malformed(&format!("it has no `{name}`: it is not a private key"))
        }
        _ => malformed(&format!("it has no `{name}`")),
    }
}

fn unsupported(kind: String) -> ProvisionerKeyError {
    ProvisionerKeyError::Unsupported { kind }
}

#[cfg(test)]
mod tests;
