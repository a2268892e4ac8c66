//! The HTTP service of the federation listener: one question in, one answer or refusal out.
//!
//! Driven by Pingora's HTTP server directly rather than by its proxy: an answer is made from several
//! questions to the gateway, so there is no one upstream to proxy to
//! (`docs/decisions/0001-transport.md`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use certs::seal::PageSealer;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Method, StatusCode, header};
use pingora_core::apps::{
    HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp,
};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use policy::deny::DenyCode;
use policy::evaluate::{Admission, admit, admit_search};
use policy::id::{GrantId, SubjectId};
use policy::peer::PeerName;
use policy::query_hash::QueryHash;
use policy::request::{AccessRequest, QueryFilter};
use policy::resource::Resource;
use policy::snapshot::GrantEntry;
use policy::time::UnixMillis;
use policy::verb::Verb;
use tokio::sync::{Notify, watch};

use crate::audit::AuditOutcome;
use crate::audit::history::HistoryPublisher;
use crate::directory::Directory;
use crate::gateway::Gateway;
use crate::hand_over::{LINGER, Leaving};
use crate::limit::{Limits, Purpose, Slot};
use crate::message::body::{Body, BodyProblem, MAX_BODY};
use crate::message::failure::Failure;
use crate::message::rate::{RateFields, RateTeller};
use crate::message::target::Route;
use crate::message::{framing, headers};
use crate::store::Store;
use crate::transport::wait::within;
use crate::transport::{AcceptedConnection, AnswerGuard, Heard};

use super::answer::{Answering, Halt, ListQuestion};
use super::authenticate::{Authenticated, Authenticator, Connection};
use super::finish::{Ending, Exchange, Recorder};
use super::lease::{AnswerLease, LeaseBounds};
use super::renew::Renewals;
use super::respond;
use super::shadow::PolicyShadow;

/// How often a question is planned again when its grant keeps changing under it.
const MAX_PLANS: u32 = 8;
/// How long the client of a connection may take to send a body.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the client may refuse to take a part of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Seconds an idle connection is kept.
const KEEPALIVE_SECONDS: u64 = 75;
/// Bytes of the body of a refused request that are read before the connection is closed.
const MAX_DISCARDED: usize = 4 * 1024 * 1024;
/// Bytes that a client of HTTP/2 sends first: the preface and a frame of settings without any.
const PREFACE: u64 = 24 + 9;
/// How long an idle connection of a grant that ended stays open, so that a request already on its
/// way is told why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bounds of answers.
#[derive(Debug, Clone, Copy)]
pub struct AnswerLimits {
    /// Bytes of one answer's body, after which it is cut with `_truncated`.
    pub max_answer_bytes: u64,
    /// The longest lease on an answer.
    pub lease: Duration,
    /// Rows of one resource that one search looks through.
    pub search_rows: u32,
    /// For the head of a request of HTTP/1.1, from its first byte to its last; for the first words of HTTP/2.
    pub head: Duration,
}

/// The serving side, shared by all connections.
pub struct Inbound {
    /// Grants, rules and leaves.
    pub directory: Arc<Directory>,
    /// Proves who asks.
    pub authenticator: Authenticator,
    /// The local gateway.
    pub gateway: Arc<Gateway>,
    /// Seals cursors.
    pub cursors: PageSealer,
    /// Records exchanges.
    pub recorder: Recorder,
    /// Bounds.
    pub limits: AnswerLimits,
    /// Hears of every peer that has proved who it is.
    pub contacted: Box<dyn Fn(&PeerName) + Send + Sync>,
    /// Remembers the rows of grants that have a budget of them.
    pub store: Arc<dyn Store>,
    /// How much may be asked.
    pub throttle: Arc<Limits>,
    /// Compares decisions with those of another policy.
    pub shadow: Arc<PolicyShadow>,
    /// Renews certificates and confirms them.
    pub renewals: Arc<Renewals>,
    /// What answers carry of the histories of grants.
    pub histories: Arc<HistoryPublisher>,
    /// Whether another process has taken over.
    pub leaving: Leaving,
}

