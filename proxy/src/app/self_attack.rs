//! The attack on the own listener as a condition of the start.
//!
//! Invariant: a start whose listener lets one of the attacks through fails. One that cannot be carried out is said in the
//! log and in `status`, and fails nothing: it shows nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use certs::{EmbeddedCa, TrustAnchors};
use rustls_pki_types::ServerName;
use uuid::Uuid;

use super::{Base, StartError};
use crate::admin::CanaryStep;
use crate::directory::Directory;
use crate::inbound::probe::{Doorstep, reachable};
use crate::inbound::self_attack::{Attack, AttackResult, Attacker, SelfAttackView};
use crate::server_certificate::ServerCertificate;
use crate::transport::Balancers;

/// Whether and where a process attacks its own federation listener before it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelfAttack {
    /// Not at all: the sidecar is a part of another process, which has its own ways of looking at it.
    Off,
    /// Where it listens.
    Own,
    /// At this address, as if it listened there: how a test sees that a lax listener is noticed.
    At(SocketAddr),
}

/// What is attacked, and with what.
pub(super) struct Target<'a> {
    pub(super) listens: SocketAddr,
    pub(super) server: &'a ServerCertificate,
    pub(super) authority: Option<Arc<EmbeddedCa>>,
    pub(super) directory: &'a Directory,
}

/// Shows the series of what has not happened yet.
pub(super) fn expect(base: &Base) {
    let drills = base.metrics.drills();
    drills.expect(
        &Attack::ALL.map(Attack::as_str),
        &AttackResult::ALL.map(AttackResult::as_str),
        &CanaryStep::ALL.map(CanaryStep::as_str),
    );
}

/// Attacks, and fails if anything gets through.
///
/// # Errors
/// [`StartError::SelfAttack`].
pub(super) async fn demand(
    base: &Base,
    how: SelfAttack,
    target: Target<'_>,
) -> Result<Option<SelfAttackView>, StartError> {
    let doorstep = match how {
        SelfAttack::Off => return Ok(None),
        SelfAttack::Own => {
            let balancers = Balancers::new(base.config.federation.balancers.clone());
            reachable(target.listens, &balancers)
        }
        SelfAttack::At(address) => Doorstep {
            address,
            is_balancers: false,
        },
    };
    let failed =
        |why: String| StartError::Internal(format!("the attack on the own listener: {why}"));
    let roots = TrustAnchors::from_pem(0, target.server.current().roots_pem().as_bytes())
        .map_err(|error| failed(error.to_string()))?;
    let name = base.config.tls.server_names.first();
    let name = name
        .and_then(|name| ServerName::try_from(name.clone()).ok())
        .ok_or_else(|| failed("the listener has no name".to_owned()))?;
    // A grant that there is would open most, if headers could claim it.
    let view = target.directory.view();
    let claimed = view
        .snapshot
        .grants()
        .next()
        .map(|entry| (entry.grant.id.uuid(), entry.grant.subject.uuid()));
    let attacker = Attacker {
        doorstep,
        name,
        roots: Arc::new(roots),
        authority: target.authority,
        claimed: claimed.unwrap_or_else(|| (Uuid::new_v4(), Uuid::new_v4())),
        clock: Arc::clone(&base.clock),
    };
    let shown = attacker.attack().await;
    let mut through = Vec::new();
    for one in &shown.attacks {
        let (attack, result) = (one.attack.as_str(), one.result.as_str());
        base.metrics.drills().attacked(attack, result);
        match one.result {
            AttackResult::Refused => {
                tracing::debug!(
                    attack,
                    detail = one.detail,
                    "the own listener refused an attack"
                );
            }
            AttackResult::NotTried => {
                tracing::warn!(
                    attack,
                    why = one.detail,
                    "an attack on the own listener was not carried out"
                );
            }
            AttackResult::GotThrough => {
                tracing::error!(
                    attack,
                    got = one.detail,
                    "an attack on the own listener got through"
                );
                through.push(format!("{attack} ({})", one.detail));
            }
        }
    }
    if through.is_empty() {
        Ok(Some(shown))
    } else {
        Err(StartError::SelfAttack {
            address: doorstep.address,
            through: through.join(", "),
        })
    }
}
