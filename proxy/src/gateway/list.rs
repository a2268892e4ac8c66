//! Reading the rows of one list: pages of keyset collections, whole collections of others, merged by
//! (createdAt, id) descending.
//!
//! Invariant: the position given back is such that every row not yet examined lies behind it and no
//! row already shown does. Memory is bounded by one row a source, or by the bounded collection of a
//! source that cannot page.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use policy::mapping::PathTemplate;
use policy::plan::{self, QueryPlan, SourcePlan};
use policy::rows::{RowFilter, RowKey, RowsAt, Tally};

use super::cursor::Position;
use super::error::GatewayError;
use super::facts::FetchedFacts;
use super::page::{Asking, Page, PageError, ReadError, Reading};

/// Most pages of one source that are read for one answer (specification, section 3).
const MAX_PAGES: u32 = 8;
/// Longest time of reading on for one answer.
pub const READ_ON: Duration = Duration::from_secs(5);
/// Most bytes of rows kept of a source that cannot page.
const MAX_COLLECTED: usize = 16 * 1024 * 1024;
/// Rows asked for at a time when matches are sparse.
const MAX_ASKED: u32 = 10_001;

/// The key of a row, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedKey {
    nanos: i64,
    id: String,
    created_at: String,
}

impl OwnedKey {
    fn of(key: &RowKey<'_>) -> Self {
        Self {
            nanos: key.created_at_nanos,
            id: key.id.to_owned(),
            created_at: key.created_at_raw.to_owned(),
        }
    }

    /// The position right behind this row.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            created_at: self.created_at.clone(),
            id: self.id.clone(),
        }
    }

    /// Reads a position back.
    #[must_use]
    pub fn behind(position: &Position) -> Option<Self> {
        let nanos = policy::time::parse_rfc3339_nanos(position.created_at.as_bytes()).ok()?;
        Some(Self {
            nanos,
            id: position.id.clone(),
            created_at: position.created_at.clone(),
        })
    }

    fn order(&self) -> (i64, &str) {
        (self.nanos, &self.id)
    }
}

impl PartialOrd for OwnedKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OwnedKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

/// What reading on from a source came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A row stands in the output.
    Row,
    /// The source has no more rows.
    Exhausted,
    /// The bound on pages or time was reached; there may be more.
    Bound,
}

/// One source of a list.
pub enum Source<'a> {
    /// A collection with keyset paging, read page by page.
    Paged(Box<Paged<'a>>),
    /// A collection that was read whole.
    Collected(Collected),
}

/// The sum of what was counted.
pub fn add(total: &mut Tally, more: Tally) {
    total.examined = total.examined.saturating_add(more.examined);
    total.passed = total.passed.saturating_add(more.passed);
    total.withheld = total.withheld.saturating_add(more.withheld);
    total.unmatched = total.unmatched.saturating_add(more.unmatched);
    total.oversized = total.oversized.saturating_add(more.oversized);
    total.redacted_members = total.redacted_members.saturating_add(more.redacted_members);
}

/// A keyset collection.
pub struct Paged<'a> {
    asking: Asking<'a>,
    plan: &'a SourcePlan,
    filter: Arc<RowFilter>,
    page: Option<Page<'a>>,
    asked: u32,
    pages: u32,
    /// Where the page in hand was asked from.
    through: Option<OwnedKey>,
    /// Instant of the row examined last.
    nanos: i64,
    tally: Tally,
    exhausted: bool,
}

impl<'a> Paged<'a> {
    /// A source that will be read from behind `after`, `rows` rows at a time.
    pub fn new(
        asking: Asking<'a>,
        plan: &'a SourcePlan,
        filter: Arc<RowFilter>,
        after: Option<OwnedKey>,
        rows: u32,
    ) -> Self {
        Self {
            asking,
            plan,
            filter,
            page: None,
            asked: rows.min(MAX_ASKED),
            pages: 0,
            nanos: after.as_ref().map_or(i64::MAX, |key| key.nanos),
            through: after,
            tally: Tally::default(),
            exhausted: false,
        }
    }

    /// Reads on to the next row that passes, which is appended to `out`.
    ///
    /// # Errors
    /// [`PageError`].
    pub async fn next(
        &mut self,
        out: &mut Vec<u8>,
        in_time: &(dyn Fn() -> bool + Sync),
    ) -> Result<Next, PageError> {
        loop {
            if let Some(next) = self.ready(out)? {
                return Ok(next);
            }
            if let Some(page) = &mut self.page {
                page.receive().await?;
                continue;
            }
            if self.pages >= MAX_PAGES || (self.pages > 0 && !in_time()) {
                return Ok(Next::Bound);
            }
            self.page = Some(self.open().await?);
        }
    }