/// Serves one accepted connection to its end.
pub async fn serve_connection(
    inbound: Arc<Inbound>,
    accepted: AcceptedConnection,
    shutdown: ShutdownWatch,
) {
    let (connection, stream) = Connection::open(accepted, &inbound.directory, &inbound.histories);
    let gate = Arc::clone(&connection.gate);
    let metrics = Arc::clone(&inbound.recorder.metrics);
    let (ending, ends) = watch::channel(false);
    let app = Arc::new(ConnectionApp {
        inbound,
        connection,
        heard: stream.heard(),
        teller: RateTeller::default(),
        busy: AtomicUsize::new(0),
        idle: Notify::new(),
        dismissal: Notify::new(),
        ending,
    });
    // What can end the connection from outside. It is looked at again when it has news, not each time the connection has.
    let unspoken = unspoken(
        stream.is_http2(),
        Arc::clone(&app.heard),
        app.inbound.limits.head,
    );
    let ended = async {
        tokio::select! {
            biased;
            () = gate.cut() => {}
            () = unspoken => app.inbound.recorder.metrics.slow_head(),
            () = async { gate.ending().await; tokio::time::sleep(FAREWELL).await } => {}
            () = app.dismissed() => {}
            () = app.drained(shutdown) => {}
        }
    };
    let mut ended: FuturesUnordered<_> = std::iter::once(ended).collect();
    metrics.connection(1);
    tokio::select! {
        biased;
        _ = ended.next() => {}
        _ = app.process_new(Box::new(stream), &ends) => {}
    }
    metrics.connection(-1);
}

/// One connection as Pingora's HTTP server drives it.
struct ConnectionApp {
    inbound: Arc<Inbound>,
    connection: Connection,
    heard: Arc<Heard>,
    teller: RateTeller,
    busy: AtomicUsize,
    idle: Notify,
    /// Wakes `dismissed`: the identity of an HTTP/2 connection was refused.
    dismissal: Notify,
    /// Tells Pingora to end the connection: GOAWAY in HTTP/2, no keep-alive in HTTP/1.1.
    ending: watch::Sender<bool>,
}

struct Busy<'a>(&'a ConnectionApp);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
        self.0.idle.notify_waiters();
    }
}

/// How Pingora's server treats a connection of ours.
static SERVER_OPTIONS: LazyLock<HttpServerOptions> = LazyLock::new(|| {
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(Duration::from_secs(KEEPALIVE_SECONDS));
    options
});

