//! The attack of this process on its own federation listener, once, before it is ready.
//!
//! Invariant: every attack goes over a real socket to the listener that peers will use, and whatever it gets that a
//! stranger must not get is a breach: any answer at all for whom TLS has to refuse, anything but 401 for a certificate
//! that names nobody, whatever its request claims in headers. Settings that are accepted and not enforced are the worst
//! fault of such a program; this one would show here. Whether a breach ends the start is for the caller.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use certs::ca::embedded::Flaw;
use certs::{CaError, Clock, Credential, EmbeddedCa, PrivateKey, TrustAnchors, tls};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use policy::time::UnixMillis;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::Serialize;
use uuid::Uuid;

use super::probe::{Doorstep, Probe, Unanswered, Unopened};

/// The request id of an attack, by which it is known in the audit log (`peer_request_id`).
pub const REQUEST_ID: &str = "self-attack";

/// Headers in which front ends hand on who a client is. None of them means anything here.
const CLAIMS: [&str; 20] = [
    "x-mosaic-grant",
    "x-mosaic-grant-id",
    "x-mosaic-subject",
    "x-mosaic-subject-user-id",
    "x-mosaic-peer",
    "x-mosaic-assertion",
    "x-forwarded-for",
    "x-forwarded-user",
    "x-forwarded-client-cert",
    "x-real-ip",
    "x-remote-user",
    "x-ssl-client-verify",
    "x-ssl-client-s-dn",
    "x-ssl-client-serial",
    "x-ssl-client-cert",
    "x_ssl_client_verify",
    "x-client-cert",
    "x-client-verify",
    "ssl-client-verify",
    "client-cert",
];

/// One way of getting in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Attack {
    /// Without a certificate.
    NoCertificate,
    /// With a good certificate of an authority that was made up for it.
    ForeignAuthority,
    /// With a certificate of our own authority whose time is over.
    ExpiredCertificate,
    /// With a certificate of our own authority that names nobody, and headers that name somebody.
    IdentityHeaders,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::NoCertificate,
        Self::ForeignAuthority,
        Self::ExpiredCertificate,
        Self::IdentityHeaders,
    ];

    /// The label in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::ForeignAuthority => "foreign_authority",
            Self::ExpiredCertificate => "expired_certificate",
            Self::IdentityHeaders => "identity_headers",
        }
    }
}

/// What became of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttackResult {
    /// It was refused.
    Refused,
    /// It got what it must not get.
    GotThrough,
    /// It could not be carried out, and shows nothing.
    NotTried,
}

impl AttackResult {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Refused, Self::GotThrough, Self::NotTried];

    /// The label in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::GotThrough => "got_through",
            Self::NotTried => "not_tried",
        }
    }
}

/// An attack and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attacked {
    /// Which.
    pub attack: Attack,
    /// What became of it.
    pub result: AttackResult,
    /// By what it was refused, what it got, or why it was not tried.
    pub detail: String,
}

/// All of them, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SelfAttackView {
    /// When.
    pub at: UnixMillis,
    /// Each attack.
    pub attacks: Vec<Attacked>,
}

