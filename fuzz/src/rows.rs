//! The row filter: whatever the gateway answers, what leaves is sound JSON of rows that may pass.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use policy::evaluate::{Admission, admit};
use policy::grant::{Grant, GrantStatus};
use policy::id::{GrantId, PeerId, SubjectId, TeamId, UserId};
use policy::mapping::{Mapping, MemberPath};
use policy::native::NativeFacts;
use policy::peer::{Peer, PeerName, PeerState};
use policy::request::AccessRequest;
use policy::resource::Resource;
use policy::revision::RevisionKey;
use policy::rows::{RowError, RowFilter, RowMatch, RowReader, RowsAt, Step, Tally};
use policy::rules::RuleSet;
use policy::scope::Scope;
use policy::snapshot::Snapshot;
use policy::time::UnixMillis;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use uuid::Uuid;

const USER: &str = "user-e1";
const TEAM: &str = "team-platform";

static FILTER: LazyLock<Arc<RowFilter>> = LazyLock::new(|| Arc::new(filter()));

/// Tasks of one team and the personal ones of one user, through a decision like any other.
fn filter() -> RowFilter {
    let user = UserId::parse(USER).unwrap();
    let peer = Peer {
        id: PeerId::new(Uuid::from_u128(1)),
        name: PeerName::parse("home").unwrap(),
        state: PeerState::Active,
    };
    let scope =
        r#"{"resources":["tasks"],"filters":{"tasks":{"include_teams":["team-platform"]}}}"#;
    let grant = Grant {
        id: GrantId::new(Uuid::from_u128(2)),
        peer: peer.id,
        subject: SubjectId::of_user(&user),
        user,
        scope: Scope::parse_text(scope, &[]).unwrap(),
        status: GrantStatus::Active,
        edit: 1,
        created_at: UnixMillis(0),
        expires_at: None,
    };
    let request = AccessRequest {
        grant: grant.id,
        subject: grant.subject,
        now: UnixMillis(1),
        verb: "list",
        resource: Some("tasks"),
        limit: None,
    };
    let rules = "schema = 1\n[ceiling]\nresources = [\"tasks\"]\n";
    let rules = Arc::new(RuleSet::parse(&[("fuzz.toml", rules)]).unwrap());
    let mapping = Arc::new(Mapping::internal_v1());
    let key = RevisionKey::new(&[0; 32]);
    let snapshot = Snapshot::build(1, [peer], [grant], rules, Arc::clone(&mapping), &key).unwrap();
    let mut facts = NativeFacts::builder();
    facts.team(TeamId::parse(TEAM).unwrap()).unwrap();
    let facts = Arc::new(facts.build());
    let Ok(Admission::Rows(admitted)) = admit(&snapshot, &request) else {
        panic!("the scope allows tasks");
    };
    let permit = admitted.decide(&facts);
    let fields = &mapping.sources(Resource::Tasks)[0].fields;
    RowFilter::new(&permit, facts, fields, &RowMatch::default()).unwrap()
}

/// The rows that passed, the counts, and how the body ended.
type Reading = (Vec<Vec<u8>>, Tally, Result<(), RowError>);

fn read(body: &[u8], chunk: usize) -> Reading {
    let at = RowsAt::rows(&MemberPath::parse("rows").unwrap());
    let mut reader = RowReader::new(Arc::clone(&FILTER), at);
    let mut chunks = body.chunks(chunk.max(1));
    let mut rows = Vec::new();
    loop {
        let mut out = Vec::new();
        match reader.step(&mut out) {
            Ok(Step::Row) => rows.push(out),
            Ok(Step::Withheld | Step::Unmatched) => assert!(out.is_empty()),
            Ok(Step::NeedInput) => match chunks.next() {
                Some(chunk) => reader.push(chunk),
                None => reader.close(),
            },
            Ok(Step::End) => return (rows, reader.tally(), Ok(())),
            Err(error) => return (rows, reader.tally(), Err(error)),
        }
    }
}

pub(crate) fn attack(body: &[u8]) {
    let whole = read(body, body.len());
    // However it is cut into chunks, it reads the same.
    for chunk in [1, 7, 64] {
        assert_eq!(read(body, chunk), whole, "chunks of {chunk}");
    }
    let (rows, tally, end) = whole;
    assert_eq!(tally.passed, u64::try_from(rows.len()).unwrap());
    assert_eq!(
        tally.examined,
        tally.passed + tally.withheld + tally.unmatched
    );
    if end.is_ok() {
        // What reads as complete is complete: strict JSON by an independent reader.
        serde_json::from_slice::<IgnoredAny>(body).expect("a body that ended well is JSON");
    }
    for row in &rows {
        judge(row);
    }
}

/// A JSON text kept as it is, since a number may be sound and yet beyond every type of ours.
type Members<'a> = BTreeMap<String, &'a RawValue>;

fn judge(row: &[u8]) {
    serde_json::from_slice::<IgnoredAny>(row).expect("a row that leaves is JSON");
    let members: Members<'_> = serde_json::from_slice(row).expect("a row that leaves is an object");
    let text = |name: &str| {
        members
            .get(name)
            .and_then(|value| serde_json::from_str::<String>(value.get()).ok())
    };
    let is_null = |name: &str| members.get(name).is_none_or(|value| value.get() == "null");
    match text("teamId") {
        Some(team) => assert_eq!(team, TEAM),
        None => {
            assert!(is_null("teamId"), "a team that is no text");
            assert_eq!(text("ownerId").as_deref(), Some(USER), "somebody else's");
        }
    }
    assert!(text("id").is_some_and(|id| !id.is_empty()));
    assert!(text("createdAt").is_some());
    assert_eq!(text("_source").as_deref(), Some("local"));
    let mut names = BTreeSet::new();
    members
        .values()
        .for_each(|value| collect_names(value, &mut names));
    names.extend(members.into_keys());
    for name in names {
        assert!(!name.to_lowercase().contains("password"), "{name}");
    }
}

fn collect_names(value: &RawValue, names: &mut BTreeSet<String>) {
    if let Ok(members) = serde_json::from_str::<Members<'_>>(value.get()) {
        members
            .values()
            .for_each(|value| collect_names(value, names));
        names.extend(members.into_keys());
    } else if let Ok(values) = serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        values.iter().for_each(|value| collect_names(value, names));
    }
}
