//! One change: begin, apply, and commit together with the revision and the audit rows.
//!
//! Invariant: the only way to commit a change goes through [`Change::commit`], which takes at least one admin act
//! and raises the revision by one; the rows are linked into the chain in the same transaction. Dropping a change rolls it back. The statements of a change are its file's.

use policy::id::{GrantId, PeerId, SubjectId};
use sqlx::Transaction;
use uuid::Uuid;

use super::dialect::{Db, DbConnection, driver};
use super::open_chain::OpenChain;
use super::writer::Writer;
use super::{audit, image};
use crate::audit::{AuditDetail, AuditOutcome, AuditRecord, AuditText, Direction};
use crate::store::{Act, Committed, StoreError};

/// What an admin audit row says beyond who and when.
#[derive(Debug, Default)]
pub(super) struct AdminAct {
    pub(super) action: &'static str,
    pub(super) peer: Option<PeerId>,
    pub(super) grant: Option<GrantId>,
    pub(super) subject: Option<SubjectId>,
    pub(super) cert_serial: Option<String>,
    pub(super) detail: AuditDetail,
}

impl AdminAct {
    pub(super) fn new(action: &'static str) -> Self {
        Self {
            action,
            ..Self::default()
        }
    }

    pub(super) fn on_grant(action: &'static str, grant: &policy::grant::Grant) -> Self {
        Self {
            action,
            peer: Some(grant.peer),
            grant: Some(grant.id),
            subject: Some(grant.subject),
            ..Self::default()
        }
    }

    pub(super) fn on_peer(action: &'static str, peer: PeerId) -> Self {
        Self {
            action,
            peer: Some(peer),
            ..Self::default()
        }
    }

    pub(super) fn text(mut self, key: &'static str, value: &str) -> Self {
        self.detail = self.detail.text(key, value);
        self
    }

    pub(super) fn count(mut self, key: &'static str, value: u64) -> Self {
        self.detail = self.detail.count(key, value);
        self
    }
}

/// An open change.
pub(super) struct Change<'c> {
    tx: Transaction<'c, Db>,
    act: &'c Act,
    chain: Option<&'c mut OpenChain>,
}

impl<'c> Change<'c> {
    pub(super) async fn begin(writer: &'c mut Writer, act: &'c Act) -> Result<Self, StoreError> {
        writer.make_room(&[act.id]).await?;
        let (tx, chain) = writer.begin().await?;
        Ok(Self::over(tx, act, chain.as_mut()))
    }

    /// A change in a transaction that is open, whose rows go into that chain.
    pub(super) const fn over(
        tx: Transaction<'c, Db>,
        act: &'c Act,
        chain: Option<&'c mut OpenChain>,
    ) -> Self {
        Self { tx, act, chain }
    }

    pub(super) fn conn(&mut self) -> &mut DbConnection {
        &mut self.tx
    }

    /// Ends the change without having changed anything.
    pub(super) async fn unchanged<T>(mut self, value: T) -> Result<Committed<T>, StoreError> {
        let revision = image::revision(self.conn()).await?;
        self.tx.rollback().await.map_err(driver)?;
        Ok(nothing(revision, value))
    }

    /// Raises the revision, writes the audit rows, commits.
    pub(super) async fn commit<T>(
        self,
        act: AdminAct,
        value: T,
    ) -> Result<Committed<T>, StoreError> {
        self.commit_all(act, Vec::new(), value).await
    }

    /// As [`commit`](Self::commit) with further audit rows.
    pub(super) async fn commit_all<T>(
        mut self,
        first: AdminAct,
        rest: Vec<AdminAct>,
        value: T,
    ) -> Result<Committed<T>, StoreError> {
        let revision = image::raise_revision(self.conn()).await?;
        let records: Vec<AuditRecord> = std::iter::once(first)
            .chain(rest)
            .zip(0u64..)
            .map(|(act, place)| record(self.act, act, place, revision))
            .collect();
        let inserted = audit::insert(&mut self.tx, self.chain.as_deref(), &records).await?;
        self.tx.commit().await.map_err(driver)?;
        if let Some(chain) = self.chain {
            chain.last = inserted.head;
        }
        Ok(Committed {
            revision,
            changed: true,
            value,
        })
    }
}

/// The answer of a call that changed nothing.
pub(super) const fn nothing<T>(revision: u64, value: T) -> Committed<T> {
    Committed {
        revision,
        changed: false,
        value,
    }
}

fn record(act: &Act, admin: AdminAct, place: u64, revision: u64) -> AuditRecord {
    let request_id = AuditText::short(&act.id.to_string());
    let mut record = AuditRecord::new(
        nth_id(act.id, place),
        act.now,
        Direction::Admin,
        AuditOutcome::Allowed,
        request_id,
    );
    record.peer = admin.peer;
    record.grant = admin.grant;
    record.subject = admin.subject;
    record.cert_serial = admin.cert_serial.map(|serial| AuditText::short(&serial));
    record.revision = Some(revision);
    record.action = Some(AuditText::fixed(admin.action));
    record.actor = Some(AuditText::short(&act.actor.to_string()));
    record.detail = Some(admin.detail).filter(|detail| !detail.is_empty());
    record
}

/// The id `place` places after `id`: counts in the 62 random bits of a UUIDv7, so that version and variant
/// stay as they are.
fn nth_id(id: Uuid, place: u64) -> Uuid {
    const RANDOM: u64 = (1 << 62) - 1;
    let (high, low) = id.as_u64_pair();
    let counted = (low & RANDOM).wrapping_add(place) & RANDOM;
    Uuid::from_u64_pair(high, low & !RANDOM | counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_act_differ_and_keep_version_and_variant() {
        let last = Uuid::from_u64_pair(0x0190_b7c4_5d3e_7a10, 0xbfff_ffff_ffff_ffff);
        assert_eq!(nth_id(last, 0), last);
        let next = nth_id(last, 1);
        assert_eq!(next.get_version_num(), 7);
        assert_eq!(next.get_variant(), last.get_variant());
        assert_ne!(next, last);
    }
}
