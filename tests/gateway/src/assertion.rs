//! `X-Mosaic-Assertion`: a compact JWS by which a service says on whose behalf it asks.
//!
//! Invariant: pure apart from [`KeySet::refresh`]; nothing is read out of the claims before the
//! Ed25519 signature holds (RFC 7515 section 5.2, RFC 8037). Replay is stopped by [`UsedIds`].
//! Who the subject is and whether they may ask is decided in `authenticate.rs`.

use std::collections::HashMap;
use std::path::PathBuf;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Longest lifetime of an assertion, seconds.
const MAX_LIFETIME: i64 = 30;
/// How far ahead of ours the issuer's clock may be, seconds.
const CLOCK_SKEW: i64 = 5;
/// Most identifiers remembered; beyond that assertions are refused until some expire.
const MAX_USED_IDS: usize = 200_000;

/// Why an assertion was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// Not three base64url parts of the right JSON.
    #[error("the assertion is not a compact JWS with the claims of this contract: {0}")]
    Malformed(&'static str),
    /// Another algorithm than `EdDSA`, or a critical extension.
    #[error("the assertion's header is not {{\"alg\":\"EdDSA\",\"kid\":...}} without `crit`")]
    Header,
    /// No key of that name.
    #[error("no published key has the assertion's kid; publish the key set first")]
    UnknownKey,
    /// The key file cannot be read.
    #[error("the key set cannot be read: {0}")]
    KeySet(String),
    /// The signature does not hold.
    #[error("the assertion's signature does not hold")]
    Signature,
    /// A claim is not what it must be.
    #[error("the assertion's claim `{0}` does not fit this request")]
    Claim(&'static str),
    /// Seen before.
    #[error("the assertion was used before; make a new one for every request")]
    Replayed,
}

/// The claims of an assertion that held.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Claims {
    aud: Audience,
    /// Gateway user id of the subject.
    pub sub: String,
    /// The grant under which the question is asked.
    pub grant_id: String,
    jti: String,
    iat: i64,
    exp: i64,
    htm: String,
    htu: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    kid: Option<String>,
    x: Option<String>,
}

/// The request that an assertion has to be made for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The gateway's own audience name.
    pub audience: &'a str,
    /// HTTP method.
    pub method: &'a str,
    /// `Host` of the request.
    pub authority: &'a str,
    /// Path of the request, as sent, without the query.
    pub path: &'a str,
    /// Seconds since the Unix epoch.
    pub now: i64,
}

/// The published keys, as last read from a file.
#[derive(Debug)]
pub struct KeySet {
    file: PathBuf,
    read: Vec<u8>,
    keys: HashMap<String, Vec<u8>>,
}

impl KeySet {
    /// A key set that has not been read yet; it may be published later than the gateway starts.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        Self {
            file,
            read: Vec::new(),
            keys: HashMap::new(),
        }
    }

    /// Read the file again and parse it if it changed. A file that cannot be read or parsed
    /// leaves no keys.
    ///
    /// # Errors
    /// [`AssertionError::KeySet`].
    pub fn refresh(&mut self) -> Result<(), AssertionError> {
        let text = std::fs::read(&self.file).inspect_err(|_| self.forget());
        let text = text.map_err(|error| AssertionError::KeySet(error.to_string()))?;
        if text != self.read {
            self.forget();
            self.keys = parse_keys(&text)?;
            self.read = text;
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.read.clear();
        self.keys.clear();
    }

    /// Verify an assertion for a request.
    ///
    /// # Errors
    /// [`AssertionError`] with the first thing that does not hold.
    pub fn verify(&self, compact: &str, request: Request<'_>) -> Result<Claims, AssertionError> {
        let malformed = AssertionError::Malformed;
        let mut parts = compact.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("three parts are needed"));
        };
        let parsed: Header = serde_json::from_slice(&decode(header)?)
            .map_err(|_| malformed("the header needs alg and kid"))?;
        if !matches!(parsed.alg.as_str(), "EdDSA" | "Ed25519") || parsed.crit.is_some() {
            return Err(AssertionError::Header);
        }
        let key = self.keys.get(&parsed.kid);
        let key = key.ok_or(AssertionError::UnknownKey)?;
        let signed = format!("{header}.{payload}");
        UnparsedPublicKey::new(&ED25519, key)
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| AssertionError::Signature)?;
        let claims: Claims = serde_json::from_slice(&decode(payload)?).map_err(|_| {
            malformed("the claims aud, sub, grant_id, jti, iat, exp, htm, htu are needed")
        })?;
        claims.fit(request)?;
        Ok(claims)
    }
}

