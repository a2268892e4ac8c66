//! The store's part about renewal: dispatch only, like `sqlite.rs`. What the calls promise is in `store/renewal.rs`.

use std::time::Duration;

use async_trait::async_trait;
use certs::crl::RevocationReason;
use policy::id::{GrantId, PeerId};
use uuid::Uuid;

use super::{Handle, outbound_renewal, renewal};
use crate::store::{
    Act, Committed, IssuedRenewal, NewRenewal, PendingRenewal, RenewalRequest, RenewalStart,
    RenewalStore, RenewalTries, RenewedCertificate, RevokedCertificate, Sha256, StoreError,
};

#[async_trait]
impl RenewalStore for Handle {
    async fn begin_renewal(
        &self,
        act: &Act,
        request: RenewalRequest,
    ) -> Result<Committed<RenewalStart>, StoreError> {
        renewal::begin(&mut *self.write().await?, act, request).await
    }

    async fn complete_renewal(
        &self,
        act: &Act,
        renewed: RenewedCertificate,
    ) -> Result<Committed<bool>, StoreError> {
        renewal::complete(&mut *self.write().await?, act, renewed).await
    }

    async fn confirm_certificate(
        &self,
        act: &Act,
        grant: GrantId,
        fingerprint: &Sha256,
        overlap: Duration,
    ) -> Result<Committed<()>, StoreError> {
        renewal::confirm(&mut *self.write().await?, act, grant, fingerprint, overlap).await
    }

    async fn revoke_certificate(
        &self,
        act: &Act,
        serial: &str,
        reason: RevocationReason,
    ) -> Result<Committed<RevokedCertificate>, StoreError> {
        renewal::revoke(&mut *self.write().await?, act, serial, reason).await
    }

    async fn begin_outbound_renewal(
        &self,
        act: &Act,
        renewal: NewRenewal,
    ) -> Result<Committed<()>, StoreError> {
        outbound_renewal::begin(&mut *self.write().await?, act, renewal).await
    }

    async fn outbound_renewal(
        &self,
        credential: Uuid,
    ) -> Result<Option<PendingRenewal>, StoreError> {
        outbound_renewal::find(&mut *self.read().await?, credential).await
    }

    async fn keep_renewed(
        &self,
        act: &Act,
        credential: Uuid,
        issued: IssuedRenewal,
    ) -> Result<Committed<()>, StoreError> {
        outbound_renewal::keep(&mut *self.write().await?, act, credential, issued).await
    }

    async fn finish_outbound_renewal(
        &self,
        act: &Act,
        credential: Uuid,
        skew_ms: i64,
    ) -> Result<Committed<Uuid>, StoreError> {
        outbound_renewal::finish(&mut *self.write().await?, act, credential, skew_ms).await
    }

    async fn drop_outbound_renewal(
        &self,
        act: &Act,
        credential: Uuid,
        why: &str,
    ) -> Result<Committed<()>, StoreError> {
        outbound_renewal::give_up(&mut *self.write().await?, act, credential, why).await
    }

    async fn record_renewal_tries(
        &self,
        credential: Uuid,
        tries: &RenewalTries,
    ) -> Result<(), StoreError> {
        outbound_renewal::record_tries(&mut *self.write().await?, credential, tries).await
    }

    async fn mark_peer(
        &self,
        act: &Act,
        peer: PeerId,
        degraded: bool,
        why: &str,
    ) -> Result<Committed<()>, StoreError> {
        outbound_renewal::mark_peer(&mut *self.write().await?, act, peer, degraded, why).await
    }
}
