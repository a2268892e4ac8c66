//! The revocation lists in force, as verifiers look certificates up in them.
//!
//! Invariant: a certificate passes only when no list of its issuer lists it and, where there is one or there has to be one,
//! the newest of them is not too old. A list of another issuer neither refuses a certificate nor vouches for it. A look-up
//! costs two hashes, whatever the lists hold.

use std::collections::HashMap;
use std::sync::Arc;

use super::freshness::{Freshness, GRACE};
use super::{IssuerKey, RevocationList, RevokedEntry};
use crate::identity::Serial;
use crate::publish::{PublishError, Published};

/// What is demanded of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrlTerms {
    /// Whether a certificate whose issuer has no list is refused.
    pub required: bool,
    /// For how long a list counts after its nextUpdate, seconds.
    pub grace: i64,
}

impl Default for CrlTerms {
    fn default() -> Self {
        Self {
            required: false,
            grace: GRACE,
        }
    }
}

/// Why a certificate is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrlRefusal {
    /// It is listed.
    Revoked(RevokedEntry),
    /// Its issuer has no list, and there has to be one.
    Missing,
    /// The newest list of its issuer is too old.
    TooOld {
        /// The nextUpdate of that list, Unix seconds.
        since: i64,
    },
}

#[derive(Debug, Clone, Default)]
struct Coverage {
    lists: Vec<Arc<RevocationList>>,
    /// The latest nextUpdate.
    next_update: i64,
    /// One of them is made from our own rows, anew with each change: its age says nothing.
    ours: bool,
}

/// The lists in force.
#[derive(Debug, Clone, Default)]
pub struct CrlSet {
    terms: CrlTerms,
    issuers: HashMap<IssuerKey, Coverage>,
}

impl CrlSet {
    /// No list under these terms.
    #[must_use]
    pub fn new(terms: CrlTerms) -> Self {
        Self {
            terms,
            issuers: HashMap::new(),
        }
    }

    /// With one more list. Every list of an issuer counts.
    #[must_use]
    pub fn with(mut self, list: Arc<RevocationList>) -> Self {
        let coverage = self.issuers.entry(list.issuer()).or_default();
        coverage.next_update = coverage.next_update.max(list.next_update());
        coverage.lists.push(list);
        self
    }

    /// With a list of our own authority, which is made again whenever something is revoked.
    #[must_use]
    pub fn with_ours(mut self, list: Arc<RevocationList>) -> Self {
        let issuer = list.issuer();
        self = self.with(list);
        if let Some(coverage) = self.issuers.get_mut(&issuer) {
            coverage.ours = true;
        }
        self
    }

    /// Whether a certificate of `issuer` with this serial number may be used at `now` (Unix seconds).
    ///
    /// # Errors
    /// [`CrlRefusal`].
    pub fn check(&self, issuer: &IssuerKey, serial: &Serial, now: i64) -> Result<(), CrlRefusal> {
        self.check_listed(issuer, serial)?;
        match self.freshness(issuer, now) {
            Freshness::Missing if self.terms.required => Err(CrlRefusal::Missing),
            Freshness::TooOld { since } => Err(CrlRefusal::TooOld { since }),
            _ => Ok(()),
        }
    }

    /// Whether a certificate above the leaf may be used: only what is listed is refused, since authorities seldom publish
    /// lists of authorities.
    ///
    /// # Errors
    /// [`CrlRefusal::Revoked`].
    pub fn check_listed(&self, issuer: &IssuerKey, serial: &Serial) -> Result<(), CrlRefusal> {
        let Some(coverage) = self.issuers.get(issuer) else {
            return Ok(());
        };
        match coverage.lists.iter().find_map(|list| list.find(serial)) {
            Some(entry) => Err(CrlRefusal::Revoked(entry)),
            None => Ok(()),
        }
    }

    /// Whether any list has an entry of a serial number in lower-case hex, whoever issued the certificate.
    #[must_use]
    pub fn names(&self, serial: &str) -> bool {
        let lists = self.issuers.values().flat_map(|coverage| &coverage.lists);
        lists.into_iter().any(|list| list.names(serial))
    }

    /// How old the newest list of an issuer is.
    #[must_use]
    pub fn freshness(&self, issuer: &IssuerKey, now: i64) -> Freshness {
        match self.issuers.get(issuer) {
            None => Freshness::Missing,
            Some(coverage) if coverage.ours => Freshness::Fresh {
                until: coverage.next_update,
            },
            Some(coverage) => Freshness::of(coverage.next_update, self.terms.grace, now),
        }
    }

    /// What is demanded of them.
    #[must_use]
    pub const fn terms(&self) -> CrlTerms {
        self.terms
    }
}

impl Published for CrlSet {
    fn may_replace(&self, _in_force: &Self) -> Result<(), PublishError> {
        Ok(())
    }
}
