//! The check of `doctor` whether the authority for peers does what enrollment and renewal need.
//!
//! Invariant: a step-ca is asked for one certificate for nobody, which is revoked at once and registered nowhere.

use certs::{CaError, ClientIssue, PrivateKey, StepCa, VerifiedCsr};
use uuid::Uuid;

use super::Control;
use super::check::CheckView;

/// A clock that is further away is worth a look, seconds: tokens are dated back by a minute.
const SKEW: i64 = 30;
/// A certificate that lives shorter leaves less than five minutes for renewals, seconds.
const SHORT: i64 = 15 * 60;
const NAME: &str = "authority";

impl Control {
    /// What is to be said about the authority.
    pub(super) async fn check_authority(&self) -> Vec<CheckView> {
        let Some(step) = &self.step else {
            let count = self.ca.anchors().len();
            let found = format!("embedded, {count} root certificate(s)");
            return vec![match count {
                0 => CheckView::fail(NAME, "has no root certificate", "run `ca init`"),
                _ => CheckView::ok(NAME, found),
            }];
        };
        let now = self.clock.unix_seconds();
        let health = match step.health(now).await {
            Ok(health) => health,
            Err(error) => {
                let remedy = "start it, or correct [ca]; enrollments and renewals fail meanwhile";
                return vec![CheckView::fail(NAME, error.to_string(), remedy)];
            }
        };
        let mut checks = vec![self.prove(step, now).await];
        if !health.has_crl {
            checks.push(CheckView::warn(
                "authority's revocation list",
                format!("step-ca at {} publishes none: what is revoked there still opens grants here", step.origin()),
                "use version 0.23 or later with `\"crl\": {\"enabled\": true, \"generateOnRevoke\": true}` in its ca.json; until then revoke here, which holds at once",
            ));
        }
        if let Some(ahead) = health.clock_ahead.filter(|ahead| ahead.abs() > SKEW) {
            checks.push(CheckView::warn(
                "authority's clock",
                format!("is {ahead} s ahead of this machine's"),
                "keep both with NTP: beyond a minute its tokens and certificates are refused",
            ));
        }
        checks
    }

    async fn prove(&self, step: &StepCa, now: i64) -> CheckView {
        let csr = PrivateKey::generate_p256()
            .and_then(|key| key.csr_pem("mosaic-federation-doctor"))
            .map_err(|error| error.to_string())
            .and_then(|pem| VerifiedCsr::parse(&pem).map_err(|error| error.to_string()));
        let csr = match csr {
            Ok(csr) => csr,
            Err(why) => return CheckView::fail(NAME, why, "restart this process"),
        };
        let asked = ClientIssue {
            id: Uuid::now_v7(),
            csr,
            grant: Uuid::now_v7(),
            subject: Uuid::now_v7(),
            lifetime: self.config.limits.client_certificate,
            not_after_cap: None,
            now,
        };
        match step.prove(asked).await {
            Ok(lifetime) if lifetime < SHORT => CheckView::warn(
                NAME,
                format!(
                    "step-ca at {}: its certificates live {lifetime} s, which leaves less than five minutes for renewals",
                    step.origin()
                ),
                "raise `maxTLSCertDuration` of the provisioner and limits.client_certificate_days",
            ),
            Ok(lifetime) => CheckView::ok(
                NAME,
                format!(
                    "step-ca at {}: issues and revokes; certificates live {} h",
                    step.origin(),
                    lifetime / 3600
                ),
            ),
            Err(error @ (CaError::Identity(_) | CaError::Mismatch { .. })) => CheckView::fail(
                NAME,
                error.to_string(),
                "give the provisioner the template compose/step-ca/federation.tpl, and the lifetime that limits.client_certificate_days asks for",
            ),
            Err(error) => CheckView::fail(
                NAME,
                error.to_string(),
                "look at the log of the step-ca; its provisioner must be of type JWK, have this key, and allow the lifetime that is asked for",
            ),
        }
    }
}
