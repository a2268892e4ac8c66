//! `audit explain`: how one recorded request came to its answer.
//!
//! Invariant: it prints what the sidecar tells, and says where something could not be told.

use http::Method;
use serde_json::Value;

use super::super::Context;
use super::super::failure::CliFailure;
use super::super::output::{Console, cell, plain};
use super::super::segment;

pub(super) async fn explain(
    context: &Context<'_>,
    request_id: &str,
    historical: bool,
    console: &mut Console<'_>,
) -> Result<(), CliFailure> {
    let mut target = format!("/admin/v1/audit/explain?request_id={}", segment(request_id));
    let mut admin = context.admin()?;
    if historical {
        target.push_str("&historical=true");
        admin = admin.patient();
    }
    let answer = admin
        .ask("explaining a request", Method::GET, &target, None)
        .await?;
    if console.json {
        return Ok(console.document(&answer)?);
    }
    let items = answer.get("items").and_then(Value::as_array);
    for (number, item) in items.into_iter().flatten().enumerate() {
        if number > 0 {
            console.line("")?;
        }
        one(item, console)?;
    }
    Ok(())
}

fn one(item: &Value, console: &mut Console<'_>) -> Result<(), CliFailure> {
    let at = |pointer: &str| item.pointer(pointer).filter(|found| !found.is_null());
    let shown = |pointer: &str| cell(at(pointer));
    let mut head = format!(
        "request {} at {}",
        shown("/record/request_id"),
        shown("/record/at")
    );
    if at("/record/peer_request_id").is_some() {
        head.push_str(&format!(
            ", the peer's {}, attempt {}",
            shown("/record/peer_request_id"),
            shown("/record/attempt")
        ));
    }
    console.line(&head)?;
    if at("/record/revision").is_some() {
        console.line(&format!(
            "decided under store revision {}, effective revision {}",
            shown("/record/revision"),
            shown("/effective_revision")
        ))?;
    }
    let traces = item.get("traces").and_then(Value::as_array);
    for steps in traces.into_iter().flatten() {
        for (number, step) in steps.as_array().into_iter().flatten().enumerate() {
            let text = |key: &str| plain(step.get(key).and_then(Value::as_str).unwrap_or_default());
            console.line(&format!(
                "{}. {}: {} -> {}",
                number + 1,
                text("name"),
                text("input"),
                text("outcome")
            ))?;
        }
    }
    console.line(&format!(
        "ended {} with status {}: {} row(s), {} withheld, {} byte(s), {} us",
        shown("/record/outcome"),
        shown("/record/http_status"),
        shown("/record/rows_returned"),
        shown("/record/rows_withheld"),
        shown("/record/bytes_out"),
        shown("/record/latency_us")
    ))?;
    if at("/verified") == Some(&Value::Bool(true)) {
        console.note("scope, ceiling and redaction are those that were decided on: their effective revision is the recorded one")?;
    }
    if at("/reason").is_some() {
        console.note(&format!(
            "{}: see {}",
            shown("/reason/code"),
            shown("/reason/page")
        ))?;
    }
    let notes = item.get("notes").and_then(Value::as_array);
    for note in notes.into_iter().flatten().filter_map(Value::as_str) {
        console.note(note)?;
    }
    Ok(())
}
