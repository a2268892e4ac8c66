//! `policy shadow`: a candidate beside the policy in force.
//!
//! Invariant: the policy in force goes on deciding; what is printed is what the running sidecar has found.

use http::Method;
use serde_json::{Value, json};

use super::super::Context;
use super::super::arguments::PolicyShadow;
use super::super::failure::CliFailure;
use super::super::output::{Console, plain};
use super::replay::{ended, files};
use crate::exit::Exit;

const ROUTE: &str = "/admin/v1/policy/shadow";

pub(super) async fn run(
    context: &Context<'_>,
    asked: &PolicyShadow,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let (what, method, body) = match (&asked.dir, asked.off) {
        (Some(dir), _) => (
            "starting a shadow of the policy",
            Method::PUT,
            Some(json!({ "files": files(dir)? })),
        ),
        (None, true) => ("ending the shadow of the policy", Method::DELETE, None),
        (None, false) => ("reading the shadow of the policy", Method::GET, None),
    };
    let admin = context.admin()?;
    let found = admin.ask(what, method, ROUTE, body.as_ref()).await?;
    let number = |key: &str| found.get(key).and_then(Value::as_u64).unwrap_or(0);
    let differing = number("differing");
    if console.json {
        console.document(&found)?;
        return Ok(ended(asked.exit_code, differing > 0));
    }
    let runs = found.get("running") == Some(&Value::Bool(true));
    let hash = found.get("hash").and_then(Value::as_str).map(plain);
    let Some(hash) = hash else {
        console.note("no candidate runs beside the policy in force")?;
        return Ok(Exit::Done);
    };
    let differences = found.get("differences").and_then(Value::as_array);
    if let Some(rows) = differences.filter(|rows| !rows.is_empty()) {
        let columns = [
            ("REQUESTS", "/count"),
            ("GRANT", "/grant"),
            ("PEER", "/peer"),
            ("VERB", "/verb"),
            ("RESOURCE", "/resource"),
            ("NOW", "/now"),
            ("THEN", "/then"),
            ("LAST SEEN", "/last_seen"),
        ];
        console.table(&columns, rows)?;
    }
    let decisions = number("decisions");
    let state = if runs {
        "runs beside the policy in force"
    } else {
        "was ended"
    };
    console.note(&format!(
        "the candidate {hash} {state}: {decisions} decision(s) compared, {differing} would be made otherwise"
    ))?;
    let unlisted = number("unlisted");
    if unlisted > 0 {
        console.note(&format!(
            "{unlisted} of them are not listed: the list is full"
        ))?;
    }
    if runs {
        console.note("limits are not compared, see `policy diff`; it ends with the process, or with `policy shadow --off`")?;
    }
    Ok(ended(asked.exit_code, differing > 0))
}
