//! Each call of the store on its way to the file of its concern; what the calls promise is in `store.rs`.
//!
//! Invariant: a call that may change anything takes the writer, every other one a reader, which could not.

use std::time::Duration;

use async_trait::async_trait;
use policy::id::{GrantId, PeerId, UserId};
use policy::peer::PeerName;
use policy::scope::Scope;
use policy::time::UnixMillis;
use uuid::Uuid;

use super::dialect::driver;
use super::{
    Handle, audit, audit_archive, audit_chain, audit_heads, audit_history, audit_query,
    certificates, change, contact, enrollment, expiry, grants, image, outbound, peers,
    policy_bundle, rows_seen, secrets, sessions, tokens, witnessed,
};
use crate::audit::archive::{ColdFile, Manifest};
use crate::audit::{
    AuditFilter, AuditLog, AuditLogError, AuditRecord, AuditRow, Head, HistoryHead, JournalMark,
};
use crate::store::{
    Act, CertificateRecord, ChainBeginning, Committed, Contact, CredentialChange, Enrollment,
    GrantRecord, IssueIntent, NewGrant, NewOutboundPeer, NewSession, NewToken, OutboundAdded,
    OutboundCredential, PeerDirection, PeerRecord, PolicyBundle, PolicyPublication, Replaced,
    RowMark, RowsBooked, SealedSecret, SecretPurpose, SessionRecord, Sha256, Store, StoreChanges,
    StoreError, StoreImage, SubjectToken, TokenClaim, WitnessedCheckpoint,
};

#[async_trait]
impl AuditLog for Handle {
    async fn append_audit(
        &self,
        records: &[AuditRecord],
        mark: Option<JournalMark>,
    ) -> Result<Vec<(GrantId, HistoryHead)>, AuditLogError> {
        let mut writer = self.write().await.map_err(audit::log_error)?;
        audit::append(&mut writer, records, mark).await
    }

    async fn history_head(&self, grant: GrantId) -> Result<Option<HistoryHead>, AuditLogError> {
        let mut reader = self.read().await.map_err(audit::log_error)?;
        audit_history::head(&mut reader, grant)
            .await
            .map_err(audit::log_error)
    }

    async fn journal_applied(&self, journal: Uuid) -> Result<u64, AuditLogError> {
        // Of the writer: what it has committed is what counts.
        let mut writer = self.write().await.map_err(audit::log_error)?;
        audit_heads::applied(&mut writer, journal)
            .await
            .map_err(audit::log_error)
    }

    async fn chain_heads(&self) -> Result<Vec<Head>, AuditLogError> {
        let mut reader = self.read().await.map_err(audit::log_error)?;
        audit_heads::heads(&mut reader)
            .await
            .map_err(audit::log_error)
    }

    async fn query_audit(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>, AuditLogError> {
        let mut reader = self.read().await.map_err(audit::log_error)?;
        audit_query::rows(&mut reader, filter).await
    }

    async fn read_audit(&self, after: i64, limit: u32) -> Result<Vec<AuditRow>, AuditLogError> {
        let mut reader = self.read().await.map_err(audit::log_error)?;
        audit_query::behind(&mut reader, after, limit).await
    }

    async fn cold_files(&self) -> Result<Vec<ColdFile>, AuditLogError> {
        let mut reader = self.read().await.map_err(audit::log_error)?;
        audit_archive::files(&mut reader)
            .await
            .map_err(audit::log_error)
    }

    async fn next_cold_file(&self, after: i64) -> Result<Option<ColdFile>, AuditLogError> {
        let mut reader = self.read().await.map_err(audit::log_error)?;
        audit_archive::next_file(&mut reader, after)
            .await
            .map_err(audit::log_error)
    }

    async fn due_for_archive(
        &self,
        before: UnixMillis,
        now: UnixMillis,
        most: u64,
    ) -> Result<Option<i64>, AuditLogError> {
        let mut reader = self.read().await.map_err(audit::log_error)?;
        audit_archive::due(&mut reader, before, now, most)
            .await
            .map_err(audit::log_error)
    }
}

#[async_trait]
impl Store for Handle {
    async fn health(&self) -> Result<(), StoreError> {
        image::revision(&mut *self.read().await?).await?;
        // Takes the write lock and gives it back: nothing is written or synced.
        let mut writer = self.write().await?;
        let (tx, _) = writer.begin().await?;
        tx.rollback().await.map_err(driver)
    }

    async fn store_id(&self) -> Result<Uuid, StoreError> {
        image::store_id(&mut *self.read().await?).await
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        image::revision(&mut *self.read().await?).await
    }

    async fn longest_lease(&self) -> Result<Duration, StoreError> {
        image::longest_lease(&mut *self.read().await?).await
    }

    async fn record_longest_lease(&self, longest: Duration) -> Result<(), StoreError> {
        image::record_longest_lease(&mut *self.write().await?, longest).await
    }

    async fn load(&self, now: UnixMillis) -> Result<StoreImage, StoreError> {
        image::load(&mut *self.read().await?, now).await
    }

