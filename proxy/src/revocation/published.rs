//! The list of the embedded authority, as it is published.
//!
//! Invariant: after [`PublishedCrl::refresh`] has returned well, the list names every revoked certificate of the store's
//! present state. Its number is the store's and goes up with each list; a process that finds another list there than its own
//! goes on from that one. A list that cannot be made leaves the one before, and is loud.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use certs::ca::RotatingCa;
use certs::crl::CrlIssuers;
use certs::crl::publish::{CrlIssue, EVERY, LIFETIME, Revoked};
use certs::identity::{fingerprint, issued_by};
use certs::{CertificateAuthority as _, Clock, EmbeddedCa, RevocationList, TrustAnchors};
use policy::time::UnixMillis;
use serde::Serialize;
use tokio::sync::watch;

use super::lists::Lists;
use crate::directory::Directory;
use crate::store::{PublishedList, RevokedLeaf, Store, StoreError};
use crate::telemetry::Metrics;

/// For how long after its end a revoked certificate stays listed, milliseconds: on at least one list made after it.
const LISTED_AFTER_END: i64 = 24 * 3_600_000;
/// How often another process may be first before this one gives up for the moment.
const TURNS: usize = 5;
/// How often it is looked whether the list is due, and a failure tried again.
const LOOK: Duration = Duration::from_secs(1);
/// How long a change is left to whoever has made it.
const OTHERS_FIRST: Duration = Duration::from_millis(200);
/// How long an act waits for the list to name what it revoked.
const PATIENCE: Duration = Duration::from_secs(2);

/// A list that is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownCrl {
    /// DER.
    pub der: Bytes,
    /// Its number.
    pub number: u64,
    /// When it was made, Unix seconds.
    pub this_update: i64,
    /// Until when it is good, Unix seconds.
    pub next_update: i64,
    /// How many certificates it names.
    pub entries: usize,
    /// Hex of its SHA-256.
    pub hash: String,
    content: [u8; 32],
    /// The root that signed it.
    root: [u8; 32],
}

/// Why the list is older than it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListFailure {
    /// Since when.
    pub since: UnixMillis,
    /// Why.
    pub message: String,
}

/// Why no list was made.
#[derive(Debug, thiserror::Error)]
enum PublishFailure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the list could not be signed: {0}")]
    Sign(String),
    #[error("other processes made lists at the same time; it is tried again")]
    Contended,
}

/// Makes and shows the list.
pub struct PublishedCrl {
    ca: Arc<RotatingCa>,
    store: Arc<dyn Store>,
    directory: Arc<Directory>,
    lists: Arc<Lists>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    shown: ArcSwapOption<ShownCrl>,
    /// One list is made at a time; the store's revision that the last one was made of.
    turn: tokio::sync::Mutex<Option<u64>>,
    failure: parking_lot::Mutex<Option<ListFailure>>,
}

