//! `ca`: the embedded certificate authority.

use http::Method;
use serde_json::{Value, json};

use super::door::Door;
use super::failure::CliFailure;
use super::output::Console;
use super::{AuthorityRoot, Context};
use crate::exit::Exit;

/// A running sidecar has its authority already; without one the store is opened here.
pub(super) fn init(context: &Context<'_>, console: &mut Console<'_>) -> Result<Exit, CliFailure> {
    let failed = |why: String| {
        CliFailure::new(
            Exit::Failed,
            "authority",
            "the authority could not be made",
            why,
        )
        .remedy("check the data directory and the sealing secret; `doctor` looks at both")
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    let admin = context.admin()?;
    let running = runtime.block_on(async {
        if admin.is_open().await {
            fetch(&admin).await.map(Some)
        } else {
            Ok(None)
        }
    });
    let root = match running? {
        Some(root) => root,
        None => (context.points.init_authority)(context.config()?).map_err(failed)?,
    };
    if console.json {
        console.document(&json!({"root_pem": root.pem, "sha256": root.sha256}))?;
    } else {
        console.line(&root.sha256)?;
        console.note("SHA-256 of the root certificate; `ca export` prints the certificate")?;
    }
    Ok(Exit::Done)
}

pub(super) async fn export(
    context: &Context<'_>,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let root = fetch(&context.admin()?).await?;
    if console.json {
        console.document(&json!({"root_pem": root.pem, "sha256": root.sha256}))?;
    } else {
        console.line(root.pem.trim_end())?;
    }
    Ok(Exit::Done)
}

async fn fetch(admin: &Door) -> Result<AuthorityRoot, CliFailure> {
    let answer = admin
        .ask(
            "fetching the root certificate",
            Method::GET,
            "/admin/v1/ca",
            None,
        )
        .await?;
    let text = |key: &str| {
        answer
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Ok(AuthorityRoot {
        pem: text("root_pem"),
        sha256: text("sha256"),
    })
}
