//! The sidecar's database, written to behind its back.
//!
//! Invariant: used only for states that no operation of this version leads to, such as a superseded
//! certificate under an active grant; the directory is told to read the store again afterwards, which has another revision then.

use certs::testing::Minted;
use policy::id::GrantId;

use crate::database::{Database, Value};
use crate::world::World;

impl World {
    /// Sets the state of a registered certificate: `active`, `superseded` or `revoked`.
    pub async fn set_certificate_state(&self, minted: &Minted, state: &str) {
        let mut database = self.database().await;
        let changed = database
            .commit(
                "UPDATE certificates SET state = $1, \
                 revoked_at = CASE WHEN $1 = 'revoked' THEN issued_at END WHERE fingerprint = $2",
                &[Value::Text(state), Value::Bytes(&minted.fingerprint())],
            )
            .await;
        assert_eq!(changed, 1);
        database.close().await;
        self.refresh().await;
    }

    /// Sets a grant back to `pending` while its certificates stay as they are.
    pub async fn set_grant_pending(&self, grant: GrantId) {
        let mut database = self.database().await;
        let sql = "UPDATE grants SET status = 'pending' WHERE id = $1";
        let changed = database
            .commit(sql, &[Value::Text(&grant.to_string())])
            .await;
        assert_eq!(changed, 1);
        database.close().await;
        self.refresh().await;
    }

    /// Sets the state of an inbound peer: `pending`, `active`, `suspended` or `revoked`.
    pub async fn set_peer_state(&self, name: &str, state: &str) {
        let mut database = self.database().await;
        let sql = "UPDATE peers SET state = $1 WHERE name = $2 AND direction = 'inbound'";
        let changed = database
            .commit(sql, &[Value::Text(state), Value::Text(name)])
            .await;
        assert_eq!(changed, 1);
        database.close().await;
        self.refresh().await;
    }

    /// The database, for statements of a test's own. The directory does not know what they change.
    pub async fn database(&self) -> Database {
        Database::open(&self.config).await
    }
}
