//! `peer`: the other sides.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use super::arguments::{Direction, PeerAdd, PeerCommand, PeerNamed};
use super::door::{Door, read_text};
use super::failure::CliFailure;
use super::grant::{print_applied, print_items};
use super::output::Console;
use super::{Context, import, segment};
use crate::exit::Exit;

const COLUMNS: [(&str, &str); 6] = [
    ("PEER", "/name"),
    ("DIRECTION", "/direction"),
    ("STATE", "/state"),
    ("ENDPOINT", "/endpoint_url"),
    ("LAST SUCCESS", "/last_success_at"),
    ("LAST FAILURE", "/last_failure"),
];

pub(super) async fn run(
    context: &Context<'_>,
    command: PeerCommand,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let admin = context.admin()?;
    match command {
        PeerCommand::Import(import) => return import::run(context, import, console).await,
        PeerCommand::Add(add) => add_peer(&admin, add, console).await?,
        PeerCommand::List => {
            let peers = admin
                .ask("listing peers", Method::GET, "/admin/v1/peers", None)
                .await?;
            print_items(console, &COLUMNS, &peers)?;
        }
        PeerCommand::Show(named) => {
            let what = format!("showing peer {}", named.name);
            let peer = admin
                .ask(&what, Method::GET, &target(&named, ""), None)
                .await?;
            show(&peer, console)?;
        }
        PeerCommand::Suspend(named) => {
            let what = format!("suspending peer {}", named.name);
            let applied = admin
                .ask(&what, Method::POST, &target(&named, "/suspend"), None)
                .await?;
            print_applied(console, &applied)?;
        }
        PeerCommand::Resume(named) => {
            let what = format!("resuming peer {}", named.name);
            let applied = admin
                .ask(&what, Method::POST, &target(&named, "/resume"), None)
                .await?;
            print_applied(console, &applied)?;
        }
        PeerCommand::Remove { peer, reason } => {
            let what = format!("removing peer {}", peer.name);
            let body = json!({"reason": reason});
            let applied = admin
                .ask(&what, Method::POST, &target(&peer, "/remove"), Some(&body))
                .await?;
            print_applied(console, &applied)?;
        }
        PeerCommand::Reset { name } => {
            let what = format!("resetting the breaker of {name}");
            let target = format!("/admin/v1/peers/{}/reset", segment(&name));
            let peer = admin.ask(&what, Method::POST, &target, None).await?;
            show(&peer, console)?;
        }
    }
    Ok(Exit::Done)
}

fn target(named: &PeerNamed, act: &str) -> String {
    let direction = match named.direction {
        None => "",
        Some(Direction::Inbound) => "?direction=inbound",
        Some(Direction::Outbound) => "?direction=outbound",
    };
    format!("/admin/v1/peers/{}{act}{direction}", segment(&named.name))
}

async fn add_peer(admin: &Door, add: PeerAdd, console: &mut Console<'_>) -> Result<(), CliFailure> {
    let url = match add.url.as_str() {
        "-" => read_text("the enrollment URL", Path::new("-"))?
            .trim()
            .to_owned(),
        _ => add.url,
    };
    let trust_root = add
        .trust_root
        .map(|path| read_text("the trust root", &path))
        .transpose()?;
    let body = json!({
        "url": url,
        "user": add.user,
        "name": add.name,
        "endpoint": add.endpoint,
        "fingerprint": add.fingerprint,
        "trust_root_pem": trust_root,
    });
    let what = format!("adding peer {}", add.name);
    let added = admin
        .ask(&what, Method::POST, "/admin/v1/peers", Some(&body))
        .await?;
    if console.json {
        return Ok(console.document(&added)?);
    }
    let fields = [
        ("peer", "/name"),
        ("endpoint", "/endpoint_url"),
        ("grant", "/grant"),
        ("subject", "/subject"),
        ("certificate expires", "/certificate_expires_at"),
        ("resources", "/capabilities/resources"),
        ("rows per answer", "/capabilities/max_rows_per_query"),
    ];
    console.members(&fields, &added)?;
    if let Some(notice) = added.get("notice").and_then(Value::as_str) {
        console.note(&format!(
            "the peer is kept, but has not answered yet: {notice}"
        ))?;
    }
    Ok(())
}

fn show(peer: &Value, console: &mut Console<'_>) -> Result<(), CliFailure> {
    if console.json {
        return Ok(console.document(peer)?);
    }
    let fields = [
        ("peer", "/name"),
        ("direction", "/direction"),
        ("state", "/state"),
        ("endpoint", "/endpoint_url"),
        ("created", "/created_at"),
        ("last success", "/last_success_at"),
        ("last failure", "/last_failure_at"),
        ("cause", "/last_failure"),
        ("breaker", "/reach/breaker"),
        ("open until", "/reach/open_until"),
        ("rate left", "/reach/rate_left"),
        ("limited until", "/reach/limited_until"),
        ("requests out", "/reach/in_flight"),
    ];
    console.members(&fields, peer)?;
    let list = |key: &str| {
        peer.get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let (credentials, grants) = (list("credentials"), list("grants"));
    if !credentials.is_empty() {
        console.line("")?;
        let columns = [
            ("GRANT", "/grant"),
            ("USER", "/user"),
            ("STATE", "/state"),
            ("CERTIFICATE EXPIRES", "/not_after"),
            ("DAYS", "/days_left"),
            ("RENEWS", "/renews_at"),
            ("FAILURES", "/renewal_failures"),
            ("NOT RENEWED", "/renewal_failure"),
        ];
        console.table(&columns, &credentials)?;
    }
    if !grants.is_empty() {
        console.line("")?;
        let columns = [
            ("GRANT", "/id"),
            ("STATUS", "/status"),
            ("USER", "/user"),
            ("RESOURCES", "/scope/resources"),
        ];
        console.table(&columns, &grants)?;
    }
    Ok(())
}
