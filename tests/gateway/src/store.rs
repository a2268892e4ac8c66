//! The gateway's own SQLite file: schema, people, and rows by visibility.
//!
//! Invariant: every value reaches SQLite as a bound parameter; the text of a statement is built
//! from constants only. Filling an empty file is in `store/seed.rs`.

pub mod seed;

use std::path::Path;

use futures_util::{TryStreamExt, future};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{QueryBuilder, Row, Sqlite};

use crate::record::{Collection, Record};

/// The file cannot be opened, read or filled.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("the gateway's database failed: {0}")]
    Sql(#[from] sqlx::Error),
    /// A row in the data set refers to a parent that is not there.
    #[error(transparent)]
    Dangling(#[from] crate::ownership::Dangling),
    /// A row could not be turned into JSON on its way into the file, or out of it.
    #[error("a row cannot be carried as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The file holds another data set.
    #[error("the file already holds data set `{found}`, not `{wanted}`: use another --db file")]
    OtherData {
        /// What the file says it holds.
        found: String,
        /// What was asked for.
        wanted: String,
    },
}

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Gateway user id.
    pub id: String,
    /// Banned users are answered 403.
    pub banned: bool,
    /// The caller's teams, sorted.
    pub teams: Vec<String>,
}

/// Which rows an answer may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// Every user's rows: over-sharing.
    Everyone,
    /// What one user may see.
    Subject {
        /// The user's id.
        user: String,
        /// The teams whose rows count.
        teams: Vec<String>,
        /// Whether the user's personal rows count.
        personal: bool,
        /// Whether notes too are narrowed by the missions they are on.
        narrowed: bool,
    },
}

/// The order of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `(createdAt, id)` descending.
    CreatedDesc,
    /// By identifier, which tells nothing about time.
    Id,
}

/// One question to a collection.
#[derive(Clone, Debug)]
pub struct Question {
    /// The collection asked.
    pub collection: Collection,
    /// Which rows may be answered.
    pub view: View,
    /// Equality conditions: column and value.
    pub equals: Vec<(Column, String)>,
    /// Only rows after this `(createdAt, id)` in descending order.
    pub before: Option<(String, String)>,
    /// Whether rows without text count.
    pub with_text_only: bool,
    /// The order of the rows.
    pub order: Order,
    /// At most this many rows; `None` is all of them.
    pub limit: Option<u32>,
}

/// A column that can be asked for by equality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// `id`
    Id,
    /// `status`
    Status,
    /// `project_id`
    Project,
    /// `mission_id`
    Mission,
}

impl Column {
    const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Status => "status",
            Self::Project => "project_id",
            Self::Mission => "mission_id",
        }
    }
}

/// A row as one value: fetching costs per value, and this makes long lists several times faster.
const COLUMNS: &str = "json_array(id, created_at, owner_id, team_id, project_id, mission_id, \
                       status, title, text, extra)";

/// What [`COLUMNS`] holds.
type Columns = (
    String,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    String,
    Option<String>,
    Option<String>,
);

