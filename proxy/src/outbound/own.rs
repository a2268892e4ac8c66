//! The user's own gateway, asked as the serving side asks it for peers.
//!
//! Invariant: it is asked as exactly the session's user, under a permit (`policy::local`), and what it answers passes
//! the row filter that peers' questions pass: ownership, redaction, no sensitive resource. Memory is bounded by
//! [`MAX_BODY_BYTES`].
//!
//! It needs no serving role: a process that only asks has the same gateway, and the redaction of its policy directory
//! when there is one. The record of a question is in `local.rs`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use certs::Clock;
use certs::seal::PageSealer;
use futures_util::future::join_all;
use policy::decision::Permit;
use policy::deny::DenyCode;
use policy::evaluate::{Admission, Admitted};
use policy::local::{admit_local, admit_local_search};
use policy::plan::QueryPlan;
use policy::rank::merge;
use policy::reach::RowLimit;
use policy::request::{ItemId, QueryFilter};
use policy::rows::Tally;

use super::ask::Deadline;
use super::local::{LocalAnswer, LocalQuestion, LocalSource};
use crate::directory::{Directory, View};
use crate::gateway::credential::SubjectAuth;
use crate::gateway::cursor::{self, CursorBinding};
use crate::gateway::facts::FetchedFacts;
use crate::gateway::list::{Next, OwnedKey, READ_ON, Rows, add};
use crate::gateway::page::ReadError;
use crate::gateway::search::{Look, Looked, write_hit};
use crate::gateway::{Gateway, GatewayError, Turn, item};
use crate::message::body::{Body, BodyProblem};
use crate::message::failure::Failure;
use crate::message::headers::RequestTag;
use crate::message::target::Route;
use crate::telemetry::metrics::RowsKind;

/// Bytes after which a page ends, with a cursor.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// The gateway beside this process.
pub struct OwnGateway {
    /// Rules and mapping in force.
    pub directory: Arc<Directory>,
    /// Asks it.
    pub gateway: Arc<Gateway>,
    /// Seals the cursors of its pages.
    pub cursors: PageSealer,
    /// Rows of one resource that a search looks at, at most.
    pub search_rows: u32,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl LocalSource for OwnGateway {
    async fn answer(&self, question: LocalQuestion<'_>) -> Result<LocalAnswer, Failure> {
        let refused = |problem: BodyProblem| Failure::saying(problem.code, problem.message);
        let body = Body::parse(question.body).map_err(refused)?;
        let route = question.route;
        let _turn = match route {
            Route::Capabilities => None,
            _ => Some(self.turn().await?),
        };
        // Only now: what is decided under it does not wait any more.
        if let Some(fenced) = self.directory.refusal() {
            return Err(fenced.into());
        }
        let view = self.directory.view();
        if *route == Route::Search {
            return self.search(&view, &body, question).await;
        }
        let admission = admit_local(
            &view.snapshot,
            question.user,
            route.verb(),
            route.resource(),
            body.limit,
        )
        .map_err(|deny| Failure::from(deny.code()))?;
        let mut tally = Tally::default();
        let answered = match (admission, route) {
            (Admission::Capabilities(capabilities), _) => {
                let body = serde_json::to_vec(&capabilities).unwrap_or_default();
                Ok((body, 0))
            }
            (Admission::Rows(admitted), Route::Get { id, .. }) => {
                self.get(&view, admitted, id, question.tag, &mut tally)
                    .await
            }
            (Admission::Rows(admitted), _) => {
                self.list(&view, admitted, &body, question.tag, &mut tally)
                    .await
            }
        };
        self.count(tally, question.tag.id);
        let (body, rows) = answered?;
        Ok(LocalAnswer {
            body: Bytes::from(body),
            rows,
            withheld: tally.withheld,
        })
    }
}

impl OwnGateway {
    async fn turn(&self) -> Result<Turn<'_>, Failure> {
        let turn = self.gateway.own_turns.take().await;
        turn.map_err(|error| error.deny_code().into())
    }

    async fn permit(
        &self,
        view: &View,
        admitted: Admitted,
        tag: RequestTag<'_>,
    ) -> Result<(Permit, Arc<FetchedFacts>), Failure> {
        let facts = self.facts(view, &admitted, tag).await?;
        let permit = admitted.decide(&facts.facts);
        Ok((permit, facts))
    }

