//! `audit verify` and `audit export`: proof that the log is whole, with and without the database.
//!
//! Invariant: an export is a whole file under its name or none at all. A file is verified without a sidecar, and what that proves
//! is said with the result.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certs::{SealPurpose, Sealer, SealingSecret};
use http::Method;
use serde_json::{Value, json};

use super::super::arguments::AuditVerify;
use super::super::failure::CliFailure;
use super::super::output::{Console, plain};
use super::super::{Context, segment};
use crate::admin::audit_row;
use crate::audit::chain::{CHAIN_KEY_LEN, ChainKey};
use crate::audit::checkpoint::CheckpointVerifier;
use crate::audit::export::{ExportFault, ExportReport, ExportVerifier};
use crate::exit::Exit;

const WHAT: &str = "verifying the audit log";

pub(super) async fn export(
    context: &Context<'_>,
    to: Option<&Path>,
    grant: Option<&str>,
    console: &mut Console<'_>,
) -> Result<(), CliFailure> {
    let admin = context.admin()?;
    let what = "exporting the audit log";
    let mut target = "/admin/v1/audit/export".to_owned();
    if let Some(grant) = grant {
        target.push_str(&format!("?grant={}", segment(grant)));
    }
    let Some(path) = to else {
        return admin.download(what, &target, console.out()).await;
    };
    let failed = |error: io::Error| {
        let why = format!("{}: {error}", path.display());
        CliFailure::new(Exit::Failed, "output", "the export cannot be written", why)
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part);
    let mut file = file.map_err(failed)?;
    let downloaded = admin.download(what, &target, &mut file).await;
    if downloaded.is_err() {
        // The part is of no use; that it could not be removed changes nothing about the failure.
        let _ = std::fs::remove_file(&part);
        return downloaded;
    }
    file.sync_all()
        .and_then(|()| std::fs::rename(&part, path))
        .map_err(failed)?;
    console.note(&format!("written to {}", path.display()))?;
    Ok(())
}

pub(super) async fn verify(
    context: &Context<'_>,
    asked: &AuditVerify,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    match &asked.file {
        Some(file) => verify_file(file, asked, console),
        None => verify_log(context, console).await,
    }
}

/// Through the running sidecar, over its database.
async fn verify_log(context: &Context<'_>, console: &mut Console<'_>) -> Result<Exit, CliFailure> {
    let admin = context.admin()?.patient();
    let answer = admin
        .ask(WHAT, Method::GET, "/admin/v1/audit/verify", None)
        .await?;
    let finding = answer.get("finding").filter(|finding| !finding.is_null());
    let whole = finding.is_none();
    if console.json {
        console.document(&answer)?;
    } else {
        let number = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or(0);
        let (rows, checkpoints) = (number("verified"), number("checkpoints"));
        if let Some(finding) = finding {
            let text = |key: &str| plain(&finding.get(key).map_or_else(String::new, shown));
            let mut place = format!("position {}", text("position"));
            for (name, key) in [("row", "id"), ("file", "file")] {
                if finding.get(key).is_some_and(|value| !value.is_null()) {
                    place.push_str(&format!(", {name} {}", text(key)));
                }
            }
            console.line(&format!("NOT WHOLE  {place}: {}", text("fault")))?;
            console.line(&format!("{rows} row(s) in front of it are whole"))?;
        } else {
            console.line(&format!(
                "whole: {rows} row(s) are what was recorded, none is missing; {checkpoints} signed checkpoint(s) are met"
            ))?;
            if number("files") > 0 {
                console.line(&format!(
                    "the {} file(s) of the archive are those that their manifests name",
                    number("files")
                ))?;
            }
        }
        if number("unlinked") > 0 {
            let unlinked = number("unlinked");
            console.note(&format!(
                "{unlinked} row(s) are from before there were chains: nothing can be said of them"
            ))?;
        }
    }
    Ok(if whole { Exit::Done } else { Exit::Failed })
}

