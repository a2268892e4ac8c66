//! A list of tasks of any size, made while it is sent.
//!
//! Invariant: at most one chunk is in memory. Row `n` is a pure function of `n`, newer than row
//! `n + 1`, personal, and owned by the caller, so keyset paging works as on stored rows.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;

use crate::deliver::{Frame, json};
use crate::failure::Failure;
use crate::modes::Behaviour;
use crate::record::{Collection, Record, rfc3339};
use crate::render::{Leak, Shape, write_row};

/// 2026-06-01T00:00:00Z in milliseconds since the epoch: the time of row 0.
const NEWEST_MILLIS: u64 = 1_780_272_000_000;
/// A chunk is sent once it is this long, bytes.
const CHUNK: usize = 64 * 1024;

/// What is left to send.
struct Sending {
    next: u64,
    end: u64,
    row_bytes: usize,
    owner: String,
    shape: Shape,
    phase: Phase,
}

enum Phase {
    Open,
    Rows,
    Done,
}

/// Number of rows in the list.
#[must_use]
pub fn row_count(behaviour: &Behaviour) -> u64 {
    u64::from(behaviour.big_mb) * 1_024 / u64::from(behaviour.big_row_kib.max(1))
}

/// Row `index` without its padding.
#[must_use]
pub fn row(index: u64, owner: &str) -> Record {
    Record {
        owner: Some(owner.to_owned()),
        status: Some("open".to_owned()),
        ..Record::new(
            Collection::Tasks,
            format!("b1600000-0000-4000-8000-{index:012}"),
            rfc3339(NEWEST_MILLIS.saturating_sub(index * 1_000)),
            format!("big row {index}"),
        )
    }
}

/// The list, from the first row after `before` on, at most `limit` rows.
#[must_use]
pub fn list(
    shape: Shape,
    owner: &str,
    behaviour: &Behaviour,
    before: Option<&(String, String)>,
    limit: Option<u32>,
) -> Response {
    let count = row_count(behaviour);
    let next = before.map_or(0, |key| first_before(key, count));
    let end = limit.map_or(count, |limit| count.min(next.saturating_add(limit.into())));
    let kib = usize::try_from(behaviour.big_row_kib).unwrap_or(1);
    let sending = Sending {
        next,
        end,
        row_bytes: kib * 1_024,
        owner: owner.to_owned(),
        shape,
        phase: Phase::Open,
    };
    let chunks = stream::unfold(sending, |mut sending| async move {
        let chunk = sending.chunk().ok()??;
        Some((Ok::<_, Infallible>(chunk), sending))
    });
    json(Body::from_stream(chunks))
}

/// The first row that comes after the key; rows are in descending order of `(createdAt, id)`.
fn first_before((created_at, id): &(String, String), count: u64) -> u64 {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = u64::midpoint(low, high);
        let candidate = row(middle, "");
        if (&candidate.created_at, &candidate.id) < (created_at, id) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

impl Sending {
    fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let (open, close) = Frame::list(self.shape).edges();
        let mut chunk = Vec::with_capacity(CHUNK + self.row_bytes);
        let mut is_first = false;
        match self.phase {
            Phase::Open => {
                chunk.extend_from_slice(open);
                is_first = true;
                self.phase = Phase::Rows;
            }
            Phase::Rows => {}
            Phase::Done => return Ok(None),
        }
        while self.next < self.end && chunk.len() < CHUNK {
            if !is_first {
                chunk.push(b',');
            }
            is_first = false;
            self.write_padded(&mut chunk)?;
            self.next += 1;
        }
        if self.next >= self.end {
            chunk.extend_from_slice(close);
            self.phase = Phase::Done;
        }
        Ok(Some(Bytes::from(chunk)))
    }

    /// Write one row, its text padded so that row and comma are exactly the length asked for.
    fn write_padded(&self, chunk: &mut Vec<u8>) -> Result<(), Failure> {
        let mut record = row(self.next, &self.owner);
        record.text = Some(String::new());
        let start = chunk.len();
        write_row(chunk, self.shape, &record, Leak::Nothing)?;
        let short = self.row_bytes.saturating_sub(chunk.len() - start + 1);
        chunk.truncate(start);
        record.text = Some("x".repeat(short));
        write_row(chunk, self.shape, &record, Leak::Nothing)?;
        Ok(())
    }
}
