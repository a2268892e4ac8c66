//! What peers say of the histories of our grants there, and whether that holds together.
//!
//! Invariant: of each grant and chain the newest place that was shown is kept, in memory at once and in the store within
//! [`KEEP_EVERY`]; a peer whose places go back, or that shows two different records at one place, or signs with another key than
//! the one it enrolled us with, raises an alarm: a metric, a line in the log, `status`, and an act in the audit log. Nothing
//! here delays or refuses an answer: the peer's rows are as good as they were; its record of them is what is in doubt.
//!
//! An answer that overtook a later one is no alarm: only what was asked for after a later place had been heard may not be
//! behind it. Signatures are verified by the task that keeps, not on the way of an answer. Comparing with an export is
//! `audit/history/reconcile.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use policy::id::GrantId;
use policy::time::UnixMillis;
use tokio::sync::watch;
use uuid::Uuid;

use super::Outbound;
use super::exchange::time_ordered_id;
use super::route::PeerRoute;
use crate::audit::history::CheckpointHeader;
use crate::audit::{AuditDetail, AuditOutcome, AuditRecord, AuditText, Direction, HistoryHead};
use crate::message::headers::CHECKPOINT;
use crate::store::{SignedWitness, StoreError, WitnessedCheckpoint};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::WitnessAlarm;

/// Between two times that what was heard is kept: the most writes a second, and the most that a killed process forgets.
/// The audit rows of the questions have it all the same.
pub const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Chains of one grant that are compared with; the peer has one for each of its processes.
const CHAINS: usize = 16;
/// Between two acts in the audit log about one grant, nanoseconds: a peer cannot fill the log.
const ACT_EVERY: u64 = 60_000_000_000;
/// The act.
const ACTION: &str = "witness.alarm";

/// Something about the record of a peer that does not hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// What kind.
    pub kind: WitnessAlarm,
    /// What was known.
    pub known: Option<HistoryHead>,
    /// What was shown.
    pub shown: Option<HistoryHead>,
}

impl Alarm {
    /// What it means, in one line.
    #[must_use]
    pub fn text(&self) -> String {
        let number = |head: Option<HistoryHead>| head.map_or(0, |head| head.gseq);
        match self.kind {
            WitnessAlarm::WentBack => format!(
                "it showed record {} of the history of our grant, and then {}: its log was set back or cut",
                number(self.known),
                number(self.shown)
            ),
            WitnessAlarm::OtherHistory => format!(
                "it showed two different records {} of the history of our grant: its log was rewritten",
                number(self.shown)
            ),
            WitnessAlarm::BadSignature => format!(
                "its signature of record {} is not by the key it gave at enrollment: its store was exchanged, or somebody answers for it",
                number(self.shown)
            ),
            WitnessAlarm::Malformed => {
                "what it says of the history of our grant cannot be read".to_owned()
            }
        }
    }
}

/// What is known of one grant, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WitnessState {
    /// The newest place, and when it was heard.
    pub newest: Option<(HistoryHead, UnixMillis)>,
    /// The newest place with a good signature, and when it was signed.
    pub signed: Option<(u64, UnixMillis)>,
    /// Alarms since the start.
    pub alarms: u64,
    /// The last of them, and when.
    pub alarm: Option<(String, UnixMillis)>,
}

/// One chain of one grant.
#[derive(Debug, Clone)]
struct Chain {
    head: HistoryHead,
    /// When the newest place was heard: by the clock since boot, and by the wall.
    heard_nanos: u64,
    heard_at: UnixMillis,
    signed: Option<SignedWitness>,
}

#[derive(Debug, Default)]
struct GrantBook {
    /// The last value of the header: mostly it comes again.
    last: Option<(HeaderValue, HistoryHead)>,
    /// Newest first.
    chains: Vec<Chain>,
    /// The newest that is signed, not verified yet.
    unverified: Option<CheckpointHeader>,
    /// Chains to be kept.
    dirty: Vec<Uuid>,
    alarms: u64,
    alarm: Option<(String, UnixMillis)>,
    /// When an act was last recorded, nanoseconds since boot.
    acted: Option<u64>,
}

/// What is known of all grants.
pub struct WitnessBook {
    grants: Mutex<HashMap<GrantId, GrantBook>>,
    metrics: Arc<Metrics>,
}

/// Now, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// When the question was sent, nanoseconds since boot.
    pub(super) sent: u64,
    /// Nanoseconds since boot.
    pub(super) nanos: u64,
    /// The wall.
    pub(super) at: UnixMillis,
}

