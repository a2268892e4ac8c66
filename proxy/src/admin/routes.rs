//! The operations as JSON over HTTP, under `/admin/v1`.
//!
//! Invariant: bodies are bounded, unknown keys are refused, and every failure, also one of parsing, has the
//! envelope. Who acts is the uid of the process at the other end, as the kernel says.

use std::sync::Arc;

use axum::extract::Request;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{
    ConnectInfo, DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, State,
};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certs::identity::fingerprint;
use policy::deny::DenyCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::gateway::SetToken;
use super::keys::StartReseal;
use super::secret_body::SecretBody;
use super::socket::Caller;
use super::{
    AddPeer, AdminCode, AdminFailure, ArchiveAudit, AuditQuery, ComparePolicy, Control,
    CreateGrant, CreateSession, CreateToken, EditGrant, Explain, FinishReseal, FinishRotation,
    ForgetUser, ImportPeers, RemovePeer, RenewCertificates, ReplayPolicy, RevokeCertificate,
    RevokeGrant, StartShadow,
};
use crate::store::Actor;

/// Most bytes of a request body.
const BODY_BYTES: usize = 256 * 1024;

/// Most bytes of the files of a policy, or of an export, as JSON.
const POLICY_BYTES: usize = 16 * 1024 * 1024;

/// What streams of lines are.
const JSON_LINES: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/jsonl")];

type Shared = State<Arc<Control>>;
type Answer<T> = Result<Json<T>, AdminFailure>;

/// The routes. To be served with [`serve`](super::serve), which knows who calls.
pub fn router(control: Arc<Control>) -> Router {
    let routes = Router::new()
        .route("/status", get(status))
        .route("/checks", get(checks))
        .route("/ca", get(authority))
        .route("/ca/rotation", get(rotation))
        .route("/ca/rotation/plan", post(plan_rotation))
        .route("/ca/rotation/apply", post(apply_rotation))
        .route("/ca/rotation/finish", post(finish_rotation))
        .route("/grants", get(list_grants).post(create_grant))
        .route("/grants/{id}", get(show_grant).put(edit_grant))
        .route("/grants/{id}/revoke", post(revoke_grant))
        .route("/grants/{id}/token", post(create_token))
        .route("/users/{user}/forget", post(forget_user))
        .route("/certificates", get(list_certificates))
        .route("/certificates/renew", post(renew_certificates))
        .route("/certificates/{serial}/revoke", post(revoke_certificate))
        .route("/peers", get(list_peers).post(add_peer))
        .route(
            "/peers/import",
            post(import_peers).layer(DefaultBodyLimit::max(POLICY_BYTES)),
        )
        .route("/peers/{name}", get(show_peer))
        .route("/peers/{name}/suspend", post(suspend_peer))
        .route("/peers/{name}/resume", post(resume_peer))
        .route("/peers/{name}/remove", post(remove_peer))
        .route("/peers/{name}/reset", post(reset_peer))
        .route("/sessions", get(list_sessions).post(create_session))
        .route("/sessions/{id}/end", post(end_session))
        .route("/audit", get(query_audit))
        .route("/audit/explain", get(explain_request))
        .route("/audit/verify", get(verify_audit))
        .route("/audit/export", get(export_audit))
        .route("/audit/asked", get(asked_under))
        .route("/audit/archive", post(archive_audit))
        .route("/policy/explain", post(explain))
        .route(
            "/policy/diff",
            post(diff_policy).layer(DefaultBodyLimit::max(POLICY_BYTES)),
        )
        .route(
            "/policy/replay",
            post(replay_policy).layer(DefaultBodyLimit::max(POLICY_BYTES)),
        )
        .route(
            "/policy/shadow",
            put(start_shadow)
                .layer(DefaultBodyLimit::max(POLICY_BYTES))
                .get(shadow)
                .delete(end_shadow),
        )
        .route("/policy/reload", post(reload_policy))
        .route("/keys", get(sealing))
        .route("/keys/reseal", post(start_reseal))
        .route("/keys/reseal/finish", post(finish_reseal))
        .route("/gateway/check", post(check_gateway))
        .route("/gateway/tokens/{user}", put(set_gateway_token));
    Router::new()
        .nest("/admin/v1", routes)
        .fallback(|| async { AdminFailure::new(AdminCode::NotFound, "there is no such route") })
        .method_not_allowed_fallback(|| async {
            AdminFailure::invalid("this route has another method")
        })
        .layer(from_fn(uncut))
        .layer(from_fn_with_state(Arc::clone(&control), unfenced))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(control)
}