    async fn load_changes(
        &self,
        revision: u64,
        now: UnixMillis,
    ) -> Result<Option<StoreChanges>, StoreError> {
        image::load_changes(&mut *self.read().await?, revision, now).await
    }

    async fn begin_chain(&self, beginning: &ChainBeginning) -> Result<Committed<()>, StoreError> {
        audit_chain::begin(&mut *self.write().await?, beginning).await
    }

    async fn archive_audit(
        &self,
        act: &Act,
        manifest: &Manifest,
    ) -> Result<Committed<()>, StoreError> {
        audit_archive::archive(&mut *self.write().await?, act, manifest).await
    }

    async fn put_secret_if_absent(
        &self,
        act: &Act,
        secret: SealedSecret,
    ) -> Result<Committed<SealedSecret>, StoreError> {
        secrets::put_if_absent(&mut *self.write().await?, act, secret).await
    }

    async fn load_secrets(&self, purpose: SecretPurpose) -> Result<Vec<SealedSecret>, StoreError> {
        secrets::load(&mut *self.read().await?, purpose).await
    }

    async fn create_grant(
        &self,
        act: &Act,
        grant: NewGrant,
    ) -> Result<Committed<GrantRecord>, StoreError> {
        grants::create(&mut *self.write().await?, act, grant).await
    }

    async fn grant(&self, id: GrantId) -> Result<GrantRecord, StoreError> {
        grants::load(&mut *self.read().await?, id).await
    }

    async fn list_grants(&self) -> Result<Vec<GrantRecord>, StoreError> {
        grants::list(&mut *self.read().await?).await
    }

    async fn revoke_grant(
        &self,
        act: &Act,
        id: GrantId,
        reason: Option<&str>,
    ) -> Result<Committed<GrantRecord>, StoreError> {
        grants::revoke(&mut *self.write().await?, act, id, reason).await
    }

    async fn edit_grant(
        &self,
        act: &Act,
        id: GrantId,
        scope: Scope,
    ) -> Result<Committed<GrantRecord>, StoreError> {
        grants::edit(&mut *self.write().await?, act, id, scope).await
    }

    async fn forget_user(
        &self,
        act: &Act,
        user: &UserId,
        reason: Option<&str>,
    ) -> Result<Committed<Vec<GrantId>>, StoreError> {
        grants::forget_user(&mut *self.write().await?, act, user, reason).await
    }

    async fn forget_grants(
        &self,
        act: &Act,
        peer: PeerId,
        before: UnixMillis,
    ) -> Result<Committed<u64>, StoreError> {
        grants::forget_ended(&mut *self.write().await?, act, peer, before).await
    }

    async fn expire_grants(&self, act: &Act) -> Result<Committed<Vec<GrantId>>, StoreError> {
        if let Some(revision) = expiry::nothing_due(&mut *self.read().await?, act.now).await? {
            return Ok(change::nothing(revision, Vec::new()));
        }
        expiry::expire(&mut *self.write().await?, act).await
    }

    async fn create_token(&self, act: &Act, token: NewToken) -> Result<Committed<()>, StoreError> {
        tokens::create(&mut *self.write().await?, act, token).await
    }

    async fn replace_token(
        &self,
        act: &Act,
        token: NewToken,
    ) -> Result<Committed<Replaced>, StoreError> {
        tokens::replace(&mut *self.write().await?, act, token).await
    }

    async fn claim_token(
        &self,
        act: &Act,
        token: &Sha256,
    ) -> Result<Committed<TokenClaim>, StoreError> {
        // Refusals are answered by a reader: strangers who guess tokens do not hold up the writer.
        if let Some(refusal) = tokens::refusal(&mut *self.read().await?, act.now, token).await? {
            return Ok(refusal);
        }
        tokens::claim(&mut *self.write().await?, act, token).await
    }

    async fn record_issue_intent(
        &self,
        act: &Act,
        intent: IssueIntent,
    ) -> Result<Committed<()>, StoreError> {
        enrollment::record_intent(&mut *self.write().await?, act, intent).await
    }

    async fn fail_issue_intent(
        &self,
        act: &Act,
        intent: Uuid,
        why: &str,
    ) -> Result<Committed<()>, StoreError> {
        enrollment::fail_intent(&mut *self.write().await?, act, intent, why).await
    }

    async fn complete_enrollment(
        &self,
        act: &Act,
        enrollment: Enrollment,
    ) -> Result<Committed<GrantRecord>, StoreError> {
        enrollment::complete(&mut *self.write().await?, act, enrollment).await
    }

    async fn list_certificates(
        &self,
        grant: GrantId,
    ) -> Result<Vec<CertificateRecord>, StoreError> {
        certificates::list(&mut *self.read().await?, grant).await
    }

    async fn peer(&self, id: PeerId) -> Result<PeerRecord, StoreError> {
        peers::load(&mut *self.read().await?, id).await
    }

    async fn find_peer(
        &self,
        direction: PeerDirection,
        name: &PeerName,
    ) -> Result<Option<PeerRecord>, StoreError> {
        peers::find(&mut *self.read().await?, direction, name).await
    }

