//! One question to every source of a session: the user's own gateway and each active peer of theirs, at once.
//!
//! Invariant: it never fails whole. A source that fails is named in `_failures` and sets `_partial`; remote sources are
//! cut off at one deadline. Rows are merged newest first and each comes out once (`merge.rs`); a cursor is given
//! exactly when a source that answered has more, and then a source that failed is tried again with the next page. What
//! is held at once is bounded: the sources share [`MAX_BYTES`].
//!
//! Asking one peer is in `ask.rs`, the own gateway in `local.rs`.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use policy::deny::DenyCode;
use policy::reach::RowLimit;
use policy::time::UnixMillis;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Outbound;
use super::answer::AnswerFault;
use super::ask::{Ask, Deadline};
use super::combined::{crowded, envelope, finish, is_final, item_of, outline};
use super::failure::DoorFailure;
use super::local::{LocalQuestion, ask_local};
use super::merge::{Feed, Merged, Stage, Stop};
use super::notice::Notice;
use super::page::Page;
use super::position::{self, Lost, Positions};
use super::query::Query;
use super::ranked::{Hits, interleave};
use super::recall::ask;
use super::route::PeerRoute;
use super::session::Session;
use crate::message::headers::RequestTag;
use crate::message::target::Route;
use crate::telemetry::TraceParent;

/// Name of the user's own gateway among the sources.
const LOCAL: &str = "local";
/// Bytes of pages that are held at once.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of rows after which an answer ends, with a cursor.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// Most pages of one source that are read for one answer.
const MAX_ROUNDS: usize = 8;

/// What every question of a fan-out shares.
#[derive(Clone, Copy)]
pub(super) struct Fanout<'a> {
    pub(super) outbound: &'a Outbound,
    pub(super) session: &'a Arc<Session>,
    pub(super) query: &'a Query,
    pub(super) request_id: &'a str,
    pub(super) trace: Option<TraceParent>,
    /// What the session is to be told with the answer.
    pub(super) notices: &'a Mutex<Vec<Notice>>,
}

/// Until when sources may answer.
#[derive(Clone, Copy)]
struct Limits {
    remote: Deadline,
    local: Deadline,
    /// Bytes of one page.
    bytes: usize,
}

