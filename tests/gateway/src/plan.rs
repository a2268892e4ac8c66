//! Data set 1: the plan of a federation as data, and a small home gateway.
//!
//! Invariant: identifiers, dates and tokens are constants, so that a demo or a test can name rows.
//! Seven milestones are missions, thirteen acceptance criteria and the work under them are tasks,
//! spread over three employees and two teams; each employee has personal rows that nobody else may
//! ever see (their texts start with `private:`). Large data is in `generate.rs`.

use crate::record::{Collection, Membership, Record, Team, User, rfc3339};

/// 2026-04-01T08:00:00Z in milliseconds since the epoch.
const START_MILLIS: u64 = 1_775_030_400_000;
const HOUR_MILLIS: u64 = 3_600_000;

/// User id of Amira (`e1`), member of `platform`.
pub const AMIRA: &str = "0a11ce00-0000-4000-8000-0000000000e1";
/// User id of Ben (`e2`), member of `platform` and `research`; not a UUID.
pub const BEN: &str = "e2";
/// User id of Chloe (`e3`), member of `research`.
pub const CHLOE: &str = "c41ae000-0000-4000-8000-0000000000e3";
/// User id of Dora (`e4`), banned.
pub const DORA: &str = "e4";
/// User id of the home gateway's only user (`amira`).
pub const HOME: &str = "amira";

const PLATFORM: &str = "platform";
const RESEARCH: &str = "research";

/// A data set small enough to hold in memory.
#[derive(Clone, Debug, Default)]
pub struct DataSet {
    /// Who can sign in.
    pub users: Vec<User>,
    /// The teams.
    pub teams: Vec<Team>,
    /// Who is in which team.
    pub memberships: Vec<Membership>,
    /// All rows, parents first.
    pub rows: Vec<Record>,
}

/// The milestones: number, title, status, and whether the platform team's project holds it.
const MILESTONES: [(&str, &str, bool); 7] = [
    ("M1 federated tier", "completed", true),
    ("M2 certificates and enrollment", "completed", true),
    ("M3 list, get and capabilities over mTLS", "active", true),
    ("M4 search, audit and rate limits", "active", false),
    ("M5 cache, breaker and offline signal", "paused", true),
    ("M6 revocation and renewal", "paused", true),
    ("M7 three employees, end to end", "paused", false),
];

/// The acceptance criteria: text, milestone (from 1), owner, status.
const CRITERIA: [(&str, u64, &str, &str); 13] = [
    (
        "Two gateways establish a grant by command line",
        2,
        AMIRA,
        "done",
    ),
    (
        "Tasks, notes and memory are answered within scope",
        3,
        BEN,
        "in_progress",
    ),
    (
        "A user without a grant cannot be queried",
        3,
        AMIRA,
        "in_progress",
    ),
    ("Revocation shows at the very next request", 6, BEN, "open"),
    (
        "Certificates renew a week before they expire",
        6,
        AMIRA,
        "open",
    ),
    (
        "Too many requests are answered 429 with Retry-After",
        4,
        CHLOE,
        "open",
    ),
    ("A session goes on when the peer is offline", 5, BEN, "open"),
    (
        "Every request is in the audit log within a second",
        4,
        CHLOE,
        "open",
    ),
    (
        "Credentials never leave, not even through search",
        4,
        BEN,
        "open",
    ),
    (
        "Status shows expiry, grants and last success",
        5,
        AMIRA,
        "open",
    ),
    ("Three employees, no leakage between them", 7, CHLOE, "open"),
    ("A production pair runs for seven days", 7, BEN, "open"),
    ("All milestones merged and closed", 7, CHLOE, "open"),
];

/// Number of each employee's personal project and mission, user id, name.
const EMPLOYEES: [(u64, &str, &str); 3] =
    [(11, AMIRA, "Amira"), (12, BEN, "Ben"), (13, CHLOE, "Chloe")];

/// Kinds of work under each criterion.
const STEPS: [&str; 3] = ["design", "build", "test"];