fn shown(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Without a sidecar, from a file.
fn verify_file(
    path: &Path,
    asked: &AuditVerify,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let public = match &asked.key {
        None => None,
        Some(text) => Some(CheckpointVerifier::parse(text).ok_or_else(|| {
            let why = "a key is 64 hex digits, as `status` shows it";
            CliFailure::new(Exit::Usage, "usage", WHAT, why)
        })?),
    };
    let mut lines = open(path)?.lines();
    let mut next = || {
        let line = lines.next().transpose();
        line.map_err(|error| unreadable(path, &error))
    };
    let first = next()?.unwrap_or_default();
    let outcome = begin(&first, public, asked)?;
    let key = match outcome {
        Ok(key) => key,
        Err(fault) => return told(path, asked, Err(fault), console),
    };
    let verified = ExportVerifier::begin(&first, public, key.as_ref(), audit_row);
    let mut verifier = match verified {
        Ok(verifier) => verifier,
        Err(fault) => return told(path, asked, Err(fault), console),
    };
    while let Some(line) = next()? {
        if let Err(fault) = verifier.push(&line) {
            return told(path, asked, Err(fault), console);
        }
    }
    told(path, asked, verifier.finish(), console)
}

/// The key of the chain, opened with the sealing secret, when one was given.
fn begin(
    first: &str,
    public: Option<CheckpointVerifier>,
    asked: &AuditVerify,
) -> Result<Result<Option<ChainKey>, ExportFault>, CliFailure> {
    let Some(file) = &asked.secret_file else {
        return Ok(Ok(None));
    };
    let head = match ExportVerifier::begin(first, public, None, audit_row) {
        Ok(verifier) => verifier.head().clone(),
        Err(fault) => return Ok(Err(fault)),
    };
    let failed = |why: String| CliFailure::new(Exit::Failed, "sealing_secret", WHAT, why);
    let secret = SealingSecret::from_file(file).map_err(|error| failed(error.to_string()))?;
    let sealer = Sealer::new(secret).map_err(|error| failed(error.to_string()))?;
    let sealed = STANDARD
        .decode(&head.sealed_chain_key)
        .map_err(|error| failed(format!("the sealed key in the file is none: {error}")))?;
    let plain = sealer
        .unseal(SealPurpose::AuditKey, "chain", &sealed)
        .map_err(|error| failed(error.to_string()))?;
    let bytes: [u8; CHAIN_KEY_LEN] = plain
        .as_slice()
        .try_into()
        .map_err(|_| failed("the key in the file is damaged".to_owned()))?;
    Ok(Ok(Some(ChainKey::new(&bytes))))
}

pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>, CliFailure> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    Ok(Box::new(BufReader::new(file)))
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> CliFailure {
    let why = format!("{}: {error}", path.display());
    CliFailure::new(Exit::Usage, "unreadable", "the export cannot be read", why)
        .remedy("name a file that `audit export` wrote, or - for standard input")
}

/// What this way of verifying proves.
fn proves(asked: &AuditVerify) -> &'static str {
    match (asked.key.is_some(), asked.secret_file.is_some()) {
        (_, true) => "with the sealing secret: every row is what was recorded, in its place",
        (true, false) => {
            "with the public key: the file is what that sidecar exported, and its rows follow each other; that they are what was recorded rests on it and on the checkpoints"
        }
        (false, false) => {
            "with the key that the file names itself: the file is one piece; give --key to know whose"
        }
    }
}

fn told(
    path: &Path,
    asked: &AuditVerify,
    outcome: Result<ExportReport, ExportFault>,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let proves = proves(asked);
    match outcome {
        Ok(report) => {
            let (rows, checkpoints) = (report.rows.verified, report.checkpoints);
            if console.json {
                console.document(&json!({
                    "whole": true,
                    "verified": rows,
                    "unlinked": report.rows.unlinked,
                    "checkpoints": checkpoints,
                    "store": report.store,
                    "at": report.at,
                    "key": report.key,
                    "proves": proves,
                }))?;
            } else {
                console.line(&format!(
                    "whole: {rows} row(s), none is missing; {checkpoints} signed checkpoint(s) are met"
                ))?;
                console.note(proves)?;
            }
            Ok(Exit::Done)
        }
        Err(fault) => {
            let row = match &fault {
                ExportFault::Rows(finding) => json!({
                    "position": finding.position,
                    "id": finding.id,
                    "chain": finding.link.map(|link| link.chain),
                    "seq": finding.link.map(|link| link.seq),
                }),
                _ => Value::Null,
            };
            if console.json {
                console.document(
                    &json!({"whole": false, "fault": fault.to_string(), "row": row, "proves": proves}),
                )?;
            } else {
                let at = match &fault {
                    ExportFault::Rows(finding) => {
                        let id = finding
                            .id
                            .map_or_else(|| "-".to_owned(), |id| id.to_string());
                        format!("position {}, row {id}: ", finding.position)
                    }
                    _ => String::new(),
                };
                console.line(&format!(
                    "NOT WHOLE  {}: {at}{}",
                    path.display(),
                    plain(&fault.to_string())
                ))?;
            }
            Ok(Exit::Failed)
        }
    }
}