impl Claims {
    fn fit(&self, request: Request<'_>) -> Result<(), AssertionError> {
        let for_us = match &self.aud {
            Audience::One(audience) => audience == request.audience,
            Audience::Many(all) => all.iter().any(|audience| audience == request.audience),
        };
        let lifetime = self.exp.checked_sub(self.iat);
        for (name, holds) in [
            ("aud", for_us),
            ("sub", !self.sub.is_empty()),
            ("grant_id", !self.grant_id.is_empty()),
            ("jti", (1..=128).contains(&self.jti.len())),
            ("iat", self.iat <= request.now + CLOCK_SKEW),
            (
                "exp",
                self.exp > request.now
                    && lifetime.is_some_and(|life| (1..=MAX_LIFETIME).contains(&life)),
            ),
            ("htm", self.htm == request.method),
            ("htu", same_target(&self.htu, request)),
        ] {
            if !holds {
                return Err(AssertionError::Claim(name));
            }
        }
        Ok(())
    }
}

/// Whether `htu` is the request's URL; its query and fragment do not count (as RFC 9449
/// section 4.3 has it).
fn same_target(htu: &str, request: Request<'_>) -> bool {
    let bare = htu.split(['?', '#']).next().unwrap_or_default();
    let Some(rest) = bare
        .strip_prefix("http://")
        .or_else(|| bare.strip_prefix("https://"))
    else {
        return false;
    };
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, path),
        None => (rest, ""),
    };
    authority.eq_ignore_ascii_case(request.authority)
        && request.path.strip_prefix('/') == Some(path)
}

/// Identifiers of assertions that were used and could still be replayed.
#[derive(Debug, Default)]
pub struct UsedIds {
    until: HashMap<String, i64>,
}

impl UsedIds {
    /// Use an assertion up.
    ///
    /// # Errors
    /// [`AssertionError::Replayed`] when it was used before, or when too many are remembered to
    /// know.
    pub fn claim(&mut self, claims: &Claims, now: i64) -> Result<(), AssertionError> {
        if self.until.len() >= MAX_USED_IDS {
            self.until.retain(|_, exp| *exp > now);
        }
        if self.until.len() >= MAX_USED_IDS || self.until.contains_key(&claims.jti) {
            return Err(AssertionError::Replayed);
        }
        self.until.insert(claims.jti.clone(), claims.exp);
        Ok(())
    }
}

fn parse_keys(text: &[u8]) -> Result<HashMap<String, Vec<u8>>, AssertionError> {
    let problem = |what: &str| AssertionError::KeySet(what.to_owned());
    let set: Jwks = serde_json::from_slice(text)
        .map_err(|_| problem("it is not a JSON Web Key Set ({\"keys\":[...]})"))?;
    let mut keys = HashMap::new();
    for key in set.keys {
        if key.kty != "OKP" || key.crv.as_deref() != Some("Ed25519") {
            continue;
        }
        let (Some(kid), Some(x)) = (key.kid, key.x) else {
            return Err(problem("an Ed25519 key lacks kid or x"));
        };
        let bytes = URL_SAFE_NO_PAD.decode(x).ok().filter(|x| x.len() == 32);
        let bytes = bytes.ok_or_else(|| problem("x is not 32 bytes in base64url"))?;
        if keys.insert(kid, bytes).is_some() {
            return Err(problem("two keys have the same kid"));
        }
    }
    Ok(keys)
}

fn decode(part: &str) -> Result<Vec<u8>, AssertionError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| AssertionError::Malformed("a part is not base64url without padding"))
}
