//! Search over rows that may be seen: which of them hold the words of a query, and in which order.
//!
//! Invariant: everything is taken from rows as they will be sent, after ownership and redaction: what is found, what is
//! counted, how long a row is. So nothing that is withheld or removed can show in a hit, a score or an order. Memory is
//! bounded by a budget, whatever is read. Elsewhere on purpose: asking the gateway, the envelope of the answer.
//!
//! | file | what |
//! |---|---|
//! | `query.rs` | the query: terms, phrases, prefixes |
//! | `fold.rs` | case, and where words part |
//! | `visible.rs` | which text of a row is searched |
//! | `matcher.rs` | how often each term occurs in a row |
//! | `score.rs` | BM25 over the counts |

use std::cmp::{Ordering, Reverse};
use std::collections::HashSet;

use crate::mapping::FieldMap;
use crate::resource::Resource;
use crate::rows::RowKey;

mod fold;
mod matcher;
pub mod query;
mod score;
mod visible;

#[cfg(test)]
mod tests;

pub use query::{Query, QueryError};
pub use score::Score;

use matcher::{Scratch, count};
use score::Statistics;
use visible::Unsearched;

/// What a kept row takes besides its bytes, roughly.
const OVERHEAD: usize = 128;

/// Collects the hits of one collection as its rows come.
#[derive(Debug)]
pub struct Ranker {
    query: Query,
    resource: Resource,
    unsearched: Unsearched,
    /// Most rows that the answer will show.
    limit: usize,
    /// Most bytes kept.
    budget: usize,
    bytes: usize,
    statistics: Statistics,
    kept: Vec<Kept>,
    cut: bool,
    scratch: Scratch,
    counts: Vec<u32>,
}

/// A row in which a term occurs.
#[derive(Debug)]
struct Kept {
    resource: Resource,
    counts: Box<[u32]>,
    nanos: i64,
    id: Box<str>,
    row: Box<[u8]>,
}

impl Kept {
    fn size(&self) -> usize {
        self.row.len() + self.id.len() + self.counts.len() * size_of::<u32>() + OVERHEAD
    }

    /// Best first: by score, then newest, then as lists are ordered.
    fn place(&self, statistics: &Statistics) -> impl Ord + use<> {
        let score = statistics.score(&self.counts, self.row.len());
        (Reverse(score), Reverse(self.nanos))
    }

    fn order(&self, other: &Self) -> Ordering {
        (Reverse(&self.id), self.resource).cmp(&(Reverse(&other.id), other.resource))
    }
}

/// One hit of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The resource.
    pub resource: Resource,
    /// The id of the row.
    pub id: Box<str>,
    /// How well it fits.
    pub score: Score,
    /// The row, as it is sent.
    pub row: Box<[u8]>,
}

/// The hits of all collections, best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranking {
    /// At most as many as were asked for.
    pub hits: Vec<Hit>,
    /// There were more hits than that.
    pub more: bool,
    /// Hits were dropped for want of memory, so that there may be more, or better ones.
    pub cut: bool,
}

impl Ranker {
    /// A ranker for rows of `resource`, for an answer of at most `limit` rows, that keeps about `budget` bytes.
    #[must_use]
    pub fn new(query: &Query, resource: Resource, limit: usize, budget: usize) -> Self {
        Self {
            query: query.clone(),
            resource,
            unsearched: Unsearched::default(),
            limit,
            budget,
            bytes: 0,
            statistics: Statistics::new(query.len()),
            kept: Vec::new(),
            cut: false,
            scratch: Scratch::default(),
            counts: Vec::new(),
        }
    }

    /// Says which members of the rows from now on hold identity and ownership, which are not searched.
    pub fn turn_to(&mut self, fields: &FieldMap) {
        self.unsearched = Unsearched::of(fields);
    }

    /// Takes a row that passed the filter: `row` as it was written, and its key.
    #[inline]
    pub fn row(&mut self, row: &[u8], key: Option<RowKey<'_>>) {
        self.statistics.rows += 1;
        self.statistics.bytes += u64::try_from(row.len()).unwrap_or(u64::MAX);
        self.counts.clear();
        let is_hit = count(
            &self.query,
            row,
            &self.unsearched,
            &mut self.scratch,
            &mut self.counts,
        );
        if is_hit && let Some(key) = key {
            for (with, count) in self.statistics.with.iter_mut().zip(&self.counts) {
                *with += u64::from(*count > 0);
            }
            self.keep(row, key.id, key.created_at_nanos);
        }
    }

    /// Takes a row that the gateway's own search found and that passed the filter, without the members `dropped`, in
    /// which the gateway says how well it fits. It is not counted among the rows, since which rows a gateway finds can
    /// depend on text that is not sent. Kept only if `term` (by its number) occurs in what is sent, or whatever is in
    /// it when `term` is `None`. A row that was also read as any other stays as it was read.
    pub fn candidate(
        &mut self,
        row: &[u8],
        id: &str,
        nanos: i64,
        dropped: &[String],
        term: Option<usize>,
    ) {
        let row = visible::without(row, dropped);
        self.counts.clear();
        let is_hit = count(
            &self.query,
            &row,
            &self.unsearched,
            &mut self.scratch,
            &mut self.counts,
        );
        let fits = match term {
            Some(term) => is_hit && self.counts.get(term).is_some_and(|count| *count > 0),
            None => true,
        };
        if fits {
            self.counts.resize(self.query.len(), 0);
            self.keep(&row, id, nanos);
        }
    }

    fn keep(&mut self, row: &[u8], id: &str, nanos: i64) {
        let kept = Kept {
            resource: self.resource,
            counts: self.counts.as_slice().into(),
            nanos,
            id: id.into(),
            row: row.into(),
        };
        self.bytes += kept.size();
        self.kept.push(kept);
        if self.bytes > self.budget {
            self.prune();
        }
    }

    /// Drops the hits that fit worst by what is known so far, down to half the budget.
    fn prune(&mut self) {
        self.cut = true;
        sort(&mut self.kept, &self.statistics);
        let (mut rows, mut bytes) = (0, 0);
        for kept in &self.kept {
            if rows >= self.limit || (rows > 0 && bytes + kept.size() > self.budget / 2) {
                break;
            }
            rows += 1;
            bytes += kept.size();
        }
        self.kept.truncate(rows);
        self.bytes = bytes;
    }
}

fn sort(kept: &mut [Kept], statistics: &Statistics) {
    kept.sort_by(|one, other| one.order(other));
    kept.sort_by_cached_key(|kept| kept.place(statistics));
}

/// The hits of several collections as one answer of at most `limit` rows.
#[must_use]
pub fn merge(rankers: Vec<Ranker>, limit: usize) -> Ranking {
    let terms = rankers.first().map_or(0, |ranker| ranker.query.len());
    let mut statistics = Statistics::new(terms);
    let mut all = Vec::new();
    let mut cut = false;
    for ranker in rankers {
        statistics.add(&ranker.statistics);
        cut |= ranker.cut;
        all.extend(ranker.kept);
    }
    // The first of two is the one that was read: candidates come last.
    let mut seen = HashSet::new();
    all.retain(|kept: &Kept| seen.insert((kept.resource, kept.id.clone())));
    sort(&mut all, &statistics);
    let more = all.len() > limit;
    all.truncate(limit);
    let hits = all
        .into_iter()
        .map(|kept| Hit {
            resource: kept.resource,
            score: statistics.score(&kept.counts, kept.row.len()),
            id: kept.id,
            row: kept.row,
        })
        .collect();
    Ranking { hits, more, cut }
}
