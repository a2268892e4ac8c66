//! The gateway as operators see it: does it answer, as whom, and whose tokens are registered.
//!
//! Invariant: a check asks the same way as requests do, one user at a time, and forwards no rows. A token is
//! sealed before it is stored and never answered.

use certs::SealPurpose;
use policy::id::UserId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{AdminCode, AdminFailure, Control, parse_user};
use crate::config::{GatewayAuth, Preset};
use crate::directory::Touched;
use crate::gateway::credential::{SubjectAuth, bearer};
use crate::gateway::{Authority, GatewayError, facts};
use crate::message::headers::RequestTag;
use crate::store::{Actor, SubjectToken};

/// Largest answer of `whoami`, bytes.
const WHOAMI_BYTES: usize = 64 * 1024;

/// Most users that one check asks as.
const MAX_SUBJECTS: usize = 64;

/// A user's gateway token. Not `Debug`: it is a secret.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetToken {
    /// The token.
    pub(super) token: String,
}

/// What a check of the gateway found.
#[derive(Debug, Serialize)]
pub struct GatewayCheck {
    /// Its origin.
    pub url: String,
    /// How it is asked.
    pub preset: &'static str,
    /// `subject_token` or `service_token`.
    pub auth: &'static str,
    /// Whether anything answers there.
    pub reachable: bool,
    /// Why not.
    pub failure: Option<String>,
    /// Each user that was asked as.
    pub subjects: Vec<SubjectCheck>,
    /// Whether two different users were each answered as themselves. `None`: it cannot be told, because fewer
    /// than two users are known or the preset has no question for it.
    pub subjects_kept_apart: Option<bool>,
}

/// What the gateway answered to one user.
#[derive(Debug, Serialize)]
pub struct SubjectCheck {
    /// The user asked as.
    pub user: UserId,
    /// Whether the credential was accepted and the facts could be read.
    pub accepted: bool,
    /// As whom the gateway answered, where it can be asked.
    pub answered_as: Option<String>,
    /// How many teams, projects and missions the user sees.
    pub facts: Option<usize>,
    /// Why the check of this user failed.
    pub failure: Option<String>,
}

impl GatewayCheck {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.reachable
            && self.subjects_kept_apart != Some(false)
            && self.subjects.iter().all(|subject| subject.accepted)
    }
}

impl Control {
    /// `gateway token set`: seals and stores the token and puts it into use at once.
    ///
    /// # Errors
    /// A token that cannot stand in a header; settings under which it would have no effect.
    pub async fn set_gateway_token(
        &self,
        actor: &Actor,
        user: &str,
        token: Zeroizing<String>,
    ) -> Result<(), AdminFailure> {
        if self.config.gateway.auth != GatewayAuth::SubjectToken {
            return Err(AdminFailure::new(
                AdminCode::Conflict,
                "gateway.auth is \"service_token\": a user's token would have no effect",
            )
            .hint("set gateway.auth = \"subject_token\" to use the users' own tokens"));
        }
        let user = parse_user(user)?;
        let header = bearer(&token).map_err(AdminFailure::invalid)?;
        let sealed = self
            .sealer
            .seal(SealPurpose::SubjectToken, user.as_str(), token.as_bytes())
            .map_err(|error| AdminFailure::new(AdminCode::Unavailable, error.to_string()))?;
        let stored = SubjectToken {
            user: user.clone(),
            sealed,
        };
        let committed = self
            .store
            .put_subject_token(&self.act(actor), stored)
            .await?;
        self.credentials.register(&user, &header);
        self.apply(committed, Touched::All).await?;
        Ok(())
    }

    /// `gateway check`: asks as every user that has a token or a grant.
    ///
    /// # Errors
    /// When the store cannot be read; what the gateway says is in the answer.
    pub async fn check_gateway(&self) -> Result<GatewayCheck, AdminFailure> {
        let failure = self.probe_gateway().await;
        let mut subjects = Vec::new();
        if failure.is_none() {
            for user in self.gateway_users().await? {
                subjects.push(self.check_subject(user).await);
            }
        }
        let settings = &self.config.gateway;
        Ok(GatewayCheck {
            url: settings.url.clone(),
            preset: settings.preset.as_str(),
            auth: match settings.auth {
                GatewayAuth::SubjectToken => "subject_token",
                GatewayAuth::ServiceToken { .. } => "service_token",
            },
            reachable: failure.is_none(),
            failure,
            subjects_kept_apart: kept_apart(&subjects),
            subjects,
        })
    }