    /// As [`Paged::next`], of what has arrived; `None` when more must be received.
    fn ready(&mut self, out: &mut Vec<u8>) -> Result<Option<Next>, PageError> {
        loop {
            if self.exhausted {
                return Ok(Some(Next::Exhausted));
            }
            let Some(page) = &mut self.page else {
                return Ok(None);
            };
            let Some(reading) = page.ready(out)? else {
                return Ok(None);
            };
            if reading == Reading::End {
                self.close();
                continue;
            }
            if let Some(nanos) = page.key_nanos() {
                if nanos > self.nanos || is_repeated(page, nanos, self.through.as_ref()) {
                    return Err(PageError::Disorder);
                }
                self.nanos = nanos;
            }
            if reading == Reading::Row {
                return Ok(Some(Next::Row));
            }
        }
    }

    /// The key of the row examined last in the page in hand.
    #[must_use]
    pub fn key(&self) -> Option<RowKey<'_>> {
        self.page.as_ref().and_then(Page::key)
    }

    async fn open(&mut self) -> Result<Page<'a>, PageError> {
        let after = self.through.as_ref().map(|key| plan::Position {
            created_at: &key.created_at,
            id: &key.id,
        });
        let target = self.plan.target(self.asked, after);
        self.pages = self.pages.saturating_add(1);
        let rows = RowsAt::rows(&self.plan.source().rows);
        let page = self
            .asking
            .page(&target, Arc::clone(&self.filter), rows)
            .await;
        Ok(page.map_err(absent_is_malformed)?)
    }

    fn close(&mut self) {
        let through = self.through();
        let Some(page) = self.page.take() else { return };
        self.through = through;
        let tally = page.tally();
        // A full page may have a successor; a short one is the last.
        self.exhausted = tally.examined < u64::from(self.asked);
        add(&mut self.tally, tally);
        page.release();
    }

    /// The last row examined, or where reading began.
    fn through(&self) -> Option<OwnedKey> {
        let examined = self
            .page
            .as_ref()
            .and_then(|page| page.key().map(|key| OwnedKey::of(&key)));
        examined.or_else(|| self.through.clone())
    }

    /// Counts so far.
    #[must_use]
    pub fn counted(&self) -> Tally {
        let mut tally = self.tally;
        if let Some(page) = &self.page {
            add(&mut tally, page.tally());
        }
        tally
    }
}

/// A list that is not there is a wrong mapping, not an absent row.
#[must_use]
pub fn absent_is_malformed(error: GatewayError) -> GatewayError {
    match error {
        GatewayError::NotFound => {
            GatewayError::Malformed("it does not know a list that the mapping names".to_owned())
        }
        other => other,
    }
}

/// Whether the row examined last, made at `nanos`, does not lie behind the position that its page
/// was asked from. Only a row of that very instant needs its id looked at.
fn is_repeated(page: &Page<'_>, nanos: i64, asked_from: Option<&OwnedKey>) -> bool {
    asked_from.is_some_and(|from| {
        nanos == from.nanos
            && page
                .key()
                .is_some_and(|key| (nanos, key.id) >= from.order())
    })
}

/// Rows of a collection that was read whole, newest first.
pub struct Collected {
    rows: std::vec::IntoIter<Reverse<Kept>>,
    through: Option<OwnedKey>,
    tally: Tally,
    /// Rows were dropped for want of memory, so the end of the kept ones is not the end.
    cut: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Kept {
    key: OwnedKey,
    row: Vec<u8>,
}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl Collected {
    /// Reads whole collections, keeping the newest `rows` rows behind `after`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read(
        asking: Asking<'_>,
        plans: &[&SourcePlan],
        facts: &FetchedFacts,
        after: Option<OwnedKey>,
        rows: usize,
    ) -> Result<Self, ReadError> {
        let mut heap: BinaryHeap<Reverse<Kept>> = BinaryHeap::new();
        let mut tally = Tally::default();
        let (mut bytes, mut cut) = (0_usize, false);
        let mut out = Vec::new();
        for plan in plans {
            let filter = facts.filter(asking.permit, plan.source(), plan.row_match())?;
            let at = RowsAt::rows(&plan.source().rows);
            let mut page = match asking.page(&plan.target(MAX_ASKED, None), filter, at).await {
                Ok(page) => page,
                // A mission that ended since the facts were fetched.
                Err(GatewayError::NotFound) if PathTemplate::names_mission(&plan.source().list) => {
                    continue;
                }
                Err(error) => return Err(absent_is_malformed(error).into()),
            };
            loop {
                out.clear();
                match page.next(&mut out).await? {
                    Reading::End => break,
                    Reading::Skipped => continue,
                    Reading::Row => {}
                }
                let Some(key) = page.key().map(|key| OwnedKey::of(&key)) else {
                    continue;
                };
                if after.as_ref().is_some_and(|after| key >= *after) {
                    continue;
                }
                bytes = bytes.saturating_add(out.len());
                heap.push(Reverse(Kept {
                    key,
                    row: out.clone(),
                }));
                while heap.len() > rows || bytes > MAX_COLLECTED {
                    cut |= heap.len() <= rows;
                    let Some(Reverse(oldest)) = heap.pop() else {
                        break;
                    };
                    bytes = bytes.saturating_sub(oldest.row.len());
                }
            }
            add(&mut tally, page.tally());
            page.release();
        }
        Ok(Self {
            rows: heap.into_sorted_vec().into_iter(),
            through: after,
            tally,
            cut,
        })
    }