/// What the attacks need.
pub struct Attacker {
    /// Where the listener is.
    pub doorstep: Doorstep,
    /// The name of the server.
    pub name: ServerName<'static>,
    /// The roots of its certificate.
    pub roots: Arc<TrustAnchors>,
    /// The authority that signs for peers, when it is ours to sign with.
    pub authority: Option<Arc<EmbeddedCa>>,
    /// A grant and its subject for the headers to claim.
    pub claimed: (Uuid, Uuid),
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Attacker {
    /// Carries all of them out.
    pub async fn attack(&self) -> SelfAttackView {
        let [none, foreign, expired, headers] = Attack::ALL;
        let attacks = tokio::join!(
            self.one(none),
            self.one(foreign),
            self.one(expired),
            self.one(headers)
        );
        SelfAttackView {
            at: UnixMillis(self.clock.unix_millis()),
            attacks: vec![attacks.0, attacks.1, attacks.2, attacks.3],
        }
    }

    async fn one(&self, attack: Attack) -> Attacked {
        let (result, detail) = match self.armed(attack) {
            Ok(config) => self.strike(attack, Arc::new(config)).await,
            Err(why) => (AttackResult::NotTried, why),
        };
        Attacked {
            attack,
            result,
            detail,
        }
    }

    /// The client of an attack, or why there is none.
    fn armed(&self, attack: Attack) -> Result<ClientConfig, String> {
        let (roots, clock) = (Arc::clone(&self.roots), Arc::clone(&self.clock));
        let credential = match attack {
            Attack::NoCertificate => {
                return tls::anchored_client_config(roots, clock)
                    .map(Arc::unwrap_or_clone)
                    .map_err(|error| error.to_string());
            }
            Attack::ForeignAuthority => self.foreign().map_err(|error| error.to_string())?,
            Attack::ExpiredCertificate => self.flawed(Flaw::Expired)?,
            Attack::IdentityHeaders => self.flawed(Flaw::Nameless)?,
        };
        tls::probing_client_config(&credential, roots, clock, false)
            .map_err(|error| error.to_string())
    }

    /// Good in every way, but for who signed it.
    fn foreign(&self) -> Result<Credential, CaError> {
        let now = self.clock.unix_seconds();
        let made_up = EmbeddedCa::generate("federation authority", now, &SystemRandom::new())?;
        let authority = EmbeddedCa::load(made_up.root, &made_up.key)?;
        authority.issue_flawed(Flaw::Unregistered, &PrivateKey::generate_p256()?, now)
    }

    fn flawed(&self, flaw: Flaw) -> Result<Credential, String> {
        let authority = self.authority.as_ref().ok_or(
            "another authority signs for peers, and is not asked for certificates to attack with",
        )?;
        let key = PrivateKey::generate_p256().map_err(|error| error.to_string())?;
        authority
            .issue_flawed(flaw, &key, self.clock.unix_seconds())
            .map_err(|error| error.to_string())
    }

    async fn strike(&self, attack: Attack, config: Arc<ClientConfig>) -> (AttackResult, String) {
        let mut probe = match Probe::open(self.doorstep, &self.name, config).await {
            Ok(probe) => probe,
            Err(refused @ Unopened::Alert(_)) => {
                return (AttackResult::Refused, refused.to_string());
            }
            Err(other) => return (AttackResult::NotTried, other.to_string()),
        };
        let claims = match attack {
            Attack::IdentityHeaders => claims(self.claimed),
            _ => HeaderMap::new(),
        };
        match probe.ask(REQUEST_ID, claims).await {
            Ok(StatusCode::UNAUTHORIZED) if attack == Attack::IdentityHeaders => {
                (AttackResult::Refused, "answered 401".to_owned())
            }
            Ok(status) => (
                AttackResult::GotThrough,
                format!("answered {}", status.as_u16()),
            ),
            Err(ended @ Unanswered::Ended(_)) => (AttackResult::Refused, ended.to_string()),
            Err(late @ Unanswered::TooLate) => (AttackResult::NotTried, late.to_string()),
        }
    }
}

fn claims((grant, subject): (Uuid, Uuid)) -> HeaderMap {
    let value = |name: &str| {
        let text = match name {
            name if name.ends_with("verify") => "SUCCESS".to_owned(),
            "x-forwarded-for" | "x-real-ip" => "127.0.0.1".to_owned(),
            name if name.contains("subject") || name.ends_with("user") => subject.to_string(),
            name if name.contains("dn") || name.contains("client-cert") => {
                format!("CN=grant-{grant}")
            }
            _ => grant.to_string(),
        };
        HeaderValue::try_from(text).ok()
    };
    CLAIMS
        .into_iter()
        .filter_map(|name| Some((HeaderName::from_static(name), value(name)?)))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
