//! Answering a search: all resources are looked through at once, each under a permit of its own, then the best rows of
//! all are sent.
//!
//! Invariant: what is ranked is what passed the row filter, as it will be sent; what the gateway's own search adds is
//! never counted, so the scores of an answer do not depend on it. A resource that fails gives no row at all. Reading is
//! bounded in rows, pages and time, and memory by [`MAX_KEPT`].
//!
//! Words and scores are in `policy::rank`; why the gateway's own search only adds to the scan is in
//! `docs/decisions/0013-search.md`.

use std::sync::Arc;

use futures_util::future::join_all;
use policy::decision::{Basis, Permit};
use policy::deny::DenyCode;
use policy::evaluate::Admitted;
use policy::mapping::{Mapping, NativeSearch, PathTemplate, SourceMap};
use policy::plan::{QueryPlan, SourcePlan, native_target};
use policy::rank::{Query, Ranker, Ranking, merge};
use policy::reach::RowLimit;
use policy::revision::EffectiveRevision;
use policy::rows::{RowsAt, Tally};

use crate::gateway::GatewayError;
use crate::gateway::facts::FetchedFacts;
use crate::gateway::list::{Next, OwnedKey, Paged, READ_ON, absent_is_malformed, add};
use crate::gateway::page::{Asking, PageError, ReadError, Reading};

use super::answer::{Answering, Body, Halt, PART, budget_of};
use super::budget::RowBudget;

/// Most bytes of rows kept for one answer, all resources together.
const MAX_KEPT: usize = 16 * 1024 * 1024;
/// Pages in which a collection is read.
const PAGES: u32 = 8;
/// Most rows asked for at a time.
const MAX_ASKED: u32 = 10_001;
/// Most rows that the gateway's own search is asked for.
const MAX_NATIVE: u16 = 200;

/// What was found, and whether it is all.
#[derive(Default)]
struct Found {
    ranking: Ranking,
    partial: bool,
    cut: bool,
    /// The most rows that the grant lets one answer hold.
    cap: Option<RowLimit>,
}