/// The open database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Open the file, creating it and its tables if it is new.
    ///
    /// # Errors
    /// [`StoreError::Sql`] when the file is not a database or cannot be written.
    pub async fn open(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Off)
            .row_buffer_size(512)
            .pragma("cache_size", "-65536");
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await?;
        seed::create_tables(&pool).await?;
        Ok(Self { pool })
    }

    /// The user with this token.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub async fn caller_by_token(&self, token: &str) -> Result<Option<Caller>, StoreError> {
        let row = sqlx::query("SELECT id, banned FROM users WHERE token = ?")
            .bind(token)
            .fetch_optional(&self.pool)
            .await?;
        self.caller(row).await
    }

    /// The user with this id.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub async fn caller_by_id(&self, id: &str) -> Result<Option<Caller>, StoreError> {
        let row = sqlx::query("SELECT id, banned FROM users WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        self.caller(row).await
    }

    async fn caller(&self, row: Option<SqliteRow>) -> Result<Option<Caller>, StoreError> {
        let Some(row) = row else { return Ok(None) };
        let id: String = row.try_get(0)?;
        let teams = sqlx::query("SELECT team_id FROM memberships WHERE user_id = ? ORDER BY 1")
            .bind(&id)
            .fetch_all(&self.pool)
            .await?
            .iter()
            .map(|team| team.try_get(0))
            .collect::<Result<_, _>>()?;
        Ok(Some(Caller {
            banned: row.try_get(1)?,
            teams,
            id,
        }))
    }

    /// Names of some teams, by id.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub async fn team_names(&self, of: &Caller) -> Result<Vec<(String, String)>, StoreError> {
        let rows = sqlx::query(
            "SELECT t.id, t.name FROM teams t JOIN memberships m ON m.team_id = t.id \
             WHERE m.user_id = ? ORDER BY 1",
        )
        .bind(&of.id)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect()
    }

    /// The rows that answer a question, in its order.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub async fn rows(&self, question: &Question) -> Result<Vec<Record>, StoreError> {
        let branches = branches(&question.view, question.collection);
        if branches.is_empty() {
            return Ok(Vec::new());
        }
        let mut sql = QueryBuilder::<Sqlite>::new("");
        for (index, branch) in branches.iter().enumerate() {
            if index > 0 {
                sql.push(" UNION ALL ");
            }
            push_branch(&mut sql, question, branch);
        }
        sql.push(match question.order {
            Order::CreatedDesc => " ORDER BY 2 DESC, 3 DESC",
            Order::Id => " ORDER BY 3",
        });
        if let Some(limit) = question.limit {
            sql.push(" LIMIT ").push_bind(limit);
        }
        sql.build()
            .fetch(&self.pool)
            .map_err(StoreError::from)
            .and_then(|row| future::ready(decode(question.collection, &row)))
            .try_collect()
            .await
    }

    /// Close the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// One arm of the union that a view is made of. Arms are disjoint, and each is answered in order
/// from one index.
enum Branch<'a> {
    Everyone,
    Team(&'a str),
    Personal(&'a str),
    NotesOnMissions(&'a str, &'a [String], bool),
}

fn branches(view: &View, collection: Collection) -> Vec<Branch<'_>> {
    let View::Subject {
        user,
        teams,
        personal,
        narrowed,
    } = view
    else {
        return vec![Branch::Everyone];
    };
    if collection == Collection::Notes && *narrowed {
        return vec![Branch::NotesOnMissions(user, teams, *personal)];
    }
    let mut branches = Vec::new();
    if collection.is_shared() {
        branches.extend(teams.iter().map(|team| Branch::Team(team)));
    }
    if *personal || (collection == Collection::Notes && !*narrowed) {
        branches.push(Branch::Personal(user));
    }
    branches
}

fn push_branch(sql: &mut QueryBuilder<Sqlite>, question: &Question, branch: &Branch<'_>) {
    let table = question.collection.table();
    sql.push(format_args!(
        "SELECT {COLUMNS}, created_at, id FROM {table} WHERE "
    ));
    match branch {
        Branch::Everyone => {
            sql.push("TRUE");
        }
        Branch::Team(team) => {
            sql.push("scope_team = ").push_bind((*team).to_owned());
        }
        Branch::Personal(user) => {
            sql.push("scope_team IS NULL AND scope_owner = ");
            sql.push_bind((*user).to_owned());
        }
        Branch::NotesOnMissions(user, teams, personal) => {
            sql.push("scope_team IS NULL AND scope_owner = ");
            sql.push_bind((*user).to_owned());
            sql.push(" AND mission_id IN (SELECT id FROM missions WHERE scope_team IN (");
            let mut list = sql.separated(", ");
            for team in *teams {
                list.push_bind(team.clone());
            }
            sql.push(") OR (scope_team IS NULL AND ");
            sql.push_bind(*personal);
            sql.push(" AND scope_owner = ");
            sql.push_bind((*user).to_owned()).push("))");
        }
    }
    for (column, value) in &question.equals {
        sql.push(format_args!(" AND {} = ", column.name()));
        sql.push_bind(value.clone());
    }
    if question.with_text_only {
        sql.push(" AND text IS NOT NULL AND text <> ''");
    }
    if let Some((created_at, id)) = &question.before {
        sql.push(" AND (created_at, id) < (");
        sql.push_bind(created_at.clone()).push(", ");
        sql.push_bind(id.clone()).push(")");
    }
}

fn decode(collection: Collection, row: &SqliteRow) -> Result<Record, StoreError> {
    let columns: Columns = serde_json::from_str(row.try_get(0)?)?;
    let (id, created_at, owner, team, project, mission, status, title, text, extra) = columns;
    Ok(Record {
        collection,
        id,
        created_at,
        owner,
        team,
        project,
        mission,
        status,
        title,
        text,
        extra,
    })
}
