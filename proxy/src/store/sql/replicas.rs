//! Rows of replicas and of the jobs that only one of them does.
//!
//! Invariant: each statement is a transaction of its own, outside of the turns of writers, and touches one row; the revision is read
//! behind the row that was written, never with it.

use async_trait::async_trait;
use tokio::sync::Notify;
use uuid::Uuid;

use super::Handle;
use super::column::Columns;
use super::dialect::{DbConnection, DbRow, driver, now_ms};
use super::image;
use crate::store::{Heartbeat, ReplicaRecord, ReplicaStore, ReplicaTable, StoreError};

fn bounded(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

async fn beat(conn: &mut DbConnection, heartbeat: &Heartbeat) -> Result<u64, StoreError> {
    sqlx::query(concat!(
        "INSERT INTO replicas (id, name, started_at, heartbeat_at, applied, lease_ms, fence_ms, leases_until) VALUES ($1, $2, ",
        now_ms!(), ", ", now_ms!(), ", $3, $4, $5, ", now_ms!(), " + $6) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, heartbeat_at = excluded.heartbeat_at, applied = excluded.applied, \
         lease_ms = excluded.lease_ms, fence_ms = excluded.fence_ms, leases_until = CASE \
         WHEN excluded.leases_until > replicas.leases_until THEN excluded.leases_until ELSE replicas.leases_until END, left_at = NULL"
    ))
    .bind(heartbeat.id.to_string())
    .bind(&heartbeat.name)
    .bind(bounded(heartbeat.applied))
    .bind(bounded(heartbeat.lease_ms))
    .bind(bounded(heartbeat.fence_ms))
    .bind(bounded(heartbeat.leases_left_ms))
    .execute(&mut *conn)
    .await
    .map_err(driver)?;
    image::revision(conn).await
}

async fn table(conn: &mut DbConnection) -> Result<ReplicaTable, StoreError> {
    // The time is read with the rows, by the same clock; without any there is nothing to compare it with.
    let rows = sqlx::query(concat!(
        "SELECT id, name, started_at, heartbeat_at, applied, lease_ms, fence_ms, leases_until, left_at, ",
        now_ms!(),
        " AS now FROM replicas ORDER BY started_at, id"
    ))
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    let mut now = 0;
    let mut replicas = Vec::with_capacity(rows.len());
    for row in &rows {
        let columns = Columns {
            table: "replicas",
            row,
        };
        now = now.max(columns.integer("now")?);
        replicas.push(record(row)?);
    }
    Ok(ReplicaTable { now, replicas })
}

fn record(row: &DbRow) -> Result<ReplicaRecord, StoreError> {
    let columns = Columns {
        table: "replicas",
        row,
    };
    Ok(ReplicaRecord {
        id: columns.uuid("id")?,
        name: columns.text("name")?,
        started_at: columns.integer("started_at")?,
        heartbeat_at: columns.integer("heartbeat_at")?,
        applied: columns.count("applied")?,
        lease_ms: columns.count("lease_ms")?,
        fence_ms: columns.count("fence_ms")?,
        leases_until: columns.integer("leases_until")?,
        left_at: columns.opt_millis("left_at")?.map(|at| at.0),
    })
}

async fn leave(conn: &mut DbConnection, id: Uuid) -> Result<(), StoreError> {
    sqlx::query(concat!(
        "UPDATE replicas SET left_at = ",
        now_ms!(),
        " WHERE id = $1 AND left_at IS NULL"
    ))
    .bind(id.to_string())
    .execute(&mut *conn)
    .await
    .map_err(driver)?;
    sqlx::query("DELETE FROM runners WHERE replica = $1")
        .bind(id.to_string())
        .execute(conn)
        .await
        .map(drop)
        .map_err(driver)
}

async fn forget(conn: &mut DbConnection, more_ms: i64) -> Result<u64, StoreError> {
    let forgotten = sqlx::query(concat!(
        "DELETE FROM replicas WHERE heartbeat_at + fence_ms + lease_ms + $1 < ",
        now_ms!(),
        " AND leases_until < ",
        now_ms!()
    ))
    .bind(more_ms)
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(forgotten.rows_affected())
}

async fn take(
    conn: &mut DbConnection,
    job: &str,
    replica: Uuid,
    for_ms: u64,
) -> Result<bool, StoreError> {
    if for_ms == 0 {
        sqlx::query("DELETE FROM runners WHERE job = $1 AND replica = $2")
            .bind(job)
            .bind(replica.to_string())
            .execute(conn)
            .await
            .map_err(driver)?;
        return Ok(false);
    }
    let taken = sqlx::query(concat!(
        "INSERT INTO runners (job, replica, until) VALUES ($1, $2, ",
        now_ms!(),
        " + $3) ON CONFLICT (job) DO UPDATE SET replica = excluded.replica, until = excluded.until \
         WHERE runners.replica = excluded.replica OR runners.until <= ",
        now_ms!()
    ))
    .bind(job)
    .bind(replica.to_string())
    .bind(bounded(for_ms))
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(taken.rows_affected() > 0)
}

#[async_trait]
impl ReplicaStore for Handle {
    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<u64, StoreError> {
        let mut held = self.direct.lock().await;
        // Taken out: a call that is dropped or fails takes its connection along.
        let mut connection = self.connect_direct(held.take()).await?;
        let revision = beat(&mut connection, heartbeat).await?;
        *held = Some(connection);
        Ok(revision)
    }

    async fn replicas(&self) -> Result<ReplicaTable, StoreError> {
        table(&mut *self.read().await?).await
    }

    async fn leave_replicas(&self, id: Uuid) -> Result<(), StoreError> {
        let mut held = self.direct.lock().await;
        let mut connection = self.connect_direct(held.take()).await?;
        let left = leave(&mut connection, id).await;
        self.unlock();
        left
    }

    async fn forget_replicas(&self, more_ms: i64) -> Result<u64, StoreError> {
        let mut held = self.direct.lock().await;
        let mut connection = self.connect_direct(held.take()).await?;
        let forgotten = forget(&mut connection, more_ms).await?;
        *held = Some(connection);
        Ok(forgotten)
    }

    async fn take_job(&self, job: &str, replica: Uuid, for_ms: u64) -> Result<bool, StoreError> {
        let mut held = self.direct.lock().await;
        let mut connection = self.connect_direct(held.take()).await?;
        let taken = take(&mut connection, job, replica, for_ms).await?;
        *held = Some(connection);
        Ok(taken)
    }

    async fn listen(&self, told: &Notify) -> StoreError {
        self.hear(told).await
    }

    async fn keep_alone(&self) -> Result<bool, StoreError> {
        self.lock_alone()
    }

    async fn share(&self) -> Result<bool, StoreError> {
        self.lock_shared()
    }
}
