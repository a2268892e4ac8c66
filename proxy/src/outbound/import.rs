//! Taking over a peer from an upstream gateway: its row, with the client key that the gateway has sealed.
//!
//! Invariant: nothing of a row is kept that was not checked: the key opens and is the certificate's, the certificate names one grant and
//! one subject and is valid now, serial and row agree, the endpoint is an https origin, and the operator has said by which roots its
//! server is known. A row is taken over whole, in one transaction, or not at all. No failure holds a secret.
//!
//! Reading the export is the command line's business; the layout of sealed keys is in `certs::seal::upstream`.

use certs::seal::upstream::{self, UpstreamSealError};
use certs::{Credential, KeyError, PeerIdentity, PrivateKey, SealPurpose, TrustAnchors};
use policy::id::{GrantId, PeerId, SubjectId, UserId};
use policy::peer::{PeerName, PeerNameError};
use policy::time::UnixMillis;
use serde::Deserialize;
use uuid::Uuid;

use super::Outbound;
use super::endpoint::{Endpoint, UrlError};
use super::exchange::time_ordered_id;
use crate::store::{Actor, NewOutboundPeer, PeerDirection, StoreError};

const MILLIS_PER_SECOND: i64 = 1_000;
/// The state of a row that is taken over.
const ACTIVE: &str = "active";

/// One row of the gateway's `federation_peers`. Not `Debug`: the key in it is sealed with a secret that may be known elsewhere.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamPeer {
    /// The common name that the gateway knows the peer by.
    pub common_name: String,
    /// Where it is asked.
    #[serde(default)]
    pub endpoint_url: Option<String>,
    /// Its state.
    #[serde(default)]
    pub state: Option<String>,
    /// The client certificate, leaf first, PEM.
    #[serde(default)]
    pub cert_pem: Option<String>,
    /// Its serial number.
    #[serde(default)]
    pub cert_serial: Option<String>,
    /// The sealed private key.
    #[serde(default)]
    pub client_key_pem: Option<String>,
}

/// What holds for all rows of one import.
pub struct ImportTerms<'a> {
    /// Who imports.
    pub actor: &'a Actor,
    /// The local user who will ask.
    pub user: &'a UserId,
    /// The text of the gateway's secret.
    pub secret: &'a [u8],
    /// The roots that the peers' servers are known by, PEM.
    pub trust_root_pem: &'a str,
}

/// A peer that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedPeer {
    /// Its local name.
    pub name: PeerName,
    /// The grant on the peer.
    pub grant: GrantId,
    /// The subject on the peer.
    pub subject: SubjectId,
    /// Where it is asked.
    pub endpoint_url: String,
    /// Serial of the certificate.
    pub serial: String,
    /// End of the certificate.
    pub not_after: UnixMillis,
}