impl Answering<'_> {
    /// Answers `search` over the resources that were `admitted`: those that were `named`, or all that are open.
    ///
    /// # Errors
    /// [`Halt`]; a resource that fails at the gateway makes the answer partial, unless all of them do.
    pub async fn search(
        &mut self,
        revision: EffectiveRevision,
        admitted: Vec<Admitted>,
        named: bool,
        limit: Option<RowLimit>,
        query: &Query,
    ) -> Result<(), Halt> {
        let mut budget = match admitted.first() {
            Some(admitted) => budget_of(self.inbound, admitted.basis()).await?,
            None => None,
        };
        let found = self.look(admitted, named, query).await?;
        let capped = limit.is_none_or(|limit| found.cap.is_none_or(|cap| limit > cap));
        let truncated = found.cut || found.ranking.cut || (found.ranking.more && capped);
        self.hits(revision, found, budget.as_mut(), truncated).await
    }

    /// Looks through every resource.
    async fn look(
        &mut self,
        admitted: Vec<Admitted>,
        named: bool,
        query: &Query,
    ) -> Result<Found, Halt> {
        let Some(first) = admitted.first() else {
            return Ok(Found::default());
        };
        // One set of facts for all, so that they agree with each other.
        let facts = self.facts(first).await?;
        let permits: Vec<Permit> = admitted
            .into_iter()
            .map(|admitted| admitted.decide(&facts.facts))
            .collect();
        for permit in &permits {
            self.exchange.note_permit(permit);
        }
        let Some(permit) = permits.first() else {
            return Ok(Found::default());
        };
        let gateway = &self.inbound.gateway;
        let auth = gateway
            .credentials
            .for_subject(permit.user(), permit.grant())?;
        let request_id = self.exchange.request_id().to_owned();
        let clock = Arc::clone(&self.inbound.recorder.clock);
        let until = clock
            .boot_nanos()
            .saturating_add(u64::try_from(READ_ON.as_nanos()).unwrap_or(u64::MAX));
        let in_time = move || clock.boot_nanos() < until;
        let limit = usize::from(permit.row_limit().rows());
        let looks = permits.iter().map(|permit| {
            let look = Look {
                asking: Asking {
                    client: &gateway.client,
                    permit,
                    auth: &auth,
                    request_id: &request_id,
                },
                mapping: self.view.snapshot.mapping(),
                facts: &facts,
                query,
                rows: self.inbound.limits.search_rows,
                budget: MAX_KEPT / permits.len(),
                in_time: &in_time,
            };
            async move { look.through().await }
        });
        let looked = join_all(looks).await;
        let cap = permit.row_cap();
        let found = self.gather(looked, named, limit)?;
        Ok(Found {
            cap: Some(cap),
            ..found
        })
    }

    /// Counts what was looked through, and puts the hits in order.
    fn gather(&mut self, looked: Vec<Looked>, named: bool, limit: usize) -> Result<Found, Halt> {
        let (mut partial, mut cut) = (false, false);
        let mut rankers = Vec::new();
        let mut failure = None;
        // The search may have been planned before.
        (
            self.exchange.figures.withheld,
            self.exchange.figures.redacted,
        ) = (0, 0);
        for looked in looked {
            let (figures, tally) = (&mut self.exchange.figures, looked.tally);
            figures.withheld = figures.withheld.saturating_add(tally.withheld);
            figures.redacted = figures.redacted.saturating_add(tally.redacted_members);
            match looked.failure {
                None => {
                    cut |= looked.cut;
                    rankers.push(looked.ranker);
                }
                // What a list would be refused for is not left out of what was asked for by name.
                Some(halt) if named && is_denied(&halt) => return Err(halt),
                Some(halt) => {
                    partial = true;
                    failure.get_or_insert(halt);
                }
            }
        }
        if let (Some(halt), true) = (failure, rankers.is_empty()) {
            return Err(halt);
        }
        Ok(Found {
            ranking: merge(rankers, limit),
            partial,
            cut,
            cap: None,
        })
    }

    /// Writes the answer.
    async fn hits(
        &mut self,
        revision: EffectiveRevision,
        found: Found,
        mut budget: Option<&mut RowBudget<'_, OwnedKey>>,
        mut truncated: bool,
    ) -> Result<(), Halt> {
        let mut body = Body::new(revision);
        body.buffer.extend_from_slice(b"{\"items\":[");
        let mut shown = 0_u64;
        let mut spent = None;
        for hit in found.ranking.hits {
            if body.sent >= self.inbound.limits.max_answer_bytes {
                truncated = true;
                break;
            }
            if let Some(budget) = budget.as_mut() {
                budget.add(hit.resource, &hit.id, body.buffer.len(), None);
            }
            if shown > 0 {
                body.buffer.push(b',');
            }
            let head = format!("{{\"resource\":\"{}\",\"item\":", hit.resource);
            body.buffer.extend_from_slice(head.as_bytes());
            body.buffer.extend_from_slice(&hit.row);
            let tail = format!(",\"score\":{}}}", hit.score);
            body.buffer.extend_from_slice(tail.as_bytes());
            shown = shown.saturating_add(1);
            self.exchange.figures.returned = shown;
            if body.buffer.len() >= PART {
                spent = body.settle(budget.as_deref_mut()).await?;
                if spent.is_some() {
                    break;
                }
                body.part(self).await?;
            }
        }
        if spent.is_none() {
            spent = body.settle(budget.as_deref_mut()).await?;
        }
        if let Some(cut) = spent {
            shown = shown.saturating_sub(cut.taken_out);
            self.exchange.figures.returned = shown;
            if let (0, Some(budget)) = (shown, budget) {
                return Err(Halt::Refused(budget.used_up()));
            }
            truncated = true;
        }
        let tail = format!(
            "],\"_partial\":{},\"_truncated\":{truncated}}}",
            found.partial
        );
        body.buffer.extend_from_slice(tail.as_bytes());
        body.end(self).await
    }
}

fn is_denied(halt: &Halt) -> bool {
    matches!(halt, Halt::Refused(failure) if failure.code == DenyCode::GatewayDenied)
}

/// One resource being looked through.
struct Look<'a> {
    asking: Asking<'a>,
    mapping: &'a Mapping,
    facts: &'a FetchedFacts,
    query: &'a Query,
    /// Rows to look at, at most.
    rows: u32,
    /// Bytes to keep, at most.
    budget: usize,
    in_time: &'a (dyn Fn() -> bool + Sync),
}

/// What looking through one resource came to.
struct Looked {
    ranker: Ranker,
    tally: Tally,
    /// Rows that may still be looked at.
    left: u32,
    /// There may be rows that were not looked at.
    cut: bool,
    failure: Option<Halt>,
}

impl Look<'_> {
    async fn through(&self) -> Looked {
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
            if let Err(halt) = read {
                looked.failure = Some(halt);
                return looked;
            }
        }
        self.ask_natively(&plan, &mut looked).await;
        looked
    }

    /// Reads a collection page by page.
    async fn pages(&self, source: &SourcePlan, looked: &mut Looked) -> Result<(), Halt> {
        let filter = self
            .facts
            .filter(self.asking.permit, source.source(), source.row_match())
            .map_err(ReadError::Filter)?;
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
                Err(error) => break Err(Halt::from(error)),
            }
        };
        add(&mut looked.tally, pages.counted());
        read
    }

    /// Reads a collection that comes as one.
    async fn whole(&self, source: &SourcePlan, looked: &mut Looked) -> Result<(), Halt> {
        let filter = self
            .facts
            .filter(self.asking.permit, source.source(), source.row_match())
            .map_err(ReadError::Filter)?;
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
                Err(error) => break Err(Halt::from(error)),
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
        let allowed = match permit.basis() {
            Basis::Grant(entry) => entry.semantic,
            Basis::Local(_) => false,
        };
        let semantic = allowed && !permit.redaction().names_any(permit.resource());
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