/// The work gateway's data: three employees, two teams, the plan.
#[must_use]
pub fn plan() -> DataSet {
    let mut set = DataSet {
        users: vec![
            user(AMIRA, "e1", "Amira"),
            user(BEN, "e2", "Ben"),
            user(CHLOE, "e3", "Chloe"),
            User {
                banned: true,
                ..user(DORA, "e4", "Dora")
            },
        ],
        teams: vec![team(PLATFORM, "Platform"), team(RESEARCH, "Research")],
        memberships: [
            (AMIRA, PLATFORM),
            (BEN, PLATFORM),
            (BEN, RESEARCH),
            (CHLOE, RESEARCH),
        ]
        .map(|(user, team)| Membership {
            user_id: user.to_owned(),
            team_id: team.to_owned(),
        })
        .to_vec(),
        rows: Vec::new(),
    };
    projects_and_missions(&mut set.rows);
    tasks(&mut set.rows);
    notes_and_memory(&mut set.rows);
    set
}

/// The home gateway's data: one user with a few personal tasks.
#[must_use]
pub fn home() -> DataSet {
    let mut rows = Vec::new();
    for (number, title) in (1..).zip([
        "Water the tomatoes",
        "Book the dentist",
        "Read the quarterly plan before Monday",
        "Call the landlord",
    ]) {
        rows.push(Record {
            owner: Some(HOME.to_owned()),
            status: Some("open".to_owned()),
            text: Some("private: at home".to_owned()),
            ..row(Collection::Tasks, 900 + number, title)
        });
    }
    rows.push(Record {
        owner: Some(HOME.to_owned()),
        text: Some("Amira prefers short summaries".to_owned()),
        ..row(Collection::Insights, 901, "style")
    });
    DataSet {
        users: vec![user(HOME, "amira", "Amira at home")],
        rows,
        ..DataSet::default()
    }
}

fn projects_and_missions(rows: &mut Vec<Record>) {
    for (number, title, team, owner) in [
        (1, "Federation core", Some(PLATFORM), AMIRA),
        (2, "Federation study", Some(RESEARCH), CHLOE),
        (11, "private: Amira's lab", None, AMIRA),
        (12, "private: Ben's notebook", None, BEN),
        (13, "private: Chloe's garden", None, CHLOE),
    ] {
        rows.push(Record {
            owner: Some(owner.to_owned()),
            team: team.map(str::to_owned),
            status: Some("active".to_owned()),
            text: Some(format!("{title}, since April")),
            ..row(Collection::Projects, number, title)
        });
    }
    for (number, (title, status, is_core)) in (1..).zip(MILESTONES) {
        rows.push(Record {
            owner: Some(if is_core { AMIRA } else { CHLOE }.to_owned()),
            project: Some(id(Collection::Projects, if is_core { 1 } else { 2 })),
            status: Some(status.to_owned()),
            ..row(Collection::Missions, number, title)
        });
    }
    for (number, owner, name) in EMPLOYEES {
        let title = format!("private: {name}'s learning");
        rows.push(Record {
            owner: Some(owner.to_owned()),
            project: Some(id(Collection::Projects, number)),
            status: Some("active".to_owned()),
            ..row(Collection::Missions, number, &title)
        });
    }
}

fn tasks(rows: &mut Vec<Record>) {
    for (number, (title, milestone, owner, status)) in (1..).zip(CRITERIA) {
        let is_core = !matches!(milestone, 4 | 7);
        let project = id(Collection::Projects, if is_core { 1 } else { 2 });
        let mission = id(Collection::Missions, milestone);
        rows.push(Record {
            owner: Some(owner.to_owned()),
            project: Some(project.clone()),
            mission: Some(mission.clone()),
            status: Some(status.to_owned()),
            text: Some(format!("Acceptance criterion AC-{number}")),
            extra: Some(task_extra(number)),
            ..row(Collection::Tasks, number, &format!("AC-{number} {title}"))
        });
        // The work under it refers to its team in each of the ways a gateway may.
        for (step, what) in (0..).zip(STEPS) {
            let team = if is_core { PLATFORM } else { RESEARCH };
            let mut task = row(
                Collection::Tasks,
                100 + number * 10 + step,
                &format!("AC-{number}: {what}"),
            );
            task.status = Some(status.to_owned());
            task.owner = Some(owner.to_owned());
            match step {
                0 => task.team = Some(team.to_owned()),
                1 => task.project = Some(project.clone()),
                _ => task.mission = Some(mission.clone()),
            }
            rows.push(task);
        }
    }
    for (number, owner, name) in EMPLOYEES {
        let title = format!("private: {name}'s errand");
        let mut private = row(Collection::Tasks, 800 + number, &title);
        private.owner = Some(owner.to_owned());
        private.status = Some("open".to_owned());
        rows.push(private);
        // Only its mission says whose this one is.
        let title = format!("private: {name}'s lesson");
        rows.push(Record {
            mission: Some(id(Collection::Missions, number)),
            status: Some("open".to_owned()),
            ..row(Collection::Tasks, 850 + number, &title)
        });
    }
}

