//! The generation of trust, the steps of a rotation, and acknowledgements. What the calls promise is in `store/trust.rs`.

use async_trait::async_trait;
use policy::id::GrantId;

use super::change::{AdminAct, Change};
use super::column::Columns;
use super::dialect::{DbConnection, driver};
use super::writer::Writer;
use super::{Handle, grants, secrets};
use crate::store::{
    Act, Committed, SealedSecret, SecretPurpose, StoreError, TrustAcknowledged, TrustPhase,
    TrustState, TrustStore,
};

#[async_trait]
impl TrustStore for Handle {
    async fn trust(&self) -> Result<TrustState, StoreError> {
        state(&mut *self.read().await?).await
    }

    async fn plan_rotation(
        &self,
        act: &Act,
        root: SealedSecret,
    ) -> Result<Committed<TrustState>, StoreError> {
        plan(&mut *self.write().await?, act, root).await
    }

    async fn apply_rotation(&self, act: &Act) -> Result<Committed<TrustState>, StoreError> {
        apply(&mut *self.write().await?, act).await
    }

    async fn finish_rotation(
        &self,
        act: &Act,
        left_behind: &[GrantId],
    ) -> Result<Committed<TrustState>, StoreError> {
        finish(&mut *self.write().await?, act, left_behind).await
    }

    async fn acknowledge_trust(
        &self,
        act: &Act,
        grant: GrantId,
        generation: u64,
    ) -> Result<Committed<()>, StoreError> {
        acknowledge(&mut *self.write().await?, act, grant, generation).await
    }

    async fn trust_acknowledgements(&self) -> Result<Vec<TrustAcknowledged>, StoreError> {
        acknowledgements(&mut *self.read().await?).await
    }
}

async fn state(conn: &mut DbConnection) -> Result<TrustState, StoreError> {
    let row =
        sqlx::query("SELECT generation, ca_generation, phase, since FROM trust WHERE one = 1")
            .fetch_one(conn)
            .await
            .map_err(driver)?;
    let columns = Columns {
        table: "trust",
        row: &row,
    };
    Ok(TrustState {
        generation: columns.count("generation")?,
        ca_generation: columns.count("ca_generation")?,
        phase: columns.member("phase", TrustPhase::parse)?,
        since: columns.opt_millis("since")?,
    })
}

/// The state, if it is in the phase that a step needs.
async fn in_phase(conn: &mut DbConnection, wanted: TrustPhase) -> Result<TrustState, StoreError> {
    let state = state(conn).await?;
    if state.phase == wanted {
        return Ok(state);
    }
    Err(StoreError::conflict(match state.phase {
        TrustPhase::Steady => "no rotation of the root is planned",
        TrustPhase::Planned => "a rotation of the root is planned already",
        TrustPhase::Applied => "the next root is in force already",
    }))
}

async fn write(
    conn: &mut DbConnection,
    act: &Act,
    next: TrustState,
) -> Result<TrustState, StoreError> {
    let next = TrustState {
        since: (next.phase != TrustPhase::Steady).then_some(act.now),
        ..next
    };
    let generation = i64::try_from(next.generation)
        .map_err(|_| StoreError::invalid("the generation of trust is at its end"))?;
    sqlx::query(
        "UPDATE trust SET generation = $1, ca_generation = $2, phase = $3, since = $4 WHERE one = 1",
    )
    .bind(generation)
    .bind(i64::from(next.ca_generation))
    .bind(next.phase.as_str())
    .bind(next.since.map(|since| since.0))
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(next)
}

async fn plan(
    writer: &mut Writer,
    act: &Act,
    root: SealedSecret,
) -> Result<Committed<TrustState>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let state = in_phase(conn, TrustPhase::Steady).await?;
    let fits =
        root.purpose == SecretPurpose::CaKey && root.generation == state.next_ca_generation();
    if !fits {
        return Err(StoreError::invalid(
            "the next root is not of the next generation",
        ));
    }
    secrets::insert(conn, act, &root).await?;
    let next = TrustState {
        phase: TrustPhase::Planned,
        ..state
    };
    let next = write(conn, act, next).await?;
    let admin = AdminAct::new("ca.rotate.plan").count("root", u64::from(root.generation));
    change.commit(admin, next).await
}

async fn apply(writer: &mut Writer, act: &Act) -> Result<Committed<TrustState>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let state = in_phase(conn, TrustPhase::Planned).await?;
    let next = TrustState {
        generation: state.generation.saturating_add(1),
        phase: TrustPhase::Applied,
        ..state
    };
    let next = write(conn, act, next).await?;
    let admin = AdminAct::new("ca.rotate.apply").count("generation", next.generation);
    change.commit(admin, next).await
}

async fn finish(
    writer: &mut Writer,
    act: &Act,
    left_behind: &[GrantId],
) -> Result<Committed<TrustState>, StoreError> {
    // The key that goes is overwritten.
    writer.overwrite(true).await?;
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let state = in_phase(conn, TrustPhase::Applied).await?;
    let next = TrustState {
        generation: state.generation.saturating_add(1),
        ca_generation: state.next_ca_generation(),
        phase: TrustPhase::Steady,
        ..state
    };
    sqlx::query("DELETE FROM secrets WHERE purpose = $1 AND generation < $2")
        .bind(SecretPurpose::CaKey.as_str())
        .bind(i64::from(next.ca_generation))
        .execute(&mut *conn)
        .await
        .map_err(driver)?;
    let next = write(conn, act, next).await?;
    let first = AdminAct::new("ca.rotate.finish")
        .count("generation", next.generation)
        .count(
            "left_behind",
            left_behind.len().try_into().unwrap_or(u64::MAX),
        );
    let mut rest = Vec::new();
    for grant in left_behind {
        let record = grants::load(change.conn(), *grant).await?;
        rest.push(AdminAct::on_grant("ca.rotate.left", &record.grant));
    }
    let committed = change.commit_all(first, rest, next).await?;
    writer.forget_replaced().await;
    Ok(committed)
}

async fn acknowledge(
    writer: &mut Writer,
    act: &Act,
    grant: GrantId,
    generation: u64,
) -> Result<Committed<()>, StoreError> {
    let stored = i64::try_from(generation)
        .map_err(|_| StoreError::invalid("no generation is that large"))?;
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let record = grants::load(conn, grant).await?;
    let done = sqlx::query(
        "INSERT INTO trust_acknowledgements (grant_id, generation, at) VALUES ($1, $2, $3) \
         ON CONFLICT (grant_id) DO UPDATE SET generation = excluded.generation, at = excluded.at \
         WHERE excluded.generation > trust_acknowledgements.generation",
    )
    .bind(grant.to_string())
    .bind(stored)
    .bind(act.now.0)
    .execute(conn)
    .await
    .map_err(driver)?;
    if done.rows_affected() == 0 {
        return change.unchanged(()).await;
    }
    let admin = AdminAct::on_grant("trust.acknowledge", &record.grant);
    change
        .commit(admin.count("generation", generation), ())
        .await
}

async fn acknowledgements(conn: &mut DbConnection) -> Result<Vec<TrustAcknowledged>, StoreError> {
    let rows =
        sqlx::query("SELECT grant_id, generation, at FROM trust_acknowledgements ORDER BY 1")
            .fetch_all(conn)
            .await
            .map_err(driver)?;
    rows.iter()
        .map(|row| {
            let columns = Columns {
                table: "trust_acknowledgements",
                row,
            };
            Ok(TrustAcknowledged {
                grant: columns.parsed("grant_id")?,
                generation: columns.count("generation")?,
                at: columns.millis("at")?,
            })
        })
        .collect()
}