impl WitnessBook {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            grants: Mutex::default(),
            metrics,
        }
    }

    /// Takes in what was kept earlier, by grant, newest first.
    pub(super) fn load(&self, kept: Vec<WitnessedCheckpoint>) {
        let mut grants = self.grants.lock();
        for one in kept {
            let book = grants.entry(one.grant).or_default();
            let known = book
                .chains
                .iter()
                .any(|chain| chain.head.chain == one.head.chain);
            if !known && book.chains.len() < CHAINS {
                book.chains.push(Chain {
                    head: one.head,
                    heard_nanos: 0,
                    heard_at: one.heard_at,
                    signed: one.signed,
                });
            }
        }
    }

    /// Takes in what an answer says. The place it shows, and what is wrong with it.
    pub(super) fn hear(
        &self,
        grant: GrantId,
        headers: &HeaderMap,
        heard: Heard,
    ) -> (Option<HistoryHead>, Option<Alarm>) {
        let Some(value) = headers.get(CHECKPOINT) else {
            return (None, None);
        };
        let mut grants = self.grants.lock();
        let book = grants.entry(grant).or_default();
        if let Some((last, head)) = &book.last
            && last == value
        {
            return (Some(*head), None);
        }
        let Some(header) = CheckpointHeader::parse(value.as_bytes()) else {
            let (kind, known) = (WitnessAlarm::Malformed, None);
            return (
                None,
                Some(Alarm {
                    kind,
                    known,
                    shown: None,
                }),
            );
        };
        book.last = Some((value.clone(), header.head));
        let alarm = book.place(&header, heard);
        (Some(header.head), alarm)
    }

    /// Counts an alarm. Whether an act is due.
    fn count(&self, grant: GrantId, alarm: &Alarm, nanos: u64, at: UnixMillis) -> bool {
        self.metrics.witness_alarm(alarm.kind);
        let mut grants = self.grants.lock();
        let book = grants.entry(grant).or_default();
        book.alarms = book.alarms.saturating_add(1);
        book.alarm = Some((alarm.text(), at));
        let due = book
            .acted
            .is_none_or(|acted| nanos.saturating_sub(acted) >= ACT_EVERY);
        if due {
            book.acted = Some(nanos);
        }
        due
    }

    /// Signatures to be verified.
    fn unverified(&self) -> Vec<(GrantId, CheckpointHeader)> {
        let mut grants = self.grants.lock();
        grants
            .iter_mut()
            .filter_map(|(grant, book)| Some((*grant, book.unverified.take()?)))
            .collect()
    }

    /// Takes in a signature that was verified.
    fn verified(&self, grant: GrantId, header: &CheckpointHeader) {
        let Some(signature) = header.signed else {
            return;
        };
        let mut grants = self.grants.lock();
        let Some(book) = grants.get_mut(&grant) else {
            return;
        };
        let HistoryHead { chain, gseq, ghash } = header.head;
        let Some(known) = book.chains.iter_mut().find(|one| one.head.chain == chain) else {
            return;
        };
        if known.signed.is_none_or(|signed| signed.gseq < gseq) {
            known.signed = Some(SignedWitness {
                gseq,
                ghash,
                signature,
            });
            book.dirty.push(chain);
        }
    }

    /// What is to be kept.
    fn take_dirty(&self) -> Vec<WitnessedCheckpoint> {
        let mut grants = self.grants.lock();
        let mut taken = Vec::new();
        for (grant, book) in grants.iter_mut() {
            let dirty = std::mem::take(&mut book.dirty);
            let chains = book.chains.iter();
            taken.extend(
                chains
                    .filter(|chain| dirty.contains(&chain.head.chain))
                    .map(|chain| WitnessedCheckpoint {
                        grant: *grant,
                        head: chain.head,
                        heard_at: chain.heard_at,
                        signed: chain.signed,
                    }),
            );
        }
        taken
    }

    /// Puts back what could not be kept.
    fn put_back(&self, taken: &[WitnessedCheckpoint]) {
        let mut grants = self.grants.lock();
        for one in taken {
            if let Some(book) = grants.get_mut(&one.grant) {
                book.dirty.push(one.head.chain);
            }
        }
    }

    /// What is known of a grant.
    fn state(&self, grant: GrantId) -> WitnessState {
        let grants = self.grants.lock();
        let Some(book) = grants.get(&grant) else {
            return WitnessState::default();
        };
        let signed = book.chains.iter().filter_map(|chain| chain.signed);
        WitnessState {
            newest: book
                .chains
                .iter()
                .max_by_key(|chain| chain.head.gseq)
                .map(|chain| (chain.head, chain.heard_at)),
            signed: signed
                .max_by_key(|signed| signed.gseq)
                .map(|signed| (signed.gseq, signed.signature.at)),
            alarms: book.alarms,
            alarm: book.alarm.clone(),
        }
    }
}

