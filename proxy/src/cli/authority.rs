//! `ca`: the embedded certificate authority.

use http::Method;
use serde_json::{Value, json};

use super::arguments::RotateCommand;
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

pub(super) async fn rotate(
    context: &Context<'_>,
    command: RotateCommand,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let admin = context.admin()?;
    let (what, method, step, body) = match command {
        RotateCommand::Status => ("reading the rotation", Method::GET, "", None),
        RotateCommand::Plan => ("making the next root", Method::POST, "/plan", None),
        RotateCommand::Apply => ("trusting the next root", Method::POST, "/apply", None),
        RotateCommand::Finish { force } => (
            "ending the rotation",
            Method::POST,
            "/finish",
            Some(json!({ "force": force })),
        ),
    };
    let target = format!("/admin/v1/ca/rotation{step}");
    let found = admin.ask(what, method, &target, body.as_ref()).await?;
    if console.json {
        console.document(&found)?;
        return Ok(Exit::Done);
    }
    let fields = [
        ("phase", "/phase"),
        ("since", "/since"),
        ("generation", "/generation"),
        ("root", "/root/sha256"),
        ("ends", "/root/not_after"),
        ("next root", "/next_root/sha256"),
        ("next ends", "/next_root/not_after"),
        ("waiting for", "/waiting"),
    ];
    console.members(&fields, &found)?;
    let followers = found.get("followers").and_then(Value::as_array);
    let followers = followers.map_or(&[][..], Vec::as_slice);
    if !followers.is_empty() {
        console.line("")?;
        let columns = [
            ("PEER", "/peer"),
            ("GRANT", "/grant"),
            ("HAS", "/acknowledged"),
            ("OLD ROOT", "/of_old_root"),
            ("UNTIL", "/until"),
            ("WAITS FOR", "/waits_for"),
        ];
        console.table(&columns, followers)?;
    }
    if let Some(next) = found.get("next_step").and_then(Value::as_str) {
        console.note(next)?;
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
