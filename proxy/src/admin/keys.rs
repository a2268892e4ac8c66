//! `keys reseal`: the sealing secret changed while the sidecar runs.
//!
//! Invariant: secrets come in and never go out; what is told is their public names. The steps are in `resealer.rs`.

use std::collections::BTreeMap;

use certs::seal::KeyId;
use certs::{Sealer, SealingSecret};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::resealer::ResealError;
use super::secret_body::secret_text;
use super::{AdminCode, AdminFailure, Control};
use crate::store::Actor;

/// The next secret. Not `Debug`: it is a secret.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartReseal {
    /// Its bytes, hex.
    #[serde(deserialize_with = "secret_text")]
    pub(super) secret: Zeroizing<String>,
}

/// How a change is to be ended.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishReseal {
    /// The public name of the secret that the settings give now, hex, where whoever asks can read it.
    #[serde(default)]
    pub configured: Option<String>,
}

/// How the store is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingView {
    /// The public name of the secret in force.
    pub key_id: String,
    /// The one that is to follow, while rows are sealed again.
    pub next_key_id: Option<String>,
    /// Since when, RFC 3339.
    pub begun_at: Option<String>,
    /// Rows of each kind with the secret they are sealed with.
    pub rows: Vec<SealedRowsView>,
    /// How many rows are still to be sealed again.
    pub left: u64,
    /// How many this call sealed again.
    pub resealed: Option<u64>,
}

/// Rows of one kind under one secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRowsView {
    /// What they are.
    pub kind: String,
    /// The secret's public name.
    pub key_id: String,
    /// How many.
    pub rows: u64,
}

impl Control {
    /// `keys reseal status`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn sealing(&self) -> Result<SealingView, AdminFailure> {
        let unknown = || {
            AdminFailure::new(
                AdminCode::Unavailable,
                "the store does not say how it is sealed",
            )
        };
        let state = self.store.sealing().await?.ok_or_else(unknown)?;
        let wanted = state.next.as_ref().map_or(state.key_id, |next| next.key_id);
        let mut left: u64 = 0;
        let mut rows: BTreeMap<(&str, KeyId), u64> = BTreeMap::new();
        for count in self.store.sealed_counts().await? {
            let known = rows.entry((count.kind.as_str(), count.key_id)).or_default();
            *known = known.saturating_add(count.rows);
            if count.key_id != wanted {
                left = left.saturating_add(count.rows);
            }
        }
        Ok(SealingView {
            key_id: hex::encode(state.key_id),
            begun_at: state
                .next
                .as_ref()
                .map(|next| next.begun_at.rfc3339().to_string()),
            next_key_id: state.next.map(|next| hex::encode(next.key_id)),
            rows: rows
                .into_iter()
                .map(|((kind, key_id), rows)| SealedRowsView {
                    kind: kind.to_owned(),
                    key_id: hex::encode(key_id),
                    rows,
                })
                .collect(),
            left,
            resealed: None,
        })
    }

    /// `keys reseal start`: seals everything with another secret, or goes on with it. Both open until
    /// [`finish_reseal`](Self::finish_reseal).
    ///
    /// # Errors
    /// A secret that is too short, is the present one, or is not the one of the change under way; a row that does not open.
    pub async fn start_reseal(
        &self,
        actor: &Actor,
        secret: Zeroizing<Vec<u8>>,
    ) -> Result<SealingView, AdminFailure> {
        let secret = SealingSecret::from_bytes(secret)
            .map_err(|error| AdminFailure::invalid(error.to_string()))?;
        let next = Sealer::new(secret)
            .map_err(|error| AdminFailure::new(AdminCode::Unavailable, error.to_string()))?;
        let resealed = self.resealer.run(&next, &|| self.act(actor)).await?;
        let revision = self.store.revision().await?;
        self.directory
            .refresh()
            .await
            .map_err(|error| AdminFailure::committed(revision, &error))?;
        tracing::info!(
            to = hex::encode(next.key_id()),
            resealed,
            "the store is sealed with the next secret; `keys reseal finish` ends the change"
        );
        Ok(SealingView {
            resealed: Some(resealed),
            ..self.sealing().await?
        })
    }

    /// `keys reseal finish`: from then on the secret before opens nothing.
    ///
    /// # Errors
    /// While a row is sealed with it, and when the settings still give it.
    pub async fn finish_reseal(
        &self,
        actor: &Actor,
        request: FinishReseal,
    ) -> Result<SealingView, AdminFailure> {
        let next = self.store.sealing().await?.and_then(|state| state.next);
        if let (Some(next), Some(configured)) = (next, request.configured)
            && configured != hex::encode(next.key_id)
        {
            let source = &self.config.seal;
            return Err(AdminFailure::new(
                AdminCode::Conflict,
                format!("the settings still give the secret named {configured}: the next start would fail"),
            )
            .hint(format!(
                "put the next secret in the place of the present one ({source}), then repeat the command"
            )));
        }
        let committed = self.resealer.finish(&self.act(actor)).await?;
        self.directory
            .refresh()
            .await
            .map_err(|error| AdminFailure::committed(committed.revision, &error))?;
        tracing::info!(
            key_id = hex::encode(committed.value),
            "the sealing secret is changed: the one before opens nothing any more"
        );
        self.sealing().await
    }
}

impl From<ResealError> for AdminFailure {
    fn from(error: ResealError) -> Self {
        let message = error.to_string();
        match error {
            ResealError::Change(_) => Self::new(AdminCode::Conflict, message),
            ResealError::Elsewhere(_) => Self::new(AdminCode::Unavailable, message)
                .hint("put the next secret beside the present one on this replica too"),
            ResealError::Another { .. } => Self::new(AdminCode::Conflict, message)
                .hint("give that secret; `keys reseal status` shows how far the change is"),
            ResealError::Row { .. } => Self::new(AdminCode::Unavailable, message).hint(
                "register that token again, remove that peer, or restore the row from a backup; then repeat the command",
            ),
            ResealError::Seal(_) | ResealError::File(_) => {
                Self::new(AdminCode::Unavailable, message)
            }
            ResealError::Store(error) => {
                let failure = Self::from(error);
                if failure.code == AdminCode::Conflict {
                    failure.hint("`keys reseal status` shows how far it is; `keys reseal start` goes on")
                } else {
                    failure
                }
            }
        }
    }
}
