//! Users of this side: end everything that peers may see as one of them.
//!
//! Invariant: all grants go in one change, and it returns when nothing is answered under any of them any more.

use policy::id::{GrantId, UserId};
use serde::{Deserialize, Serialize};

use super::{AdminFailure, Control, parse_user};
use crate::directory::{Applied, Touched};
use crate::store::Actor;

/// Why a user is forgotten.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetUser {
    /// The operator's words, kept with each grant.
    pub reason: Option<String>,
}

/// What was ended.
#[derive(Debug, Serialize)]
pub struct ForgottenView {
    /// The user, as the gateway names them.
    pub user: UserId,
    /// The grants that were revoked by this.
    pub grants: Vec<GrantId>,
    /// What applying the change came to.
    #[serde(flatten)]
    pub applied: Applied,
}

impl Control {
    /// `user forget`: revokes every grant in which the user is the subject. Their gateway token stays, since their own
    /// sessions ask with it. Idempotent.
    ///
    /// # Errors
    /// When the change could not be applied here, or peers' caches do not follow yet.
    pub async fn forget_user(
        &self,
        actor: &Actor,
        user: &str,
        request: ForgetUser,
    ) -> Result<ForgottenView, AdminFailure> {
        let user = parse_user(user)?;
        let act = self.act(actor);
        let committed = self
            .store
            .forget_user(&act, &user, request.reason.as_deref())
            .await?;
        let (grants, applied) = self.effect(committed, Touched::All).await?;
        Ok(ForgottenView {
            user,
            grants,
            applied,
        })
    }
}
