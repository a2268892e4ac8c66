//! The revocation lists in force, by the place they were read from.
//!
//! Invariant: what is published to verifiers is always made of all lists in force. A place whose new content is refused keeps
//! what it had; lists of issuers that are not ours are counted and otherwise not there.

use std::collections::BTreeMap;
use std::sync::Arc;

use certs::crl::freshness::Freshness;
use certs::crl::{CrlError, CrlIssuers, CrlSet, CrlTerms, IssuerKey};
use certs::publish::CrlPublisher;
use certs::{Clock, CrlReceiver, RevocationList};
use parking_lot::Mutex;
use policy::time::UnixMillis;
use serde::Serialize;

use crate::store::KeptList;
use crate::telemetry::Metrics;

/// A list in force with what it takes to keep it.
#[derive(Clone)]
struct Held {
    list: Arc<RevocationList>,
    der: Arc<[u8]>,
    issuer: Vec<u8>,
}

#[derive(Default)]
struct Standing {
    held: Vec<Held>,
    foreign: usize,
    failure: Option<(UnixMillis, String)>,
    read_at: Option<UnixMillis>,
}

#[derive(Default)]
struct State {
    ours: Option<Arc<RevocationList>>,
    places: BTreeMap<String, Standing>,
}

/// The lists in force.
pub struct Lists {
    terms: CrlTerms,
    publisher: CrlPublisher,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// What became of the content of a place.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer {
    /// Nothing new.
    Same,
    /// Other lists are in force; these are to be kept.
    Changed(Vec<KeptList>),
    /// Refused: what was in force stays.
    Refused(CrlError),
}

/// A list in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListView {
    /// SHA-256 of the issuer's name.
    pub issuer: String,
    /// Its number.
    pub number: Option<String>,
    /// When it was issued.
    pub this_update: UnixMillis,
    /// When the next is due.
    pub next_update: UnixMillis,
    /// How many certificates it names.
    pub entries: usize,
    /// `fresh`, `late` (still counts) or `too_old` (peers are refused).
    pub state: &'static str,
}

/// A place where lists are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlaceView {
    /// Which.
    pub place: String,
    /// The worst of its lists; `missing` when there is none.
    pub state: &'static str,
    /// Its lists.
    pub lists: Vec<ListView>,
    /// Lists of other issuers, which are passed over.
    pub foreign: usize,
    /// When it was last read well.
    pub read_at: Option<UnixMillis>,
    /// Since when something is wrong with it.
    pub failing_since: Option<UnixMillis>,
    /// What.
    pub failure: Option<String>,
}

impl Lists {
    /// None yet, under these terms, which are in force from now on.
    #[must_use]
    pub fn new(
        terms: CrlTerms,
        publisher: CrlPublisher,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let lists = Self {
            terms,
            publisher,
            state: Mutex::default(),
            clock,
            metrics,
        };
        lists.publish(&lists.state.lock());
        lists
    }

    /// Reads the lists in force.
    #[must_use]
    pub fn subscribe(&self) -> CrlReceiver {
        self.publisher.subscribe()
    }

    /// Puts the newest list of our own authority in force.
    pub fn put_ours(&self, list: RevocationList) {
        let mut state = self.state.lock();
        state.ours = Some(Arc::new(list));
        self.publish(&state);
    }

    /// Announces a place, so that it is shown before it was read.
    pub fn announce(&self, place: &str) {
        self.state
            .lock()
            .places
            .entry(place.to_owned())
            .or_default();
    }