    /// Why the gateway gives no answer at all, if so. Asked with a credential that opens nothing.
    pub(super) async fn probe_gateway(&self) -> Option<String> {
        let auth = match bearer("probe") {
            Ok(header) => SubjectAuth::Token(header),
            Err(error) => return Some(error),
        };
        let target = match self.config.gateway.preset {
            Preset::InternalV1 => "/internal/v1/health",
            Preset::Mosaic | Preset::Mapped => "/",
        };
        let id = self.draw_id().to_string();
        match self
            .gateway
            .ask(
                &Authority::Operator,
                target,
                &auth,
                RequestTag::untraced(&id),
            )
            .await
        {
            Err(error @ (GatewayError::Unreachable(_) | GatewayError::Timeout(_))) => {
                Some(error.to_string())
            }
            Ok(_) | Err(_) => None,
        }
    }

    async fn gateway_users(&self) -> Result<Vec<UserId>, AdminFailure> {
        let mut users: Vec<UserId> = match self.config.gateway.auth {
            GatewayAuth::SubjectToken => self
                .store
                .list_subject_tokens()
                .await?
                .into_iter()
                .map(|(user, _)| user)
                .collect(),
            GatewayAuth::ServiceToken { .. } => {
                let grants = self.store.list_grants().await?.into_iter();
                grants
                    .filter(|one| !one.grant.status.is_final())
                    .map(|one| one.grant.user)
                    .collect()
            }
        };
        users.sort();
        users.dedup();
        users.truncate(MAX_SUBJECTS);
        Ok(users)
    }

    async fn check_subject(&self, user: UserId) -> SubjectCheck {
        let mut check = SubjectCheck {
            user,
            accepted: false,
            answered_as: None,
            facts: None,
            failure: None,
        };
        let failure = match self.credentials.for_subject(&check.user, None) {
            Err(error) => Err(error.to_string()),
            Ok(auth) => self.ask_as(&mut check, &auth).await,
        };
        check.accepted = failure.is_ok();
        check.failure = failure.err();
        check
    }

    async fn ask_as(&self, check: &mut SubjectCheck, auth: &SubjectAuth) -> Result<(), String> {
        let id = self.draw_id().to_string();
        if self.config.gateway.preset == Preset::InternalV1 {
            let answer = self
                .gateway
                .ask(
                    &Authority::Operator,
                    "/internal/v1/whoami",
                    auth,
                    RequestTag::untraced(&id),
                )
                .await;
            let body = match answer {
                Ok(answer) => answer.collect(WHOAMI_BYTES).await,
                Err(error) => Err(error),
            };
            let body = body.map_err(|error| error.to_string())?;
            let value: Value = serde_json::from_slice(&body)
                .map_err(|_| "the answer to whoami is not JSON".to_owned())?;
            let named = value.get("userId").and_then(Value::as_str);
            let named = named
                .ok_or("the answer to whoami has no userId")?
                .to_owned();
            let is_same = named == check.user.as_str();
            check.answered_as = Some(named);
            if !is_same {
                return Err(
                    "the gateway answered as another user: this credential must not be used"
                        .to_owned(),
                );
            }
        }
        let view = self.directory.view();
        let mapping = view.snapshot.mapping();
        let facts = facts::fetch(
            &self.gateway,
            mapping,
            &Authority::Operator,
            auth,
            RequestTag::untraced(&id),
        )
        .await;
        check.facts = Some(facts.map_err(|error| error.to_string())?.entries());
        Ok(())
    }
}

/// Two users answered as themselves prove that the credential decides, not something else of the request.
fn kept_apart(subjects: &[SubjectCheck]) -> Option<bool> {
    let named: Vec<_> = subjects
        .iter()
        .filter(|one| one.answered_as.is_some())
        .collect();
    if named
        .iter()
        .any(|one| one.answered_as.as_deref() != Some(one.user.as_str()))
    {
        return Some(false);
    }
    (named.len() >= 2).then_some(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn subject(user: &str, answered_as: Option<&str>) -> SubjectCheck {
        SubjectCheck {
            user: UserId::parse(user).unwrap(),
            accepted: true,
            answered_as: answered_as.map(str::to_owned),
            facts: None,
            failure: None,
        }
    }

    #[test]
    fn it_takes_two_users_to_show_that_they_are_kept_apart() {
        assert_eq!(kept_apart(&[]), None);
        assert_eq!(kept_apart(&[subject("a", Some("a"))]), None);
        assert_eq!(kept_apart(&[subject("a", None), subject("b", None)]), None);
        assert_eq!(
            kept_apart(&[subject("a", Some("a")), subject("b", Some("b"))]),
            Some(true)
        );
        assert_eq!(
            kept_apart(&[subject("a", Some("a")), subject("b", Some("a"))]),
            Some(false)
        );
        assert_eq!(
            kept_apart(&[subject("a", Some("b"))]),
            Some(false),
            "one wrong answer is enough"
        );
    }
}
