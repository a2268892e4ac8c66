//! Merging the pages of several sources, newest row first.
//!
//! Invariant: a row comes out only when no source can still hold a newer one: a source whose page is used up while it
//! has another stops the merge. Every row of a source comes out once, in the source's order; what did not come out is
//! behind the positions that are left.
//!
//! Pure: where pages come from is in `fanout.rs`, how positions are kept in `position.rs`.

use super::page::{Key, Page};

/// One source of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Feed {
    /// Its local name.
    pub(super) name: String,
    /// Cursor of the page in hand; the first page has none.
    pub(super) start: Option<String>,
    /// The row that came out last, while the page that begins at `start` may still hold it.
    pub(super) last: Option<Key>,
    pub(super) stage: Stage,
    /// Whether the page in hand has been read past `last`.
    passed: bool,
    /// Whether the page that was used up last, if no other was taken since, said that more may exist than it shows.
    pub(super) truncated: bool,
    /// Whether a page of it said that it is partial.
    pub(super) partial: bool,
}

/// How far a source has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// A page must be fetched before anything else comes out.
    Due,
    /// Rows are in hand.
    Ready(Page),
    /// There is nothing more.
    Ended,
    /// It could not be asked; it is left out, with its position as it was.
    Failed,
    /// As `Failed`, and asking again cannot help.
    Dropped,
}

impl Feed {
    /// A source that is read on from a position.
    pub(super) fn new(name: &str, start: Option<String>, last: Option<Key>) -> Self {
        Self {
            name: name.to_owned(),
            start,
            last,
            stage: Stage::Due,
            passed: false,
            truncated: false,
            partial: false,
        }
    }

    /// Takes the page that was due.
    pub(super) fn take(&mut self, mut page: Page) {
        self.partial |= page.partial;
        self.truncated = false;
        self.passed = match &self.last {
            Some(last) => page.skip_through(last),
            None => true,
        };
        self.stage = Stage::Ready(page);
        self.turn();
    }

    /// Goes on behind a page that is used up.
    fn turn(&mut self) {
        let Stage::Ready(page) = &mut self.stage else {
            return;
        };
        if !page.rows.is_empty() {
            return;
        }
        self.truncated = page.truncated;
        match page.next.take() {
            Some(next) => {
                self.start = Some(next);
                // The next page begins behind everything on this one.
                if self.passed {
                    self.last = None;
                }
                self.stage = Stage::Due;
            }
            None => self.stage = Stage::Ended,
        }
    }

    /// Whether it can go on.
    pub(super) const fn has_more(&self) -> bool {
        matches!(self.stage, Stage::Due | Stage::Ready(_))
    }

    fn head(&self) -> Option<&Key> {
        match &self.stage {
            Stage::Ready(page) => page.rows.front().map(|row| &row.key),
            _ => None,
        }
    }

    /// Puts out the head.
    fn put(&mut self, out: &mut Vec<u8>) {
        let Stage::Ready(page) = &mut self.stage else {
            return;
        };
        let Some(row) = page.rows.pop_front() else {
            return;
        };
        out.extend_from_slice(&row.text);
        self.last = Some(row.key);
        self.passed = true;
        self.turn();
    }
}

/// The rows that came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// Texts of the rows, with commas between them.
    pub(super) rows: Vec<u8>,
    pub(super) count: u64,
}

/// Why a merge stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// As many rows as were asked for.
    Full,
    /// More bytes than one answer may have.
    Long,
    /// A source must be read on.
    Due,
    /// Nothing is left.
    Ended,
}

impl Merged {
    /// Lets rows out until there are `limit`, or more than `bytes`, or a source must be read on.
    pub(super) fn run(&mut self, feeds: &mut [Feed], limit: u64, bytes: usize) -> Stop {
        loop {
            if !feeds.iter().any(Feed::has_more) {
                return Stop::Ended;
            }
            if self.count == limit {
                return Stop::Full;
            }
            if self.rows.len() > bytes {
                return Stop::Long;
            }
            if feeds.iter().any(|feed| feed.stage == Stage::Due) {
                return Stop::Due;
            }
            // Of equal heads that of the first source.
            let newest = feeds
                .iter_mut()
                .rev()
                .filter(|feed| feed.head().is_some())
                .max_by(|a, b| a.head().cmp(&b.head()));
            let Some(feed) = newest else {
                return Stop::Ended;
            };
            if self.count > 0 {
                self.rows.push(b',');
            }
            feed.put(&mut self.rows);
            self.count = self.count.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests;