impl GrantBook {
    /// Puts a place among those known.
    fn place(&mut self, header: &CheckpointHeader, heard: Heard) -> Option<Alarm> {
        let shown = header.head;
        let alarm = |kind, known: HistoryHead| {
            Some(Alarm {
                kind,
                known: Some(known),
                shown: Some(shown),
            })
        };
        // A number is given once, whichever process of the peer gives it.
        let other = self
            .chains
            .iter()
            .find(|chain| chain.head.gseq == shown.gseq && chain.head != shown);
        if let Some(other) = other {
            return alarm(WitnessAlarm::OtherHistory, other.head);
        }
        if header.signed.is_some() {
            let newer = |known: &CheckpointHeader| known.head.gseq < shown.gseq;
            if self.unverified.as_ref().is_none_or(newer) {
                self.unverified = Some(*header);
            }
        }
        let known = self
            .chains
            .iter_mut()
            .find(|chain| chain.head.chain == shown.chain);
        match known {
            Some(known) if shown.gseq < known.head.gseq => {
                return if heard.sent > known.heard_nanos {
                    alarm(WitnessAlarm::WentBack, known.head)
                } else {
                    None
                };
            }
            Some(known) if shown.gseq == known.head.gseq => return None,
            Some(known) => {
                known.head = shown;
                known.heard_nanos = heard.nanos;
                known.heard_at = heard.at;
            }
            None => {
                let chain = Chain {
                    head: shown,
                    heard_nanos: heard.nanos,
                    heard_at: heard.at,
                    signed: None,
                };
                self.chains.insert(0, chain);
                self.chains.truncate(CHAINS);
            }
        }
        if !self.dirty.contains(&shown.chain) {
            self.dirty.push(shown.chain);
        }
        None
    }
}

impl Outbound {
    /// Takes in what an answer of `peer` says of the history of our grant; the question was sent at `sent`.
    pub(super) fn hear_witness(
        &self,
        peer: &PeerRoute,
        headers: &HeaderMap,
        sent: u64,
    ) -> Option<HistoryHead> {
        let heard = Heard {
            sent,
            nanos: self.clock.boot_nanos(),
            at: UnixMillis(self.clock.unix_millis()),
        };
        let (shown, alarm) = self.witness.hear(peer.grant, headers, heard);
        if let Some(alarm) = alarm {
            self.raise(peer, &alarm);
        }
        shown
    }

    /// What is known of the history of our grant on a peer, for `status`.
    #[must_use]
    pub fn witness_of(&self, grant: GrantId) -> WitnessState {
        self.witness.state(grant)
    }

    /// Keeps what was heard until stopped.
    pub async fn keep_witness(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            let stop = stop.wait_for(|stop| *stop);
            let is_over = tokio::time::timeout(KEEP_EVERY, stop).await.is_ok();
            self.keep_heard().await;
            if is_over {
                return;
            }
        }
    }

    /// Verifies the signatures that were heard, and keeps what is new; what cannot be kept is kept the next time.
    pub async fn keep_heard(&self) {
        for (grant, header) in self.witness.unverified() {
            self.verify(grant, &header);
        }
        let heard = self.witness.take_dirty();
        if heard.is_empty() {
            return;
        }
        if let Err(error) = self.store.record_witnessed(&heard).await {
            tracing::warn!(%error, "what peers say of their history could not be kept; trying again");
            self.witness.put_back(&heard);
        }
    }

    fn verify(&self, grant: GrantId, header: &CheckpointHeader) {
        let table = self.table.load();
        let Some(peer) = table.routes().find(|route| route.grant == grant) else {
            return;
        };
        let (Some(key), Some(signature)) = (&peer.checkpoint_key, &header.signed) else {
            return;
        };
        if signature.is_by(key, grant, &header.head) {
            self.witness.verified(grant, header);
            return;
        }
        let alarm = Alarm {
            kind: WitnessAlarm::BadSignature,
            known: None,
            shown: Some(header.head),
        };
        self.raise(peer, &alarm);
    }

    /// Makes an alarm heard.
    fn raise(&self, peer: &PeerRoute, alarm: &Alarm) {
        let (nanos, at) = (
            self.clock.boot_nanos(),
            UnixMillis(self.clock.unix_millis()),
        );
        let text = alarm.text();
        if !self.witness.count(peer.grant, alarm, nanos, at) {
            return;
        }
        tracing::error!(peer = %peer.name, grant = %peer.grant, kind = alarm.kind.as_str(), "{text}");
        let id = time_ordered_id(self.clock.as_ref());
        let request = AuditText::short(&id.to_string());
        let allowed = AuditOutcome::Allowed;
        let mut record = AuditRecord::new(id, at, Direction::Admin, allowed, request);
        record.peer = Some(peer.peer);
        record.grant = Some(peer.grant);
        record.subject = Some(peer.subject);
        record.action = Some(AuditText::fixed(ACTION));
        record.actor = Some(AuditText::fixed("sidecar:session-door"));
        let mut detail = AuditDetail::new()
            .text("kind", alarm.kind.as_str())
            .text("peer", peer.name.as_str())
            .text("meaning", &text);
        if let Some(known) = alarm.known {
            detail = detail
                .text("known_chain", &known.chain.to_string())
                .count("known_gseq", known.gseq)
                .text("known_ghash", &hex::encode(known.ghash));
        }
        if let Some(shown) = alarm.shown {
            detail = detail
                .text("shown_chain", &shown.chain.to_string())
                .count("shown_gseq", shown.gseq)
                .text("shown_ghash", &hex::encode(shown.ghash));
        }
        record.detail = Some(detail);
        if let Err(error) = self.audit.record_act(&record) {
            tracing::error!(%error, "an alarm about the record of a peer could not be recorded");
        }
    }

    pub(super) async fn load_witness(&self) -> Result<(), StoreError> {
        self.witness.load(self.store.witnessed_checkpoints().await?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