    fn auth_for(&self, permit: &Permit) -> Result<SubjectAuth, Failure> {
        self.gateway
            .auth_for(permit)
            .map_err(|error| error.deny_code().into())
    }

    async fn facts(
        &self,
        view: &View,
        admitted: &Admitted,
        tag: RequestTag<'_>,
    ) -> Result<Arc<FetchedFacts>, Failure> {
        self.gateway
            .facts_for(admitted, view.snapshot.mapping(), tag)
            .await
            .map_err(|error| match error {
                GatewayError::CredentialMissing | GatewayError::CredentialRejected => {
                    Failure::from(error.deny_code())
                }
                other => {
                    tracing::warn!(error = %other, "native facts are not available");
                    DenyCode::FactsUnavailable.into()
                }
            })
    }

    /// Looks through every resource that is named, or all, and ranks what was found.
    async fn search(
        &self,
        view: &View,
        body: &Body,
        question: LocalQuestion<'_>,
    ) -> Result<LocalAnswer, Failure> {
        let refused = |problem: BodyProblem| Failure::saying(problem.code, problem.message);
        let query = body.search_query().map_err(refused)?;
        let named = body.resources.as_deref();
        let admitted = admit_local_search(&view.snapshot, question.user, named, body.limit)
            .map_err(|deny| Failure::from(deny.code()))?;
        let Some(first) = admitted.first() else {
            return Err(DenyCode::ResourceUnsupported.into());
        };
        // One set of facts for all, so that they agree with each other.
        let facts = self.facts(view, first, question.tag).await?;
        let permits: Vec<Permit> = admitted
            .into_iter()
            .map(|admitted| admitted.decide(&facts.facts))
            .collect();
        let Some(permit) = permits.first() else {
            return Err(DenyCode::ResourceUnsupported.into());
        };
        let auth = self.auth_for(permit)?;
        let deadline = Deadline::within(self.clock.as_ref(), READ_ON);
        let clock = Arc::clone(&self.clock);
        let in_time = move || deadline.left(clock.as_ref()) > Duration::ZERO;
        let looks = permits.iter().map(|permit| {
            let look = Look {
                asking: self.gateway.asking(permit, &auth, question.tag),
                mapping: view.snapshot.mapping(),
                facts: &facts,
                query: &query,
                rows: self.search_rows,
                budget: MAX_BODY_BYTES / permits.len().max(1),
                in_time: &in_time,
            };
            async move { look.through().await }
        });
        let looked = join_all(looks).await;
        let limit = body.limit.unwrap_or(RowLimit::DEFAULT);
        self.ranked(looked, limit, question.tag.id)
    }

    fn ranked(
        &self,
        looked: Vec<Looked>,
        limit: RowLimit,
        request_id: &str,
    ) -> Result<LocalAnswer, Failure> {
        let (mut rankers, mut failure) = (Vec::new(), None);
        let (mut tally, mut cut) = (Tally::default(), false);
        for one in looked {
            add(&mut tally, one.tally);
            match one.failure {
                None => {
                    cut |= one.cut;
                    rankers.push(one.ranker);
                }
                Some(error) => {
                    failure.get_or_insert(failed(error));
                }
            }
        }
        self.count(tally, request_id);
        let partial = failure.is_some();
        if let (Some(failure), true) = (failure, rankers.is_empty()) {
            return Err(failure);
        }
        let ranking = merge(rankers, usize::from(limit.rows()));
        let mut body = b"{\"items\":[".to_vec();
        let mut rows = 0_u64;
        for hit in ranking.hits {
            write_hit(&hit, rows == 0, &mut body);
            rows = rows.saturating_add(1);
        }
        let truncated = cut || ranking.cut;
        let tail = format!("],\"_partial\":{partial},\"_truncated\":{truncated}}}");
        body.extend_from_slice(tail.as_bytes());
        Ok(LocalAnswer {
            body: Bytes::from(body),
            rows,
            withheld: tally.withheld,
        })
    }

    async fn get(
        &self,
        view: &View,
        admitted: Admitted,
        id: &ItemId,
        tag: RequestTag<'_>,
        tally: &mut Tally,
    ) -> Result<(Vec<u8>, u64), Failure> {
        let (permit, facts) = self.permit(view, admitted, tag).await?;
        let plan = QueryPlan::get(&permit, view.snapshot.mapping(), id, &facts.facts);
        let auth = self.auth_for(&permit)?;
        let asking = self.gateway.asking(&permit, &auth, tag);
        let mut body = b"{\"item\":".to_vec();
        let found = item::find(asking, &plan, &facts, id, &mut body, tally).await;
        if !found.map_err(failed)? {
            return Err(DenyCode::NotFound.into());
        }
        body.push(b'}');
        Ok((body, 1))
    }

