//! The registered certificates of each grant, as requests look them up.
//!
//! Invariant: nothing is kept here that no request and no list asks for: there is one for each grant at least, and there may be
//! many grants.

use std::sync::Arc;

use certs::Serial;
use policy::id::GrantId;
use policy::shards::Shards;
use policy::time::UnixMillis;

use crate::store::{CertificateEntry, CertificateState};

/// A registered certificate of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// SHA-256 of its DER.
    pub fingerprint: [u8; 32],
    /// Serial number, lower-case hex.
    pub serial: Box<str>,
    /// End of validity.
    pub not_after: UnixMillis,
    /// From when on it is superseded.
    retires_at: Option<UnixMillis>,
    /// Its state as stored; [`Leaf::state_at`] is what counts.
    pub state: CertificateState,
    /// Whether it was ever used; a renewed one is unconfirmed until then.
    pub is_confirmed: bool,
}

impl Leaf {
    /// What counts at `now`.
    #[must_use]
    pub fn state_at(&self, now: UnixMillis) -> CertificateState {
        self.state.at(self.retires_at, now)
    }

    /// The serial number as certificates and lists carry it; `None` of one that no certificate can have.
    pub(super) fn decoded_serial(&self) -> Option<Serial> {
        let magnitude = hex::decode(&*self.serial).ok()?;
        let content = match magnitude.first() {
            Some(first) if first & 0x80 != 0 => [&[0], magnitude.as_slice()].concat(),
            _ => magnitude,
        };
        Serial::decode(&content).ok()
    }
}

impl From<CertificateEntry> for Leaf {
    fn from(entry: CertificateEntry) -> Self {
        Self {
            fingerprint: entry.fingerprint,
            serial: entry.serial.into_boxed_str(),
            not_after: entry.not_after,
            retires_at: entry.retires_at,
            state: entry.state,
            is_confirmed: entry.confirmed_at.is_some(),
        }
    }
}

/// The leaves of each grant, in the order they came in.
pub(super) type Leaves = Shards<GrantId, Arc<[Leaf]>>;

/// Sorts leaves by grant.
pub(super) fn leaves_of(mut all: Vec<CertificateEntry>) -> Leaves {
    all.sort_by_key(|leaf| leaf.grant);
    let mut leaves = Leaves::default();
    let mut of_one: Vec<Leaf> = Vec::new();
    let mut entries = all.into_iter().peekable();
    while let Some(entry) = entries.next() {
        let grant = entry.grant;
        of_one.push(entry.into());
        if entries.peek().is_none_or(|next| next.grant != grant) {
            leaves.insert(grant, of_one.drain(..).collect());
        }
    }
    leaves.shrink();
    leaves
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn each_grant_has_its_own_in_the_order_they_came_in() {
        let grant = |n: u8| GrantId::from(Uuid::from_u128(n.into()));
        let entry = |of: u8, number: u8| CertificateEntry {
            fingerprint: [number; 32],
            grant: grant(of),
            serial: format!("{number:02x}"),
            not_before: UnixMillis(0),
            not_after: UnixMillis(1),
            state: CertificateState::Active,
            confirmed_at: None,
            retires_at: None,
        };
        let leaves = leaves_of(vec![
            entry(2, 1),
            entry(1, 2),
            entry(2, 3),
            entry(3, 4),
            entry(2, 5),
        ]);
        let of = |n: u8| -> Vec<u8> {
            let found = leaves
                .get(&grant(n))
                .map(|found| &**found)
                .unwrap_or_default();
            found.iter().map(|leaf| leaf.fingerprint[0]).collect()
        };
        assert_eq!((of(1), of(2), of(3)), (vec![2], vec![1, 3, 5], vec![4]));
        assert!(of(4).is_empty());
    }
}
