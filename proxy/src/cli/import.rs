//! `peer import`: reading an export of an upstream gateway's peers, and the secret that their keys are sealed with.
//!
//! Invariant: the secret comes from a file or a variable, never from the command line, and is in no output.

mod export;

use http::Method;
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::Context;
use super::arguments::PeerImport;
use super::door::read_text;
use super::failure::CliFailure;
use super::output::Console;
use crate::exit::Exit;

const WHAT: &str = "importing peers";

/// What is sent.
#[derive(Serialize)]
struct Import<'a> {
    rows: &'a [Value],
    secret: &'a str,
    user: &'a str,
    trust_root_pem: &'a str,
    names: &'a serde_json::Map<String, Value>,
}

pub(super) async fn run(
    context: &Context<'_>,
    import: PeerImport,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let failed = |code: &str, why: String| CliFailure::new(Exit::Usage, code, WHAT, why);
    let text = Zeroizing::new(read_text("the export", &import.file)?);
    let rows = export::rows(&text).map_err(|why| {
        failed("malformed_export", format!("{}: {why}", import.file.display())).remedy(
            "export the table `federation_peers` with its column names: psql -c \"\\copy federation_peers TO peers.csv CSV HEADER\", or as a JSON array of objects",
        )
    })?;
    let trust_root = read_text("the trust root", &import.trust_root)?;
    let secret = secret(&import)?;
    let names: serde_json::Map<String, Value> = import
        .names
        .into_iter()
        .map(|(common, local)| (common, local.into()))
        .collect();
    let body = Import {
        rows: &rows,
        secret: secret.as_str(),
        user: &import.user,
        trust_root_pem: &trust_root,
        names: &names,
    };
    let admin = context.admin()?.patient();
    let target = "/admin/v1/peers/import";
    let found = admin
        .ask_secretly(WHAT, Method::POST, target, &body)
        .await?;
    show(&found, console)
}

fn secret(import: &PeerImport) -> Result<Zeroizing<String>, CliFailure> {
    match (&import.secret_file, &import.secret_env) {
        (Some(path), _) => read_text("the gateway's secret", path).map(Zeroizing::new),
        (None, Some(name)) => std::env::var(name).map(Zeroizing::new).map_err(|_| {
            let why = format!("the environment variable {name} is not set, or is not text");
            CliFailure::new(Exit::Usage, "no_secret", WHAT, why)
                .remedy("set it to the gateway's BETTER_AUTH_SECRET, or use --secret-file")
        }),
        (None, None) => Err(CliFailure::new(
            Exit::Usage,
            "no_secret",
            WHAT,
            "nothing says where the gateway's secret is",
        )
        .remedy("give --secret-file or --secret-env")),
    }
}

fn show(found: &Value, console: &mut Console<'_>) -> Result<Exit, CliFailure> {
    let list = |name: &str| {
        let list = found.get(name).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let (imported, refused) = (list("imported"), list("refused"));
    if console.json {
        console.document(found)?;
    } else {
        if !imported.is_empty() {
            let columns = [
                ("PEER", "/name"),
                ("COMMON NAME", "/common_name"),
                ("GRANT", "/grant"),
                ("ENDPOINT", "/endpoint_url"),
                ("EXPIRES", "/not_after"),
            ];
            console.table(&columns, &imported)?;
            console.note("`query capabilities --peer NAME` tries one")?;
        }
        for row in &refused {
            let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
            console.note(&format!(
                "not imported: {}: {}",
                text("common_name"),
                text("why")
            ))?;
        }
    }
    Ok(if refused.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}
