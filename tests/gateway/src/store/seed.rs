//! Creating the tables and filling an empty file, once.
//!
//! Invariant: a data set is loaded in one transaction together with its name, so that a file holds
//! either nothing or exactly the data set it says. Rows travel as JSON arrays, a batch per
//! statement, which keeps 200,000 rows to a few seconds.

use serde::Serialize;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{AssertSqlSafe, Row};

use super::{Store, StoreError};
use crate::generate::World;
use crate::ownership::{Parents, Resolved};
use crate::plan::{self, DataSet};
use crate::record::{Collection, Membership, Record, Team, User};

/// Rows per statement.
const BATCH: usize = 4_000;

/// Which data set to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// The plan of a federation: three employees, two teams.
    Plan,
    /// One person at home.
    Home,
    /// Generated rows.
    Generated(World),
    /// Tables only.
    None,
}

impl Data {
    fn name(self) -> String {
        match self {
            Self::Plan => "plan".to_owned(),
            Self::Home => "home".to_owned(),
            Self::Generated(world) => format!(
                "generated seed={} users={} teams={} rows={}",
                world.seed, world.users, world.teams, world.rows
            ),
            Self::None => "none".to_owned(),
        }
    }

    /// Everybody who can sign in.
    #[must_use]
    pub fn users(self) -> Vec<User> {
        match self {
            Self::Plan => plan::plan().users,
            Self::Home => plan::home().users,
            Self::Generated(world) => (0..world.users).map(|index| world.user(index)).collect(),
            Self::None => Vec::new(),
        }
    }
}

const CREATE_PEOPLE: &str = "
CREATE TABLE IF NOT EXISTS data_set (name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS teams (id TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, handle TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL, banned INTEGER NOT NULL, token TEXT NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS memberships (user_id TEXT NOT NULL REFERENCES users (id),
  team_id TEXT NOT NULL REFERENCES teams (id), PRIMARY KEY (user_id, team_id)) WITHOUT ROWID;
";

/// Columns of every table of rows. `scope_team` and `scope_owner` are what the references
/// resolve to.
const ROW_COLUMNS: &str = "id TEXT PRIMARY KEY, created_at TEXT NOT NULL, owner_id TEXT, \
    team_id TEXT, project_id TEXT, mission_id TEXT, status TEXT, title TEXT NOT NULL, text TEXT, \
    extra TEXT, scope_team TEXT, scope_owner TEXT";

/// Create whatever is missing.
pub(super) async fn create_tables(pool: &SqlitePool) -> Result<(), StoreError> {
    sqlx::raw_sql(CREATE_PEOPLE).execute(pool).await?;
    for collection in Collection::ALL {
        let table = collection.table();
        let statements = format!(
            "CREATE TABLE IF NOT EXISTS {table} ({ROW_COLUMNS}) WITHOUT ROWID;
             CREATE INDEX IF NOT EXISTS {table}_team
               ON {table} (scope_team, created_at, id) WHERE scope_team IS NOT NULL;
             CREATE INDEX IF NOT EXISTS {table}_owner
               ON {table} (scope_owner, created_at, id) WHERE scope_team IS NULL;
             CREATE INDEX IF NOT EXISTS {table}_time ON {table} (created_at, id);"
        );
        sqlx::raw_sql(AssertSqlSafe(statements))
            .execute(pool)
            .await?;
    }
    Ok(())
}

/// A record with what it resolves to, as it is loaded.
#[derive(Serialize)]
struct Loaded {
    #[serde(flatten)]
    record: Record,
    scope_team: Option<String>,
    scope_owner: Option<String>,
}

#[derive(Serialize)]
struct LoadedUser<'a> {
    #[serde(flatten)]
    user: &'a User,
    token: String,
}

impl Store {
    /// Load a data set into an empty file; do nothing if the file holds it already.
    ///
    /// # Errors
    /// [`StoreError::OtherData`] when the file holds something else; otherwise as SQLite says.
    pub async fn load(&self, data: Data) -> Result<(), StoreError> {
        let held = sqlx::query("SELECT name FROM data_set")
            .fetch_optional(&self.pool)
            .await?;
        if let Some(row) = held {
            let found: String = row.try_get(0)?;
            let wanted = data.name();
            return if found == wanted || data == Data::None {
                Ok(())
            } else {
                Err(StoreError::OtherData { found, wanted })
            };
        }
        match data {
            Data::Plan => self.fill(data, plan::plan(), std::iter::empty()).await,
            Data::Home => self.fill(data, plan::home(), std::iter::empty()).await,
            Data::Generated(world) => {
                let people = DataSet {
                    users: data.users(),
                    teams: (0..world.teams).map(|index| world.team(index)).collect(),
                    memberships: (0..world.users)
                        .flat_map(|index| world.teams_of(index))
                        .collect(),
                    rows: Vec::new(),
                };
                self.fill(data, people, world.all_rows()).await
            }
            Data::None => Ok(()),
        }
    }

    async fn fill(
        &self,
        data: Data,
        set: DataSet,
        generated: impl Iterator<Item = Record> + Send,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        load_people(&mut transaction, &set.users, &set.teams, &set.memberships).await?;
        let mut parents = Parents::default();
        let mut batch: Vec<Loaded> = Vec::new();
        for record in set.rows.into_iter().chain(generated) {
            let Resolved { team, owner } = parents.resolve(&record)?;
            let turned = batch
                .last()
                .is_some_and(|last| last.record.collection != record.collection);
            if turned || batch.len() >= BATCH {
                load_rows(&mut transaction, &batch).await?;
                batch.clear();
            }
            batch.push(Loaded {
                record,
                scope_team: team,
                scope_owner: owner,
            });
        }
        load_rows(&mut transaction, &batch).await?;
        sqlx::query("INSERT INTO data_set (name) VALUES (?)")
            .bind(data.name())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        sqlx::raw_sql("ANALYZE").execute(&self.pool).await?;
        Ok(())
    }
}

async fn load_people(
    into: &mut SqliteConnection,
    users: &[User],
    teams: &[Team],
    memberships: &[Membership],
) -> Result<(), StoreError> {
    let users: Vec<LoadedUser<'_>> = users
        .iter()
        .map(|user| LoadedUser {
            user,
            token: user.token(),
        })
        .collect();
    load(into, "teams", &["id", "name"], &teams).await?;
    let columns = ["id", "handle", "name", "banned", "token"];
    load(into, "users", &columns, &users).await?;
    load(into, "memberships", &["user_id", "team_id"], &memberships).await
}

async fn load_rows(into: &mut SqliteConnection, batch: &[Loaded]) -> Result<(), StoreError> {
    let Some(first) = batch.first() else {
        return Ok(());
    };
    let columns = [
        "id",
        "created_at",
        "owner_id",
        "team_id",
        "project_id",
        "mission_id",
        "status",
        "title",
        "text",
        "extra",
        "scope_team",
        "scope_owner",
    ];
    load(into, first.record.collection.table(), &columns, &batch).await
}

async fn load(
    into: &mut SqliteConnection,
    table: &'static str,
    columns: &[&'static str],
    rows: &(impl Serialize + Sync),
) -> Result<(), StoreError> {
    let values: Vec<String> = columns
        .iter()
        .map(|column| format!("json_extract(value, '$.{column}')"))
        .collect();
    let sql = format!(
        "INSERT INTO {table} ({}) SELECT {} FROM json_each(?)",
        columns.join(", "),
        values.join(", ")
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(serde_json::to_string(rows)?)
        .execute(into)
        .await?;
    Ok(())
}
