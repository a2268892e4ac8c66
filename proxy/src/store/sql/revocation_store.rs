//! The store's part about revocation lists: dispatch only, like `sqlite.rs`. What the calls promise is in
//! `store/revocation.rs`.

use async_trait::async_trait;
use policy::id::GrantId;
use policy::time::UnixMillis;

use super::{Handle, revocation};
use crate::store::{
    Act, Committed, EnrolledCertificate, KeptList, ListedLeaf, PublishedList, RevocationStore,
    RevokedLeaf, SerialStanding, ServerCertificateRecord, Sha256, StoreError, UntoldRevocation,
};

#[async_trait]
impl RevocationStore for Handle {
    async fn revoked_leaves(&self, end_after: UnixMillis) -> Result<Vec<RevokedLeaf>, StoreError> {
        revocation::revoked(&mut *self.read().await?, end_after).await
    }

    async fn published_list(&self) -> Result<Option<PublishedList>, StoreError> {
        revocation::published(&mut *self.read().await?).await
    }

    async fn publish_list(&self, list: &PublishedList) -> Result<bool, StoreError> {
        revocation::publish(&mut *self.write().await?, list).await
    }

    async fn kept_lists(&self) -> Result<Vec<KeptList>, StoreError> {
        revocation::kept(&mut *self.read().await?).await
    }

    async fn keep_lists(&self, source: &str, lists: &[KeptList]) -> Result<(), StoreError> {
        revocation::keep(&mut *self.write().await?, source, lists).await
    }

    async fn revoke_listed(
        &self,
        act: &Act,
        listed: &[ListedLeaf],
    ) -> Result<Committed<Vec<GrantId>>, StoreError> {
        revocation::revoke_listed(&mut *self.write().await?, act, listed).await
    }

    async fn register_revoked(
        &self,
        act: &Act,
        grant: GrantId,
        certificate: &EnrolledCertificate,
    ) -> Result<Committed<()>, StoreError> {
        revocation::register(&mut *self.write().await?, act, grant, certificate).await
    }

    async fn untold_revocations(
        &self,
        now: UnixMillis,
        most: u32,
    ) -> Result<Vec<UntoldRevocation>, StoreError> {
        revocation::untold(&mut *self.read().await?, now, most).await
    }

    async fn count_untold(&self, now: UnixMillis) -> Result<u64, StoreError> {
        revocation::count_untold(&mut *self.read().await?, now).await
    }

    async fn record_told(
        &self,
        fingerprint: &Sha256,
        at: UnixMillis,
        failure: Option<&str>,
    ) -> Result<(), StoreError> {
        revocation::record_told(&mut *self.write().await?, fingerprint, at, failure).await
    }

    async fn record_server_certificate(
        &self,
        issued: &ServerCertificateRecord,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        revocation::record_server(&mut *self.write().await?, issued, now).await
    }

    async fn standing_of(&self, serial: &str) -> Result<Vec<SerialStanding>, StoreError> {
        revocation::standing(&mut *self.read().await?, serial).await
    }
}