    /// Offers the content of a place: lists in DER.
    pub fn offer(&self, place: &str, content: &[Vec<u8>], issuers: &CrlIssuers) -> Offer {
        let now = self.now();
        let mut state = self.state.lock();
        let standing = state.places.entry(place.to_owned()).or_default();
        let offered = judge(&standing.held, content, issuers, now.0.div_euclid(1_000));
        let (held, foreign) = match offered {
            Ok(offered) => offered,
            Err(error) => {
                self.metrics.revocation.refused(place);
                note(&mut standing.failure, now, error.to_string());
                tracing::error!(place, %error, "a revocation list was refused; what was in force stays");
                return Offer::Refused(error);
            }
        };
        if foreign > standing.foreign {
            tracing::warn!(
                place,
                foreign,
                "revocation lists of other issuers are passed over"
            );
        }
        if foreign > 0 {
            self.metrics.revocation.foreign(place, foreign);
        }
        standing.foreign = foreign;
        standing.read_at = Some(now);
        let gone = standing
            .held
            .iter()
            .filter(|old| {
                held.iter()
                    .all(|new| new.list.issuer() != old.list.issuer())
            })
            .cloned()
            .collect::<Vec<_>>();
        if held.is_empty() && gone.is_empty() {
            note(
                &mut standing.failure,
                now,
                "it holds no list of an issuer that is trusted here".to_owned(),
            );
        } else if gone.is_empty() {
            standing.failure = None;
        } else {
            // No longer there is not the same as no longer revoked.
            note(
                &mut standing.failure,
                now,
                "a list that was there is gone; it stays in force".to_owned(),
            );
        }
        let next: Vec<Held> = held.into_iter().chain(gone).collect();
        if same(&next, &standing.held) {
            return Offer::Same;
        }
        let kept = next.iter().map(|one| one.keep(place)).collect();
        standing.held = next;
        self.publish(&state);
        Offer::Changed(kept)
    }

    /// Notes that a place could not be read.
    pub fn failed(&self, place: &str, why: String) {
        let now = self.now();
        let mut state = self.state.lock();
        let standing = state.places.entry(place.to_owned()).or_default();
        let known = standing
            .failure
            .as_ref()
            .is_some_and(|(_, said)| *said == why);
        if !known {
            tracing::error!(
                place,
                why,
                "a revocation list could not be read; what was in force stays"
            );
        }
        self.metrics.revocation.refused(place);
        note(&mut standing.failure, now, why);
    }

    /// Ends a place that is no more, such as a file of a directory, where another has a list of each of its issuers that is
    /// as new. Else it stays, as one that fails. True when it ended.
    pub fn end(&self, place: &str) -> bool {
        let now = self.now();
        let mut state = self.state.lock();
        let Some(standing) = state.places.get(place) else {
            return true;
        };
        let replaced = standing.held.iter().all(|old| {
            state.places.iter().any(|(name, other)| {
                name != place
                    && other.held.iter().any(|new| {
                        new.list.issuer() == old.list.issuer()
                            && new.list.may_replace(&old.list).is_ok()
                    })
            })
        });
        if replaced {
            state.places.remove(place);
            self.metrics.revocation.forget(place);
            self.publish(&state);
        } else if let Some(standing) = state.places.get_mut(place) {
            let why = "the file is gone; its lists stay in force".to_owned();
            note(&mut standing.failure, now, why);
        }
        replaced
    }

    /// Puts what was kept of a place in force, at the start.
    pub fn restore(&self, place: &str, content: &[Vec<u8>], issuers: &CrlIssuers) {
        let restored = self.offer(place, content, issuers);
        let mut state = self.state.lock();
        if let Some(standing) = state.places.get_mut(place) {
            // That was an earlier process's reading.
            standing.read_at = None;
        }
        if let Offer::Refused(error) = restored {
            tracing::error!(place, %error, "a revocation list that was kept is no longer good");
        }
    }

