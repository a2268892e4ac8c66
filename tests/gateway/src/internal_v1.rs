//! The `internal-v1` shape: the documented contract (`docs/gateway/internal-v1.openapi.yaml`).
//!
//! Invariant: facts come from the honest view whatever mode is in force. Parsing is in
//! `params.rs`, bodies are in `deliver.rs`.

use axum::body::Body;
use axum::http::Uri;
use axum::response::Response;
use serde_json::{Value, json};

use crate::authenticate::Asker;
use crate::big;
use crate::deliver::{self, Frame, deliver, keep_keyset, mix_in};
use crate::failure::Failure;
use crate::gateway::Gateway;
use crate::modes::{Behaviour, Mode};
use crate::params::{ListParams, no_params, parse_facts};
use crate::record::Collection;
use crate::render::Shape;
use crate::store::{Column, Order, Question};
use crate::visibility::{Narrowing, honest, view};

/// Answer a request whose asker is known.
///
/// # Errors
/// [`Failure`] with the status to answer.
pub async fn reply(
    gateway: &Gateway,
    asker: &Asker,
    behaviour: &Behaviour,
    path: &[&str],
    uri: &Uri,
) -> Result<Response, Failure> {
    let ["internal", "v1", rest @ ..] = path else {
        return Err(Failure::not_found());
    };
    match rest {
        ["whoami"] => {
            no_params(uri)?;
            Ok(value(&json!({"userId": asker.caller.id})))
        }
        ["facts"] => facts(gateway, asker, behaviour, uri).await,
        [name] => list(gateway, asker, behaviour, collection(name)?, uri).await,
        [name, id] => {
            no_params(uri)?;
            get(gateway, asker, behaviour, collection(name)?, id).await
        }
        _ => Err(Failure::not_found()),
    }
}

/// The answer to a health question.
#[must_use]
pub fn health() -> Response {
    value(&json!({"status": "ok", "contract": "internal-v1"}))
}

fn collection(name: &str) -> Result<Collection, Failure> {
    Ok(match name {
        "tasks" => Collection::Tasks,
        "notes" => Collection::Notes,
        "insights" => Collection::Insights,
        "preferences" => Collection::Preferences,
        "projects" => Collection::Projects,
        "missions" => Collection::Missions,
        _ => return Err(Failure::not_found()),
    })
}

async fn list(
    gateway: &Gateway,
    asker: &Asker,
    behaviour: &Behaviour,
    collection: Collection,
    uri: &Uri,
) -> Result<Response, Failure> {
    let params = ListParams::parse(collection, uri)?;
    gateway.row_faults(behaviour).await?;
    gateway.collection_faults(behaviour, collection)?;
    let limit = (!behaviour.is(Mode::Limit)).then_some(params.limit);
    let (shape, before) = (Shape::InternalV1, params.before);
    if behaviour.big_mb > 0 && collection == Collection::Tasks {
        let owner = &asker.caller.id;
        return Ok(big::list(shape, owner, behaviour, before.as_ref(), limit));
    }
    let question = Question {
        collection,
        view: view(&asker.caller, &params.narrowing, behaviour),
        equals: params.equals,
        before,
        with_text_only: collection == Collection::Notes,
        order: Order::CreatedDesc,
        limit,
    };
    let mut rows = gateway.store.rows(&question).await?;
    mix_in(&mut rows, gateway.leaked_rows(asker, behaviour).await?);
    keep_keyset(&mut rows, question.before.as_ref());
    deliver(Frame::Rows, shape, rows, behaviour)
}

async fn get(
    gateway: &Gateway,
    asker: &Asker,
    behaviour: &Behaviour,
    collection: Collection,
    id: &str,
) -> Result<Response, Failure> {
    gateway.row_faults(behaviour).await?;
    let question = Question {
        collection,
        view: view(&asker.caller, &Narrowing::default(), behaviour),
        equals: vec![(Column::Id, id.to_owned())],
        before: None,
        with_text_only: collection == Collection::Notes,
        order: Order::Id,
        limit: Some(1),
    };
    let rows = gateway.store.rows(&question).await?;
    if rows.is_empty() {
        return Err(Failure::not_found());
    }
    deliver(Frame::Item, Shape::InternalV1, rows, behaviour)
}

/// One entry of the facts: which list it belongs to, its id, and itself.
type Fact = (&'static str, String, Value);

async fn facts(
    gateway: &Gateway,
    asker: &Asker,
    behaviour: &Behaviour,
    uri: &Uri,
) -> Result<Response, Failure> {
    let (limit, after) = parse_facts(uri)?;
    gateway.facts_faults(behaviour).await?;
    let all = all_facts(gateway, asker).await?;
    let start = match &after {
        None => 0,
        Some(key) => all
            .iter()
            .position(|(kind, id, _)| *key == format!("{kind}:{id}"))
            .map(|position| position + 1)
            .ok_or_else(|| Failure::invalid("after is not a `next` of these facts"))?,
    };
    let mut page = json!({"teams": [], "projects": [], "missions": []});
    let mut last = None;
    for (kind, id, fact) in all.iter().skip(start).take(limit) {
        if let Some(Value::Array(list)) = page.get_mut(*kind) {
            list.push(fact.clone());
        }
        last = Some(format!("{kind}:{id}"));
    }
    let more = all.len() > start.saturating_add(limit);
    if let Some(object) = page.as_object_mut() {
        let next = last.filter(|_| more).map_or(Value::Null, Value::String);
        object.insert("next".to_owned(), next);
    }
    if behaviour.is(Mode::FactsGarbage) {
        return Ok(deliver::json(Body::from(r#"{"teams":[{"id":,}]"#)));
    }
    Ok(value(&page))
}

async fn all_facts(gateway: &Gateway, asker: &Asker) -> Result<Vec<Fact>, Failure> {
    let caller = &asker.caller;
    let mut all: Vec<Fact> = caller
        .teams
        .iter()
        .map(|team| ("teams", team.clone(), json!({"id": team})))
        .collect();
    for (kind, collection) in [
        ("projects", Collection::Projects),
        ("missions", Collection::Missions),
    ] {
        let question = Question {
            collection,
            view: honest(caller, &Narrowing::default()),
            equals: Vec::new(),
            before: None,
            with_text_only: false,
            order: Order::Id,
            limit: None,
        };
        for row in gateway.store.rows(&question).await? {
            let mut fact = json!({"id": row.id, "teamId": row.team, "ownerId": row.owner});
            if collection == Collection::Missions
                && let Some(object) = fact.as_object_mut()
            {
                object.insert("projectId".to_owned(), json!(row.project));
            }
            all.push((kind, row.id, fact));
        }
    }
    Ok(all)
}

fn value(value: &Value) -> Response {
    deliver::json(Body::from(value.to_string()))
}
