//! The certificate of our own listeners, issued by the embedded authority and issued again in time.

use std::sync::Arc;
use std::time::Duration;

use certs::ca::SERVER_LIFETIME;
use certs::clock::Clock;
use certs::{
    CertificateAuthority, Credential, CredentialPublisher, PrivateKey, ServerIssue, VerifiedCsr,
};
use rustls_pki_types::ServerName;

use crate::telemetry::Metrics;

use super::StartError;

/// How often the remaining life is looked at.
const LOOK: Duration = Duration::from_secs(3600);

/// Issues a server credential for `names`, its chain ending with the root.
///
/// # Errors
/// [`StartError::Certificate`].
pub async fn issue(
    authority: &dyn CertificateAuthority,
    names: &[String],
    now: i64,
) -> Result<Credential, StartError> {
    let refused = |error: &dyn std::fmt::Display| StartError::Certificate(error.to_string());
    let names = names
        .iter()
        .map(|name| {
            ServerName::try_from(name.clone())
                .map_err(|_| StartError::Certificate(format!("`{name}` is neither a host name nor an address; check `tls.server_names` and the public URLs")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKey::generate_p256().map_err(|error| refused(&error))?;
    let csr = key
        .csr_pem("mosaic-federation")
        .map_err(|error| refused(&error))?;
    let csr = VerifiedCsr::parse(&csr).map_err(|error| refused(&error))?;
    let issued = authority
        .issue_server(ServerIssue {
            csr,
            names,
            lifetime: SERVER_LIFETIME,
            now,
        })
        .await
        .map_err(|error| refused(&error))?;
    Credential::new(issued.chain_with_root(), &key).map_err(|error| refused(&error))
}

/// Issues and publishes a new server credential when a third of the life of the one in force is left.
pub async fn keep_fresh(
    authority: Arc<dyn CertificateAuthority>,
    names: Vec<String>,
    publisher: CredentialPublisher,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
) {
    let third = i64::try_from(SERVER_LIFETIME.as_secs() / 3).unwrap_or(i64::MAX);
    let in_force = publisher.subscribe();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = clock.unix_seconds();
        if in_force.load().not_after().saturating_sub(now) > third {
            continue;
        }
        match issue(&*authority, &names, now).await {
            Ok(credential) => {
                metrics.certificate_expiry("server", "", credential.not_after());
                if let Err(error) = publisher.publish(credential) {
                    tracing::error!(%error, "the new server certificate could not be put in force");
                }
            }
            Err(error) => {
                tracing::error!(%error, "no new server certificate could be issued; trying again in an hour")
            }
        }
    }
}