/// Why a row was not taken over; nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is not in use.
    #[error(
        "its state is `{0}`, and only active peers are taken over; enroll it anew with `peer add`"
    )]
    State(String),
    /// A column is empty.
    #[error("the column `{0}` is empty; export the whole row of `federation_peers`")]
    Missing(&'static str),
    /// The local name.
    #[error("{0}; give it a local name with `--name COMMON_NAME=NAME`")]
    Name(#[from] PeerNameError),
    /// The local name is in use.
    #[error(
        "there is a peer named `{0}` already; give this one another with `--name COMMON_NAME=NAME`"
    )]
    NameTaken(PeerName),
    /// The endpoint.
    #[error("its endpoint cannot be used: {0}; correct `endpoint_url` in the export")]
    Endpoint(#[from] UrlError),
    /// The sealed key.
    #[error(
        "{0}; give the BETTER_AUTH_SECRET that the gateway had when it enrolled, and the column `client_key_pem` unchanged"
    )]
    Sealed(#[from] UpstreamSealError),
    /// The key.
    #[error(
        "what the sealed key opens to is no private key: {0}; the column may hold another kind of secret, enroll it anew with `peer add`"
    )]
    Key(#[from] KeyError),
    /// Certificate and key.
    #[error(
        "certificate and key cannot be used together: {0}; the row mixes two enrollments, enroll it anew with `peer add`"
    )]
    Credential(#[from] certs::CredentialError),
    /// The identity in the certificate.
    #[error("the certificate names no grant and subject: {0}; enroll it anew with `peer add`")]
    Identity(#[from] certs::IdentityError),
    /// The certificate and the row.
    #[error(
        "the certificate has the serial number {found}, the row says {said}; the row mixes two enrollments, enroll it anew with `peer add`"
    )]
    Serial {
        /// In the certificate.
        found: String,
        /// In the row.
        said: String,
    },
    /// It is over.
    #[error(
        "the certificate expired at {0}; enroll it anew: `grant token --replace` there, `peer add` here"
    )]
    Expired(UnixMillis),
    /// It has not begun.
    #[error("the certificate is not valid before {0}; check the clock of this machine")]
    NotYetValid(UnixMillis),
    /// The roots.
    #[error(
        "the trust root cannot be used: {0}; give the root certificate that the gateway had in STEP_CA_ROOT_CERT_PATH"
    )]
    TrustRoot(#[from] certs::TrustError),
    /// Sealing here.
    #[error("the key could not be sealed: {0}")]
    Seal(#[from] certs::SealError),
    /// The store.
    #[error("it could not be stored: {0}")]
    Store(#[from] StoreError),
}

/// A row that was checked.
struct Checked {
    endpoint: Endpoint,
    key: PrivateKey,
    credential: Credential,
    identity: PeerIdentity,
}

impl Outbound {
    /// Takes over one row under a local name. The peer can be asked after the next [`Outbound::load`].
    ///
    /// # Errors
    /// [`ImportError`]; nothing of the row was kept.
    pub async fn import_peer(
        &self,
        row: &UpstreamPeer,
        name: &str,
        terms: &ImportTerms<'_>,
    ) -> Result<ImportedPeer, ImportError> {
        let name = PeerName::parse(name)?;
        let now = self.clock.unix_millis();
        let checked = check(row, terms, now.div_euclid(MILLIS_PER_SECOND))?;
        let taken = self.store.find_peer(PeerDirection::Outbound, &name).await?;
        if taken.is_some() {
            return Err(ImportError::NameTaken(name));
        }
        let credential_id = Uuid::new_v4();
        let sealed_key = self.sealer.seal(
            SealPurpose::CredentialKey,
            &credential_id.as_hyphenated().to_string(),
            checked.key.pkcs8(),
        )?;
        let identity = &checked.identity;
        let imported = ImportedPeer {
            name: name.clone(),
            grant: GrantId::from(identity.grant),
            subject: SubjectId::from(identity.subject),
            endpoint_url: checked.endpoint.to_string(),
            serial: identity.serial.as_str().to_owned(),
            not_after: seconds(identity.not_after),
        };
        let peer = NewOutboundPeer {
            only_new: true,
            id: PeerId::new(time_ordered_id(self.clock.as_ref())),
            name,
            endpoint_url: imported.endpoint_url.clone(),
            common_name: row.common_name.clone(),
            trust_bundle_pem: terms.trust_root_pem.to_owned(),
            trust_generation: 1,
            checkpoint_key: None,
            credential_id,
            local_user: terms.user.clone(),
            grant: imported.grant,
            subject: imported.subject,
            chain_pem: checked.credential.chain_pem(),
            sealed_key,
            not_after: imported.not_after,
            // Its clock is not known: renewal goes by ours until it has answered.
            began_at: UnixMillis(now),
            skew_ms: 0,
        };
        let act = self.act(terms.actor.clone());
        match self.store.add_outbound_peer(&act, peer).await {
            Ok(_) => Ok(imported),
            // Somebody was quicker since it was looked up.
            Err(StoreError::Conflict { .. }) => Err(ImportError::NameTaken(imported.name)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Checks a row; `now` in Unix seconds.
fn check(row: &UpstreamPeer, terms: &ImportTerms<'_>, now: i64) -> Result<Checked, ImportError> {
    let state = row.state.as_deref().unwrap_or_default();
    if state != ACTIVE {
        return Err(ImportError::State(state.escape_debug().to_string()));
    }
    let endpoint = filled("endpoint_url", &row.endpoint_url)?;
    let certificate = filled("cert_pem", &row.cert_pem)?;
    let sealed = filled("client_key_pem", &row.client_key_pem)?;
    let endpoint = Endpoint::parse(endpoint)?;
    TrustAnchors::from_pem(0, terms.trust_root_pem.as_bytes())?;
    let text = upstream::open(terms.secret, sealed)?;
    let key = PrivateKey::from_pem(&text)?;
    let credential = Credential::from_pem(certificate.as_bytes(), key.to_pem().as_bytes())?;
    let leaf = credential.chain().first().map_or(&[][..], AsRef::as_ref);
    let identity = PeerIdentity::decode(leaf, 0)?;
    if let Some(said) = row.cert_serial.as_deref().filter(|said| !said.is_empty()) {
        let (found, said) = (plain(identity.serial.as_str()), plain(said));
        if found != said {
            return Err(ImportError::Serial { found, said });
        }
    }
    if identity.not_after < now {
        return Err(ImportError::Expired(seconds(identity.not_after)));
    }
    if identity.not_before > now {
        return Err(ImportError::NotYetValid(seconds(identity.not_before)));
    }
    Ok(Checked {
        endpoint,
        key,
        credential,
        identity,
    })
}

fn filled<'r>(name: &'static str, value: &'r Option<String>) -> Result<&'r str, ImportError> {
    let value = value.as_deref().map(str::trim).unwrap_or_default();
    if value.is_empty() {
        return Err(ImportError::Missing(name));
    }
    Ok(value)
}

/// A serial number without what people write around it: case, colons, leading zeros.
fn plain(serial: &str) -> String {
    let digits: String = serial
        .chars()
        .filter(|c| c.is_ascii_hexdigit())
        .map(|c| c.to_ascii_lowercase())
        .collect();
    digits.trim_start_matches('0').to_owned()
}

fn seconds(unix: i64) -> UnixMillis {
    UnixMillis(unix.saturating_mul(MILLIS_PER_SECOND))
}
