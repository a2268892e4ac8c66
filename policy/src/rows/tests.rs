//! The row filter against a slow reading of the same rules, against hostile bodies, and by its laws.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod cases;
mod hostile;
mod laws;
mod members;
mod reference;
mod texts;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::{MissionId, ProjectId, TeamId, UserId};
use crate::mapping::{FieldMap, MemberPath};
use crate::native::{MissionFacts, NativeFacts, ProjectFacts};
use crate::resource::Resource;

use super::ownership::RowAccess;
use super::{Redaction, RowError, RowFilter, RowMatch, RowReader, RowsAt, Step, Tally};

/// Everything a filter is made of, in plain shapes that the reference reads too.
#[derive(Clone, Debug)]
struct Rules {
    resource: Resource,
    user: &'static str,
    teams: Vec<&'static str>,
    include_personal: bool,
    /// Project, its team, its owner.
    projects: Vec<(&'static str, Option<&'static str>, Option<&'static str>)>,
    /// Mission, its project, its team, its owner.
    missions: Vec<Mission>,
    map: FieldMap,
    fields: Vec<&'static str>,
    exempt: Vec<&'static str>,
    equals: Vec<(&'static str, &'static str)>,
    non_empty: Option<&'static str>,
}

type Mission = (
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    Option<&'static str>,
);

fn map() -> FieldMap {
    let name = |name: &str| Some(name.to_owned());
    FieldMap {
        id: "id".to_owned(),
        created_at: "createdAt".to_owned(),
        owner: name("ownerId"),
        team: name("teamId"),
        project: name("projectId"),
        mission: name("missionId"),
    }
}

impl Rules {
    /// Subject `u1`, granted team `t1`; projects and missions of every kind.
    fn usual(resource: Resource) -> Self {
        Self {
            resource,
            user: "u1",
            teams: vec!["t1"],
            include_personal: true,
            projects: vec![
                ("p1", Some("t1"), Some("u2")),
                ("p2", Some("t2"), Some("u1")),
                ("p3", None, Some("u1")),
                ("p4", None, Some("u2")),
            ],
            missions: vec![
                ("m1", Some("p1"), None, Some("u2")),
                ("m2", Some("p2"), None, Some("u1")),
                ("m3", None, None, Some("u1")),
                ("m4", None, None, Some("u2")),
                ("m5", Some("gone"), None, Some("u1")),
                ("m6", Some("p2"), Some("t1"), None),
                ("m7", Some("p3"), None, None),
            ],
            map: map(),
            fields: Vec::new(),
            exempt: Vec::new(),
            equals: Vec::new(),
            non_empty: None,
        }
    }

    fn facts(&self) -> NativeFacts {
        let mut facts = NativeFacts::builder();
        let team = |id: &Option<&str>| id.map(|id| TeamId::parse(id).unwrap());
        let user = |id: &Option<&str>| id.map(|id| UserId::parse(id).unwrap());
        for (id, of_team, owner) in &self.projects {
            let of = ProjectFacts {
                team: team(of_team),
                owner: user(owner),
            };
            facts.project(ProjectId::parse(id).unwrap(), of).unwrap();
        }
        for (id, project, of_team, owner) in &self.missions {
            let of = MissionFacts {
                project: project.map(|id| ProjectId::parse(id).unwrap()),
                team: team(of_team),
                owner: user(owner),
            };
            facts.mission(MissionId::parse(id).unwrap(), of).unwrap();
        }
        facts.build()
    }

    fn filter(&self) -> Arc<RowFilter> {
        Arc::new(self.try_filter().unwrap())
    }

    fn try_filter(&self) -> Result<RowFilter, super::FilterError> {
        let mut teams: Vec<_> = self
            .teams
            .iter()
            .map(|id| TeamId::parse(id).unwrap())
            .collect();
        teams.sort_unstable();
        let access = RowAccess {
            resource: self.resource,
            user: UserId::parse(self.user).unwrap(),
            teams: teams.into(),
            include_personal: self.include_personal,
        };
        let of = |paths: &[&str]| {
            BTreeMap::from([(
                self.resource,
                paths.iter().map(|path| (*path).to_owned()).collect(),
            )])
        };
        let redaction = Redaction::new(of(&self.fields), of(&self.exempt)).unwrap();
        let matching = RowMatch {
            equals: self
                .equals
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            non_empty: self.non_empty.map(str::to_owned),
        };
        RowFilter::compile(
            access,
            Arc::new(redaction),
            Arc::new(self.facts()),
            &self.map,
            &matching,
        )
    }
}

/// What became of one row; rows that pass come with their text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Row(String),
    Withheld,
    Unmatched,
}

/// An owned [`super::RowKey`]: instant as written, nanoseconds, id.
type Key = (String, i64, String);

/// A body read to its end or its fault.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reading {
    seen: Vec<Seen>,
    /// The key after each row.
    keys: Vec<Option<Key>>,
    tally: Tally,
    end: Result<(), RowError>,
}

fn rows_at(path: &str) -> RowsAt {
    RowsAt::rows(&MemberPath::parse(path).unwrap())
}

/// Reads `body` in chunks that end at `cuts`.
fn read(filter: &Arc<RowFilter>, rows: RowsAt, body: &[u8], cuts: &[usize]) -> Reading {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| (*cut).min(body.len())).collect();
    ends.push(body.len());
    ends.sort_unstable();
    let mut ends = ends.into_iter();
    let mut reader = RowReader::new(Arc::clone(filter), rows);
    let (mut from, mut seen, mut keys) = (0, Vec::new(), Vec::new());
    let end = loop {
        let mut out = Vec::new();
        match reader.step(&mut out) {
            Ok(Step::Row) => seen.push(Seen::Row(String::from_utf8(out).unwrap())),
            Ok(Step::Withheld) => seen.push(Seen::Withheld),
            Ok(Step::Unmatched) => seen.push(Seen::Unmatched),
            Ok(Step::NeedInput) => {
                match ends.next() {
                    Some(to) => {
                        reader.push(&body[from..to]);
                        from = to;
                    }
                    None => reader.close(),
                }
                continue;
            }
            Ok(Step::End) => break Ok(()),
            Err(error) => {
                assert_eq!(reader.step(&mut out), Err(error), "a fault stays");
                break Err(error);
            }
        }
        keys.push(reader.key().map(|key| {
            (
                key.created_at_raw.to_owned(),
                key.created_at_nanos,
                key.id.to_owned(),
            )
        }));
    };
    let last = reader.key().map(|key| {
        (
            key.created_at_raw.to_owned(),
            key.created_at_nanos,
            key.id.to_owned(),
        )
    });
    assert!(
        keys.last().is_none_or(|key| *key == last),
        "a key outlives its row"
    );
    Reading {
        seen,
        keys,
        tally: reader.tally(),
        end,
    }
}