    fn next(&mut self, out: &mut Vec<u8>) -> Next {
        match self.rows.next() {
            Some(Reverse(kept)) => {
                out.extend_from_slice(&kept.row);
                self.through = Some(kept.key);
                Next::Row
            }
            None if self.cut => Next::Bound,
            None => Next::Exhausted,
        }
    }
}

impl Source<'_> {
    /// Reads on to the next row that passes, which is appended to `out`.
    ///
    /// # Errors
    /// [`PageError`].
    pub async fn next(
        &mut self,
        out: &mut Vec<u8>,
        in_time: &(dyn Fn() -> bool + Sync),
    ) -> Result<Next, PageError> {
        match self {
            Self::Paged(paged) => paged.next(out, in_time).await,
            Self::Collected(collected) => Ok(collected.next(out)),
        }
    }

    /// As [`Source::next`], of what has arrived; `None` when more must be received.
    fn ready(&mut self, out: &mut Vec<u8>) -> Result<Option<Next>, PageError> {
        match self {
            Self::Paged(paged) => paged.ready(out),
            Self::Collected(collected) => Ok(Some(collected.next(out))),
        }
    }

    /// The id of the row that came out last.
    fn shown_id(&self) -> Option<&str> {
        match self {
            Self::Paged(paged) => paged
                .page
                .as_ref()
                .and_then(|page| page.key().map(|key| key.id)),
            Self::Collected(collected) => collected.through.as_ref().map(|key| key.id.as_str()),
        }
    }

    /// The row examined last, or where reading began.
    #[must_use]
    pub fn through(&self) -> Option<OwnedKey> {
        match self {
            Self::Paged(paged) => paged.through(),
            Self::Collected(collected) => collected.through.clone(),
        }
    }

    /// Counts so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        match self {
            Self::Paged(paged) => paged.counted(),
            Self::Collected(collected) => collected.tally,
        }
    }
}

/// Several sources read as one, newest row first.
pub struct Merged<'a> {
    feeds: Vec<Feed<'a>>,
    /// The row that came out last.
    shown: Option<OwnedKey>,
}

struct Feed<'a> {
    source: Source<'a>,
    /// The row read ahead and its key.
    head: Option<OwnedKey>,
    row: Vec<u8>,
    /// The last row of this source that was examined and does not wait as a head.
    passed: Option<OwnedKey>,
    exhausted: bool,
}

impl<'a> Merged<'a> {
    /// Reads `sources` as one.
    #[must_use]
    pub fn new(sources: Vec<Source<'a>>) -> Self {
        let feeds = sources
            .into_iter()
            .map(|source| Feed {
                passed: source.through(),
                source,
                head: None,
                row: Vec::new(),
                exhausted: false,
            })
            .collect();
        Self { feeds, shown: None }
    }

    /// The next row of all, appended to `out`.
    ///
    /// # Errors
    /// [`PageError`].
    pub async fn next(
        &mut self,
        out: &mut Vec<u8>,
        in_time: &(dyn Fn() -> bool + Sync),
    ) -> Result<Next, PageError> {
        let mut bound = false;
        for feed in &mut self.feeds {
            if feed.head.is_some() || feed.exhausted {
                continue;
            }
            feed.row.clear();
            let before = feed.source.through();
            match feed.source.next(&mut feed.row, in_time).await? {
                Next::Row => {
                    feed.passed = before;
                    feed.head = feed.source.through();
                }
                Next::Exhausted => feed.exhausted = true,
                Next::Bound => {
                    feed.passed = feed.source.through();
                    bound = true;
                }
            }
        }
        if bound {
            // A source that cannot be read on may hold rows newer than any head.
            return Ok(Next::Bound);
        }
        let newest = self
            .feeds
            .iter_mut()
            .filter(|feed| feed.head.is_some())
            .max_by(|a, b| a.head.cmp(&b.head));
        let Some(feed) = newest else {
            return Ok(Next::Exhausted);
        };
        out.extend_from_slice(&feed.row);
        feed.passed = feed.head.take();
        self.shown.clone_from(&feed.passed);
        Ok(Next::Row)
    }

