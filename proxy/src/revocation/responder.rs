//! Answers OCSP for the embedded authority (RFC 6960, RFC 5019).
//!
//! Invariant: an answer is of the store's present state: one that was signed before is given again only while the revision
//! in force is the one it was looked up under. What strangers can make us sign is bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use certs::ca::RotatingCa;
use certs::crl::IssuerKey;
use certs::identity::issued_by;
use certs::ocsp::{OcspQuery, OcspRefusal, OcspStatus, OcspTimes};
use certs::{Clock, EmbeddedCa, Serial};
use parking_lot::Mutex;

use crate::directory::Directory;
use crate::limit::gcra::{Bucket, Quota};
use crate::store::{CertificateState, Store};
use crate::telemetry::Metrics;

/// For how long an answer is good, seconds.
const LIFETIME: i64 = 3_600;
/// For how long one that was signed before is given again, seconds.
const REUSED: i64 = LIFETIME / 2;
/// Answers that are kept.
const KEPT: usize = 10_000;
/// Answers signed in a second, in the long run and at once.
const SIGNED: u32 = 200;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspAnswer {
    /// DER.
    pub der: Bytes,
    /// Its window, when it may be kept by others: one without a nonce.
    pub times: Option<OcspTimes>,
}

struct Kept {
    revision: u64,
    der: Bytes,
    times: OcspTimes,
}

/// What a responder is made of.
pub struct Responder {
    ca: Arc<RotatingCa>,
    store: Arc<dyn Store>,
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    kept: Mutex<HashMap<Vec<u8>, Kept>>,
    quota: Quota,
    bucket: Mutex<Bucket>,
}

impl Responder {
    /// A responder for `ca`.
    #[must_use]
    pub fn new(
        ca: Arc<RotatingCa>,
        store: Arc<dyn Store>,
        directory: Arc<Directory>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            ca,
            store,
            directory,
            clock,
            metrics,
            kept: Mutex::default(),
            quota: Quota::per_window(SIGNED, Duration::from_secs(1)),
            bucket: Mutex::default(),
        })
    }

    /// Answers a request in DER; whatever it is, the answer is one of the protocol.
    pub async fn answer(&self, request: &[u8]) -> OcspAnswer {
        match self.try_answer(request).await {
            Ok(answer) => answer,
            Err(refusal) => {
                self.metrics.revocation.ocsp(match refusal {
                    OcspRefusal::Malformed => "malformed",
                    OcspRefusal::Internal => "internal_error",
                    OcspRefusal::TryLater => "try_later",
                    OcspRefusal::Unauthorized => "unauthorized",
                });
                OcspAnswer {
                    der: Bytes::from(refusal.to_der()),
                    times: None,
                }
            }
        }
    }

    async fn try_answer(&self, request: &[u8]) -> Result<OcspAnswer, OcspRefusal> {
        let query = OcspQuery::decode(request)?;
        let (ca, serials) = self.asked(&query)?;
        let issuer = issued_by(ca.root()).map(|(issuer, _)| issuer);
        // A process that does not know the present state must not call anything good.
        if self.directory.is_fenced() {
            return Err(OcspRefusal::TryLater);
        }
        let revision = self.directory.view().snapshot.revision();
        let now = self.clock.unix_seconds();
        let key = (!query.has_nonce()).then(|| query.key());
        if let Some(answer) = key.as_ref().and_then(|key| self.kept(key, revision, now)) {
            self.metrics.revocation.ocsp("kept");
            return Ok(answer);
        }
        let boot = self.clock.boot_nanos();
        if self.bucket.lock().draw(self.quota, boot).is_err() {
            return Err(OcspRefusal::TryLater);
        }
        let mut statuses = Vec::with_capacity(serials.len());
        for serial in &serials {
            statuses.push(match serial {
                Some(serial) => self.status_of(serial, issuer).await?,
                None => OcspStatus::Unknown,
            });
        }
        let times = OcspTimes {
            this_update: now,
            next_update: now.saturating_add(LIFETIME),
        };
        let der = Bytes::from(ca.sign_ocsp(&query, &statuses, times)?);
        self.metrics.revocation.ocsp("signed");
        let certain = !statuses.contains(&OcspStatus::Unknown);
        if let Some(key) = key.filter(|_| certain) {
            let mut kept = self.kept.lock();
            if kept.len() >= KEPT {
                kept.clear();
            }
            let der = der.clone();
            kept.insert(
                key.clone(),
                Kept {
                    revision,
                    der,
                    times,
                },
            );
        }
        Ok(OcspAnswer {
            der,
            times: (certain && !query.has_nonce()).then_some(times),
        })
    }

    /// The root that is asked about, and the serial numbers: while it is rotated there are two.
    fn asked(
        &self,
        query: &OcspQuery,
    ) -> Result<(Arc<EmbeddedCa>, Vec<Option<Serial>>), OcspRefusal> {
        let roots = self.ca.roots();
        match roots.peers.asked(query) {
            Ok(serials) => Ok((roots.peers, serials)),
            Err(_) => {
                let serials = roots.listeners.asked(query)?;
                Ok((roots.listeners, serials))
            }
        }
    }

    fn kept(&self, key: &[u8], revision: u64, now: i64) -> Option<OcspAnswer> {
        let kept = self.kept.lock();
        let one = kept.get(key)?;
        let young = (0..REUSED).contains(&now.saturating_sub(one.times.this_update));
        (one.revision == revision && young).then(|| OcspAnswer {
            der: one.der.clone(),
            times: Some(one.times),
        })
    }

    async fn status_of(
        &self,
        serial: &Serial,
        issuer: Option<IssuerKey>,
    ) -> Result<OcspStatus, OcspRefusal> {
        let rows = self.store.standing_of(serial.as_str()).await;
        let rows = rows.map_err(|error| {
            tracing::error!(%error, "an OCSP request could not be looked up");
            OcspRefusal::TryLater
        })?;
        let row = rows
            .into_iter()
            .find(|row| issued_by(&row.der).is_some_and(|(by, _)| Some(by) == issuer));
        Ok(match row {
            Some(row) if row.state == CertificateState::Revoked => {
                let (at, reason) = row.revoked.ok_or(OcspRefusal::Internal)?;
                OcspStatus::Revoked {
                    at: at.0.div_euclid(1_000),
                    reason,
                }
            }
            Some(_) => OcspStatus::Good,
            None => OcspStatus::Unknown,
        })
    }
}
