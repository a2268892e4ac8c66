//! The asking side of a process: the session door, and what goes on behind it.
//!
//! Invariant: credentials are renewed by one replica at a time, and one that was cut off is resumed before the next is begun.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::listeners::offer;
use super::{Base, StartError, system};
use crate::admin::Addresses;
use crate::hand_over::at_path;
use crate::outbound::{
    BreakerRules, DoorLimits, DoorListener, Outbound, OutboundParts, ReachRules, Reaches,
};
use crate::replicas::{Job, Replicas};

/// For how long a replica that renews credentials goes on doing so; a try that takes longer is guarded by the store.
const RENEWAL_TURN: Duration = Duration::from_secs(30);

/// What is known of reaching peers: nothing yet.
pub(super) fn reaches(base: &Base) -> Reaches {
    let (breaker, limits) = (&base.config.breaker, &base.config.limits);
    let rules = ReachRules {
        breaker: BreakerRules {
            failures: breaker.failures,
            open: breaker.open,
            open_max: breaker.open_max,
        },
        places: limits.peer_requests,
    };
    Reaches::new(rules, Arc::clone(&base.clock), Arc::clone(&base.metrics))
}

/// Lets answers that are too old go, so that they do not stay in memory until their room is needed.
async fn sweep_cache(outbound: Arc<Outbound>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(Duration::from_secs(5)) => outbound.sweep(),
        }
    }
}

/// Renews credentials when they are due. Looks every second: timers stand still while a machine sleeps, the clock of
/// certificates does not.
async fn renew_credentials(
    outbound: Arc<Outbound>,
    replicas: Arc<Replicas>,
    mut stop: watch::Receiver<bool>,
) {
    let mut resumed = false;
    loop {
        if !replicas.does(Job::Renewal, RENEWAL_TURN).await {
            // Whoever does it meanwhile may leave one half done.
            resumed = false;
        } else if !resumed {
            tokio::select! {
                biased;
                () = outbound.resume_renewals() => resumed = true,
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        if !resumed {
            continue;
        }
        tokio::select! {
            biased;
            _ = outbound.renew_due() => {}
            // Cut off anywhere, the next process goes on from there.
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// The asking side: the session door.
pub(super) async fn ask(
    base: &Base,
    parts: OutboundParts,
    replicas: Arc<Replicas>,
    listeners: &mut JoinSet<()>,
    stopped: &watch::Receiver<bool>,
    addresses: &mut Addresses,
) -> Result<Arc<Outbound>, StartError> {
    let config = &base.config;
    let outbound = Arc::new(Outbound::new(parts));
    outbound.load().await?;
    outbound.warm_up(None);
    listeners.spawn(sweep_cache(Arc::clone(&outbound), stopped.clone()));
    listeners.spawn(renew_credentials(
        Arc::clone(&outbound),
        replicas,
        stopped.clone(),
    ));
    listeners.spawn(Arc::clone(&outbound).keep_witness(stopped.clone()));
    let socket = &config.session.socket;
    let taken = base.inherited.take_unix("session", socket);
    let door = match taken.map_err(StartError::Inherited)? {
        Some(socket) => DoorListener::Unix(socket),
        None => DoorListener::bind_unix(socket, 0o660)
            .await
            .map_err(system(format!(
                "the session socket `{}` cannot be bound",
                socket.display()
            )))?,
    };
    offer(base, at_path("session", socket), &door)?;
    let serve = |door| {
        crate::outbound::serve(
            door,
            Arc::clone(&outbound),
            DoorLimits::default(),
            stopped.clone(),
            base.leaving.clone(),
        )
    };
    listeners.spawn(serve(door));
    if let Some(address) = config.session.listen {
        let taken = base.inherited.take("session", address);
        let door = match taken.map_err(StartError::Inherited)? {
            Some(socket) => DoorListener::Loopback(socket),
            None => DoorListener::bind_loopback(address)
                .await
                .map_err(system(format!(
                    "the session listener cannot bind {address}"
                )))?,
        };
        if let DoorListener::Loopback(listener) = &door {
            addresses.session = listener.local_addr().ok();
        }
        offer(base, "session".to_owned(), &door)?;
        listeners.spawn(serve(door));
    }
    Ok(outbound)
}