#[async_trait]
impl HttpServerApp for ConnectionApp {
    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&SERVER_OPTIONS)
    }

    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let (is_http1, heard) = (session.as_http1().is_some(), self.heard.reads());
        // In HTTP/2 the head is whole when it gets here; a connection that never completes one is idle.
        let overdue = async {
            if !is_http1 {
                return std::future::pending().await;
            }
            self.heard.since(heard).await;
            tokio::time::sleep(self.inbound.limits.head).await;
        };
        let head = tokio::select! {
            biased;
            head = session.read_request() => head,
            () = overdue => {
                self.inbound.recorder.metrics.slow_head();
                shut_down(&mut session).await;
                return None;
            }
        };
        match head {
            Ok(true) => {}
            Ok(false) => return None,
            Err(_) => {
                Box::pin(self.unreadable(&mut session)).await;
                return None;
            }
        }
        self.busy.fetch_add(1, Ordering::AcqRel);
        let _busy = Busy(self);
        session.set_keepalive((!*shutdown.borrow()).then_some(KEEPALIVE_SECONDS));
        session.set_read_timeout(Some(READ_TIMEOUT));
        session.set_write_timeout(Some(WRITE_TIMEOUT));
        session.set_total_drain_timeout(Some(READ_TIMEOUT));
        let mut under_way = None;
        let whole = self.exchange(&mut session, &mut under_way).await;
        if !whole {
            shut_down(&mut session).await;
            return None;
        }
        let settings = HttpPersistentSettings::for_session(&session);
        let reusable = session.finish().await.ok().flatten();
        // Only now is the last byte with the kernel.
        drop(under_way);
        reusable.map(|stream| ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

impl ConnectionApp {
    /// Ends when the process is stopping and no request of this connection is under way.
    async fn drained(&self, mut shutdown: ShutdownWatch) {
        while !*shutdown.borrow() {
            if shutdown.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
        self.ending.send_replace(true);
        if self.inbound.leaving.is_leaving() {
            // Whoever asks on it still is answered, and asks the process that took over next.
            tokio::time::sleep(LINGER).await;
        }
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.busy.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Ends a while after a refusal that ends the connection: HTTP/1.1 closes by itself, HTTP/2 has
    /// to be told, and a peer that goes on nevertheless is dropped. The refusal itself gets time to
    /// arrive first, since GOAWAY overtakes what is queued.
    async fn dismissed(&self) {
        self.dismissal.notified().await;
        tokio::time::sleep(FAREWELL).await;
        self.ending.send_replace(true);
        tokio::time::sleep(FAREWELL).await;
    }

    /// A head that cannot be parsed is still answered in our envelope, and recorded.
    async fn unreadable(&self, session: &mut ServerSession) {
        match Exchange::begin(&self.inbound.recorder) {
            Ok(mut exchange) => {
                self.note_connection(&mut exchange);
                // Nothing in it can be trusted to be what it says: a span of its own.
                exchange.note_peer(None, 1, None);
                let mut rate = None;
                let mut failure = Failure::from(DenyCode::AmbiguousFraming);
                // Such a request counts as well, unless there is no room for it.
                if let Ok(entry) = self.identified().await
                    && let Err(refused) = self.admitted(&entry, Purpose::Questions, &mut rate).await
                {
                    failure = refused.in_doubt();
                }
                self.refuse(session, exchange, &failure, rate).await;
            }
            Err(code) => {
                let _ = respond::refuse(session, ("-", self.now()), &code.into(), None).await;
            }
        }
    }

    /// One exchange. False when the connection must be aborted.
    async fn exchange(
        &self,
        session: &mut ServerSession,
        under_way: &mut Option<AnswerGuard>,
    ) -> bool {
        let mut exchange = match Exchange::begin(&self.inbound.recorder) {
            Ok(exchange) => exchange,
            Err(code) => {
                let refused = respond::refuse(session, ("-", self.now()), &code.into(), None).await;
                return refused.is_ok();
            }
        };
        self.note_connection(&mut exchange);
        let fields = &session.req_header().headers;
        exchange.note_peer(
            headers::peer_request_id(fields),
            headers::attempt(fields),
            headers::trace_parent(fields),
        );
        let mut rate = None;
        let answered = self
            .answer(session, &mut exchange, under_way, &mut rate)
            .await;
        match answered {
            Ok(()) => {
                exchange.finish(Ending {
                    outcome: AuditOutcome::Allowed,
                    denied: None,
                    status: 200,
                });
                true
            }
            // Boxed, as all that is seldom done: the future of a request is moved as a whole.
            Err(Halt::Refused(failure)) => {
                Box::pin(self.refuse(session, exchange, &failure, rate)).await
            }
            Err(Halt::Replan) => {
                let fenced = self.inbound.directory.refusal();
                let fenced = fenced.unwrap_or(DenyCode::Fenced).into();
                Box::pin(self.refuse(session, exchange, &fenced, rate)).await
            }
            Err(Halt::Broken(code)) => {
                exchange.finish(Ending {
                    outcome: AuditOutcome::Error,
                    denied: Some(code),
                    status: 200,
                });
                false
            }
            // Dropping the exchange records that it was cut off.
            Err(Halt::PeerGone) => false,
        }
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(self.inbound.recorder.clock.unix_millis())
    }

    fn note_connection(&self, exchange: &mut Exchange) {
        let Some(identity) = self.connection.identity() else {
            return;
        };
        let grant = GrantId::from(identity.grant);
        exchange.note_identity(
            grant,
            SubjectId::from(identity.subject),
            identity.serial.as_str(),
        );
        let view = self.inbound.directory.view();
        if let Some(entry) = view.snapshot.grant(grant) {
            exchange.note_grant(entry.peer.id, view.snapshot.revision());
        }
    }

    async fn refuse(
        &self,
        session: &mut ServerSession,
        mut exchange: Exchange,
        failure: &Failure,
        rate: Option<RateFields>,
    ) -> bool {
        let request_id = exchange.request_id().to_owned();
        if failure.ends_identity() {
            let source = self.connection.source.ip();
            self.inbound.throttle.federation.failed(source);
        }
        let length = failure.envelope(&request_id).len();
        exchange.figures.bytes = u64::try_from(length).unwrap_or(u64::MAX);
        // Rows that were ready but never sent were not returned.
        exchange.figures.returned = 0;
        let status = failure.http_status();
        let outcome = if status.is_server_error() {
            AuditOutcome::Error
        } else if status == StatusCode::TOO_MANY_REQUESTS {
            AuditOutcome::RateLimited
        } else {
            AuditOutcome::Denied
        };
        // Recorded before it is shown.
        let recorded = exchange.refuse(Ending {
            outcome,
            denied: Some(failure.code),
            status: status.as_u16(),
        });
        let unrecorded = recorded.err().map(Failure::from);
        let shown = unrecorded.as_ref().unwrap_or(failure);
        // Pingora would close, since the refusal comes before the body was read; a short body that is certain to come is
        // read behind the refusal instead, and the connection kept.
        let keeps = !shown.close && !shown.doubts_framing() && has_short_body(session);
        if keeps {
            session.set_close_on_response_before_downstream_finish(false);
        }
        let written = respond::refuse(session, (&request_id, self.now()), shown, rate).await;
        if session.is_http2() && failure.ends_identity() {
            self.dismissal.notify_one();
        }
        if written.is_err() {
            return false;
        }
        if !session.is_http2() && !failure.doubts_framing() {
            // Closing on unread bytes would reset the connection and could take the answer with it (RFC 9112, section 9.6).
            let _ = tokio::time::timeout(FAREWELL, discard_body(session)).await;
        }
        true
    }

    async fn answer(
        &self,
        session: &mut ServerSession,
        exchange: &mut Exchange,
        under_way: &mut Option<AnswerGuard>,
        rate: &mut Option<RateFields>,
    ) -> Result<(), Halt> {
        let framing = session.as_http1().map_or(Ok(()), |http1| {
            framing::inspect_raw_head(&http1.get_headers_raw_bytes())
        });
        // Identity, then the rate, then what the request is (specification, section 3).
        let entered = self.enter(session, exchange, rate).await;
        let (route, _slot) = match (entered, framing) {
            (Ok(entered), Ok(())) => entered,
            (Ok(_), Err(code)) => return Err(code.into()),
            (Err(failure), Ok(())) => return Err(Halt::Refused(failure)),
            (Err(failure), Err(_)) => return Err(Halt::Refused(failure.in_doubt())),
        };
        let (route, body) = read_question(session, exchange, route).await?;
        for _ in 0..MAX_PLANS {
            let planned = self.planned(session, exchange, under_way, rate, &route, &body);
            match planned.await {
                Err(Halt::Replan) => {}
                done => return done,
            }
        }
        Err(Halt::Replan)
    }

    /// Lets a request in: who asks, and whether there is room for it. What is asked is read on the
    /// way, for the record and since renewing a lease has room of its own, but judged by the caller.
    async fn enter(
        &self,
        session: &ServerSession,
        exchange: &mut Exchange,
        rate: &mut Option<RateFields>,
    ) -> Result<(Result<Route, DenyCode>, Slot), Failure> {
        let entry = self.identified().await?;
        let head = session.req_header();
        let route = Route::parse(&head.method, head.uri.path(), head.uri.query());
        if let Ok(route) = &route {
            exchange.note_query(route.verb(), route.resource());
        }
        let purpose = match &route {
            Ok(Route::Capabilities) => Purpose::Revalidation,
            Ok(Route::Renew) => Purpose::Renewal,
            _ => Purpose::Questions,
        };
        let slot = self.admitted(&entry, purpose, rate).await?;
        Ok((route, slot))
    }

    /// Takes a request's share of the limits, or nothing.
    async fn admitted(
        &self,
        entry: &GrantEntry,
        purpose: Purpose,
        rate: &mut Option<RateFields>,
    ) -> Result<Slot, Failure> {
        // What is told is how the grant's own rate stands, which renewals do not draw on.
        let tell = |standing| {
            (purpose != Purpose::Renewal)
                .then(|| self.teller.tell(entry.limits.rate, standing))
                .flatten()
        };
        match self.inbound.throttle.enter(entry, purpose).await {
            Ok(entered) => {
                *rate = tell(entered.standing);
                Ok(entered.slot)
            }
            Err(refused) => {
                *rate = refused.standing.and_then(tell);
                Err(Failure::wait(refused.code, refused.retry_in))
            }
        }
    }

    /// Proves who asks. The first request of a renewed certificate confirms it, before anything else is looked at.
    async fn identified(&self) -> Result<Arc<GrantEntry>, DenyCode> {
        let authenticated = self.authenticated()?;
        let Some(fingerprint) = authenticated.unconfirmed else {
            return Ok(authenticated.entry);
        };
        let entry = &authenticated.entry;
        let confirming =
            self.inbound
                .renewals
                .confirm(&entry.peer.name, entry.grant.id, &fingerprint);
        // Boxed: it happens once in the life of a certificate.
        Box::pin(confirming).await?;
        let again = self.authenticated()?;
        match again.unconfirmed {
            None => Ok(again.entry),
            // What is in force is behind the store.
            Some(_) => Err(DenyCode::RenewalUnavailable),
        }
    }

    fn authenticated(&self) -> Result<Authenticated, DenyCode> {
        if let Some(fenced) = self.inbound.directory.refusal() {
            return Err(fenced);
        }
        let view = self.inbound.directory.view();
        self.inbound
            .authenticator
            .authenticate(&self.connection, &view)
    }

    /// Authenticates, decides and answers under one view.
    async fn planned(
        &self,
        session: &mut ServerSession,
        exchange: &mut Exchange,
        under_way: &mut Option<AnswerGuard>,
        rate: &mut Option<RateFields>,
        route: &Route,
        body: &Body,
    ) -> Result<(), Halt> {
        let view = self.inbound.directory.view();
        let authenticated = self
            .inbound
            .authenticator
            .authenticate(&self.connection, &view)?;
        let entry = &authenticated.entry;
        (self.inbound.contacted)(&entry.peer.name);
        self.heed_acknowledgement(session, entry).await;
        exchange.note_grant(entry.peer.id, view.snapshot.revision());
        let limit = body.limit_under(entry.compat).map_err(refused)?;
        let request = AccessRequest {
            grant: entry.grant.id,
            subject: entry.grant.subject,
            now: authenticated.now,
            verb: route.verb(),
            resource: route.resource(),
            limit,
        };
        let renews = *route == Route::Renew;
        if !renews {
            exchange.note_decision(entry);
        }
        let revision = entry.effective_revision;
        let lease = self.lease(session, exchange, entry)?;
        let turns = &self.inbound.gateway.turns;
        let mut answering = Answering {
            inbound: &self.inbound,
            connection: &self.connection,
            view: &view,
            session,
            exchange,
            lease,
            rate,
            under_way,
            turn: None,
        };
        if let (true, Some(csr_pem)) = (renews, &body.csr_pem) {
            return Box::pin(answering.renew(entry, csr_pem)).await;
        }
        if *route == Route::Search {
            let query = body.search_query().map_err(refused)?;
            let named = body.resources.as_deref();
            let admitted = admit_search(&view.snapshot, &request, named);
            let decided = admitted.as_deref();
            self.inbound.shadow.search(entry, &request, named, decided);
            let admitted = admitted.inspect_err(|deny| answering.exchange.note_refusal(deny))?;
            answering.turn = Some(turns.take().await?);
            let answer = answering.search(revision, admitted, named.is_some(), limit, &query);
            return Box::pin(answer).await;
        }
        let admission = admit(&view.snapshot, &request);
        let decided = admission.as_ref();
        self.inbound.shadow.admission(entry, &request, decided);
        let admission = admission.inspect_err(|deny| answering.exchange.note_refusal(deny))?;
        if matches!(admission, Admission::Rows(_)) {
            answering.turn = Some(turns.take().await?);
        }
        match (admission, route) {
            (Admission::Capabilities(capabilities), _) => {
                Box::pin(answering.capabilities(revision, &capabilities)).await
            }
            (Admission::Rows(admitted), Route::Get { id, .. }) => {
                Box::pin(answering.get(admitted, id)).await
            }
            (Admission::Rows(admitted), _) => {
                let filter =
                    QueryFilter::parse(admitted.resource(), &body.filter).map_err(|error| {
                        Halt::Refused(Failure::saying(DenyCode::InvalidFilter, error.to_string()))
                    })?;
                let question = ListQuestion {
                    limit,
                    filter,
                    cursor: body.cursor.as_deref(),
                };
                answering.list(admitted, question).await
            }
        }
    }

    /// Stores which generation of our trust roots the holder of a grant says to have, once for each.
    async fn heed_acknowledgement(&self, session: &ServerSession, entry: &GrantEntry) {
        let Some(said) = headers::trust_generation(&session.req_header().headers) else {
            return;
        };
        let known = &self.connection.acknowledged;
        if said <= known.load(Ordering::Relaxed) {
            return;
        }
        let noting = self.inbound.renewals.acknowledge(entry, said);
        // Boxed: it happens once in the life of a connection.
        if Box::pin(noting).await {
            known.fetch_max(said, Ordering::Relaxed);
        }
    }

    /// The lease for an answer to `session` under `entry`.
    fn lease(
        &self,
        session: &ServerSession,
        exchange: &Exchange,
        entry: &GrantEntry,
    ) -> Result<AnswerLease<'_>, Halt> {
        let Some(identity) = self.connection.identity() else {
            return Err(DenyCode::GrantUnknown.into());
        };
        let bounds = LeaseBounds {
            received: exchange.at(),
            grant_ends: entry.grant.ends_at(),
            certificate_not_after: identity.not_after,
        };
        let millis = headers::accepts_lease(&session.req_header().headers)
            .then(|| bounds.millis(self.inbound.limits.lease));
        let book = self.inbound.directory.leases();
        Ok(AnswerLease::new(book, entry, exchange.began(), millis))
    }
}

/// Ends when a client of HTTP/2 has not begun to speak it within `limit`: it speaks first (RFC 9113, section 3.4), and Pingora would
/// wait for it without end. One that has is idle when it does not go on.
async fn unspoken(is_http2: bool, heard: Arc<Heard>, limit: Duration) {
    if is_http2
        && tokio::time::timeout(limit, heard.bytes(PREFACE))
            .await
            .is_err()
    {
        return;
    }
    std::future::pending().await
}

/// Ends a connection that cannot go on. Who does not read its end is not waited for: dropping the session closes it.
async fn shut_down(session: &mut ServerSession) {
    let _ = tokio::time::timeout(FAREWELL, session.shutdown()).await;
}

fn refused(problem: BodyProblem) -> Halt {
    Halt::Refused(Failure::saying(problem.code, problem.message))
}

/// Judges the target, reads the body, and checks that they agree.
async fn read_question(
    session: &mut ServerSession,
    exchange: &mut Exchange,
    route: Result<Route, DenyCode>,
) -> Result<(Route, Body), Halt> {
    if session.req_header().method == Method::CONNECT {
        return Err(DenyCode::ConnectRefused.into());
    }
    let route = route?;
    let bytes = within(READ_TIMEOUT, read_body(session, &route))
        .await
        .map_err(|_| Halt::PeerGone)??;
    let body = Body::parse(&bytes).map_err(refused)?;
    if body
        .verb
        .as_deref()
        .is_some_and(|verb| verb != route.verb())
    {
        return Err(DenyCode::VerbMismatch.into());
    }
    if body.resource.is_some() && body.resource.as_deref() != route.resource() {
        return Err(DenyCode::ResourceMismatch.into());
    }
    body.fits(&route).map_err(refused)?;
    if let Some([only]) = body.resources.as_deref() {
        exchange.note_query(route.verb(), Some(only));
    }
    if let Ok(verb) = Verb::parse(route.verb()) {
        let resource = route.resource().and_then(|name| Resource::parse(name).ok());
        let hash = QueryHash::of(
            verb,
            resource,
            &route.hashed_params(&body.hashed_params()),
            body.cursor.as_deref(),
        );
        exchange.note_query_hash(*hash.as_bytes());
    }
    Ok((route, body))
}

/// Whether the head promises a body of at most [`MAX_BODY`] bytes that comes without being asked for.
fn has_short_body(session: &ServerSession) -> bool {
    let fields = &session.req_header().headers;
    let declared = fields
        .get(header::CONTENT_LENGTH)
        .map_or(Some(0), |value| value.to_str().ok()?.parse::<u64>().ok());
    declared.is_some_and(|length| length <= MAX_BODY as u64)
        && !fields.contains_key(header::TRANSFER_ENCODING)
        && !fields.contains_key(header::EXPECT)
}

/// Reads what is left of the body of a refused request, to a bound.
async fn discard_body(session: &mut ServerSession) {
    let mut left = MAX_DISCARDED;
    while let Ok(Some(part)) = session.read_request_body().await {
        match left.checked_sub(part.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Reads the body of a request, of at most [`MAX_BODY`] bytes.
async fn read_body(session: &mut ServerSession, route: &Route) -> Result<Vec<u8>, Halt> {
    let head = session.req_header();
    let bodiless = head.method == Method::GET;
    let declared = head
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if bodiless && head.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(DenyCode::AmbiguousFraming.into());
    }
    if declared.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(DenyCode::BodyTooLarge.into());
    }
    if session.is_body_empty() {
        return Ok(Vec::new());
    }
    if bodiless && matches!(route, Route::Capabilities) && declared != Some(0) {
        return Err(DenyCode::AmbiguousFraming.into());
    }
    let head = session.req_header();
    let media = head
        .headers
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], |value| value.as_bytes());
    let media = media.split(|byte| *byte == b';').next().unwrap_or_default();
    if !media.trim_ascii().eq_ignore_ascii_case(b"application/json") {
        return Err(DenyCode::UnsupportedMediaType.into());
    }
    let expects = head.headers.get(header::EXPECT);
    if expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        session
            .write_continue_response()
            .await
            .map_err(|_| Halt::PeerGone)?;
    }
    let mut body = Vec::new();
    loop {
        match session.read_request_body().await {
            Ok(None) => return Ok(body),
            Ok(Some(part)) if body.len().saturating_add(part.len()) > MAX_BODY => {
                return Err(DenyCode::BodyTooLarge.into());
            }
            Ok(Some(part)) => body.extend_from_slice(&part),
            Err(_) => return Err(DenyCode::AmbiguousFraming.into()),
        }
    }
}
