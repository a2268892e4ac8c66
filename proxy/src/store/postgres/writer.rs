//! The writing connection while somebody has it, with what every transaction on it needs.
//!
//! Invariant: a transaction that writes has the lock of the schema from its first statement to its end. Where there is a month
//! of the log to be made, that is tried before the transaction that writes into it, and never keeps it from writing.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Row, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};
use uuid::Uuid;

use super::super::StoreError;
use super::dialect::driver;
use super::sql::OpenChain;

/// Months of the log that this process has asked for, in milliseconds from and until.
#[derive(Default)]
pub(super) struct Months(Vec<(i64, i64)>);

impl Months {
    fn has(&self, ms: i64) -> bool {
        self.0
            .iter()
            .any(|(from, until)| (*from..*until).contains(&ms))
    }
}

/// The writing connection.
pub(super) struct Writer {
    connection: PoolConnection<Postgres>,
    chain: OwnedMutexGuard<Option<OpenChain>>,
    months: Arc<Mutex<Months>>,
    begin: Arc<str>,
}

impl Writer {
    pub(super) const fn new(
        connection: PoolConnection<Postgres>,
        chain: OwnedMutexGuard<Option<OpenChain>>,
        months: Arc<Mutex<Months>>,
        begin: Arc<str>,
    ) -> Self {
        Self {
            connection,
            chain,
            months,
            begin,
        }
    }

    /// Begins a transaction that writes, and the chain that its records go into.
    pub(super) async fn begin(
        &mut self,
    ) -> Result<(Transaction<'_, Postgres>, &mut Option<OpenChain>), StoreError> {
        let begin = AssertSqlSafe(self.begin.to_string());
        let tx = self.connection.begin_with(begin).await;
        Ok((tx.map_err(driver)?, &mut self.chain))
    }

    /// Sees to it that the log has the months of records with these ids, and the month after each, before it is needed.
    pub(super) async fn make_room(&mut self, ids: &[Uuid]) -> Result<(), StoreError> {
        let known = Arc::clone(&self.months);
        let mut known = known.lock().await;
        for ms in ids.iter().copied().filter_map(time_of) {
            if known.has(ms) {
                continue;
            }
            let (mut tx, _) = self.begin().await?;
            let month = make(&mut tx, ms).await?;
            make(&mut tx, month.1).await?;
            tx.commit().await.map_err(driver)?;
            known.0.push(month);
        }
        Ok(())
    }

    /// What is replaced lies in dead rows until [`forget_replaced`](Self::forget_replaced); nothing can be done before.
    #[allow(
        clippy::unused_async,
        clippy::unused_self,
        clippy::needless_pass_by_ref_mut,
        reason = "another database has something to do"
    )]
    pub(super) async fn overwrite(&mut self, _on: bool) -> Result<(), StoreError> {
        Ok(())
    }

    /// Writes the tables that have sealed values anew, so that their files have no dead rows. The server's log of writes keeps
    /// them for as long as it is kept.
    pub(super) async fn forget_replaced(&mut self) {
        let rewritten = sqlx::query(
            "VACUUM (FULL) secrets, subject_tokens, outbound_credentials, outbound_renewals, sealing",
        )
        .execute(&mut *self.connection)
        .await;
        if let Err(error) = rewritten {
            tracing::warn!(%error, "values that were replaced are still in dead rows: run VACUUM FULL on the tables with sealed values");
        }
    }

    /// Drops the months of the log that the archive has emptied.
    pub(super) async fn after_archiving(&mut self, before_ms: i64) {
        match self.drop_empty_months(before_ms).await {
            Ok(0) => {}
            Ok(dropped) => tracing::info!(dropped, "months without rows left the audit log"),
            Err(error) => tracing::warn!(%error, "empty months of the audit log are still there"),
        }
    }

    async fn drop_empty_months(&mut self, before_ms: i64) -> Result<i64, StoreError> {
        let (mut tx, _) = self.begin().await?;
        let dropped = sqlx::query_scalar("SELECT drop_empty_audit_partitions($1)")
            .bind(before_ms)
            .fetch_one(&mut *tx)
            .await
            .map_err(driver)?;
        tx.commit().await.map_err(driver)?;
        Ok(dropped)
    }
}

/// Milliseconds of a UUIDv7 of our time; one of the far future would make months that nobody needs.
pub(super) fn time_of(id: Uuid) -> Option<i64> {
    const YEAR_2200: i64 = 7_258_118_400_000;
    if id.get_version_num() != 7 {
        return None;
    }
    let ms = i64::try_from(id.as_u64_pair().0 >> 16).ok()?;
    Some(ms).filter(|ms| *ms < YEAR_2200)
}

pub(super) async fn make(conn: &mut PgConnection, ms: i64) -> Result<(i64, i64), StoreError> {
    let row = sqlx::query("SELECT from_ms, until_ms FROM make_audit_partition($1)")
        .bind(ms)
        .fetch_one(conn)
        .await
        .map_err(driver)?;
    Ok((
        row.try_get(0).map_err(driver)?,
        row.try_get(1).map_err(driver)?,
    ))
}

impl Deref for Writer {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Writer {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