    /// Where all sources can be read on from: every row that did not come out lies behind it.
    #[must_use]
    pub fn position(&self) -> Option<OwnedKey> {
        let shown = self.shown.as_ref();
        let mut through: Option<&OwnedKey> = None;
        for feed in self
            .feeds
            .iter()
            .filter(|feed| !feed.exhausted || feed.head.is_some())
        {
            match (&feed.passed, through) {
                // Nothing of this source was examined: only what was shown is safe.
                (None, _) => return shown.cloned(),
                (Some(passed), Some(furthest)) if passed <= furthest => {}
                (Some(passed), _) => through = Some(passed),
            }
        }
        match (shown, through) {
            (Some(shown), Some(through)) => Some(shown.min(through).clone()),
            (shown, through) => shown.or(through).cloned(),
        }
    }

    /// Counts of all sources.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for feed in &self.feeds {
            add(&mut tally, feed.source.tally());
        }
        tally
    }
}

/// The rows of one answer.
pub enum Rows<'a> {
    /// From one source, without reading ahead.
    One(Source<'a>),
    /// From several.
    Many(Merged<'a>),
}

impl<'a> Rows<'a> {
    /// The rows of `sources`, newest first.
    #[must_use]
    pub fn new(mut sources: Vec<Source<'a>>) -> Self {
        match (sources.pop(), sources.is_empty()) {
            (Some(only), true) => Self::One(only),
            (last, _) => Self::Many(Merged::new(sources.into_iter().chain(last).collect())),
        }
    }

    /// The sources of a plan, ready to be read from behind `after`, for at most as many rows as the permit has.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn open(
        asking: Asking<'a>,
        plan: &'a QueryPlan,
        facts: &FetchedFacts,
        after: Option<OwnedKey>,
    ) -> Result<Self, ReadError> {
        // One more than can be shown, to know whether there are more.
        let rows = u32::from(asking.permit.row_limit().rows()).saturating_add(1);
        let (paged, whole): (Vec<&SourcePlan>, Vec<&SourcePlan>) = plan
            .sources()
            .iter()
            .partition(|plan| plan.source().paging.is_some());
        let mut sources = Vec::new();
        for plan in paged {
            let filter = facts.filter(asking.permit, plan.source(), plan.row_match())?;
            let source = Paged::new(asking, plan, filter, after.clone(), rows);
            sources.push(Source::Paged(Box::new(source)));
        }
        if !whole.is_empty() {
            let kept = usize::try_from(rows).unwrap_or(usize::MAX);
            let source = Box::pin(Collected::read(asking, &whole, facts, after, kept)).await?;
            sources.push(Source::Collected(source));
        }
        Ok(Self::new(sources))
    }

    /// Reads on to the next row, which is appended to `out`.
    ///
    /// # Errors
    /// [`PageError`].
    pub async fn next(
        &mut self,
        out: &mut Vec<u8>,
        in_time: &(dyn Fn() -> bool + Sync),
    ) -> Result<Next, PageError> {
        // Most rows have arrived with the one before: they need no wait, and cost none.
        if let Self::One(source) = self
            && let Some(next) = source.ready(out)?
        {
            return Ok(next);
        }
        match self {
            Self::One(source) => source.next(out, in_time).await,
            Self::Many(merged) => Box::pin(merged.next(out, in_time)).await,
        }
    }

    /// The id of the row that came out last.
    #[must_use]
    pub fn shown_id(&self) -> Option<&str> {
        match self {
            Self::One(source) => source.shown_id(),
            Self::Many(merged) => merged.shown.as_ref().map(|key| key.id.as_str()),
        }
    }

    /// Where reading can go on, after the last row that came out or was examined.
    #[must_use]
    pub fn position(&self) -> Option<OwnedKey> {
        match self {
            Self::One(source) => source.through(),
            Self::Many(merged) => merged.position(),
        }
    }

    /// Counts so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        match self {
            Self::One(source) => source.tally(),
            Self::Many(merged) => merged.tally(),
        }
    }
}
