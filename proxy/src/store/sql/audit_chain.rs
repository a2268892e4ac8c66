//! Beginning a chain. The heads that are noted beside the rows are in `audit_heads.rs`.
//!
//! Invariant: a chain begins in the transaction that writes its first row, which names the newest row of the chain before it; keys
//! that did not exist are stored in the same transaction, so no row is ever linked with a key that is not kept.

use super::audit_heads;
use super::change::{AdminAct, Change};
use super::dialect::driver;
use super::open_chain::OpenChain;
use super::secrets;
use super::writer::Writer;
use crate::audit::chain::{BEGIN_ACTION, NO_HASH, PREDECESSOR, PREDECESSOR_SEQ};
use crate::store::{ChainBeginning, Committed, StoreError};

pub(super) async fn begin(
    writer: &mut Writer,
    beginning: &ChainBeginning,
) -> Result<Committed<()>, StoreError> {
    let act = &beginning.act;
    let mut open = OpenChain {
        id: beginning.chain,
        key: beginning.key.clone(),
        last: None,
    };
    writer.make_room(&[act.id]).await?;
    let (tx, slot) = writer.begin().await?;
    let mut change = Change::over(tx, act, Some(&mut open));
    let predecessor = audit_heads::newest(change.conn()).await?;
    sqlx::query(
        "INSERT INTO audit_chains (chain, number, begun_at, predecessor, predecessor_seq, seq, hash) \
         SELECT $1, coalesce(max(number), 0) + 1, $2, $3, $4, 0, $5 FROM audit_chains",
    )
    .bind(beginning.chain.as_bytes().as_slice())
    .bind(act.now.0)
    .bind(predecessor.map(|head| head.chain.as_bytes().to_vec()))
    .bind(predecessor.map(|head| i64::try_from(head.seq).unwrap_or(i64::MAX)))
    .bind(predecessor.map_or(NO_HASH, |head| head.hash).as_slice())
    .execute(change.conn())
    .await
    .map_err(driver)?;
    let mut made = Vec::new();
    for secret in &beginning.new_secrets {
        secrets::insert(change.conn(), act, secret).await?;
        made.push(secrets::creation(secret));
    }
    let mut begun = AdminAct::new(BEGIN_ACTION).text("chain", &beginning.chain.to_string());
    if let Some(head) = predecessor {
        begun = begun
            .text(PREDECESSOR, &head.chain.to_string())
            .count(PREDECESSOR_SEQ, head.seq);
    }
    let committed = change.commit_all(begun, made, ()).await?;
    *slot = Some(open);
    Ok(committed)
}
