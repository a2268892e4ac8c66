//! Looking for rows in the whole log, the archive included.
//!
//! Invariant: what is found is what the same filter would find if no row had ever been moved, in the same order; a row that
//! is moved meanwhile comes once. Files whose times lie outside the filter are not opened, and no more rows than the filter's limit are kept.

use std::collections::VecDeque;

use policy::time::UnixMillis;
use uuid::Uuid;

use super::super::query::{AuditFilter, AuditRow, QUERY_LIMIT_MAX};
use super::super::{AuditLog, AuditLogError};
use super::reader::{blocking, open};
use super::{ColdFile, Shelf};

/// The rows that match, as [`AuditLog::query_audit`] gives them, of the archive too.
///
/// # Errors
/// [`AuditLogError`]; a file that is missing or was changed is named.
pub async fn query_history(
    log: &dyn AuditLog,
    shelf: &Shelf,
    filter: &AuditFilter,
) -> Result<Vec<AuditRow>, AuditLogError> {
    let filter = AuditFilter {
        limit: filter.limit.min(QUERY_LIMIT_MAX),
        ..filter.clone()
    };
    if let Some(id) = filter.after {
        return match log.query_audit(&filter).await {
            // The row is not in the database any more: what follows it begins in the archive.
            Err(AuditLogError::UnknownPosition { .. }) => {
                let after = find(log, shelf, id).await?;
                forward(log, shelf, &filter, after).await
            }
            found => found,
        };
    }
    if filter.oldest_first {
        forward(log, shelf, &filter, i64::MIN).await
    } else {
        backward(log, shelf, &filter).await
    }
}

/// Where a row is in the archive. Files of the time that the id tells are looked at first.
async fn find(log: &dyn AuditLog, shelf: &Shelf, id: Uuid) -> Result<i64, AuditLogError> {
    let drawn = id.get_timestamp().map_or(0, |time| time.to_unix().0);
    let drawn = UnixMillis(i64::try_from(drawn.saturating_mul(1_000)).unwrap_or(i64::MAX));
    let is_elsewhere = |file: &ColdFile| {
        drawn < file.earliest.saturating_add(-1_000) || drawn > file.latest.saturating_add(1_000)
    };
    let mut files = log.cold_files().await?;
    files.reverse();
    files.sort_by_key(is_elsewhere);
    for file in &files {
        let mut found = None;
        let reader = open(shelf, file).await?;
        let (_, position) = blocking(reader, move |reader| {
            while let Some(row) = reader.next_row()? {
                if row.record.id == id {
                    found = Some(row.position);
                }
            }
            Ok(found)
        })
        .await?;
        if let Some(position) = position {
            return Ok(position);
        }
    }
    Err(AuditLogError::UnknownPosition { id })
}

/// The first rows behind a position.
async fn forward(
    log: &dyn AuditLog,
    shelf: &Shelf,
    filter: &AuditFilter,
    mut after: i64,
) -> Result<Vec<AuditRow>, AuditLogError> {
    let most = limit(filter);
    let mut found = Vec::new();
    loop {
        let files = log.cold_files().await?;
        for file in files.iter().filter(|file| file.last_position > after) {
            if may_hold(file, filter) {
                let (from, wanted) = (after, filter.clone());
                let room = most.saturating_sub(found.len());
                let reader = open(shelf, file).await?;
                let (_, rows) = blocking(reader, move |reader| {
                    let mut rows = Vec::new();
                    while let Some(row) = reader.next_row()? {
                        if rows.len() < room && row.position > from && wanted.matches(&row) {
                            rows.push(row);
                        }
                    }
                    Ok(rows)
                })
                .await?;
                found.extend(rows);
            }
            if found.len() >= most {
                return Ok(found);
            }
        }
        after = files
            .last()
            .map_or(after, |file| after.max(file.last_position));
        let live = AuditFilter {
            after: None,
            oldest_first: true,
            limit: u32::try_from(most.saturating_sub(found.len())).unwrap_or(QUERY_LIMIT_MAX),
            ..filter.clone()
        };
        let mut rows = log.query_audit(&live).await?;
        // Rows that were moved since stand in front of those that were found.
        if log.next_cold_file(after).await?.is_none() {
            rows.retain(|row| row.position > after);
            found.extend(rows);
            return Ok(found);
        }
    }
}

/// The last rows.
async fn backward(
    log: &dyn AuditLog,
    shelf: &Shelf,
    filter: &AuditFilter,
) -> Result<Vec<AuditRow>, AuditLogError> {
    let most = limit(filter);
    let mut found: VecDeque<AuditRow> = log.query_audit(filter).await?.into();
    // Of what was in the database a moment ago everything was found: rows that were moved since are not looked for again.
    let bound = found.front().map_or(i64::MAX, |row| row.position);
    for file in log.cold_files().await?.iter().rev() {
        let room = most.saturating_sub(found.len());
        if room == 0 {
            break;
        }
        if !may_hold(file, filter) {
            continue;
        }
        let wanted = filter.clone();
        let reader = open(shelf, file).await?;
        let (_, rows) = blocking(reader, move |reader| {
            let mut rows = VecDeque::new();
            while let Some(row) = reader.next_row()? {
                if row.position < bound && wanted.matches(&row) {
                    if rows.len() == room {
                        rows.pop_front();
                    }
                    rows.push_back(row);
                }
            }
            Ok(rows)
        })
        .await?;
        for row in rows.into_iter().rev() {
            found.push_front(row);
        }
    }
    Ok(found.into())
}

fn limit(filter: &AuditFilter) -> usize {
    usize::try_from(filter.limit).unwrap_or(usize::MAX)
}

/// Whether the times of a file meet those of a filter.
fn may_hold(file: &ColdFile, filter: &AuditFilter) -> bool {
    filter.since.is_none_or(|since| file.latest >= since)
        && filter.until.is_none_or(|until| file.earliest < until)
}
