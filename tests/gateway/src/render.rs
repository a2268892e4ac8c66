//! How a record looks in each of the two API shapes.
//!
//! Invariant: a member is either always present (as `null` if empty) or never, per collection and
//! shape; `_` never starts a name. What surrounds the rows is in `deliver.rs`.

use crate::record::{Collection, Record};

/// One of the two API shapes the gateway serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The documented internal contract.
    InternalV1,
    /// The REST paths of a Mosaic Stack gateway.
    Mosaic,
}

/// What over-sharing adds to rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leak {
    /// Nothing: honest.
    Nothing,
    /// Members with secret-looking names, each value holding `leak-canary`.
    Secrets,
}

/// Append a row as a JSON object.
///
/// # Errors
/// When a text cannot be written as JSON, which does not happen for a `Vec`.
pub fn write_row(
    out: &mut Vec<u8>,
    shape: Shape,
    row: &Record,
    leak: Leak,
) -> Result<(), serde_json::Error> {
    let mut object = Object::open(out);
    object.text("id", Some(&row.id))?;
    object.text("createdAt", Some(&row.created_at))?;
    object.text(owner_name(shape, row.collection), row.owner.as_ref())?;
    for (name, value, present) in references(row) {
        if present {
            object.text(name, value)?;
        }
    }
    let is_secret = matches!(
        row.collection,
        Collection::Credentials | Collection::ApiKeys
    );
    if is_secret {
        object.raw(r#""type":"credential""#);
    }
    let (title, text) = text_names(shape, row.collection);
    object.text(title, Some(&row.title))?;
    object.text(text, row.text.as_ref())?;
    if let Some(extra) = &row.extra {
        object.raw(extra);
    }
    if leak == Leak::Secrets {
        object.raw(SECRETS);
    }
    object.close();
    Ok(())
}

/// Secret-looking members in the spellings that are seen in the wild.
const SECRETS: &str = concat!(
    r#""apiKey":"leak-canary-1","accessToken":"leak-canary-2","password_hash":"leak-canary-3","#,
    r#""auth":{"client_secret":"leak-canary-4","scheme":"basic","list":[{"private-key":"#,
    r#""leak-canary-5"},{"x.cookie":"leak-canary-6"}]},"pass\u0077ord":"leak-canary-7","#,
    r#""APIKEY":"leak-canary-8","Authorization":{"value":"leak-canary-9"},"secretary":"Ms Grey""#
);

const fn owner_name(shape: Shape, collection: Collection) -> &'static str {
    match (shape, collection) {
        (Shape::InternalV1, _) | (Shape::Mosaic, Collection::Projects) => "ownerId",
        (Shape::Mosaic, _) => "userId",
    }
}

type Reference<'a> = (&'static str, Option<&'a String>, bool);

fn references(row: &Record) -> [Reference<'_>; 4] {
    use Collection::{Missions, Notes, Projects, Tasks};
    let is = |any: &[Collection]| any.contains(&row.collection);
    [
        (
            "teamId",
            row.team.as_ref(),
            is(&[Projects, Missions, Tasks]),
        ),
        ("projectId", row.project.as_ref(), is(&[Missions, Tasks])),
        ("missionId", row.mission.as_ref(), is(&[Tasks, Notes])),
        (
            "status",
            row.status.as_ref(),
            is(&[Projects, Missions, Tasks, Notes]),
        ),
    ]
}

/// Names of the short and the long text.
const fn text_names(shape: Shape, collection: Collection) -> (&'static str, &'static str) {
    match (collection, shape) {
        (Collection::Projects | Collection::Missions, _) => ("name", "description"),
        (Collection::Tasks, _) => ("title", "description"),
        (Collection::Notes, Shape::InternalV1) => ("title", "text"),
        (Collection::Notes, Shape::Mosaic) => ("title", "notes"),
        (Collection::Insights, _) => ("category", "content"),
        (Collection::Preferences, _) => ("key", "value"),
        (Collection::Credentials | Collection::ApiKeys, _) => ("name", "secretValue"),
    }
}

/// A JSON object being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self {
            out,
            is_empty: true,
        }
    }

    fn text(
        &mut self,
        name: &'static str,
        value: Option<&String>,
    ) -> Result<(), serde_json::Error> {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        serde_json::to_writer(&mut *self.out, &value)
    }

    fn raw(&mut self, members: &str) {
        self.separate();
        self.out.extend_from_slice(members.as_bytes());
    }

    fn separate(&mut self) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
    }

    fn close(self) {
        self.out.push(b'}');
    }
}
