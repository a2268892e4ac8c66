//! Grants: create, list, show, revoke, and the enrollment token.
//!
//! Invariant: a scope is checked against the policy in force before anything is written. The whole token leaves
//! only in the URL that is answered once.

use std::collections::HashMap;

use policy::id::PeerId;
use policy::peer::PeerName;
use policy::scope::Scope;
use policy::time::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    AdminFailure, CertificateView, Control, GrantView, canary, draw_peer_id, parse_grant_id,
    parse_user,
};
use crate::directory::{Applied, Touched};
use crate::enrollment::{EnrollmentToken, enrollment_url};
use crate::store::{Actor, NewGrant, NewToken, TOKEN_TTL_MAX_MILLIS};

/// A grant to create.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateGrant {
    /// The local user whose data it opens, as the gateway names them.
    pub user: String,
    /// The local name of the peer; made when new.
    pub peer: String,
    /// The scope (the specification, section 5).
    pub scope: Value,
    /// When it ends by itself.
    pub expires_at: Option<UnixMillis>,
    /// The same, from now on; seconds.
    pub expires_in_s: Option<u32>,
}

/// Why a grant is revoked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeGrant {
    /// The operator's words, kept with the grant.
    pub reason: Option<String>,
}

/// Another scope for a grant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditGrant {
    /// The scope in full (the specification, section 5).
    pub scope: Value,
}

/// A grant as it is after an edit.
#[derive(Debug, Serialize)]
pub struct EditedGrant {
    /// The grant.
    #[serde(flatten)]
    pub grant: GrantView,
    /// What applying the change came to.
    #[serde(flatten)]
    pub applied: Applied,
}

/// An enrollment token to make.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// How long it lives, seconds; at most 900, as set in `limits.enrollment_token_ttl_s` when absent.
    pub ttl_s: Option<u32>,
    /// Revoke the grant's certificates and start over.
    #[serde(default)]
    pub replace: bool,
}

/// An enrollment token, once.
#[derive(Serialize)]
pub struct TokenView {
    /// What to hand to the peer's operator.
    pub url: String,
    /// When it lapses.
    pub expires_at: UnixMillis,
    /// How many certificates `replace` revoked.
    pub revoked_certificates: u64,
    /// What applying the change came to.
    #[serde(flatten)]
    pub applied: Applied,
}

/// A grant with its certificates.
#[derive(Debug, Serialize)]
pub struct GrantDetail {
    /// The grant.
    #[serde(flatten)]
    pub grant: GrantView,
    /// Certificates issued for it, newest first.
    pub certificates: Vec<CertificateView>,
}

impl Control {
    /// `grant create`.
    ///
    /// # Errors
    /// Every problem of the scope; a revoked peer; an end in the past.
    pub async fn create_grant(
        &self,
        actor: &Actor,
        request: CreateGrant,
    ) -> Result<GrantView, AdminFailure> {
        let user = parse_user(&request.user)?;
        let peer = parse_peer(&request.peer)?;
        if canary::is_reserved(&peer, actor) {
            return Err(AdminFailure::invalid(format!(
                "the name `{peer}` is that of the revocation canary"
            ))
            .hint("choose another name for the peer"));
        }
        let scope = self.parse_scope(&request.scope, &peer)?;
        let act = self.act(actor);
        let expires_at = expiry(&request, act.now)?;
        let grant = NewGrant {
            id: self.draw_id().into(),
            peer_name: peer.clone(),
            peer_id: draw_peer_id(),
            user,
            scope,
            expires_at,
        };
        let committed = self.store.create_grant(&act, grant).await?;
        let touched = Touched::Grant(committed.value.grant.id);
        let (record, applied) = self.apply(committed, touched).await?;
        self.replicas.until_followed(applied.revision).await;
        Ok(GrantView::of(&record, peer, act.now))
    }

    /// A scope as policy lets it be written for `peer`.
    fn parse_scope(&self, scope: &Value, peer: &PeerName) -> Result<Scope, AdminFailure> {
        let view = self.directory.view();
        let rules = view.snapshot.rules();
        Scope::parse(scope, rules.allow_sensitive(peer)).map_err(|error| {
            let problems: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
            AdminFailure::invalid(format!("the scope has {} problem(s)", problems.len()))
                .hint("correct the scope; a sensitive resource needs allow_sensitive in the policy")
                .detail("problems", problems)
        })
    }

    /// `grant edit`: another scope, wider or narrower; returns when nothing is answered under the old one any more.
    /// The same scope changes nothing.
    ///
    /// # Errors
    /// Every problem of the scope; a grant that is over or does not exist; a change that could not be applied here,
    /// or that peers' caches do not follow yet.
    pub async fn edit_grant(
        &self,
        actor: &Actor,
        id: &str,
        request: EditGrant,
    ) -> Result<EditedGrant, AdminFailure> {
        let id = parse_grant_id(id)?;
        let peer = self.store.grant(id).await?.grant.peer;
        let peer = self.store.peer(peer).await?.name;
        let scope = self.parse_scope(&request.scope, &peer)?;
        let act = self.act(actor);
        let committed = self.store.edit_grant(&act, id, scope).await?;
        let (record, applied) = self.effect(committed, Touched::Grant(id)).await?;
        Ok(EditedGrant {
            grant: GrantView::of(&record, peer, act.now),
            applied,
        })
    }