/// Refuses acts while this replica serves nothing: it does not know what it would change.
async fn unfenced(State(control): Shared, request: Request, next: Next) -> Response {
    if !request.method().is_safe() && control.directory.refusal() == Some(DenyCode::ReplicaFenced) {
        return AdminFailure::new(
            AdminCode::Unavailable,
            "this replica has not heard of the store for too long, so it takes no acts",
        )
        .hint("see whether the database answers (`doctor`), or ask another replica")
        .detail("reason", DenyCode::ReplicaFenced.as_str())
        .into_response();
    }
    next.run(request).await
}

/// Runs an act in a task of its own, so that a client that leaves does not cut it between the commit and its effect.
async fn uncut(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let act = tokio::spawn(next.run(request)).await;
    act.unwrap_or_else(|error| {
        tracing::error!(%error, "an act was cut off");
        AdminFailure::new(
            AdminCode::Unavailable,
            "the act was cut off by a defect of this program",
        )
        .hint("`status` and `audit tail` show whether it was committed; repeating it does no harm")
        .into_response()
    })
}

/// A JSON body whose faults are in the envelope.
struct Body<T>(T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = AdminFailure;

    async fn from_request(request: Request, state: &S) -> Result<Self, AdminFailure> {
        let parsed: Result<Json<T>, JsonRejection> = Json::from_request(request, state).await;
        parsed
            .map(|Json(body)| Self(body))
            .map_err(|error| AdminFailure::invalid(error.body_text()))
    }
}

/// Query parameters whose faults are in the envelope.
struct Parameters<T>(T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = AdminFailure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AdminFailure> {
        let parsed: Result<Query<T>, QueryRejection> =
            Query::from_request_parts(parts, state).await;
        parsed
            .map(|Query(query)| Self(query))
            .map_err(|error| AdminFailure::invalid(error.body_text()))
    }
}

/// Who calls.
struct Acting(Actor);

