//! Looking through one resource for a search: its rows, after the row filter, and what the gateway's own search adds.
//!
//! Invariant: what is ranked is what passed the row filter, as it will be sent; what the gateway's own search adds is
//! never counted, so the scores of an answer do not depend on it. Reading is bounded in rows, pages and time.
//!
//! Words and scores are in `policy::rank`; why the gateway's own search only adds to the scan is in
//! `docs/decisions/0013-search.md`.

use std::sync::Arc;

use policy::mapping::{Mapping, NativeSearch, PathTemplate, SourceMap};
use policy::plan::{QueryPlan, SourcePlan, native_target};
use policy::rank::{Hit, Query, Ranker};
use policy::rows::{RowsAt, Tally};

use super::error::GatewayError;
use super::facts::FetchedFacts;
use super::list::{Next, Paged, absent_is_malformed, add};
use super::page::{Asking, PageError, ReadError, Reading};

/// Pages in which a collection is read.
const PAGES: u32 = 8;
/// Most rows asked for at a time.
const MAX_ASKED: u32 = 10_001;
/// Most rows that the gateway's own search is asked for.
const MAX_NATIVE: u16 = 200;

/// One resource being looked through.
pub struct Look<'a> {
    /// Under its permit.
    pub asking: Asking<'a>,
    /// How the gateway is asked.
    pub mapping: &'a Mapping,
    /// What the permit was decided on.
    pub facts: &'a FetchedFacts,
    /// The words.
    pub query: &'a Query,
    /// Rows to look at, at most.
    pub rows: u32,
    /// Bytes to keep, at most.
    pub budget: usize,
    /// Whether there is time to read on.
    pub in_time: &'a (dyn Fn() -> bool + Sync),
}

/// What looking through one resource came to.
pub struct Looked {
    /// The rows, ranked.
    pub ranker: Ranker,
    /// Counts.
    pub tally: Tally,
    /// Rows that may still be looked at.
    left: u32,
    /// There may be rows that were not looked at.
    pub cut: bool,
    /// Why it gives no row at all.
    pub failure: Option<ReadError>,
}

/// Appends a hit to a list of them, as the wire protocol has it.
pub fn write_hit(hit: &Hit, is_first: bool, out: &mut Vec<u8>) {
    if !is_first {
        out.push(b',');
    }
    let head = format!("{{\"resource\":\"{}\",\"item\":", hit.resource);
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(&hit.row);
    out.extend_from_slice(format!(",\"score\":{}}}", hit.score).as_bytes());
}

