//! `audit export --grant` and what `audit reconcile` compares such an export with.
//!
//! Invariant: an export gives of each record what the peer may know and nothing else, and is not begun of a history that is not
//! what was written. Reading changes nothing.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{self, Stream};
use policy::id::{GrantId, UserId};
use policy::peer::PeerName;
use policy::time::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{AdminCode, AdminFailure, Control, parse_grant_id};
use crate::audit::chain::{ChainHash, PREDECESSOR};
use crate::audit::checkpoint::CheckpointVerifier;
use crate::audit::history::HeaderSignature;
use crate::audit::history::export::{GrantExporter, Unfaithful};
use crate::audit::history::reconcile::Witness;
use crate::audit::{AuditFilter, AuditLogError, AuditRow, Direction, HistoryHead, canonical};
use crate::store::{PeerDirection, SignedWitness, WitnessedCheckpoint};

/// Rows read at a time.
const PAGE: u32 = 2_000;

/// What the asking side knows of one of its grants, before its questions: the first line of what `audit/asked` answers. Each
/// further line is the canonical bytes of a record, base64.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AskedHead {
    /// The grant.
    pub grant: GrantId,
    /// The local name of its peer.
    pub peer: PeerName,
    /// The local user who asks.
    pub user: UserId,
    /// The public key of the peer's checkpoints, hex, when enrollment gave one.
    pub checkpoint_key: Option<String>,
    /// From when on the log is complete; absent when it always was.
    pub since: Option<UnixMillis>,
    /// What the peer has said of the history of the grant.
    pub witnessed: Vec<WitnessedView>,
}

/// The newest places of one chain that a peer has shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WitnessedView {
    /// The chain.
    pub chain: Uuid,
    /// The newest place.
    pub newest: ShownPlace,
    /// The newest with a good signature.
    pub signed: Option<ShownPlace>,
}

/// A place that was shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShownPlace {
    /// Its number.
    pub gseq: u64,
    /// Its hash, hex.
    pub ghash: String,
    /// When it was heard; of a signed one, when it was signed by the peer's clock.
    pub at: UnixMillis,
    /// The signature, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

impl WitnessedView {
    fn of(kept: &WitnessedCheckpoint) -> Self {
        let signed = |signed: SignedWitness| ShownPlace {
            gseq: signed.gseq,
            ghash: hex::encode(signed.ghash),
            at: signed.signature.at,
            signature: Some(hex::encode(signed.signature.signature)),
        };
        Self {
            chain: kept.head.chain,
            newest: ShownPlace {
                gseq: kept.head.gseq,
                ghash: hex::encode(kept.head.ghash),
                at: kept.heard_at,
                signature: None,
            },
            signed: kept.signed.map(signed),
        }
    }

    /// The places, to be held against an export of `grant`; one that is said to be signed and is not by `key` counts as heard only.
    #[must_use]
    pub fn witnesses(&self, grant: GrantId, key: &CheckpointVerifier) -> Vec<Witness> {
        let place = |shown: &ShownPlace| {
            let ghash = ChainHash::try_from(hex::decode(&shown.ghash).ok()?.as_slice()).ok()?;
            let head = HistoryHead {
                chain: self.chain,
                gseq: shown.gseq,
                ghash,
            };
            let is_signed = shown.signature.as_ref().is_some_and(|text| {
                let signature = hex::decode(text).unwrap_or_default();
                <[u8; 64]>::try_from(signature.as_slice()).is_ok_and(|signature| {
                    let at = shown.at;
                    HeaderSignature { at, signature }.is_by(key, grant, &head)
                })
            });
            Some(Witness {
                head,
                at: shown.at,
                signed: is_signed,
            })
        };
        let shown = std::iter::once(&self.newest).chain(&self.signed);
        shown.filter_map(place).collect()
    }
}

