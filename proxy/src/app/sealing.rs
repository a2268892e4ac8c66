//! Which sealing secret the store is sealed with, settled before anything is opened.
//!
//! Invariant: a process never starts on a store that it cannot open whole. In the midst of a change of the secret it needs
//! the next one: from the settings, or from its place beside the present one; the one before comes from the store then.

use certs::seal::KeyId;
use certs::{Sealer, SealingSecret};

use super::StartError;
use crate::config::SealSource;
use crate::sealing_secret;
use crate::store::{NextSecret, Store, StoreError};

/// Where the remedies are told.
const MANUAL: &str = "docs/operations.md, The sealing secret";

/// Brings `sealer`, which has the secret of the settings, in line with the store.
///
/// # Errors
/// [`StartError::Seal`] when the store is sealed with another secret.
pub(super) async fn settle(
    store: &dyn Store,
    sealer: &Sealer,
    source: &SealSource,
) -> Result<(), StartError> {
    let given = sealer.key_id();
    let state = match store.sealing().await? {
        Some(state) => state,
        None => match store.adopt_sealing(&given).await {
            Ok(()) => return Ok(()),
            // By rows from before the store noted it, or by a process that was first.
            Err(StoreError::Conflict { .. }) => {
                let counts = store.sealed_counts().await?;
                let other = counts.iter().map(|count| count.key_id);
                let other = other.filter(|key_id| *key_id != given).collect::<Vec<_>>();
                return Err(wrong(source, &given, &other));
            }
            Err(error) => return Err(error.into()),
        },
    };
    let refused = |error: &dyn std::fmt::Display| StartError::Seal(error.to_string());
    match &state.next {
        None if given == state.key_id => Ok(()),
        None => Err(wrong(source, &given, &[state.key_id])),
        Some(next) if given == next.key_id => {
            sealer
                .remember(&state.key_id, &next.former)
                .map_err(|error| refused(&error))?;
            unfinished();
            Ok(())
        }
        Some(next) if given == state.key_id => {
            let following = following(source, next)?;
            sealer.take(&following).map_err(|error| refused(&error))?;
            unfinished();
            Ok(())
        }
        Some(next) => Err(wrong(source, &given, &[state.key_id, next.key_id])),
    }
}

fn unfinished() {
    tracing::warn!(
        "the sealing secret is being changed: `keys reseal status` says how far, `keys reseal start` goes on"
    );
}

/// The secret that a change under way goes to.
fn following(source: &SealSource, next: &NextSecret) -> Result<Sealer, StartError> {
    let (at, name) = (source.next(), hex::encode(next.key_id));
    let missing = |why: &str| {
        StartError::Seal(format!(
            "the sealing secret is being changed to the one named {name}, and {why}: put that secret there, or let the settings name it ({MANUAL})"
        ))
    };
    let read: Option<SealingSecret> =
        sealing_secret::read_next(source).map_err(StartError::Seal)?;
    let secret = read.ok_or_else(|| missing(&format!("{at} does not exist")))?;
    let sealer = Sealer::new(secret).map_err(|error| StartError::Seal(error.to_string()))?;
    if sealer.key_id() != next.key_id {
        let other = hex::encode(sealer.key_id());
        return Err(missing(&format!("{at} holds another one, named {other}")));
    }
    Ok(sealer)
}

fn wrong(source: &SealSource, given: &KeyId, wanted: &[KeyId]) -> StartError {
    let mut wanted: Vec<String> = wanted.iter().map(hex::encode).collect();
    wanted.sort();
    wanted.dedup();
    StartError::Seal(format!(
        "the sealing secret from {source} is not the one of this store: it is named {}, the store is sealed with {}. Give that one; without it nothing sealed can be read ({MANUAL})",
        hex::encode(given),
        wanted.join(" and ")
    ))
}
