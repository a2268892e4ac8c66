//! Requests with a secret in them, on their way into the admin socket and in it.
//!
//! Invariant: every buffer of ours that holds one is overwritten when it is let go, and none is outgrown: what a growing buffer
//! leaves behind would not be. The buffers of the HTTP library are not ours.

use std::io::{self, Write};

use axum::RequestExt as _;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::AdminFailure;

/// JSON in a buffer of just its length.
///
/// # Errors
/// What has no JSON form.
pub fn secret_json(value: &impl Serialize) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    let mut counted = Counting(0);
    serde_json::to_writer(&mut counted, value)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(counted.0));
    serde_json::to_writer(&mut *bytes, value)?;
    Ok(bytes)
}

struct Counting(usize);

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A member that is a secret.
pub(super) fn secret_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

/// A JSON body with a secret in it.
pub(super) struct SecretBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for SecretBody<T> {
    type Rejection = AdminFailure;

    async fn from_request(request: Request, _: &S) -> Result<Self, AdminFailure> {
        let invalid = |why: String| AdminFailure::invalid(why);
        let mut body = request.into_limited_body();
        let mut frames = Frames::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| invalid(error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                frames.0.push(data);
            }
        }
        let whole = frames.whole();
        serde_json::from_slice(&whole)
            .map(Self)
            .map_err(|error| invalid(format!("the body cannot be read: {error}")))
    }
}

/// Parts of a body as they came.
#[derive(Default)]
struct Frames(Vec<Bytes>);

impl Frames {
    fn whole(&self) -> Zeroizing<Vec<u8>> {
        let length = self.0.iter().map(Bytes::len).sum();
        let mut whole = Zeroizing::new(Vec::with_capacity(length));
        for frame in &self.0 {
            whole.extend_from_slice(frame);
        }
        whole
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        for frame in self.0.drain(..) {
            if let Ok(mut ours) = frame.try_into_mut() {
                ours.as_mut().zeroize();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Told {
        #[serde(deserialize_with = "secret_text")]
        secret: Zeroizing<String>,
    }

    #[test]
    fn a_buffer_is_not_outgrown() {
        let long = "x".repeat(100_000);
        for value in [json!({"a": 1}), json!({"secret": long, "quoted": "\"\n"})] {
            let bytes = secret_json(&value).unwrap();
            assert_eq!(*bytes, serde_json::to_vec(&value).unwrap());
            assert_eq!(bytes.len(), bytes.capacity(), "grown on the way");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused_without_repeating_it() {
        let told = |text: &'static str| async move {
            let request = Request::new(Body::from(text));
            SecretBody::<Told>::from_request(request, &()).await
        };
        let SecretBody(read) = told(r#"{"secret": "s3cret"}"#).await.unwrap();
        assert_eq!(*read.secret, "s3cret");
        for text in [
            "",
            "s3cret",
            r#"{"secret": ["s3cret"]}"#,
            r#"{"secret": "s3cret", "more": 1}"#,
            r#"{"secret": "s3cret""#,
        ] {
            let failure = told(text).await.err().unwrap();
            assert!(!failure.message.contains("s3cret"), "{failure:?}");
        }
    }
}