    /// The names of the places.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        self.state.lock().places.keys().cloned().collect()
    }

    /// How they stand.
    #[must_use]
    pub fn view(&self) -> Vec<PlaceView> {
        let now = self.now().0.div_euclid(1_000);
        let state = self.state.lock();
        let view = |(place, standing): (&String, &Standing)| PlaceView {
            place: place.clone(),
            state: self.worst(standing, now).as_str(),
            lists: standing
                .held
                .iter()
                .map(|held| self.list_view(&held.list, now))
                .collect(),
            foreign: standing.foreign,
            read_at: standing.read_at,
            failing_since: standing.failure.as_ref().map(|(at, _)| *at),
            failure: standing.failure.as_ref().map(|(_, why)| why.clone()),
        };
        state.places.iter().map(view).collect()
    }

    /// Brings the metrics up to date, and says loudly what is wrong.
    pub fn look(&self, is_loud: bool) {
        let now = self.now().0.div_euclid(1_000);
        let state = self.state.lock();
        for (place, standing) in &state.places {
            let worst = self.worst(standing, now);
            self.metrics.revocation.place(place, worst);
            if !is_loud {
                continue;
            }
            match worst {
                Freshness::Fresh { .. } => {}
                Freshness::Late { since } => {
                    tracing::warn!(place, since, "a revocation list is late; it still counts");
                }
                Freshness::TooOld { since } => {
                    tracing::error!(
                        place,
                        since,
                        "a revocation list is too old: peers of its issuer are refused"
                    );
                }
                Freshness::Missing if self.terms.required => {
                    tracing::error!(
                        place,
                        "there is no revocation list: peers are refused until there is one"
                    );
                }
                Freshness::Missing => tracing::warn!(place, "there is no revocation list"),
            }
        }
    }

    /// What is demanded of lists.
    #[must_use]
    pub const fn terms(&self) -> CrlTerms {
        self.terms
    }

    fn worst(&self, standing: &Standing, now: i64) -> Freshness {
        let mut newest: BTreeMap<IssuerKey, i64> = BTreeMap::new();
        for held in &standing.held {
            let latest = newest.entry(held.list.issuer()).or_insert(i64::MIN);
            *latest = (*latest).max(held.list.next_update());
        }
        newest
            .into_values()
            .map(|next| Freshness::of(next, self.terms.grace, now))
            .min()
            .unwrap_or(Freshness::Missing)
    }

    fn list_view(&self, list: &RevocationList, now: i64) -> ListView {
        ListView {
            issuer: list.issuer().to_string(),
            number: list.number().map(|number| number.to_string()),
            this_update: UnixMillis(list.this_update().saturating_mul(1_000)),
            next_update: UnixMillis(list.next_update().saturating_mul(1_000)),
            entries: list.len(),
            state: Freshness::of_list(list, self.terms.grace, now).as_str(),
        }
    }

    fn publish(&self, state: &State) {
        let mut set = CrlSet::new(self.terms);
        for held in state.places.values().flat_map(|standing| &standing.held) {
            set = set.with(Arc::clone(&held.list));
        }
        if let Some(ours) = &state.ours {
            set = set.with_ours(Arc::clone(ours));
        }
        if self.publisher.publish(set).is_err() {
            tracing::error!("the revocation lists were refused by their readers");
        }
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(self.clock.unix_millis())
    }
}

impl Held {
    fn keep(&self, place: &str) -> KeptList {
        KeptList {
            source: place.to_owned(),
            sha256: self.list.sha256(),
            der: self.der.to_vec(),
            issuer: self.issuer.clone(),
        }
    }
}

/// Since when it fails is when it began to.
fn note(failure: &mut Option<(UnixMillis, String)>, now: UnixMillis, why: String) {
    let since = failure.as_ref().map_or(now, |(since, _)| *since);
    *failure = Some((since, why));
}

fn same(one: &[Held], other: &[Held]) -> bool {
    let hashes = |held: &[Held]| {
        let mut hashes: Vec<[u8; 32]> = held.iter().map(|one| one.list.sha256()).collect();
        hashes.sort_unstable();
        hashes
    };
    hashes(one) == hashes(other)
}

/// The lists of the content that count, and how many are foreign.
fn judge(
    in_force: &[Held],
    content: &[Vec<u8>],
    issuers: &CrlIssuers,
    now: i64,
) -> Result<(Vec<Held>, usize), CrlError> {
    if content.is_empty() {
        return Err(CrlError::Empty);
    }
    let (mut held, mut foreign) = (Vec::with_capacity(content.len()), 0);
    for der in content {
        let known = in_force.iter().find(|one| *one.der == **der);
        if let Some(known) = known {
            held.push(known.clone());
            continue;
        }
        let list = match RevocationList::verify(der, issuers, now) {
            Ok(list) => list,
            Err(CrlError::Foreign { .. }) => {
                foreign += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        held.push(Held {
            issuer: issuers
                .of(list.issuer())
                .map(|der| der.as_ref().to_vec())
                .unwrap_or_default(),
            list: Arc::new(list),
            der: Arc::from(der.as_slice()),
        });
    }
    // The newest of an issuer must not be older than the newest before.
    for new in &held {
        let newest = held
            .iter()
            .filter(|one| one.list.issuer() == new.list.issuer())
            .fold(new, |best, one| {
                if one.list.may_replace(&best.list).is_ok() {
                    one
                } else {
                    best
                }
            });
        for old in in_force {
            newest.list.may_replace(&old.list)?;
        }
    }
    Ok((held, foreign))
}

#[cfg(test)]
mod tests;
