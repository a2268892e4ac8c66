//! The sidecar's database, written to behind its back.
//!
//! Invariant: used only for states that no operation of this version leads to, such as a superseded
//! certificate under an active grant; the directory is told to read the store again afterwards.

use certs::testing::Minted;
use policy::id::GrantId;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::world::World;

impl World {
    /// Sets the state of a registered certificate: `active`, `superseded` or `revoked`.
    pub async fn set_certificate_state(&self, minted: &Minted, state: &str) {
        let mut database = self.database().await;
        let changed = sqlx::query(
            "UPDATE certificates SET state = ?1, \
             revoked_at = CASE WHEN ?1 = 'revoked' THEN issued_at END WHERE fingerprint = ?2",
        )
        .bind(state.to_owned())
        .bind(minted.fingerprint().to_vec())
        .execute(&mut database)
        .await
        .unwrap()
        .rows_affected();
        assert_eq!(changed, 1);
        database.close().await.unwrap();
        self.control().directory.refresh().await.unwrap();
    }

    /// Sets a grant back to `pending` while its certificates stay as they are.
    pub async fn set_grant_pending(&self, grant: GrantId) {
        let mut database = self.database().await;
        let changed = sqlx::query("UPDATE grants SET status = 'pending' WHERE id = ?")
            .bind(grant.to_string())
            .execute(&mut database)
            .await
            .unwrap()
            .rows_affected();
        assert_eq!(changed, 1);
        database.close().await.unwrap();
        self.control().directory.refresh().await.unwrap();
    }

    /// Sets the state of an inbound peer: `pending`, `active`, `suspended` or `revoked`.
    pub async fn set_peer_state(&self, name: &str, state: &str) {
        let mut database = self.database().await;
        let changed =
            sqlx::query("UPDATE peers SET state = ? WHERE name = ? AND direction = 'inbound'")
                .bind(state.to_owned())
                .bind(name.to_owned())
                .execute(&mut database)
                .await
                .unwrap()
                .rows_affected();
        assert_eq!(changed, 1);
        database.close().await.unwrap();
        self.control().directory.refresh().await.unwrap();
    }

    /// The database, for statements of a test's own. The directory does not know what they change.
    pub async fn database(&self) -> sqlx::SqliteConnection {
        SqliteConnectOptions::new()
            .filename(self.config.data_dir.join("federation.db"))
            .busy_timeout(std::time::Duration::from_secs(10))
            .connect()
            .await
            .unwrap()
    }
}
