//! The different rows that a grant may see in a UTC day, where policy bounds them (`rows_per_day`).
//!
//! Invariant: a row is booked in the store before a byte of it is sent, so neither a crash nor a
//! restart gives a grant more than its budget. Only grants with a budget pay for it: one look at the
//! store for a question, and one transaction for each part of an answer that holds new rows. Nothing
//! of it is kept in memory between two requests.

use std::time::Duration;

use aws_lc_rs::digest;
use certs::clock::Clock;
use policy::deny::DenyCode;
use policy::id::GrantId;
use policy::resource::Resource;
use policy::snapshot::GrantEntry;

use crate::message::failure::Failure;
use crate::store::{RowMark, Store};

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// What a grant may still see today, and the rows of an answer that wait to be booked; `P` is where
/// reading can go on.
pub struct RowBudget<'a, P> {
    store: &'a dyn Store,
    clock: &'a dyn Clock,
    grant: GrantId,
    rows_per_day: u32,
    waiting: Vec<Waiting<P>>,
}

struct Waiting<P> {
    mark: RowMark,
    /// Where the row begins in the body that is collected.
    begins: usize,
    /// Where reading can go on before it.
    before: Option<P>,
}

/// The end of a budget within an answer.
#[derive(Debug)]
pub struct Cut<P> {
    /// Rows that were taken out of the body again.
    pub taken_out: u64,
    /// Where reading can go on tomorrow.
    pub position: Option<P>,
}

impl<'a, P> RowBudget<'a, P> {
    /// The budget of a grant that is about to be answered with rows; `None` when it has none.
    ///
    /// # Errors
    /// The refusal of the question when the budget of today is used up or cannot be read.
    pub async fn open(
        store: &'a dyn Store,
        clock: &'a dyn Clock,
        entry: &GrantEntry,
    ) -> Result<Option<Self>, Failure> {
        let Some(rows_per_day) = entry.limits.rows_per_day else {
            return Ok(None);
        };
        let budget = Self {
            store,
            clock,
            grant: entry.grant.id,
            rows_per_day,
            waiting: Vec::new(),
        };
        let seen = store
            .rows_seen(budget.grant, today(clock))
            .await
            .map_err(|error| unavailable(&error))?;
        if seen >= rows_per_day {
            return Err(budget.used_up());
        }
        Ok(Some(budget))
    }

    /// Puts a row in line that was appended to the body at `begins`.
    pub fn add(&mut self, resource: Resource, id: &str, begins: usize, before: Option<P>) {
        self.waiting.push(Waiting {
            mark: mark(resource, id),
            begins,
            before,
        });
    }

    /// Books the rows in line. Those that the budget has no room for leave `body`, with all that
    /// stands behind them; then the answer ends here.
    ///
    /// # Errors
    /// [`DenyCode::RowBudgetUnavailable`]: none of them may be sent.
    pub async fn settle(&mut self, body: &mut Vec<u8>) -> Result<Option<Cut<P>>, DenyCode> {
        if self.waiting.is_empty() {
            return Ok(None);
        }
        let marks: Vec<RowMark> = self.waiting.iter().map(|row| row.mark).collect();
        let day = today(self.clock);
        let booked = self
            .store
            .book_rows(self.grant, day, self.rows_per_day, &marks)
            .await
            .map_err(|error| unavailable(&error).code)?;
        let waiting = std::mem::take(&mut self.waiting);
        let taken_out = waiting.len().saturating_sub(booked.admitted);
        let Some(first) = waiting.into_iter().nth(booked.admitted) else {
            return Ok(None);
        };
        body.truncate(first.begins);
        Ok(Some(Cut {
            taken_out: u64::try_from(taken_out).unwrap_or(u64::MAX),
            position: first.before,
        }))
    }

    /// The refusal of a question for which there is no room today.
    #[must_use]
    pub fn used_up(&self) -> Failure {
        let into = self.clock.unix_millis().rem_euclid(DAY);
        let left = u64::try_from(DAY.saturating_sub(into)).unwrap_or_default();
        Failure::wait(DenyCode::RowsPerDayExceeded, Duration::from_millis(left))
    }
}

/// The UTC day, counted from the epoch.
#[must_use]
pub fn today(clock: &dyn Clock) -> i64 {
    clock.unix_millis().div_euclid(DAY)
}

fn unavailable(error: &crate::store::StoreError) -> Failure {
    tracing::error!(%error, "the rows a grant has seen today cannot be counted");
    DenyCode::RowBudgetUnavailable.into()
}

/// A row as the store remembers it. The name of a resource has no zero byte, so no two rows read alike.
fn mark(resource: Resource, id: &str) -> RowMark {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(resource.as_str().as_bytes());
    context.update(&[0]);
    context.update(id.as_bytes());
    let mut mark = [0; 16];
    for (to, from) in mark.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    mark
}

#[cfg(test)]
mod tests {
    use super::*;
    use certs::testing::ManualClock;

    #[test]
    fn marks_tell_rows_and_resources_apart() {
        let one = mark(Resource::Tasks, "1");
        assert_eq!(one, mark(Resource::Tasks, "1"));
        assert_ne!(one, mark(Resource::Tasks, "2"));
        assert_ne!(one, mark(Resource::Notes, "1"));
    }

    #[test]
    fn days_begin_at_midnight_utc() {
        assert_eq!(today(&ManualClock::at_millis(DAY - 1)), 0);
        assert_eq!(today(&ManualClock::at_millis(DAY)), 1);
        assert_eq!(today(&ManualClock::at_millis(-1)), -1);
    }
}
