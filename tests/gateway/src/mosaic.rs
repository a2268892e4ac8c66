//! The `mosaic` shape: the REST paths of a Mosaic Stack gateway.
//!
//! Invariant: root arrays in an order that says nothing about time, no paging, users' own tokens
//! only, and team membership is always honest. It knows no narrowing: whoever asks gets all that
//! the user may see. Its search in memory answers the nearest insights, as a search by meaning does:
//! those with words of the question first, then others, whatever the words are.

use axum::body::Body;
use axum::http::Uri;
use axum::response::Response;
use serde_json::{Value, json};

use crate::authenticate::Asker;
use crate::big;
use crate::deliver::{self, Frame, deliver, mix_in};
use crate::failure::Failure;
use crate::gateway::Gateway;
use crate::modes::{Behaviour, Mode};
use crate::params::{known_filters, parse_search};
use crate::record::{Collection, Record};
use crate::render::Shape;
use crate::store::{Column, Order, Question};
use crate::visibility::{Narrowing, view};

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
    let asked = Asked {
        gateway,
        asker,
        behaviour,
    };
    let ["api", rest @ ..] = path else {
        return Err(Failure::not_found());
    };
    match rest {
        ["teams"] => asked.teams().await,
        ["tasks"] if behaviour.big_mb > 0 => {
            gateway.row_faults(behaviour).await?;
            let owner = &asker.caller.id;
            Ok(big::list(Shape::Mosaic, owner, behaviour, None, None))
        }
        ["memory", "insights"] => asked.list(Collection::Insights, Vec::new()).await,
        ["memory", "search"] => asked.search(uri).await,
        ["memory", "preferences"] => asked.list(Collection::Preferences, Vec::new()).await,
        ["missions", mission, "tasks"] => asked.mission_tasks(mission).await,
        [name] => {
            let collection = collection(name)?;
            asked
                .list(collection, known_filters(collection, uri)?)
                .await
        }
        [name, id] => asked.get(collection(name)?, id).await,
        _ => Err(Failure::not_found()),
    }
}

fn collection(name: &str) -> Result<Collection, Failure> {
    Ok(match name {
        "tasks" => Collection::Tasks,
        "projects" => Collection::Projects,
        "missions" => Collection::Missions,
        _ => return Err(Failure::not_found()),
    })
}

/// A question and who asks it.
struct Asked<'a> {
    gateway: &'a Gateway,
    asker: &'a Asker,
    behaviour: &'a Behaviour,
}

impl Asked<'_> {
    async fn list(
        &self,
        collection: Collection,
        equals: Vec<(Column, String)>,
    ) -> Result<Response, Failure> {
        self.gateway.row_faults(self.behaviour).await?;
        self.gateway.collection_faults(self.behaviour, collection)?;
        let mut rows = self.rows(collection, equals).await?;
        let leaked = self.gateway.leaked_rows(self.asker, self.behaviour).await?;
        mix_in(&mut rows, leaked);
        deliver(Frame::Array, Shape::Mosaic, rows, self.behaviour)
    }

    /// The nearest insights, each with its `score`. Text that is not for everybody is searched too.
    async fn search(&self, uri: &Uri) -> Result<Response, Failure> {
        let (query, limit) = parse_search(uri)?;
        self.gateway.row_faults(self.behaviour).await?;
        let mut rows = self.rows(Collection::Insights, Vec::new()).await?;
        let query = query.to_lowercase();
        let words: Vec<&str> = query.split_whitespace().collect();
        let hidden = &self.behaviour.hidden;
        rows.sort_by_cached_key(|row| {
            let text = row.text.as_deref().unwrap_or_default();
            let text = format!("{} {text} {hidden}", row.title).to_lowercase();
            let found = words.iter().filter(|word| text.contains(**word)).count();
            (std::cmp::Reverse(found), row.id.clone())
        });
        if !self.behaviour.is(Mode::Limit) {
            rows.truncate(limit);
        }
        let leaked = self.gateway.leaked_rows(self.asker, self.behaviour).await?;
        mix_in(&mut rows, leaked);
        for (place, row) in (1_u32..).zip(&mut rows) {
            row.extra = Some(format!("\"score\":{}", 1.0 / f64::from(place)));
        }
        deliver(Frame::Array, Shape::Mosaic, rows, self.behaviour)
    }

    async fn get(&self, collection: Collection, id: &str) -> Result<Response, Failure> {
        self.gateway.row_faults(self.behaviour).await?;
        let rows = self.row(collection, id).await?;
        deliver(Frame::Item, Shape::Mosaic, rows, self.behaviour)
    }

    /// The asker's own tasks of a mission they can see, each with its `notes` or `null`.
    async fn mission_tasks(&self, mission: &str) -> Result<Response, Failure> {
        self.gateway.row_faults(self.behaviour).await?;
        self.row(Collection::Missions, mission).await?;
        let equals = vec![(Column::Mission, mission.to_owned())];
        self.list(Collection::Notes, equals).await
    }

    async fn teams(&self) -> Result<Response, Failure> {
        self.gateway.facts_faults(self.behaviour).await?;
        if self.behaviour.is(Mode::FactsGarbage) {
            return Ok(deliver::json(Body::from(r#"[{"id":,}]"#)));
        }
        let names = self.gateway.store.team_names(&self.asker.caller).await?;
        let teams: Vec<Value> = names
            .iter()
            .map(|(id, name)| json!({"id": id, "name": name}))
            .collect();
        Ok(deliver::json(Body::from(Value::Array(teams).to_string())))
    }

    /// The one row of this id, or 404.
    async fn row(&self, collection: Collection, id: &str) -> Result<Vec<Record>, Failure> {
        let rows = self
            .rows(collection, vec![(Column::Id, id.to_owned())])
            .await?;
        if rows.is_empty() {
            return Err(Failure::not_found());
        }
        Ok(rows)
    }

    async fn rows(
        &self,
        collection: Collection,
        equals: Vec<(Column, String)>,
    ) -> Result<Vec<Record>, Failure> {
        let question = Question {
            collection,
            view: view(&self.asker.caller, &Narrowing::default(), self.behaviour),
            equals,
            before: None,
            with_text_only: false,
            order: Order::Id,
            limit: None,
        };
        Ok(self.gateway.store.rows(&question).await?)
    }
}
