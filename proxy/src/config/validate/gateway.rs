//! The gateway's keys: which go with which way of authenticating.
//!
//! Invariant: a key that would have no effect is a problem, as is a missing one.

use std::time::Duration;

use super::super::url::bare_origin;
use super::{Check, count};
use crate::config::settings::{self, Auth, Preset};
use crate::config::{Gateway, GatewayAuth};

impl Check<'_> {
    pub(super) fn gateway(&mut self, section: settings::Gateway) -> Option<Gateway> {
        if let Err(message) = check_origin(&section.url) {
            self.add(
                "gateway.url",
                message,
                "write http://host:port, https://host:port or unix:/path",
            );
        }
        let auth = match section.auth {
            Auth::SubjectToken => self.subject_token(&section),
            Auth::ServiceToken => self.service_token(&section),
        };
        Some(Gateway {
            url: section.url,
            preset: section.preset,
            auth: auth?,
            connect_timeout: Duration::from_millis(section.connect_timeout_ms),
            read_timeout: Duration::from_millis(section.read_timeout_ms),
            max_requests: count(section.max_requests),
            max_waiting: count(section.max_waiting),
        })
    }

    /// Keys of the other mode would have no effect: each is a problem.
    fn subject_token(&mut self, section: &settings::Gateway) -> Option<GatewayAuth> {
        for (key, is_set) in [
            (
                "gateway.service_token_file",
                section.service_token_file.is_some(),
            ),
            ("gateway.assertion", section.assertion.is_some()),
            ("gateway.audience", section.audience.is_some()),
            ("gateway.jwks_file", section.jwks_file.is_some()),
        ] {
            if is_set {
                let message = "has no effect with gateway.auth = \"subject_token\"".to_owned();
                self.add(
                    key,
                    message,
                    "remove it, or set gateway.auth = \"service_token\"",
                );
            }
        }
        Some(GatewayAuth::SubjectToken)
    }

    fn service_token(&mut self, section: &settings::Gateway) -> Option<GatewayAuth> {
        let refused = match section.preset {
            Preset::InternalV1 => None,
            Preset::Mosaic => Some(
                "\"service_token\" cannot be used with preset \"mosaic\": that gateway knows no impersonation",
            ),
            Preset::Mapped => Some(
                "\"service_token\" cannot be used with preset \"mapped\": nothing would prove that the gateway honours the assertion",
            ),
        };
        if let Some(message) = refused {
            let hint = "use auth = \"subject_token\", or preset \"internal-v1\"";
            self.add("gateway.auth", message.to_owned(), hint);
        }
        let mut require = |key: &str, missing: bool, hint: &str| {
            if missing {
                let message = "is required with gateway.auth = \"service_token\"".to_owned();
                self.add(key, message, hint);
            }
        };
        require(
            "gateway.assertion",
            section.assertion.is_none(),
            "set it to \"v1\"",
        );
        let audience = section
            .audience
            .as_deref()
            .filter(|audience| !audience.is_empty());
        require(
            "gateway.audience",
            audience.is_none(),
            "set it to what the gateway expects as `aud`",
        );
        require(
            "gateway.service_token_file",
            section.service_token_file.is_none(),
            "name the file",
        );
        require(
            "gateway.jwks_file",
            section.jwks_file.is_none(),
            "name the file the gateway reads",
        );
        Some(GatewayAuth::ServiceToken {
            token_file: self.path(
                "gateway.service_token_file",
                section.service_token_file.as_deref()?,
            ),
            audience: audience?.to_owned(),
            jwks_file: self.path("gateway.jwks_file", section.jwks_file.as_deref()?),
        })
    }
}

/// The shape of a gateway origin; the gateway client takes it apart.
fn check_origin(text: &str) -> Result<(), String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.starts_with('/') {
            true => Ok(()),
            false => Err("a unix socket needs an absolute path".to_owned()),
        };
    }
    bare_origin(text, &["http", "https"]).map(drop)
}