impl<S: Send + Sync> FromRequestParts<S> for Acting {
    type Rejection = AdminFailure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AdminFailure> {
        match parts.extensions.get::<ConnectInfo<Caller>>() {
            Some(ConnectInfo(Caller { uid: Some(uid) })) => Ok(Self(Actor::Operator { uid: *uid })),
            _ => Err(AdminFailure::new(
                AdminCode::Forbidden,
                "the calling process is not known",
            )),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    direction: Option<String>,
}

#[derive(Serialize)]
struct Items<T> {
    items: Vec<T>,
}

fn items<T: Serialize>(items: Vec<T>) -> Json<Items<T>> {
    Json(Items { items })
}

async fn status(State(control): Shared) -> Answer<impl Serialize> {
    control.status().await.map(Json)
}

async fn checks(State(control): Shared) -> Answer<impl Serialize> {
    control.checks().await.map(items)
}

async fn authority(State(control): Shared) -> Answer<impl Serialize> {
    let anchors = control.ca.anchors();
    let sha256 = anchors.first().map(|root| hex::encode(fingerprint(root)));
    let roots: Vec<String> = anchors.iter().map(|root| pem(root)).collect();
    Ok(Json(json!({"root_pem": roots.concat(), "sha256": sha256})))
}

async fn rotation(State(control): Shared) -> Answer<impl Serialize> {
    control.rotation().await.map(Json)
}

async fn plan_rotation(State(control): Shared, Acting(actor): Acting) -> Answer<impl Serialize> {
    control.plan_rotation(&actor).await.map(Json)
}

async fn apply_rotation(State(control): Shared, Acting(actor): Acting) -> Answer<impl Serialize> {
    control.apply_rotation(&actor).await.map(Json)
}

async fn finish_rotation(
    State(control): Shared,
    Acting(actor): Acting,
    Body(body): Body<FinishRotation>,
) -> Answer<impl Serialize> {
    control.finish_rotation(&actor, body).await.map(Json)
}

/// RFC 7468 text of a certificate.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while let Some((line, more)) = rest.split_at_checked(64) {
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    if !rest.is_empty() {
        out.push_str(rest);
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

async fn list_grants(State(control): Shared) -> Answer<impl Serialize> {
    control.list_grants().await.map(items)
}

async fn create_grant(
    State(control): Shared,
    Acting(actor): Acting,
    Body(body): Body<CreateGrant>,
) -> Result<Response, AdminFailure> {
    let grant = control.create_grant(&actor, body).await?;
    Ok((StatusCode::CREATED, Json(grant)).into_response())
}

async fn show_grant(State(control): Shared, Path(id): Path<String>) -> Answer<impl Serialize> {
    control.show_grant(&id).await.map(Json)
}

async fn edit_grant(
    State(control): Shared,
    Acting(actor): Acting,
    Path(id): Path<String>,
    Body(body): Body<EditGrant>,
) -> Answer<impl Serialize> {
    control.edit_grant(&actor, &id, body).await.map(Json)
}

async fn revoke_grant(
    State(control): Shared,
    Acting(actor): Acting,
    Path(id): Path<String>,
    Body(body): Body<RevokeGrant>,
) -> Answer<impl Serialize> {
    control.revoke_grant(&actor, &id, body).await.map(Json)
}

async fn create_token(
    State(control): Shared,
    Acting(actor): Acting,
    Path(id): Path<String>,
    Body(body): Body<CreateToken>,
) -> Result<Response, AdminFailure> {
    let token = control.create_token(&actor, &id, body).await?;
    Ok((StatusCode::CREATED, Json(token)).into_response())
}

async fn forget_user(
    State(control): Shared,
    Acting(actor): Acting,
    Path(user): Path<String>,
    Body(body): Body<ForgetUser>,
) -> Answer<impl Serialize> {
    control.forget_user(&actor, &user, body).await.map(Json)
}

async fn list_certificates(State(control): Shared) -> Answer<impl Serialize> {
    control.list_certificates().await.map(items)
}

async fn renew_certificates(
    State(control): Shared,
    Acting(actor): Acting,
    Body(body): Body<RenewCertificates>,
) -> Answer<impl Serialize> {
    control.renew_certificates(&actor, body).await.map(items)
}

async fn revoke_certificate(
    State(control): Shared,
    Acting(actor): Acting,
    Path(serial): Path<String>,
    Body(body): Body<RevokeCertificate>,
) -> Answer<impl Serialize> {
    control
        .revoke_certificate(&actor, &serial, body)
        .await
        .map(Json)
}

async fn list_peers(State(control): Shared) -> Answer<impl Serialize> {
    control.list_peers().await.map(items)
}

async fn add_peer(
    State(control): Shared,
    Acting(actor): Acting,
    Body(body): Body<AddPeer>,
) -> Result<Response, AdminFailure> {
    let peer = control.add_peer(&actor, body).await?;
    Ok((StatusCode::CREATED, Json(peer)).into_response())
}

async fn import_peers(
    State(control): Shared,
    Acting(actor): Acting,
    SecretBody(body): SecretBody<ImportPeers>,
) -> Answer<impl Serialize> {
    control.import_peers(&actor, body).await.map(Json)
}

async fn show_peer(
    State(control): Shared,
    Path(name): Path<String>,
    Parameters(which): Parameters<Which>,
) -> Answer<impl Serialize> {
    control
        .show_peer(&name, which.direction.as_deref())
        .await
        .map(Json)
}

async fn suspend_peer(
    State(control): Shared,
    Acting(actor): Acting,
    Path(name): Path<String>,
    Parameters(which): Parameters<Which>,
) -> Answer<impl Serialize> {
    control
        .suspend_peer(&actor, &name, which.direction.as_deref())
        .await
        .map(Json)
}

async fn resume_peer(
    State(control): Shared,
    Acting(actor): Acting,
    Path(name): Path<String>,
    Parameters(which): Parameters<Which>,
) -> Answer<impl Serialize> {
    control
        .resume_peer(&actor, &name, which.direction.as_deref())
        .await
        .map(Json)
}

async fn remove_peer(
    State(control): Shared,
    Acting(actor): Acting,
    Path(name): Path<String>,
    Parameters(which): Parameters<Which>,
    Body(body): Body<RemovePeer>,
) -> Answer<impl Serialize> {
    control
        .remove_peer(&actor, &name, which.direction.as_deref(), body)
        .await
        .map(Json)
}

async fn reset_peer(
    State(control): Shared,
    Acting(actor): Acting,
    Path(name): Path<String>,
) -> Answer<impl Serialize> {
    control.reset_peer(&actor, &name).await.map(Json)
}

async fn create_session(
    State(control): Shared,
    Acting(actor): Acting,
    Body(body): Body<CreateSession>,
) -> Result<Response, AdminFailure> {
    let session = control.create_session(&actor, body).await?;
    Ok((StatusCode::CREATED, Json(session)).into_response())
}

async fn list_sessions(State(control): Shared) -> Answer<impl Serialize> {
    control.list_sessions().await.map(items)
}

async fn end_session(
    State(control): Shared,
    Acting(actor): Acting,
    Path(id): Path<String>,
) -> Answer<impl Serialize> {
    control.end_session(&actor, &id).await.map(Json)
}

async fn query_audit(
    State(control): Shared,
    Parameters(query): Parameters<AuditQuery>,
) -> Answer<impl Serialize> {
    control.query_audit(query).await.map(items)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichRequest {
    request_id: String,
    #[serde(default)]
    historical: bool,
}

async fn explain_request(
    State(control): Shared,
    Parameters(which): Parameters<WhichRequest>,
) -> Answer<impl Serialize> {
    control
        .explain_request(&which.request_id, which.historical)
        .await
        .map(items)
}

async fn verify_audit(State(control): Shared) -> Answer<impl Serialize> {
    control.verify_audit().await.map(Json)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichExport {
    grant: Option<String>,
}

async fn export_audit(
    State(control): Shared,
    Parameters(which): Parameters<WhichExport>,
) -> Result<Response, AdminFailure> {
    let body = match &which.grant {
        None => axum::body::Body::from_stream(control.export_audit().await?),
        Some(grant) => axum::body::Body::from_stream(control.export_history(grant).await?),
    };
    Ok((JSON_LINES, body).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichGrant {
    grant: String,
    peer: Option<String>,
}

async fn asked_under(
    State(control): Shared,
    Parameters(which): Parameters<WhichGrant>,
) -> Result<Response, AdminFailure> {
    let lines = control
        .asked_under(&which.grant, which.peer.as_deref())
        .await?;
    Ok((JSON_LINES, axum::body::Body::from_stream(lines)).into_response())
}

async fn archive_audit(
    State(control): Shared,
    Acting(actor): Acting,
    Body(body): Body<ArchiveAudit>,
) -> Answer<impl Serialize> {
    control.archive_audit(&actor, body).await.map(Json)
}

async fn explain(State(control): Shared, Body(body): Body<Explain>) -> Answer<impl Serialize> {
    control.explain(body).await.map(Json)
}

async fn diff_policy(
    State(control): Shared,
    Body(body): Body<ComparePolicy>,
) -> Answer<impl Serialize> {
    control.diff_policy(body).await.map(Json)
}

async fn replay_policy(
    State(control): Shared,
    Body(body): Body<ReplayPolicy>,
) -> Answer<impl Serialize> {
    control.replay_policy(body).await.map(Json)
}

async fn start_shadow(
    State(control): Shared,
    Body(body): Body<StartShadow>,
) -> Answer<impl Serialize> {
    control.start_shadow(&body).map(Json)
}

async fn shadow(State(control): Shared) -> Json<impl Serialize> {
    Json(control.shadow())
}

async fn end_shadow(State(control): Shared) -> Json<impl Serialize> {
    Json(control.end_shadow())
}

async fn reload_policy(State(control): Shared, Acting(actor): Acting) -> Answer<impl Serialize> {
    control.reload_policy(&actor).await.map(Json)
}

async fn sealing(State(control): Shared) -> Answer<impl Serialize> {
    control.sealing().await.map(Json)
}

async fn start_reseal(
    State(control): Shared,
    Acting(actor): Acting,
    SecretBody(body): SecretBody<StartReseal>,
) -> Answer<impl Serialize> {
    let secret = hex::decode(body.secret.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| AdminFailure::invalid("the secret is not hex"))?;
    control.start_reseal(&actor, secret).await.map(Json)
}

async fn finish_reseal(
    State(control): Shared,
    Acting(actor): Acting,
    Body(body): Body<FinishReseal>,
) -> Answer<impl Serialize> {
    control.finish_reseal(&actor, body).await.map(Json)
}

async fn check_gateway(State(control): Shared) -> Answer<impl Serialize> {
    control.check_gateway().await.map(Json)
}

async fn set_gateway_token(
    State(control): Shared,
    Acting(actor): Acting,
    Path(user): Path<String>,
    Body(body): Body<SetToken>,
) -> Result<StatusCode, AdminFailure> {
    control
        .set_gateway_token(&actor, &user, Zeroizing::new(body.token))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;
    use tokio::sync::{Notify, watch};

    use super::*;
    use crate::admin::{bind, serve};

    /// An act that has begun, and may go on, and has ended.
    #[derive(Default)]
    struct Steps {
        begun: Notify,
        go_on: Notify,
        ended: Notify,
        was_cut: AtomicBool,
    }

    /// Notes that an act was dropped on its way.
    struct Under<'s>(&'s Steps);

    impl Drop for Under<'_> {
        fn drop(&mut self) {
            self.0.was_cut.store(true, Ordering::SeqCst);
        }
    }

    async fn act(steps: Arc<Steps>) {
        let under = Under(&steps);
        steps.begun.notify_one();
        steps.go_on.notified().await;
        std::mem::forget(under);
        steps.ended.notify_one();
    }

    #[tokio::test]
    async fn an_act_ends_although_its_client_has_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let steps = || Arc::new(Steps::default());
        let (change, reading) = (steps(), steps());
        let handler = |steps: &Arc<Steps>| {
            let steps = Arc::clone(steps);
            move || act(steps)
        };
        let routes = Router::new()
            .route("/", post(handler(&change)).get(handler(&reading)))
            .layer(from_fn(uncut));
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(serve(bind(&path).await.unwrap(), routes, stopped));
        for (method, steps) in [("POST", &change), ("GET", &reading)] {
            let mut client = UnixStream::connect(&path).await.unwrap();
            let head =
                format!("{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
            client.write_all(head.as_bytes()).await.unwrap();
            steps.begun.notified().await;
        }
        // Reading is cut once the server has noticed that the second client has left: so it has of the first.
        let noticed = async {
            while !reading.was_cut.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
        };
        let patience = std::time::Duration::from_secs(20);
        tokio::time::timeout(patience, noticed).await.unwrap();
        assert!(!change.was_cut.load(Ordering::SeqCst));
        change.go_on.notify_one();
        let ended = tokio::time::timeout(patience, change.ended.notified()).await;
        assert!(ended.is_ok());
    }
}