    async fn list_peers(&self) -> Result<Vec<PeerRecord>, StoreError> {
        peers::list(&mut *self.read().await?).await
    }

    async fn suspend_peer(
        &self,
        act: &Act,
        id: PeerId,
    ) -> Result<Committed<PeerRecord>, StoreError> {
        peers::suspend(&mut *self.write().await?, act, id).await
    }

    async fn resume_peer(
        &self,
        act: &Act,
        id: PeerId,
    ) -> Result<Committed<PeerRecord>, StoreError> {
        peers::resume(&mut *self.write().await?, act, id).await
    }

    async fn remove_peer(
        &self,
        act: &Act,
        id: PeerId,
        reason: Option<&str>,
    ) -> Result<Committed<PeerRecord>, StoreError> {
        peers::remove(&mut *self.write().await?, act, id, reason).await
    }

    async fn add_outbound_peer(
        &self,
        act: &Act,
        peer: NewOutboundPeer,
    ) -> Result<Committed<OutboundAdded>, StoreError> {
        outbound::add(&mut *self.write().await?, act, peer).await
    }

    async fn list_outbound_credentials(&self) -> Result<Vec<OutboundCredential>, StoreError> {
        outbound::list(&mut *self.read().await?).await
    }

    async fn change_credential(
        &self,
        act: &Act,
        change: CredentialChange,
    ) -> Result<Committed<()>, StoreError> {
        outbound::change_credential(&mut *self.write().await?, act, change).await
    }

    async fn record_contact(
        &self,
        peer: PeerId,
        at: UnixMillis,
        contact: Contact,
    ) -> Result<(), StoreError> {
        contact::record(&mut *self.write().await?, peer, at, contact).await
    }

    async fn record_witnessed(&self, heard: &[WitnessedCheckpoint]) -> Result<(), StoreError> {
        witnessed::record(&mut *self.write().await?, heard).await
    }

    async fn witnessed_checkpoints(&self) -> Result<Vec<WitnessedCheckpoint>, StoreError> {
        witnessed::list(&mut *self.read().await?).await
    }

    async fn create_session(
        &self,
        act: &Act,
        session: NewSession,
    ) -> Result<Committed<SessionRecord>, StoreError> {
        sessions::create(&mut *self.write().await?, act, session).await
    }

    async fn find_session(
        &self,
        token: &Sha256,
        now: UnixMillis,
    ) -> Result<Option<SessionRecord>, StoreError> {
        sessions::find(&mut *self.read().await?, token, now).await
    }

    async fn list_sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        sessions::list(&mut *self.read().await?).await
    }

    async fn end_session(
        &self,
        act: &Act,
        id: Uuid,
    ) -> Result<Committed<SessionRecord>, StoreError> {
        sessions::end(&mut *self.write().await?, act, id).await
    }

    async fn forget_sessions(&self, before: UnixMillis, most: u32) -> Result<u64, StoreError> {
        sessions::forget(&mut *self.write().await?, before, most).await
    }

    async fn put_subject_token(
        &self,
        act: &Act,
        token: SubjectToken,
    ) -> Result<Committed<()>, StoreError> {
        secrets::put_subject_token(&mut *self.write().await?, act, token).await
    }

    async fn find_subject_token(&self, user: &UserId) -> Result<Option<SubjectToken>, StoreError> {
        secrets::find_subject_token(&mut *self.read().await?, user).await
    }

    async fn list_subject_tokens(&self) -> Result<Vec<(UserId, UnixMillis)>, StoreError> {
        secrets::list_subject_tokens(&mut *self.read().await?).await
    }

    async fn policy_at(&self, revision: u64) -> Result<Option<PolicyBundle>, StoreError> {
        policy_bundle::at(&mut *self.read().await?, revision).await
    }

    async fn publish_policy(
        &self,
        act: &Act,
        publication: PolicyPublication,
    ) -> Result<Committed<()>, StoreError> {
        policy_bundle::publish(&mut *self.write().await?, act, publication).await
    }

    async fn book_rows(
        &self,
        grant: GrantId,
        day: i64,
        budget: u32,
        rows: &[RowMark],
    ) -> Result<RowsBooked, StoreError> {
        let seen = rows_seen::seen(&mut *self.read().await?, grant, day, rows).await?;
        if seen.admitted == rows.len() {
            return Ok(seen);
        }
        rows_seen::book(&mut *self.write().await?, grant, day, budget, rows).await
    }

    async fn rows_seen(&self, grant: GrantId, day: i64) -> Result<u32, StoreError> {
        rows_seen::count(&mut *self.read().await?, grant, day).await
    }

    async fn rows_seen_by_grant(&self, day: i64) -> Result<Vec<(GrantId, u32)>, StoreError> {
        rows_seen::counts(&mut *self.read().await?, day).await
    }

    async fn forget_rows_seen(&self, before: i64, most: u32) -> Result<u64, StoreError> {
        rows_seen::forget(&mut *self.write().await?, before, most).await
    }
}
