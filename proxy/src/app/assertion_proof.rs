//! In `service_token` mode, the proof that the gateway honours the assertion, demanded at start.
//!
//! Invariant: without it every question would be answered as the service, to whoever asked. Two
//! subjects that do not exist are asked as: a gateway that reads the assertion refuses both, or
//! answers each as itself; one that does not answers both alike.

use policy::id::UserId;
use serde_json::Value;
use uuid::Uuid;

use crate::admin::Control;
use crate::config::{GatewayAuth, Preset};
use crate::gateway::{Authority, GatewayError};
use crate::message::headers::RequestTag;

use super::StartError;

/// Largest answer of `whoami`, bytes.
const WHOAMI_BYTES: usize = 64 * 1024;

/// Demands the proof when the settings need one.
///
/// # Errors
/// [`StartError::Gateway`] when the gateway fails it, or when it cannot be had.
pub async fn demand(control: &Control) -> Result<(), StartError> {
    let settings = &control.config.gateway;
    if !matches!(settings.auth, GatewayAuth::ServiceToken { .. }) || !control.config.roles.serve {
        return Ok(());
    }
    if settings.preset != Preset::InternalV1 {
        return Err(StartError::Gateway("service_token needs preset \"internal-v1\": no other says as whom it answers, so nothing would prove that it honours the assertion".to_owned()));
    }
    for _ in 0..2 {
        let name = format!("mosaic-federation-proof-{}", Uuid::new_v4());
        let user = UserId::parse(&name).map_err(|error| StartError::Internal(error.to_string()))?;
        let auth = control
            .credentials
            .for_subject(&user, None)
            .map_err(|error| StartError::Gateway(error.to_string()))?;
        let id = Uuid::now_v7().to_string();
        match control
            .gateway
            .ask(
                &Authority::Operator,
                "/internal/v1/whoami",
                &auth,
                RequestTag::untraced(&id),
            )
            .await
        {
            Err(
                GatewayError::CredentialRejected | GatewayError::Denied | GatewayError::NotFound,
            ) => {}
            Err(error) => {
                return Err(StartError::Gateway(format!(
                    "it could not be proved that it honours the assertion: {error}"
                )));
            }
            Ok(answer) => {
                let body = answer.collect(WHOAMI_BYTES).await.unwrap_or_default();
                let named: Value = serde_json::from_slice(&body).unwrap_or_default();
                if named.get("userId").and_then(Value::as_str) != Some(name.as_str()) {
                    return Err(StartError::Gateway("it answered a user that does not exist as somebody else: it does not honour the assertion, so it must not be asked with a service token".to_owned()));
                }
            }
        }
    }
    Ok(())
}