impl PublishedCrl {
    /// Takes up the stored list, and makes the next one if that is not up to date.
    ///
    /// # Errors
    /// A text for the operator when there is no list at all.
    pub async fn open(
        ca: Arc<RotatingCa>,
        store: Arc<dyn Store>,
        directory: Arc<Directory>,
        lists: Arc<Lists>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, String> {
        let published = Arc::new(Self {
            ca,
            store,
            directory,
            lists,
            clock,
            metrics,
            shown: ArcSwapOption::empty(),
            turn: tokio::sync::Mutex::new(None),
            failure: parking_lot::Mutex::default(),
        });
        match published.store.published_list().await {
            // One that is not good now, perhaps since the clock went back, is followed by another.
            Ok(Some(list)) => drop(published.show(&list)),
            Ok(None) => {}
            Err(error) => return Err(error.to_string()),
        }
        if !published.refresh().await && published.shown().is_none() {
            let why = published.failure().map(|failure| failure.message);
            return Err(why.unwrap_or_default());
        }
        Ok(published)
    }

    /// The list in force.
    #[must_use]
    pub fn shown(&self) -> Option<Arc<ShownCrl>> {
        self.shown.load_full()
    }

    /// The list in force for somebody who asks for it: it names everything that is revoked in the view in force here, also what
    /// another process has revoked and not yet published. A list that cannot be made in time leaves the one before.
    pub async fn current(&self) -> Option<Arc<ShownCrl>> {
        // One that failed is tried again by `run`, however often somebody asks.
        if self.failure.lock().is_none() {
            self.follow().await;
        }
        self.shown()
    }

    /// Why it is older than it should be, if so.
    #[must_use]
    pub fn failure(&self) -> Option<ListFailure> {
        self.failure.lock().clone()
    }

    /// Makes the next list where the store's present state, or time, asks for one. False when that failed, which is told
    /// here; it is tried again by [`run`](Self::run).
    pub async fn refresh(&self) -> bool {
        let wanted = self.directory.view().snapshot.revision();
        let mut turn = self.turn.lock().await;
        // Whoever waited for the turn may have got what it wanted.
        if turn.is_some_and(|made_of| made_of >= wanted) && !self.is_due() {
            return true;
        }
        let now = self.directory.view().snapshot.revision();
        match self.make().await {
            Ok(()) => {
                *turn = Some(now);
                *self.failure.lock() = None;
                true
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    /// As [`refresh`](Self::refresh), for an act that has been applied and is not to wait for long.
    pub async fn follow(&self) {
        if tokio::time::timeout(PATIENCE, self.refresh())
            .await
            .is_err()
        {
            tracing::warn!(
                "the revocation list does not name the latest revocation yet; it will in a moment"
            );
        }
    }

    /// Keeps the list up to date until `stop` turns true.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut revisions = self.directory.revisions();
        loop {
            let changed = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                _ = revisions.changed() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            if changed {
                // Whoever has made the change publishes it, perhaps another process: that list is then taken.
                let stopped = stop.wait_for(|stop| *stop);
                if tokio::time::timeout(OTHERS_FIRST, stopped).await.is_ok() {
                    return;
                }
            } else if !self.is_due() && self.failure.lock().is_none() {
                continue;
            }
            self.refresh().await;
        }
    }

    /// Whether time, or another root, asks for a list.
    fn is_due(&self) -> bool {
        let now = self.clock.unix_seconds();
        let root = fingerprint(self.ca.roots().peers.root());
        self.shown.load().as_ref().is_none_or(|shown| {
            now >= shown.this_update.saturating_add(EVERY)
                || now < shown.this_update
                || root != shown.root
        })
    }

    async fn make(&self) -> Result<(), PublishFailure> {
        let mut again = false;
        for _ in 0..TURNS {
            let now = self.clock.unix_millis();
            let since = UnixMillis(now.saturating_sub(LISTED_AFTER_END));
            let leaves = self.store.revoked_leaves(since).await?;
            let stored = self.store.published_list().await?;
            let ca = self.ca.roots().peers;
            let known = self.shown();
            let due = self.is_due();
            let again_now = again;
            let work = move || next(&ca, leaves, stored, known.as_deref(), due, again_now, now);
            let made = tokio::task::spawn_blocking(work)
                .await
                .map_err(|error| PublishFailure::Sign(error.to_string()))??;
            match made {
                Next::Unchanged => return Ok(()),
                Next::Theirs(list) => {
                    let shown = self.show(&list);
                    if shown && !self.is_due() {
                        return Ok(());
                    }
                    again = !shown;
                }
                Next::Made(list) => {
                    if self.store.publish_list(&list).await? {
                        return match self.show(&list) {
                            true => Ok(()),
                            false => {
                                Err(PublishFailure::Sign("the list made is not good".to_owned()))
                            }
                        };
                    }
                }
            }
        }
        Err(PublishFailure::Contended)
    }

    /// Puts a list in force, here and for those who read it; false when it is not good.
    fn show(&self, list: &PublishedList) -> bool {
        let now = self.clock.unix_seconds();
        let root = fingerprint(self.ca.roots().peers.root());
        let anchors = TrustAnchors::new(0, self.ca.anchors());
        let issuers = anchors.map(|anchors| CrlIssuers::new(&anchors, &[], now));
        let issuers = issuers.unwrap_or_default();
        let read = match RevocationList::verify(&list.der, &issuers, now) {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(%error, number = list.number, "our own revocation list is not good");
                return false;
            }
        };
        self.metrics
            .revocation
            .published(list.number, read.next_update());
        let shown = ShownCrl {
            der: Bytes::copy_from_slice(&list.der),
            number: list.number,
            this_update: read.this_update(),
            next_update: read.next_update(),
            entries: read.len(),
            hash: hex::encode(fingerprint(&list.der)),
            content: list.content,
            root,
        };
        tracing::info!(
            number = shown.number,
            entries = shown.entries,
            "revocation list published"
        );
        self.shown.store(Some(Arc::new(shown)));
        self.lists.put_ours(read);
        true
    }

    fn failed(&self, error: &PublishFailure) {
        self.metrics.revocation.publish_failed();
        let message = error.to_string();
        let mut failure = self.failure.lock();
        let since = failure.as_ref().map(|failure| failure.since);
        if since.is_none() {
            tracing::error!(%error, "the revocation list could not be made anew; the one before stays, and it is tried again");
        }
        *failure = Some(ListFailure {
            since: since.unwrap_or(UnixMillis(self.clock.unix_millis())),
            message,
        });
    }
}

enum Next {
    Unchanged,
    Theirs(PublishedList),
    Made(PublishedList),
}

/// The list that is to follow the stored one, in any case when `again`; pure, and slow for long lists.
fn next(
    ca: &EmbeddedCa,
    leaves: Vec<RevokedLeaf>,
    stored: Option<PublishedList>,
    shown: Option<&ShownCrl>,
    due: bool,
    again: bool,
    now: i64,
) -> Result<Next, PublishFailure> {
    let unreadable = || PublishFailure::Sign("the root cannot be read".to_owned());
    let (issuer, _) = issued_by(ca.root()).ok_or_else(unreadable)?;
    let revoked: Vec<Revoked> = leaves
        .into_iter()
        .filter_map(|leaf| {
            // Certificates of another authority are that one's to list.
            let (by, serial) = issued_by(&leaf.der)?;
            (by == issuer).then_some(Revoked {
                serial,
                at: leaf.revoked_at.0.div_euclid(1_000),
                reason: leaf.reason,
            })
        })
        .collect();
    let content = hash_of(fingerprint(ca.root()), &revoked);
    if let Some(stored) = stored.as_ref().filter(|_| !again) {
        let ours = shown.is_some_and(|shown| shown.number == stored.number);
        if stored.content == content && !ours {
            return Ok(Next::Theirs(stored.clone()));
        }
        if stored.content == content && !due && shown.is_some_and(|shown| shown.content == content)
        {
            return Ok(Next::Unchanged);
        }
    }
    let number = stored.map_or(0, |stored| stored.number).saturating_add(1);
    let now_seconds = now.div_euclid(1_000);
    let issue = CrlIssue {
        number,
        now: now_seconds,
        revoked,
    };
    let der = ca
        .sign_crl(&issue)
        .map_err(|error| PublishFailure::Sign(error.to_string()))?;
    Ok(Next::Made(PublishedList {
        number,
        made_at: UnixMillis(now),
        content,
        der,
    }))
}

fn hash_of(root: [u8; 32], revoked: &[Revoked]) -> [u8; 32] {
    let mut text = format!("{} {LIFETIME}\n", hex::encode(root));
    for one in revoked {
        text.push_str(&format!(
            "{} {} {}\n",
            one.serial,
            one.at,
            one.reason.code()
        ));
    }
    fingerprint(text.as_bytes())
}