impl Look<'_> {
    /// Looks through all of it.
    pub async fn through(&self) -> Looked {
        let permit = self.asking.permit;
        let plan = QueryPlan::search(permit, self.mapping, &self.facts.facts);
        let mut looked = Looked {
            ranker: Ranker::new(
                self.query,
                permit.resource(),
                usize::from(permit.row_limit().rows()),
                self.budget,
            ),
            tally: Tally::default(),
            left: self.rows,
            cut: false,
            failure: None,
        };
        for (number, source) in plan.sources().iter().enumerate() {
            if looked.cut || (number > 0 && !(self.in_time)()) {
                looked.cut = true;
                break;
            }
            looked.ranker.turn_to(&source.source().fields);
            let read = if source.source().paging.is_some() {
                self.pages(source, &mut looked).await
            } else {
                self.whole(source, &mut looked).await
            };
            if let Err(error) = read {
                looked.failure = Some(error);
                return looked;
            }
        }
        self.ask_natively(&plan, &mut looked).await;
        looked
    }

    /// Reads a collection page by page.
    async fn pages(&self, source: &SourcePlan, looked: &mut Looked) -> Result<(), ReadError> {
        let filter = self
            .facts
            .filter(self.asking.permit, source.source(), source.row_match())?;
        let asked = self.rows.div_ceil(PAGES).min(MAX_ASKED);
        let mut pages = Paged::new(self.asking, source, filter, None, asked);
        let mut out = Vec::new();
        let read = loop {
            out.clear();
            match pages.next(&mut out, self.in_time).await {
                Ok(Next::Row) if self.has_room(looked) => looked.ranker.row(&out, pages.key()),
                Ok(Next::Row | Next::Exhausted) => break Ok(()),
                Ok(Next::Bound) => {
                    looked.cut = true;
                    break Ok(());
                }
                Err(error) => break Err(error.into()),
            }
        };
        add(&mut looked.tally, pages.counted());
        read
    }

    /// Reads a collection that comes as one.
    async fn whole(&self, source: &SourcePlan, looked: &mut Looked) -> Result<(), ReadError> {
        let filter = self
            .facts
            .filter(self.asking.permit, source.source(), source.row_match())?;
        let at = RowsAt::rows(&source.source().rows);
        let target = source.target(MAX_ASKED, None);
        let mut page = match self.asking.page(&target, filter, at).await {
            Ok(page) => page,
            // A mission that ended since the facts were fetched.
            Err(GatewayError::NotFound) if PathTemplate::names_mission(&source.source().list) => {
                return Ok(());
            }
            Err(error) => return Err(absent_is_malformed(error).into()),
        };
        let mut out = Vec::new();
        let read = loop {
            out.clear();
            match page.next(&mut out).await {
                Ok(Reading::Row) if self.has_room(looked) => looked.ranker.row(&out, page.key()),
                Ok(Reading::Row) => break Ok(()),
                Ok(Reading::Skipped) if (self.in_time)() => {}
                Ok(Reading::Skipped) => {
                    looked.cut = true;
                    break Ok(());
                }
                Ok(Reading::End) => {
                    add(&mut looked.tally, page.tally());
                    page.release();
                    return Ok(());
                }
                Err(error) => break Err(error.into()),
            }
        };
        add(&mut looked.tally, page.tally());
        read
    }

    /// Whether one more row may be looked at; if not, the look is cut.
    fn has_room(&self, looked: &mut Looked) -> bool {
        match looked.left.checked_sub(1) {
            Some(left) if (self.in_time)() => looked.left = left,
            _ => looked.cut = true,
        }
        !looked.cut
    }

    /// Asks the gateway's own search for rows that the scan cannot give: those it did not get to, each on account of a
    /// word that is in what is sent of it; and, where policy allows it and removes nothing, those without any of the
    /// words. A gateway that does not answer such a question has nothing to add.
    async fn ask_natively(&self, plan: &QueryPlan, looked: &mut Looked) {
        let permit = self.asking.permit;
        let semantic = permit.semantic() && !permit.redaction().names_any(permit.resource());
        if !semantic && !looked.cut {
            return;
        }
        let mut asked: Vec<&Arc<SourceMap>> = Vec::new();
        for source in plan.sources() {
            let Some(search) = &source.source().search else {
                continue;
            };
            // Asked once for each mission, a collection is still searched as one.
            if asked
                .iter()
                .any(|known| Arc::ptr_eq(known, source.source()))
            {
                continue;
            }
            asked.push(source.source());
            looked.ranker.turn_to(&source.source().fields);
            let mut questions: Vec<(Option<usize>, String)> = Vec::new();
            if semantic {
                let texts: Vec<&str> = self.query.texts().collect();
                questions.push((None, texts.join(" ")));
            } else {
                // One word at a time: which rows a gateway finds for several may depend on a word in what is not sent.
                let terms = self.query.texts().map(str::to_owned).enumerate();
                questions.extend(terms.map(|(term, text)| (Some(term), text)));
            }
            for (term, words) in questions {
                if let Err(error) = self.candidates(source, search, term, &words, looked).await {
                    tracing::debug!(%error, "the gateway's own search was of no use");
                    break;
                }
            }
        }
    }

    /// Takes the rows that the gateway's own search finds for `words`; all of them or, when they cannot be read, none.
    async fn candidates(
        &self,
        source: &SourcePlan,
        search: &NativeSearch,
        term: Option<usize>,
        words: &str,
        looked: &mut Looked,
    ) -> Result<(), PageError> {
        let permit = self.asking.permit;
        let filter = self
            .facts
            .filter(permit, source.source(), source.row_match());
        let Ok(filter) = filter else { return Ok(()) };
        let asked = permit.row_limit().rows().min(MAX_NATIVE);
        let target = native_target(search, words, asked.into());
        let at = RowsAt::rows(&search.rows);
        let mut page = self.asking.page(&target, filter, at).await?;
        let mut taken: Vec<(String, i64, Vec<u8>)> = Vec::new();
        let mut left = MAX_ASKED;
        loop {
            let mut out = Vec::new();
            match page.next(&mut out).await? {
                Reading::End => break,
                Reading::Row => {
                    if let Some(key) = page.key() {
                        taken.push((key.id.to_owned(), key.created_at_nanos, out));
                    }
                }
                Reading::Skipped => {}
            }
            left = left.saturating_sub(1);
            if left == 0 || taken.len() >= usize::from(MAX_NATIVE) {
                break;
            }
        }
        add(&mut looked.tally, page.tally());
        for (id, nanos, row) in taken {
            looked
                .ranker
                .candidate(&row, &id, nanos, &search.scores, term);
        }
        Ok(())
    }
}
