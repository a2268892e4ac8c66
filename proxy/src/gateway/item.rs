//! Looking for the one row of a get.
//!
//! Invariant: a row that may not be seen and one that does not exist are both not found; a row answered under another
//! id than asked for is a fault.

use policy::plan::{QueryPlan, SourcePlan, SourceShape};
use policy::request::ItemId;
use policy::rows::{RowsAt, Tally};

use super::error::GatewayError;
use super::facts::FetchedFacts;
use super::list::add;
use super::page::{Asking, PageError, ReadError, Reading};

/// Asks the sources of `plan` in order until one shows the row `id`, which is appended to `out`. What was counted on
/// the way is added to `tally`.
///
/// # Errors
/// [`ReadError`]; `out` then ends in rubbish.
pub async fn find(
    asking: Asking<'_>,
    plan: &QueryPlan,
    facts: &FetchedFacts,
    id: &ItemId,
    out: &mut Vec<u8>,
    tally: &mut Tally,
) -> Result<bool, ReadError> {
    let mark = out.len();
    for source in plan.sources() {
        if look(asking, source, facts, id, out, tally).await? {
            return Ok(true);
        }
        out.truncate(mark);
    }
    Ok(false)
}

async fn look(
    asking: Asking<'_>,
    source: &SourcePlan,
    facts: &FetchedFacts,
    id: &ItemId,
    out: &mut Vec<u8>,
    tally: &mut Tally,
) -> Result<bool, ReadError> {
    let filter = facts.filter(asking.permit, source.source(), source.row_match())?;
    let at = match source.shape() {
        SourceShape::Item => RowsAt::item(&source.source().item),
        SourceShape::Rows => RowsAt::rows(&source.source().rows),
    };
    let mut page = match asking.page(&source.target(1, None), filter, at).await {
        Ok(page) => page,
        // Not there, or not for this subject: both are as if it did not exist.
        Err(GatewayError::NotFound | GatewayError::Denied) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut found = false;
    let mark = out.len();
    loop {
        match page.next(out).await? {
            Reading::End => break,
            Reading::Skipped => {}
            Reading::Row if page.key().is_some_and(|key| key.id == id.as_str()) && !found => {
                found = true;
            }
            Reading::Row if source.shape() == SourceShape::Rows => out.truncate(mark),
            Reading::Row => return Err(PageError::OtherRow.into()),
        }
    }
    add(tally, page.tally());
    page.release();
    Ok(found)
}