    async fn list(
        &self,
        view: &View,
        admitted: Admitted,
        body: &Body,
        tag: RequestTag<'_>,
        tally: &mut Tally,
    ) -> Result<(Vec<u8>, u64), Failure> {
        let refused = |code, text: String| Failure::saying(code, text);
        let filter = QueryFilter::parse(admitted.resource(), &body.filter)
            .map_err(|error| refused(DenyCode::InvalidFilter, error.to_string()))?;
        let binding = CursorBinding::new(admitted.basis(), admitted.resource(), &filter);
        let after = match &body.cursor {
            None => None,
            Some(text) => {
                let position = cursor::open(&self.cursors, text, &binding)?;
                Some(OwnedKey::behind(&position).ok_or(DenyCode::InvalidCursor)?)
            }
        };
        let (permit, facts) = self.permit(view, admitted, tag).await?;
        let plan = QueryPlan::list(&permit, view.snapshot.mapping(), &filter, &facts.facts)
            .map_err(|error| refused(DenyCode::InvalidFilter, error.to_string()))?;
        let auth = self.auth_for(&permit)?;
        let asking = self.gateway.asking(&permit, &auth, tag);
        let mut rows = Rows::open(asking, &plan, &facts, after)
            .await
            .map_err(failed)?;
        let limit = u64::from(permit.row_limit().rows());
        let page = self.page(&mut rows, limit).await;
        *tally = rows.tally();
        let page = page.map_err(failed)?;
        let mut out = page.body;
        out.push(b']');
        if let Some(position) = page.position {
            let sealed = cursor::seal(&self.cursors, &position.position(), &binding)?;
            out.extend_from_slice(format!(",\"nextCursor\":\"{sealed}\"").as_bytes());
        }
        let tail = format!(",\"_partial\":false,\"_truncated\":{}}}", page.truncated);
        out.extend_from_slice(tail.as_bytes());
        Ok((out, page.shown))
    }

    /// Reads rows up to `limit`, and one more to know whether there are more.
    async fn page(&self, rows: &mut Rows<'_>, limit: u64) -> Result<Page, ReadError> {
        let deadline = Deadline::within(self.clock.as_ref(), READ_ON);
        let clock = Arc::clone(&self.clock);
        let in_time = move || deadline.left(clock.as_ref()) > Duration::ZERO;
        let mut page = Page {
            body: b"{\"items\":[".to_vec(),
            shown: 0,
            position: None,
            truncated: false,
        };
        loop {
            let mark = page.body.len();
            let full = page.shown == limit;
            let long = mark > MAX_BODY_BYTES;
            if full || long {
                page.position = rows.position();
            }
            if page.shown > 0 {
                page.body.push(b',');
            }
            let next = rows.next(&mut page.body, &in_time).await?;
            if next == Next::Row && !full && !long {
                page.shown = page.shown.saturating_add(1);
                continue;
            }
            page.body.truncate(mark);
            match next {
                Next::Exhausted => page.position = None,
                Next::Bound if !full && !long => {
                    page.position = rows.position();
                    page.truncated = true;
                }
                Next::Row | Next::Bound => page.truncated = long,
            }
            return Ok(page);
        }
    }

    fn count(&self, tally: Tally, request_id: &str) {
        let metrics = &self.gateway.metrics;
        if tally.withheld > 0 {
            metrics.rows(RowsKind::Withheld, tally.withheld);
            tracing::warn!(
                request_id,
                withheld = tally.withheld,
                "the gateway showed rows that its answer should not have held"
            );
        }
        if tally.redacted_members > 0 {
            metrics.rows(RowsKind::RedactedMembers, tally.redacted_members);
        }
    }
}

/// A page of rows, up to the bracket that ends them.
struct Page {
    body: Vec<u8>,
    shown: u64,
    position: Option<OwnedKey>,
    truncated: bool,
}

fn failed(error: ReadError) -> Failure {
    tracing::warn!(%error, "the gateway could not be used");
    match &error {
        ReadError::Page(_) => error.deny_code().into(),
        ReadError::Filter(_) => Failure::saying(error.deny_code(), error.to_string()),
    }
}
