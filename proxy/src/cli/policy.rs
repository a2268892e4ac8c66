//! `policy`: the rules, with or without a running sidecar.

mod cases;
mod replay;
mod shadow;

use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use super::Context;
use super::arguments::{PolicyCommand, PolicyExplain};
use super::failure::CliFailure;
use super::grant::print_applied;
use super::output::{Console, plain};
use crate::config::settings_schema;
use crate::exit::Exit;
use crate::policy_files::{self, PolicyProblem};
use crate::store::PolicyFile;

pub(super) async fn run(
    context: &Context<'_>,
    command: PolicyCommand,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    match command {
        PolicyCommand::Check { dir: Some(dir) } => check(&dir, console)?,
        PolicyCommand::Check { dir: None } => check(&context.config()?.policy.dir, console)?,
        PolicyCommand::Test(asked) => {
            let dir = match &asked.dir {
                Some(dir) => dir.clone(),
                None => context.config()?.policy.dir.clone(),
            };
            return cases::run(&dir, &asked, console);
        }
        PolicyCommand::Diff {
            dir,
            candidate,
            exit_code,
        } => {
            // The parser has one of them.
            let candidate = dir.or(candidate).unwrap_or_default();
            return replay::diff(context, &candidate, exit_code, console).await;
        }
        PolicyCommand::Shadow(asked) => return shadow::run(context, &asked, console).await,
        PolicyCommand::Replay(asked) => return replay::replay(context, &asked, console).await,
        PolicyCommand::Explain(explain) => explain_decision(context, explain, console).await?,
        PolicyCommand::Reload => {
            let admin = context.admin()?;
            let applied = admin
                .ask(
                    "reloading the policy",
                    Method::POST,
                    "/admin/v1/policy/reload",
                    None,
                )
                .await?;
            print_applied(console, &applied)?;
        }
        PolicyCommand::Schema { settings: true } => console.document(&settings_schema())?,
        PolicyCommand::Schema { settings: false } => {
            console.document(&::policy::rules::policy_schema())?
        }
    }
    Ok(Exit::Done)
}

/// Reads and checks all files of a directory; gives their names.
pub(super) fn check_files(dir: &Path) -> Result<Vec<String>, Vec<PolicyProblem>> {
    let checked =
        policy_files::load(dir).and_then(|files| policy_files::parse(&files).map(|_| files));
    checked.map(|files| files.into_iter().map(|file| file.name).collect())
}

/// Files of a policy that cannot be used.
fn invalid(dir: &Path, problems: &[PolicyProblem]) -> CliFailure {
    let why = format!("{} problem(s) in {}", problems.len(), dir.display());
    CliFailure::new(
        Exit::Failed,
        "invalid_policy",
        "the policy cannot be used",
        why,
    )
    .remedy("correct them; `policy schema` describes the files")
    .problems(problems.iter().map(ToString::to_string).collect())
}

/// Names and texts, as the parsers take them.
fn pairs(files: &[PolicyFile]) -> Vec<(&str, &str)> {
    files
        .iter()
        .map(|file| (file.name.as_str(), file.text.as_str()))
        .collect()
}

fn check(dir: &Path, console: &mut Console<'_>) -> Result<(), CliFailure> {
    let files = check_files(dir).map_err(|problems| invalid(dir, &problems))?;
    if console.json {
        console.document(&json!({"directory": dir, "files": files}))?;
    } else {
        console.line(&format!(
            "{} file(s) without a problem in {}",
            files.len(),
            dir.display()
        ))?;
    }
    if files.is_empty() {
        console.note("without files everything is denied")?;
    }
    Ok(())
}

async fn explain_decision(
    context: &Context<'_>,
    explain: PolicyExplain,
    console: &mut Console<'_>,
) -> Result<(), CliFailure> {
    let body = json!({
        "grant": explain.grant,
        "verb": explain.verb,
        "resource": explain.resource,
        "limit": explain.limit,
        "static": explain.without_facts,
    });
    let admin = context.admin()?;
    let answer = admin
        .ask(
            "explaining a decision",
            Method::POST,
            "/admin/v1/policy/explain",
            Some(&body),
        )
        .await?;
    if console.json {
        return Ok(console.document(&answer)?);
    }
    let steps = answer
        .get("steps")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    for (number, step) in steps.iter().enumerate() {
        let text = |key: &str| plain(step.get(key).and_then(Value::as_str).unwrap_or_default());
        console.line(&format!(
            "{}. {}: {} -> {}",
            number + 1,
            text("name"),
            text("input"),
            text("outcome")
        ))?;
    }
    if explain.without_facts {
        console.note("without the user's teams: the running sidecar asks the gateway for them")?;
    }
    Ok(())
}