impl Fanout<'_> {
    /// Asks every source and merges what comes back.
    ///
    /// # Errors
    /// A cursor that is not good here; nothing else.
    pub(super) async fn answer(&self) -> Result<Bytes, DoorFailure> {
        match self.query.route {
            Route::List { .. } => self.list().await,
            Route::Search => Ok(self.search().await),
            Route::Get { .. } | Route::Capabilities | Route::Renew => Ok(self.each().await),
        }
    }

    /// The sources of a question without a cursor: the own gateway first, then peers by name.
    fn sources(&self) -> Vec<String> {
        let table = self.outbound.table.load();
        let active = table.of(&self.session.user).filter(|peer| peer.is_active());
        let mut names: Vec<String> = active.map(|peer| peer.name.to_string()).collect();
        names.sort();
        names.insert(0, LOCAL.to_owned());
        names
    }

    fn limits(&self, sources: usize) -> Limits {
        let clock = self.outbound.clock.as_ref();
        Limits {
            remote: Deadline::within(clock, self.outbound.fanout_deadline),
            local: Deadline::within(clock, self.outbound.deadlines.total),
            bytes: MAX_BYTES / sources.max(1),
        }
    }

    async fn list(&self) -> Result<Bytes, DoorFailure> {
        let bound = position::binding(&self.session.user, self.query);
        let sealer = &self.outbound.cursors;
        let Positions {
            mut feeds,
            mut lost,
        } = match &self.query.cursor {
            None => Positions {
                feeds: self
                    .sources()
                    .iter()
                    .map(|name| Feed::new(name, None, None))
                    .collect(),
                lost: Lost::default(),
            },
            Some(text) => position::open(sealer, text, &bound)
                .ok_or_else(|| DoorFailure::Own(DenyCode::InvalidCursor.into()))?,
        };
        let limits = self.limits(feeds.len());
        let rows = self.query.limit.unwrap_or(RowLimit::DEFAULT);
        let mut merged = Merged::default();
        let mut failures = Vec::new();
        let mut stop = Stop::Due;
        for round in 0..MAX_ROUNDS {
            let fetched = self.fetch(&feeds, rows, limits).await;
            apply(&mut feeds, fetched, round == 0, &mut lost, &mut failures);
            stop = merged.run(&mut feeds, rows.rows().into(), MAX_ANSWER);
            let left = limits.remote.left(self.outbound.clock.as_ref());
            // Another page is asked for only with time enough that a good source makes it.
            if stop != Stop::Due || left < self.outbound.fanout_deadline / 2 {
                break;
            }
        }
        lost.truncated |= feeds.iter().any(|feed| feed.truncated);
        let more = feeds.iter().any(Feed::has_more);
        let kept: Vec<&Feed> = feeds
            .iter()
            .filter(|feed| feed.has_more() || feed.stage == Stage::Failed)
            .collect();
        let mut tail = Map::new();
        let mut uncontinued = false;
        if more {
            let left_out = match position::seal(sealer, &kept, lost, &bound) {
                Some(sealed) => {
                    tail.insert("nextCursor".to_owned(), json!(sealed.text));
                    sealed.left_out
                }
                None => kept.iter().map(|feed| feed.name.clone()).collect(),
            };
            uncontinued = !left_out.is_empty();
            failures.extend(left_out.iter().map(|name| crowded(name)));
        }
        let partial = lost.partial || uncontinued || !failures.is_empty();
        let partial = partial || feeds.iter().any(|feed| feed.partial);
        let truncated = lost.truncated || uncontinued || stop == Stop::Long;
        finish(&mut tail, partial, truncated, failures);
        self.tell(&mut tail);
        Ok(envelope(&merged.rows, &tail))
    }

    /// Fetches every page that is due.
    async fn fetch(&self, feeds: &[Feed], rows: RowLimit, limits: Limits) -> Vec<Option<Fetched>> {
        let due = feeds.iter().map(|feed| async {
            match feed.stage {
                Stage::Due => Some(self.page(feed, rows, limits).await),
                _ => None,
            }
        });
        join_all(due).await
    }

    /// The page of a source that is due, and whether more of it cannot be had: a source that does not declare its
    /// order has no second page.
    async fn page(&self, feed: &Feed, rows: RowLimit, limits: Limits) -> Fetched {
        let body = self.query.body(Some(rows), feed.start.as_deref());
        if feed.name == LOCAL {
            let body = self.ask_local(&body, limits).await?;
            let page = Page::parse(&body, true).map_err(DoorFailure::BadAnswer)?;
            return Ok((page, false));
        }
        let peer = self.outbound.peer_of(self.session, &feed.name)?;
        let (asked, ordered) = tokio::join!(
            self.ask_peer(&peer, &self.query.route, body, limits),
            self.declares_order(&peer, limits),
        );
        let mut page = Page::parse(&asked?, ordered).map_err(DoorFailure::BadAnswer)?;
        let cut = !ordered && page.next.take().is_some();
        Ok((page, cut))
    }

    async fn ask_local(&self, body: &[u8], limits: Limits) -> Result<Bytes, DoorFailure> {
        let question = LocalQuestion {
            user: &self.session.user,
            route: &self.query.route,
            body,
            tag: RequestTag::untraced(self.request_id),
        };
        ask_local(self.outbound, question, self.trace, limits.local).await
    }

    async fn ask_peer(
        &self,
        peer: &Arc<PeerRoute>,
        route: &Route,
        body: Bytes,
        limits: Limits,
    ) -> Result<Bytes, DoorFailure> {
        let question = Ask {
            session: Arc::clone(self.session),
            peer: Arc::clone(peer),
            route: route.clone(),
            method: Method::POST,
            body,
            request_id: self.request_id.to_owned(),
            trace: self.trace,
            deadline: limits.remote,
        };
        let answer = ask(self.outbound, question).await;
        let answer = answer.map_err(|refused| {
            self.notices.lock().extend(refused.notice);
            refused.failure
        })?;
        answer.collect(limits.bytes).await
    }

    /// Whether a peer declares that its rows are newest first, as heard lately or asked for now.
    async fn declares_order(&self, peer: &Arc<PeerRoute>, limits: Limits) -> bool {
        #[derive(Deserialize)]
        struct Declared {
            #[serde(default)]
            order: Option<String>,
        }
        let now = UnixMillis(self.outbound.clock.unix_millis());
        if let Some(known) = peer.declares_order(now) {
            return known;
        }
        let asked = self
            .ask_peer(
                peer,
                &Route::Capabilities,
                Bytes::from_static(b"{}"),
                limits,
            )
            .await;
        let declared: Option<Declared> = asked
            .ok()
            .and_then(|body| serde_json::from_slice(&body).ok());
        let Some(declared) = declared else {
            return false;
        };
        let ordered = declared.order.as_deref() == Some("created_desc");
        peer.note_order(ordered, now);
        ordered
    }

    /// Adds what the session has not been told yet.
    fn tell(&self, tail: &mut Map<String, Value>) {
        let notices = std::mem::take(&mut *self.notices.lock());
        if !notices.is_empty() {
            tail.insert("_notices".to_owned(), json!(notices));
        }
    }

    /// Searches every source, and interleaves what each found best.
    async fn search(&self) -> Bytes {
        let names = self.sources();
        let limits = self.limits(names.len());
        let rows = self.query.limit.unwrap_or(RowLimit::DEFAULT);
        let asked = join_all(names.iter().map(|name| self.hits(name, rows, limits))).await;
        let mut failures = Vec::new();
        let mut found = Vec::new();
        for (name, asked) in names.iter().zip(asked) {
            match asked {
                Ok(hits) => found.push(hits),
                Err(failure) => failures.push(outline(name, &failure)),
            }
        }
        let partial = !failures.is_empty() || found.iter().any(|hits| hits.partial);
        let truncated = found.iter().any(|hits| hits.truncated);
        let (items, left_out) = interleave(found, rows.rows().into());
        // Who names a limit chose it.
        let truncated = truncated || left_out && self.query.limit.is_none();
        let mut tail = Map::new();
        finish(&mut tail, partial, truncated, failures);
        self.tell(&mut tail);
        envelope(&items, &tail)
    }

    async fn hits(&self, name: &str, rows: RowLimit, limits: Limits) -> Result<Hits, DoorFailure> {
        let body = self.query.body(Some(rows), None);
        let answer = self.ask_named(name, body, limits).await?;
        Hits::parse(&answer).map_err(DoorFailure::BadAnswer)
    }

    async fn ask_named(
        &self,
        name: &str,
        body: Bytes,
        limits: Limits,
    ) -> Result<Bytes, DoorFailure> {
        if name == LOCAL {
            return self.ask_local(&body, limits).await;
        }
        let peer = self.outbound.peer_of(self.session, name)?;
        self.ask_peer(&peer, &self.query.route, body, limits).await
    }

    /// Asks every source for one thing, and answers with what each gave.
    async fn each(&self) -> Bytes {
        let names = self.sources();
        let limits = self.limits(names.len());
        let asked = join_all(names.iter().map(|name| self.one(name, limits))).await;
        let mut items = Vec::new();
        let mut failures = Vec::new();
        for (name, asked) in names.iter().zip(asked) {
            match asked {
                Ok(item) => {
                    if !items.is_empty() {
                        items.push(b',');
                    }
                    items.extend_from_slice(&item);
                }
                Err(failure) if self.is_absence(&failure) => {}
                Err(failure) => failures.push(outline(name, &failure)),
            }
        }
        let mut tail = Map::new();
        finish(&mut tail, !failures.is_empty(), false, failures);
        self.tell(&mut tail);
        envelope(&items, &tail)
    }

    /// Whether it only says that a source has no such row.
    fn is_absence(&self, failure: &DoorFailure) -> bool {
        matches!(self.query.route, Route::Get { .. })
            && failure.status() == StatusCode::NOT_FOUND
            && !matches!(failure, DoorFailure::NoSuchPeer)
    }

    /// What one source gave: a row, or its capabilities with its name.
    async fn one(&self, name: &str, limits: Limits) -> Result<Vec<u8>, DoorFailure> {
        let body = self.query.body(None, None);
        let answer = self.ask_named(name, body, limits).await?;
        item_of(&self.query.route, name, &answer)
            .ok_or(DoorFailure::BadAnswer(AnswerFault::Malformed))
    }
}

/// A page, with whether more of its source cannot be had; or why there is none.
type Fetched = Result<(Page, bool), DoorFailure>;

/// Gives each source the page that was fetched for it.
fn apply(
    feeds: &mut [Feed],
    fetched: Vec<Option<Fetched>>,
    first: bool,
    lost: &mut Lost,
    failures: &mut Vec<Value>,
) {
    for (feed, fetched) in feeds.iter_mut().zip(fetched) {
        match fetched {
            None => {}
            Some(Ok((page, cut))) => {
                lost.partial |= cut;
                lost.truncated |= cut;
                feed.take(page);
            }
            // It has answered before: what it lacks is time, and the cursor gives it that.
            Some(Err(DoorFailure::Offline(error))) if !first && error.is_timeout() => {}
            Some(Err(failure)) => {
                failures.push(outline(&feed.name, &failure));
                let final_word = is_final(&failure);
                lost.partial |= final_word;
                feed.stage = if final_word {
                    Stage::Dropped
                } else {
                    Stage::Failed
                };
            }
        }
    }
}