    /// `grant list`: all of them, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list_grants(&self) -> Result<Vec<GrantView>, AdminFailure> {
        let (records, peers, now) = (
            self.store.list_grants().await?,
            self.store.list_peers().await?,
            self.now(),
        );
        let peers: HashMap<PeerId, PeerName> =
            peers.into_iter().map(|peer| (peer.id, peer.name)).collect();
        let view = |record| {
            let name = peers.get(&peer_of(record))?.clone();
            Some(GrantView::of(record, name, now))
        };
        Ok(records.iter().filter_map(view).collect())
    }

    /// `grant show`.
    ///
    /// # Errors
    /// When there is no such grant.
    pub async fn show_grant(&self, id: &str) -> Result<GrantDetail, AdminFailure> {
        let id = parse_grant_id(id)?;
        let record = self.store.grant(id).await?;
        let peer = self.store.peer(record.grant.peer).await?;
        let certificates = self.store.list_certificates(id).await?;
        let now = self.now();
        Ok(GrantDetail {
            grant: GrantView::of(&record, peer.name, now),
            certificates: certificates
                .iter()
                .map(|one| CertificateView::of(&one.entry, now))
                .collect(),
        })
    }

    /// `grant revoke`: returns when nothing is answered under the grant any more. Idempotent.
    ///
    /// # Errors
    /// When there is no such grant, or the change could not be applied here.
    pub async fn revoke_grant(
        &self,
        actor: &Actor,
        id: &str,
        request: RevokeGrant,
    ) -> Result<Applied, AdminFailure> {
        let id = parse_grant_id(id)?;
        let committed = self
            .store
            .revoke_grant(&self.act(actor), id, request.reason.as_deref())
            .await?;
        Ok(self.effect(committed, Touched::Grant(id)).await?.1)
    }

    /// `grant token`.
    ///
    /// # Errors
    /// When the grant is not pending (without `replace`), or revoked or expired.
    pub async fn create_token(
        &self,
        actor: &Actor,
        id: &str,
        request: CreateToken,
    ) -> Result<TokenView, AdminFailure> {
        let grant = parse_grant_id(id)?;
        let (Some(public_url), Some(server)) = (&self.enrollment_url, &self.server_certificate)
        else {
            return Err(AdminFailure::new(
                super::AdminCode::Conflict,
                "this process does not serve: nobody could enroll",
            )
            .hint("set roles.serve = true and restart"));
        };
        let token = EnrollmentToken::draw()
            .map_err(|error| AdminFailure::new(super::AdminCode::Unavailable, error.to_string()))?;
        let act = self.act(actor);
        let expires_at = act
            .now
            .saturating_add(self.token_ttl_millis(request.ttl_s)?);
        let new = NewToken {
            grant,
            sha256: token.sha256(),
            prefix: token.prefix().to_owned(),
            expires_at,
        };
        let (revoked_certificates, applied) = if request.replace {
            let committed = self.store.replace_token(&act, new).await?;
            let (replaced, applied) = self.effect(committed, Touched::Grant(grant)).await?;
            (replaced.revoked_certificates, applied)
        } else {
            let committed = self.store.create_token(&act, new).await.map_err(|error| {
                AdminFailure::from(error)
                    .hint("for a grant that was enrolled before, use --replace")
            })?;
            (0, self.apply(committed, Touched::Grant(grant)).await?.1)
        };
        let url = enrollment_url(&public_url.to_string(), &token, &server.current().pin());
        Ok(TokenView {
            url,
            expires_at,
            revoked_certificates,
            applied,
        })
    }

    fn token_ttl_millis(&self, asked: Option<u32>) -> Result<i64, AdminFailure> {
        let default = self.config.limits.enrollment_token_ttl.as_millis();
        let millis = asked.map_or_else(
            || i64::try_from(default).unwrap_or(TOKEN_TTL_MAX_MILLIS),
            |seconds| i64::from(seconds) * 1000,
        );
        if (1..=TOKEN_TTL_MAX_MILLIS).contains(&millis) {
            Ok(millis)
        } else {
            Err(AdminFailure::invalid("a token lives 1 to 900 seconds")
                .hint("choose a ttl within these bounds"))
        }
    }
}

fn peer_of(record: &crate::store::GrantRecord) -> PeerId {
    record.grant.peer
}

pub(super) fn parse_peer(text: &str) -> Result<PeerName, AdminFailure> {
    PeerName::parse(text).map_err(|error| AdminFailure::invalid(error.to_string()))
}

fn expiry(request: &CreateGrant, now: UnixMillis) -> Result<Option<UnixMillis>, AdminFailure> {
    let end = match (request.expires_at, request.expires_in_s) {
        (Some(_), Some(_)) => {
            return Err(
                AdminFailure::invalid("expires_at and expires_in_s are both given")
                    .hint("keep one"),
            );
        }
        (at, None) => at,
        (None, Some(seconds)) => Some(now.saturating_add(i64::from(seconds) * 1000)),
    };
    match end {
        Some(end) if end <= now => Err(AdminFailure::invalid(format!(
            "the grant would end at {end}, which is past"
        ))),
        end => Ok(end),
    }
}
