//! The connections of a round of the canary: opened and used before the revocation, tried after it.
//!
//! Invariant: what is not answered 403 or ended was answered, whatever it says. A session that is taken up again counts as
//! answered too: nothing asks for the certificate on it.

use std::sync::Arc;

use certs::{Credential, TrustAnchors, tls};
use http::{HeaderMap, StatusCode};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::super::Control;
use super::REQUEST_ID;
use crate::inbound::probe::{Doorstep, Probe, Unanswered, Unopened, reachable};
use crate::transport::Balancers;

/// Each was answered once.
pub(super) struct Connections {
    kept: Probe,
    multiplexed: Probe,
    /// Of a client that would take up its session again.
    again: Arc<ClientConfig>,
    fresh: Arc<ClientConfig>,
    listener: Listener,
}

impl Control {
    /// Opens each kind of connection and uses it.
    pub(super) async fn connect_canary(
        &self,
        credential: &Credential,
    ) -> Result<Connections, String> {
        let server = self
            .server_certificate
            .as_ref()
            .ok_or("this process serves nobody")?;
        let roots = TrustAnchors::from_pem(0, server.current().roots_pem().as_bytes())
            .map_err(|error| error.to_string())?;
        let roots = Arc::new(roots);
        let config = |multiplexed| {
            let (roots, clock) = (Arc::clone(&roots), Arc::clone(&self.clock));
            tls::probing_client_config(credential, roots, clock, multiplexed)
                .map(Arc::new)
                .map_err(|error| error.to_string())
        };
        let (fresh, again) = (config(false)?, config(false)?);
        let listener = self.own_listener()?;
        let unopened = |error: Unopened| error.to_string();
        let mut kept = listener.open(&fresh).await.map_err(unopened)?;
        let mut multiplexed = listener.open(&config(true)?).await.map_err(unopened)?;
        let mut first = listener.open(&again).await.map_err(unopened)?;
        for (name, probe) in [
            ("a connection", &mut kept),
            ("a connection of HTTP/2", &mut multiplexed),
            ("a connection to be taken up again", &mut first),
        ] {
            let status = probe
                .ask(REQUEST_ID, HeaderMap::new())
                .await
                .map_err(|error| format!("{name}: {error}"))?;
            if status != StatusCode::OK {
                return Err(format!("{name}: answered {}", status.as_u16()));
            }
        }
        drop(first);
        Ok(Connections {
            kept,
            multiplexed,
            again,
            fresh,
            listener,
        })
    }

    fn own_listener(&self) -> Result<Listener, String> {
        let balancers = Balancers::new(self.config.federation.balancers.clone());
        let doorstep = self
            .addresses
            .federation
            .map(|listen| reachable(listen, &balancers))
            .ok_or("there is no federation listener")?;
        let name = self.config.tls.server_names.first();
        let name = name
            .and_then(|name| ServerName::try_from(name.clone()).ok())
            .ok_or("the listener has no name")?;
        Ok(Listener { doorstep, name })
    }
}

/// Our own.
struct Listener {
    doorstep: Doorstep,
    name: ServerName<'static>,
}

impl Listener {
    async fn open(&self, config: &Arc<ClientConfig>) -> Result<Probe, Unopened> {
        Probe::open(self.doorstep, &self.name, Arc::clone(config)).await
    }
}

impl Connections {
    /// Whether each kind of connection is refused; else what was answered, or could not be tried.
    pub(super) async fn are_refused(&mut self) -> Result<(), String> {
        refused("a kept connection", &mut self.kept).await?;
        refused("a connection of HTTP/2", &mut self.multiplexed).await?;
        for (name, config) in [
            ("a fresh connection", &self.fresh),
            ("a connection to be taken up again", &self.again),
        ] {
            let mut probe = match self.listener.open(config).await {
                Ok(probe) => probe,
                Err(Unopened::Alert(_)) => continue,
                Err(other) => return Err(format!("{name} could not be tried: {other}")),
            };
            if probe.is_resumed() {
                return Err(format!("{name}: an earlier session was taken up"));
            }
            refused(name, &mut probe).await?;
        }
        Ok(())
    }
}

/// Refused with 403, or ended. What is neither in time shows nothing, so it does not pass.
async fn refused(name: &str, probe: &mut Probe) -> Result<(), String> {
    match probe.ask(REQUEST_ID, HeaderMap::new()).await {
        Ok(StatusCode::FORBIDDEN) | Err(Unanswered::Ended(_)) => Ok(()),
        Ok(status) => Err(format!("{name}: answered {}", status.as_u16())),
        Err(late @ Unanswered::TooLate) => Err(format!("{name}: {late}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use crate::inbound::self_attack::tests::Site;

    #[tokio::test(flavor = "multi_thread")]
    async fn only_403_and_an_end_are_refusals() {
        let site = Site::new();
        for (status, passes) in [
            (403, true),
            (200, false),
            (204, false),
            (404, false),
            (503, false),
        ] {
            let mut probe = site.probe(status).await;
            let shown = refused("it", &mut probe).await;
            assert_eq!(shown.is_ok(), passes, "{status}: {shown:?}");
            if passes {
                // The listener has gone meanwhile.
                assert_eq!(refused("it", &mut probe).await, Ok(()));
            }
        }
    }
}