fn task_extra(number: u64) -> String {
    format!(
        r#""priority":{},"internalNote":"not for peers","meta":{{"cost":{},"area":"plan"}},"usage":{{"tokenCount":{}}}"#,
        number % 4,
        number * 100,
        number * 1_000
    )
}

fn notes_and_memory(rows: &mut Vec<Record>) {
    for (number, (_, milestone, owner, _)) in (1..).zip(CRITERIA) {
        rows.push(Record {
            owner: Some(owner.to_owned()),
            mission: Some(id(Collection::Missions, milestone)),
            status: Some("open".to_owned()),
            text: Some(format!("note on AC-{number}: agreed in the weekly")),
            ..row(Collection::Notes, number, &format!("AC-{number}"))
        });
    }
    for (number, owner, name) in EMPLOYEES {
        let owned = |row: Record, text: String| Record {
            owner: Some(owner.to_owned()),
            text: Some(text),
            ..row
        };
        rows.push(Record {
            mission: Some(id(Collection::Missions, number)),
            ..owned(
                row(Collection::Notes, 100 + number, "private: lesson"),
                format!("private: {name}'s own note"),
            )
        });
        // A mission task nobody has written a note on.
        rows.push(Record {
            owner: Some(owner.to_owned()),
            mission: Some(id(Collection::Missions, number)),
            status: Some("open".to_owned()),
            ..row(Collection::Notes, 200 + number, "private: next lesson")
        });
        for (offset, collection, title, text) in [
            (
                0,
                Collection::Insights,
                "decision",
                "revocation comes first",
            ),
            (20, Collection::Insights, "habit", "reviews in the morning"),
            (0, Collection::Preferences, "editor.theme", "dark"),
            (20, Collection::Preferences, "summary.length", "short"),
            (0, Collection::Credentials, "mail", "leak-canary-credential"),
            (0, Collection::ApiKeys, "build", "leak-canary-key"),
        ] {
            rows.push(owned(
                row(collection, number + offset, title),
                format!("{text} ({name})"),
            ));
        }
    }
}

fn user(id: &str, handle: &str, name: &str) -> User {
    User {
        id: id.to_owned(),
        handle: handle.to_owned(),
        name: name.to_owned(),
        banned: false,
    }
}

fn team(id: &str, name: &str) -> Team {
    Team {
        id: id.to_owned(),
        name: name.to_owned(),
    }
}

/// A row created `number` hours after the start of the plan.
fn row(collection: Collection, number: u64, title: &str) -> Record {
    Record::new(
        collection,
        id(collection, number),
        rfc3339(START_MILLIS + number * HOUR_MILLIS),
        title.to_owned(),
    )
}

/// The identifier of row `number` of a collection: constant and readable.
#[must_use]
pub fn id(collection: Collection, number: u64) -> String {
    let family = match collection {
        Collection::Projects => 1,
        Collection::Missions => 2,
        Collection::Tasks => 3,
        Collection::Notes => 4,
        Collection::Insights => 5,
        Collection::Preferences => 6,
        Collection::Credentials => 7,
        Collection::ApiKeys => 8,
    };
    format!("{family:08}-f0ed-4000-8000-{number:012}")
}
