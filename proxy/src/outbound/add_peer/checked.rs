//! The answer to a redeemed token, checked before anything of it is kept.
//!
//! Invariant: an [`Enrolled`] holds a certificate over our own key for exactly the grant and subject it came with,
//! valid now, usable anchors, and an endpoint on the host that was enrolled with unless the operator gave one.

use certs::{Credential, PrivateKey};
use policy::id::{GrantId, SubjectId};
use policy::time::UnixMillis;
use serde::Deserialize;

use super::super::endpoint::Endpoint;
use super::super::issued::{Issued, IssuedParts};
use super::{AddPeerError, Order};
use crate::audit::checkpoint::CheckpointVerifier;

const MILLIS_PER_SECOND: i64 = 1_000;

/// The answer of the serving side, as it comes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EnrollmentAnswer {
    cert_pem: String,
    cert_chain_pem: String,
    trust_bundle_pem: String,
    grant_id: GrantId,
    subject_user_id: SubjectId,
    endpoint_url: String,
    common_name: String,
    #[serde(default)]
    checkpoint_key: Option<String>,
    /// Absent from a peer that counts none.
    #[serde(default)]
    trust_generation: Option<u64>,
}

/// The answer, checked.
pub(super) struct Enrolled {
    pub(super) credential: Credential,
    pub(super) trust_bundle_pem: String,
    /// The generation of that bundle, from 1.
    pub(super) trust_generation: u64,
    pub(super) grant: GrantId,
    pub(super) subject: SubjectId,
    pub(super) endpoint: Endpoint,
    pub(super) common_name: String,
    pub(super) not_after: UnixMillis,
    /// `None` from a peer that gives no checkpoints.
    pub(super) checkpoint_key: Option<CheckpointVerifier>,
}

/// Checks the answer against what was asked for; `now` in Unix seconds.
///
/// # Errors
/// [`AddPeerError::BadAnswer`] or [`AddPeerError::OtherHost`]; the token is spent.
pub(super) fn check_answer(
    answer: EnrollmentAnswer,
    order: &Order,
    key: &PrivateKey,
    now: i64,
) -> Result<Enrolled, AddPeerError> {
    let bad = AddPeerError::BadAnswer;
    let parts = IssuedParts {
        cert: &answer.cert_pem,
        chain: &answer.cert_chain_pem,
        trust_bundle: &answer.trust_bundle_pem,
    };
    let Issued {
        credential,
        identity,
    } = Issued::check(&parts, key, now).map_err(bad)?;
    if identity.grant != answer.grant_id.uuid() || identity.subject != answer.subject_user_id.uuid()
    {
        return Err(bad(
            "the certificate is for another grant or subject than the answer says",
        ));
    }
    if answer.common_name.is_empty()
        || answer.common_name.len() > 255
        || answer.common_name.chars().any(char::is_control)
    {
        return Err(bad(
            "the common name is empty, too long or has control characters",
        ));
    }
    let checkpoint_key = match &answer.checkpoint_key {
        None => None,
        Some(text) => Some(
            CheckpointVerifier::parse(text)
                .ok_or_else(|| bad("the key of its checkpoints is not one"))?,
        ),
    };
    let endpoint = match &order.endpoint {
        Some(given) => given.clone(),
        None => {
            let said = Endpoint::parse(&answer.endpoint_url)
                .map_err(|_| bad("its endpoint is not an https origin"))?;
            if said.host() != order.url.listener.host() {
                return Err(AddPeerError::OtherHost(said.to_string()));
            }
            said
        }
    };
    Ok(Enrolled {
        credential,
        trust_bundle_pem: answer.trust_bundle_pem,
        trust_generation: answer.trust_generation.unwrap_or(1).max(1),
        grant: answer.grant_id,
        subject: answer.subject_user_id,
        endpoint,
        common_name: answer.common_name,
        not_after: UnixMillis(identity.not_after.saturating_mul(MILLIS_PER_SECOND)),
        checkpoint_key,
    })
}
