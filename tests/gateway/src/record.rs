//! The gateway's data model: one uniform record for every collection, plus users and teams.
//!
//! Invariant: a record names its own owner, team, project and mission exactly as the gateway
//! answers them; what those references resolve to is worked out in `ownership.rs`, never here.
//! How a record looks on the wire is in `render.rs`.

use serde::Serialize;

/// A collection of rows, one SQLite table each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Collection {
    /// Projects of a team or of one person.
    Projects,
    /// Missions, normally under a project.
    Missions,
    /// Tasks.
    Tasks,
    /// A person's notes on a mission.
    Notes,
    /// Memory: insights.
    Insights,
    /// Memory: preferences.
    Preferences,
    /// Stored credentials. Never served in honest mode.
    Credentials,
    /// API keys. Never served in honest mode.
    ApiKeys,
}

impl Collection {
    /// Every collection, parents before the rows that refer to them.
    pub const ALL: [Self; 8] = [
        Self::Projects,
        Self::Missions,
        Self::Tasks,
        Self::Notes,
        Self::Insights,
        Self::Preferences,
        Self::Credentials,
        Self::ApiKeys,
    ];

    /// Name of the SQLite table.
    #[must_use]
    pub const fn table(self) -> &'static str {
        match self {
            Self::Projects => "projects",
            Self::Missions => "missions",
            Self::Tasks => "tasks",
            Self::Notes => "mission_notes",
            Self::Insights => "insights",
            Self::Preferences => "preferences",
            Self::Credentials => "credentials",
            Self::ApiKeys => "api_keys",
        }
    }

    /// Whether a team can see rows of this collection; otherwise only their owner can.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Projects | Self::Missions | Self::Tasks)
    }
}

/// One row of any collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Which table the row belongs to.
    #[serde(skip)]
    pub collection: Collection,
    /// Unique within the collection.
    pub id: String,
    /// RFC 3339 UTC with milliseconds, always 24 bytes, so that text order is time order.
    pub created_at: String,
    /// The owner's user id, when the row carries one.
    #[serde(rename = "owner_id")]
    pub owner: Option<String>,
    /// The row's own team id, when it carries one.
    #[serde(rename = "team_id")]
    pub team: Option<String>,
    /// The row's project id, when it carries one.
    #[serde(rename = "project_id")]
    pub project: Option<String>,
    /// The row's mission id, when it carries one.
    #[serde(rename = "mission_id")]
    pub mission: Option<String>,
    /// Life-cycle word (`open`, `active`, ...), where the collection has one.
    pub status: Option<String>,
    /// Short text: a title, a name, a category or a preference's key.
    pub title: String,
    /// Long text: a description, a note, an insight's content, a preference's or secret's value.
    pub text: Option<String>,
    /// Further members, as the inside of a JSON object (`"a":1,"b":{}`).
    pub extra: Option<String>,
}

impl Record {
    /// A row with nothing but its identity and a title; the rest is filled by the caller.
    #[must_use]
    pub fn new(collection: Collection, id: String, created_at: String, title: String) -> Self {
        Self {
            collection,
            id,
            created_at,
            owner: None,
            team: None,
            project: None,
            mission: None,
            status: None,
            title,
            text: None,
            extra: None,
        }
    }
}

/// A person who can sign in to the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// The gateway's user id: a UUID for some, any text for others.
    pub id: String,
    /// Short name used in the token, unique.
    pub handle: String,
    /// Display name.
    pub name: String,
    /// Banned users are answered 403.
    pub banned: bool,
}

impl User {
    /// The user's deterministic bearer token, `token-<handle>`.
    #[must_use]
    pub fn token(&self) -> String {
        format!("token-{}", self.handle)
    }
}

/// A team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Team {
    /// The team's id, any text.
    pub id: String,
    /// Display name.
    pub name: String,
}

/// One user's membership of one team.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Membership {
    /// The member.
    pub user_id: String,
    /// The team.
    pub team_id: String,
}

/// Milliseconds since the Unix epoch as RFC 3339 UTC text of exactly 24 bytes
/// (`2026-01-02T03:04:05.678Z`), for years 1970 to 9999.
#[must_use]
pub fn rfc3339(unix_millis: u64) -> String {
    let days = unix_millis / 86_400_000;
    let in_day = unix_millis % 86_400_000;
    // Days to a civil date (proleptic Gregorian), counting years from 1 March 0000.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1_000 % 60, in_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn dates_of_known_instants() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_767_225_600_000), "2026-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_767_225_599_999), "2025-12-31T23:59:59.999Z");
    }
}
