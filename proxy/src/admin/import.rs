//! `peer import`: peers of an upstream gateway taken over.
//!
//! Invariant: each row stands for itself: it is taken over whole or refused with a reason, whatever becomes of the others. Secrets come
//! in and never go out, nor into a log.

use std::collections::BTreeMap;

use policy::id::{GrantId, SubjectId};
use policy::peer::PeerName;
use policy::time::UnixMillis;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::secret_body::secret_text;
use super::{AdminCode, AdminFailure, Control, parse_user};
use crate::outbound::{ImportTerms, UpstreamPeer};
use crate::store::Actor;

/// Most rows of one import.
const MAX_ROWS: usize = 10_000;

/// Rows to take over. Not `Debug`: there is a secret in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportPeers {
    /// The rows.
    pub rows: Vec<UpstreamPeer>,
    /// The text of `BETTER_AUTH_SECRET`.
    #[serde(deserialize_with = "secret_text")]
    pub secret: Zeroizing<String>,
    /// The local user who will ask.
    pub user: String,
    /// The roots that the peers' servers are known by, PEM.
    pub trust_root_pem: String,
    /// Local names by common name; the common name itself when absent.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
}

/// What became of the rows.
#[derive(Debug, Serialize)]
pub struct ImportedView {
    /// Those that were taken over.
    pub imported: Vec<ImportedRow>,
    /// Those that were not, with why and what to do.
    pub refused: Vec<RefusedRow>,
}

/// A row that was taken over.
#[derive(Debug, Serialize)]
pub struct ImportedRow {
    /// Its common name in the export.
    pub common_name: String,
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

/// A row that was not taken over.
#[derive(Debug, Serialize)]
pub struct RefusedRow {
    /// Its common name in the export.
    pub common_name: String,
    /// Why, and what to do.
    pub why: String,
}

impl Control {
    /// `peer import`.
    ///
    /// # Errors
    /// When nothing can be taken over at all: this process asks nobody, there is no row, a name is for none. When rows are kept and
    /// this process cannot be made to know them, which is said. What becomes of each row is in the answer.
    pub async fn import_peers(
        &self,
        actor: &Actor,
        request: ImportPeers,
    ) -> Result<ImportedView, AdminFailure> {
        let outbound = self.asking()?;
        let user = parse_user(request.user.trim())?;
        if request.rows.is_empty() || request.rows.len() > MAX_ROWS {
            let found = request.rows.len();
            return Err(AdminFailure::invalid(format!(
                "the export has {found} rows, and one import takes 1 to {MAX_ROWS}"
            )));
        }
        let stray = request
            .names
            .keys()
            .find(|given| !request.rows.iter().any(|row| row.common_name == **given));
        if let Some(stray) = stray {
            return Err(AdminFailure::invalid(format!(
                "a local name is given for `{}`, and no row has that common name",
                stray.escape_debug()
            )));
        }
        let terms = ImportTerms {
            actor,
            user: &user,
            secret: request.secret.trim().as_bytes(),
            trust_root_pem: &request.trust_root_pem,
        };
        let mut view = ImportedView {
            imported: Vec::new(),
            refused: Vec::new(),
        };
        for row in &request.rows {
            let common_name = row.common_name.clone();
            let name = request.names.get(&common_name).unwrap_or(&common_name);
            match outbound.import_peer(row, name, &terms).await {
                Ok(peer) => view.imported.push(ImportedRow {
                    common_name,
                    name: peer.name,
                    grant: peer.grant,
                    subject: peer.subject,
                    endpoint_url: peer.endpoint_url,
                    serial: peer.serial,
                    not_after: peer.not_after,
                }),
                Err(error) => view.refused.push(RefusedRow {
                    common_name,
                    why: error.to_string(),
                }),
            }
        }
        if view.imported.is_empty() {
            return Ok(view);
        }
        // Once for all rows: they are kept whatever becomes of this.
        outbound
            .load()
            .await
            .map_err(|error| not_in_use(&view, &error))?;
        let refreshed = self.directory.refresh().await;
        refreshed.map_err(|error| not_in_use(&view, &error))?;
        Ok(view)
    }
}

/// The rows are kept, and this process does not know them yet.
fn not_in_use(view: &ImportedView, error: &dyn std::fmt::Display) -> AdminFailure {
    let names: Vec<&str> = view.imported.iter().map(|row| row.name.as_str()).collect();
    let kept = names.join(", ");
    let refused: Vec<String> = view
        .refused
        .iter()
        .map(|row| format!("{}: {}", row.common_name, row.why))
        .collect();
    AdminFailure::new(
        AdminCode::NotYetEffective,
        format!("these peers were taken over and are kept: {kept}; but they cannot be asked yet: {error}"),
    )
    .hint("repair the cause, then start the sidecar again; importing those rows again says that their names are taken")
    .detail("committed", true)
    .detail("imported", names)
    .detail("problems", refused)
}