/// An export that ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportBroken {
    /// The log.
    #[error(transparent)]
    Log(#[from] AuditLogError),
    /// The log does not say what it said.
    #[error(transparent)]
    Unfaithful(#[from] Unfaithful),
}

impl Control {
    /// `audit export --grant`: the lines of an export of one grant's history, in parts.
    ///
    /// # Errors
    /// An unknown grant; a history that is not what was written.
    pub async fn export_history(
        self: Arc<Self>,
        grant: &str,
    ) -> Result<impl Stream<Item = Result<String, ExportBroken>> + use<>, AdminFailure> {
        let grant = parse_grant_id(grant)?;
        self.store.grant(grant).await?;
        let signer = Arc::new(self.checkpoint_signer().await?);
        let (mut trial, mut lines) = GrantExporter::begin(Arc::clone(&signer), grant, self.now());
        let mut after = None;
        loop {
            let rows = self.history_rows(grant, after).await?;
            for row in &rows {
                trial.row(row, &mut lines).map_err(|unfaithful| {
                    AdminFailure::new(AdminCode::Conflict, unfaithful.to_string())
                        .hint("find out who changed the database, and tell the peer")
                })?;
                lines.clear();
            }
            let Some(last) = rows.last() else { break };
            after = Some(last.record.id);
        }
        let (exporter, first) = GrantExporter::begin(signer, grant, self.now());
        let begun = Under {
            control: self,
            grant,
            exporter: Some(exporter),
            lines: first,
            after: None,
        };
        Ok(stream::try_unfold(begun, Under::next))
    }

    async fn history_rows(
        &self,
        grant: GrantId,
        after: Option<Uuid>,
    ) -> Result<Vec<AuditRow>, AuditLogError> {
        self.rows_of(grant, Direction::Inbound, after).await
    }

    /// The next rows of a grant, in the order in which they were written, of the archive too.
    async fn rows_of(
        &self,
        grant: GrantId,
        direction: Direction,
        after: Option<Uuid>,
    ) -> Result<Vec<AuditRow>, AuditLogError> {
        let filter = AuditFilter {
            grant: Some(grant),
            direction: Some(direction),
            after,
            oldest_first: true,
            limit: PAGE,
            ..AuditFilter::default()
        };
        self.query_history(&filter).await
    }

    /// What `audit reconcile` needs: what this side knows of a grant it holds on a peer, and its questions under it.
    ///
    /// # Errors
    /// A grant that this side does not hold; with `peer`, one that is not of that peer.
    pub async fn asked_under(
        self: Arc<Self>,
        grant: &str,
        peer: Option<&str>,
    ) -> Result<impl Stream<Item = Result<String, AuditLogError>> + use<>, AdminFailure> {
        let grant = parse_grant_id(grant)?;
        let credentials = self.store.list_outbound_credentials().await?;
        let held = credentials.iter().find(|one| one.grant == grant);
        let held = held.ok_or_else(|| {
            AdminFailure::new(
                AdminCode::NotFound,
                format!("this side asks nobody under grant {grant}"),
            )
            .hint("reconcile on the side that asks, with an export of a grant that `peer show` names there")
        })?;
        let record = self.store.peer(held.peer).await?;
        if let Some(name) = peer {
            let named = self
                .find_peer(name, Some(PeerDirection::Outbound.as_str()))
                .await?;
            if named.id != record.id {
                return Err(AdminFailure::invalid(format!(
                    "grant {grant} is with the peer `{}`, not with `{}`",
                    record.name, named.name
                )));
            }
        }
        let kept = self.store.witnessed_checkpoints().await?;
        let head = AskedHead {
            grant,
            peer: record.name,
            user: held.local_user.clone(),
            checkpoint_key: record.checkpoint_key.map(hex::encode),
            since: self.complete_since().await?,
            witnessed: kept
                .iter()
                .filter(|one| one.grant == grant)
                .map(WitnessedView::of)
                .collect(),
        };
        let mut lines = serde_json::to_string(&head).unwrap_or_default();
        lines.push('\n');
        let begun = Asked {
            control: self,
            grant,
            lines: Some(lines),
            after: None,
        };
        Ok(stream::try_unfold(begun, Asked::next))
    }

    /// From when on the log is complete; `None` when its first row is the first that was ever written.
    async fn complete_since(&self) -> Result<Option<UnixMillis>, AdminFailure> {
        let page = self.log_reader().next().await?;
        let Some(first) = page.as_ref().and_then(|page| page.rows.first()) else {
            return Ok(None);
        };
        let is_first = first.link.is_none_or(|link| {
            let detail = first.record.detail.as_ref();
            link.seq == 1 && detail.is_none_or(|detail| detail.value(PREDECESSOR).is_none())
        });
        Ok((!is_first).then_some(first.record.at))
    }
}

/// An export under way.
struct Under {
    control: Arc<Control>,
    grant: GrantId,
    /// `None` behind the end.
    exporter: Option<GrantExporter>,
    /// Lines that are ready.
    lines: String,
    after: Option<Uuid>,
}

impl Under {
    async fn next(mut self) -> Result<Option<(String, Self)>, ExportBroken> {
        let Some(mut exporter) = self.exporter.take() else {
            return Ok(None);
        };
        let mut lines = std::mem::take(&mut self.lines);
        let rows = self.control.history_rows(self.grant, self.after).await?;
        for row in &rows {
            exporter
                .row(row, &mut lines)
                .inspect_err(|error| tracing::error!(%error, "an export was cut off"))?;
        }
        match rows.last() {
            Some(last) => {
                self.after = Some(last.record.id);
                self.exporter = Some(exporter);
            }
            None => lines.push_str(&exporter.end()),
        }
        Ok(Some((lines, self)))
    }
}

/// Questions under way.
struct Asked {
    control: Arc<Control>,
    grant: GrantId,
    /// Lines that are ready; `None` behind the end.
    lines: Option<String>,
    after: Option<Uuid>,
}

impl Asked {
    async fn next(mut self) -> Result<Option<(String, Self)>, AuditLogError> {
        let Some(mut lines) = self.lines.take() else {
            return Ok(None);
        };
        let rows = self
            .control
            .rows_of(self.grant, Direction::Outbound, self.after)
            .await?;
        for row in &rows {
            lines.push_str(&STANDARD.encode(canonical::to_bytes(&row.record)));
            lines.push('\n');
        }
        if let Some(last) = rows.last() {
            self.after = Some(last.record.id);
            self.lines = Some(String::new());
        }
        Ok(Some((lines, self)))
    }
}

/// Reads what [`Control::asked_under`] gave.
///
/// # Errors
/// A line that is none.
pub fn read_asked(text: &str) -> Result<(AskedHead, Vec<crate::audit::AuditRecord>), String> {
    let mut lines = text.lines();
    let head: Value = serde_json::from_str(lines.next().unwrap_or_default())
        .map_err(|error| error.to_string())?;
    let head = serde_json::from_value(head).map_err(|error| error.to_string())?;
    let record = |line: &str| {
        let bytes = STANDARD.decode(line).map_err(|error| error.to_string())?;
        canonical::decode(&bytes).map_err(|error| error.to_string())
    };
    Ok((head, lines.map(record).collect::<Result<_, String>>()?))
}
