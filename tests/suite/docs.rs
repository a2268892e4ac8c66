//! The documentation says what the code does: tables, examples, names and links are compared with it.
//!
//! Invariant: nothing is skipped in silence; each check first makes sure that it found what it compares. What the prose
//! means is not checked here, and the settings reference has a test of its own beside the settings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "docs/reasons.rs"]
mod reasons;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use policy::cases::{PolicyCase, coverage};
use policy::deny::{DenyCode, DenyStage};
use policy::evaluate::evaluate;
use policy::grant::{Grant, GrantStatus};
use policy::id::{SubjectId, UserId};
use policy::mapping::Mapping;
use policy::native::NativeFacts;
use policy::peer::{Peer, PeerState};
use policy::request::AccessRequest;
use policy::revision::RevisionKey;
use policy::rules::RuleSet;
use policy::scope::Scope;
use policy::snapshot::Snapshot;
use policy::time::UnixMillis;
use proxy::message::body::Body;
use proxy::message::failure::Failure;
use proxy::message::status::status_of;
use proxy::telemetry::Metrics;
use proxy::telemetry::metrics::{HeldBack, RowsKind};
use proxy::transport::CutCount;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files with one of the endings below a directory of the repository, as paths from its root.
fn files(below: &str, endings: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root().join(below)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if endings
                .iter()
                .any(|end| path.to_string_lossy().ends_with(end))
            {
                let path = path.strip_prefix(root()).unwrap();
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "nothing below {below}");
    found
}

fn pages() -> Vec<(String, String)> {
    let paths = files("docs", &[".md"]);
    paths
        .into_iter()
        .map(|path| (path.clone(), read(&path)))
        .collect()
}

/// The text between two marks, each of which must be there once.
fn between<'t>(text: &'t str, begin: &str, end: &str) -> &'t str {
    assert_eq!(text.matches(begin).count(), 1, "{begin}");
    assert_eq!(text.matches(end).count(), 1, "{end}");
    let (_, rest) = text.split_once(begin).unwrap();
    rest.split_once(end).unwrap().0
}

/// The contents of the fenced block at the start of `text`.
fn block(text: &str) -> &str {
    let (_, rest) = text.split_once("```").expect("a fenced block");
    let (_, rest) = rest.split_once('\n').unwrap();
    rest.split_once("```").expect("an end of the block").0
}

/// Every block marked `<!-- example: KIND -->`, with the page it is on.
fn examples(kind: &str) -> Vec<(String, String)> {
    let mark = format!("<!-- example: {kind} -->");
    let found: Vec<_> = pages()
        .iter()
        .flat_map(|(page, text)| {
            let blocks = text.split(&mark).skip(1);
            blocks
                .map(|rest| (page.clone(), block(rest).to_owned()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(!found.is_empty(), "no example of {kind}");
    found
}

#[test]
fn the_table_of_refusals_is_what_the_code_answers() {
    let page = read("docs/protocol.md");
    let table = between(
        &page,
        "<!-- deny-codes: begin -->",
        "<!-- deny-codes: end -->",
    );
    let rows: BTreeSet<Vec<String>> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells
                .map(|cell| cell.trim().trim_matches('`').to_owned())
                .collect()
        })
        .collect();
    let expected: BTreeSet<Vec<String>> = DenyCode::ALL
        .iter()
        .map(|&code| {
            let (status, wire) = status_of(code);
            let failure = Failure::from(code);
            let envelope = failure.envelope("id");
            let told = String::from_utf8_lossy(&envelope).contains("details");
            vec![
                code.as_str().to_owned(),
                code.stage().as_str().to_owned(),
                status.as_u16().to_string(),
                wire.as_str().to_owned(),
                if told { "yes" } else { "no" }.to_owned(),
                if failure.close { "closed" } else { "kept" }.to_owned(),
                code.meaning().to_owned(),
            ]
        })
        .collect();
    let missing: Vec<_> = expected.difference(&rows).collect();
    let wrong: Vec<_> = rows.difference(&expected).collect();
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "missing: {missing:#?}\nwrong: {wrong:#?}\n`UPDATE_DOCS=1 cargo test -p tests --test docs reasons` writes the table"
    );
}

#[test]
fn every_example_parses() {
    for (page, text) in examples("scope") {
        let scope = Scope::parse_text(&text, &[]);
        assert!(scope.is_ok(), "{page}: {scope:?}\n{text}");
    }
    for (page, text) in examples("policy") {
        let rules = RuleSet::parse(&[("example.toml", &text)]);
        assert!(rules.is_ok(), "{page}: {rules:?}\n{text}");
    }
    for (page, text) in examples("policy-test") {
        let cases = PolicyCase::parse(&[("example.toml", &text)]);
        assert!(cases.is_ok(), "{page}: {cases:?}\n{text}");
    }
    for (page, text) in examples("settings") {
        let file = Path::new("/etc/federation.toml");
        let settings = proxy::config::parse(Some((file, &text)), &[], &[]);
        assert!(settings.is_ok(), "{page}: {settings:?}\n{text}");
    }
    for (page, text) in examples("body") {
        let body = Body::parse(text.as_bytes());
        assert!(body.is_ok(), "{page}: {body:?}\n{text}");
    }
    for (page, text) in examples("json") {
        let value = policy::strict_json::parse(&text);
        assert!(value.is_ok(), "{page}: {value:?}\n{text}");
    }
}

/// No block that looks like an example escapes the test above.
#[test]
fn every_block_of_json_or_toml_is_marked() {
    for (page, text) in pages() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            if matches!(*line, "```json" | "```toml") {
                let before = at.checked_sub(1).map_or("", |before| lines[before]);
                assert!(
                    before.starts_with("<!-- example: "),
                    "{page}:{}: an unmarked example",
                    at + 1
                );
            }
        }
    }
}

#[test]
fn the_explanation_shown_is_the_one_the_decision_gives() {
    let page = read("docs/policy.md");
    let shown = between(
        &page,
        "<!-- explanation: begin -->",
        "<!-- explanation: end -->",
    );
    let first = |kind: &str| {
        let mut all = examples(kind).into_iter();
        all.find(|(page, _)| page == "docs/policy.md").unwrap().1
    };
    let user = UserId::parse("amira").unwrap();
    let peer = Peer {
        id: "0190d1c2-7d5e-7f3a-8a55-1f0c3a9b2d11".parse().unwrap(),
        name: "home".parse().unwrap(),
        state: PeerState::Active,
    };
    let grant = Grant {
        id: "0190d1c2-7d5e-7f3a-8a55-1f0c3a9b2d10".parse().unwrap(),
        peer: peer.id,
        subject: SubjectId::of_user(&user),
        user,
        scope: Scope::parse_text(&first("scope"), &[]).unwrap(),
        status: GrantStatus::Active,
        edit: 0,
        created_at: UnixMillis(0),
        expires_at: None,
    };
    let request = AccessRequest {
        grant: grant.id,
        subject: grant.subject,
        now: UnixMillis(0),
        verb: "list",
        resource: Some("tasks"),
        limit: None,
    };
    let policy = first("policy");
    let rules = RuleSet::parse(&[("example.toml", &policy)]).unwrap();
    let snapshot = Snapshot::build(
        1,
        [peer],
        [grant],
        Arc::new(rules),
        Arc::new(Mapping::internal_v1()),
        &RevisionKey::new(&[0; 32]),
    )
    .unwrap();
    let mut facts = NativeFacts::builder();
    facts.team("platform".parse().unwrap()).unwrap();
    let trace = match evaluate(&snapshot, &request, &facts.build()) {
        policy::decision::Decision::Allow(permit) => permit.trace(),
        policy::decision::Decision::Deny(deny) => panic!("{deny}"),
    };
    assert_eq!(block(shown).trim_end(), trace.to_string());
}

/// The tests shown for the policy shown pass, and hold every rule of it.
#[test]
fn the_policy_shown_passes_the_tests_shown() {
    let first = |kind: &str| {
        let mut all = examples(kind).into_iter();
        all.find(|(page, _)| page == "docs/policy.md").unwrap().1
    };
    let (policy, cases) = (first("policy"), first("policy-test"));
    let files = [("example.toml", policy.as_str())];
    let cases = PolicyCase::parse(&[("tests.toml", &cases)]).unwrap();
    let rules = Arc::new(RuleSet::parse(&files).unwrap());
    for case in &cases {
        let verdict = case.run(&rules);
        assert!(verdict.passes(), "{}: {verdict:#?}", case.name);
    }
    let held = coverage(&files, &cases).unwrap();
    let shown = format!("{} of {} rules", held.covered(), held.entries.len());
    assert!(
        read("docs/policy.md").contains(&shown),
        "{shown}: {held:#?}"
    );
}

#[test]
fn every_metric_is_listed_and_no_other() {
    const PREFIX: &str = "mosaic_federation_";
    let metrics = Metrics::new().unwrap();
    let denied = Some((DenyStage::Verb, DenyCode::UnknownVerb));
    metrics.exchange("inbound", "list", "denied", denied, Duration::ZERO);
    metrics.rows(RowsKind::Returned, 1);
    metrics.cut(CutCount::default());
    metrics.connections_refused("federation", "handshakes", 0);
    metrics.rate_limit_keys("grant", 0);
    metrics.certificate_expiry("server", "", 1);
    metrics.breaker("work", false);
    metrics.held_back("work", HeldBack::Open);
    metrics.rate_limit_wait("work");
    metrics.renewal("work", true);
    metrics.server_certificate_failed();
    metrics.drills().attacked("no_certificate", "refused");
    metrics.drills().canary_failed("use");
    metrics.otlp.expect(&["traces"]);
    let fresh = certs::crl::freshness::Freshness::Fresh { until: 1 };
    metrics.revocation.place("list", fresh);
    metrics.revocation.refused("list");
    metrics.revocation.foreign("list", 0);
    let text = String::from_utf8(metrics.render().unwrap()).unwrap();
    let exported: BTreeSet<Vec<String>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            let labels: Vec<String> = labels_of(&text, name)
                .iter()
                .map(|label| format!("`{label}`"))
                .collect();
            vec![
                format!("`{}`", name.strip_prefix(PREFIX).unwrap()),
                kind.to_owned(),
                unit_of(name, kind).to_owned(),
                labels.join(", "),
            ]
        })
        .collect();
    let listed: BTreeSet<Vec<String>> = read("docs/metrics.md")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            let mut row: Vec<String> = cells.take(4).map(|cell| cell.trim().to_owned()).collect();
            let mut labels: Vec<&str> = row[3].split(", ").collect();
            labels.sort_unstable();
            row[3] = labels.join(", ");
            row
        })
        .collect();
    let missing: Vec<_> = exported.difference(&listed).collect();
    let wrong: Vec<_> = listed.difference(&exported).collect();
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "docs/metrics.md, missing: {missing:#?}\nwrong: {wrong:#?}"
    );
}

/// The names of the labels of a metric's first series, in their order, without the bounds of a histogram.
fn labels_of(text: &str, metric: &str) -> Vec<String> {
    let series = text
        .lines()
        .find(|line| !line.starts_with('#') && line.starts_with(metric))
        .unwrap_or_else(|| panic!("no series of {metric}"));
    let Some((_, rest)) = series.split_once('{') else {
        return Vec::new();
    };
    let inside = rest.rsplit_once('}').unwrap().0;
    let mut names: Vec<String> = inside
        .split(',')
        .map(|pair| pair.split_once('=').unwrap().0.to_owned())
        .filter(|name| name != "le")
        .collect();
    names.sort_unstable();
    names
}

/// The unit that a metric's name promises; a figure without one is a count or a state.
fn unit_of(name: &str, kind: &str) -> &'static str {
    match name {
        _ if name.ends_with("_timestamp_seconds") => "Unix time",
        _ if name.ends_with("_seconds") => "seconds",
        _ if name.ends_with("_bytes") => "bytes",
        _ if name.ends_with("_ratio") => "0 to 1",
        _ if name.ends_with("_crl_state") => "0 to 3",
        _ if name.ends_with("_open")
            || name.ends_with("_failing")
            || name.ends_with("_running") =>
        {
            "0 or 1"
        }
        _ => {
            assert_eq!(
                kind == "counter",
                name.ends_with("_total"),
                "{name} is a {kind}"
            );
            "count"
        }
    }
}

/// A path of this repository in backticks, with the test it names after `::`, if it names one.
fn mentions(text: &str) -> Vec<(String, Option<String>)> {
    const TOPS: [&str; 9] = [
        "policy/",
        "certs/",
        "proxy/",
        "tests/",
        "benches/",
        "migrations/",
        "compose/",
        "deploy/",
        "docs/",
    ];
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| TOPS.iter().any(|top| code.starts_with(top)))
        .filter(|code| !code.contains([' ', '\n', '*', '{']))
        .map(|code| match code.split_once("::") {
            Some((path, test)) => (path.to_owned(), Some(test.to_owned())),
            None => (code.to_owned(), None),
        })
        .collect()
}

/// Prose only: in fenced blocks a backtick means something else.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

#[test]
fn what_a_page_names_exists() {
    let mut wrong = Vec::new();
    let mut named = 0;
    for (page, text) in pages() {
        for (path, test) in mentions(&prose(&text)) {
            named += 1;
            if !root().join(&path).exists() {
                wrong.push(format!("{page}: there is no {path}"));
            } else if let Some(test) = test
                && !read(&path).contains(&format!("fn {test}("))
            {
                wrong.push(format!("{page}: there is no test {test} in {path}"));
            }
        }
    }
    assert!(named > 100, "only {named} mentions were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The anchors of a page, as they are made from its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut links = 0;
    for (page, text) in pages() {
        let directory = root().join(&page).parent().unwrap().to_owned();
        for rest in prose(&text).split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            if target.starts_with("http") {
                continue;
            }
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => root().join(&page),
                file => directory.join(file),
            };
            let Ok(found) = std::fs::read_to_string(&path) else {
                wrong.push(format!("{page}: {target} leads nowhere"));
                continue;
            };
            if !anchor.is_empty() && !anchors(&found).contains(anchor) {
                wrong.push(format!("{page}: {target} has no such heading"));
            }
        }
    }
    assert!(links > 20, "only {links} links were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_module_map_has_every_source_file() {
    let page = read("docs/architecture.md");
    let (_, map) = page.split_once("\n## Module map\n").unwrap();
    let named: Vec<String> = mentions(&prose(map))
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    let is_named = |file: &str| {
        named
            .iter()
            .any(|path| path == file || path.ends_with('/') && file.starts_with(path.as_str()))
    };
    let is_test = |file: &str| {
        let name = file.rsplit('/').next().unwrap_or_default();
        file.contains("/tests/") || matches!(name, "tests.rs" | "fixture.rs")
    };
    let missing: Vec<String> = ["policy/src", "certs/src", "proxy/src"]
        .iter()
        .flat_map(|below| files(below, &[".rs"]))
        .filter(|file| !is_test(file) && !is_named(file))
        .collect();
    assert!(
        missing.is_empty(),
        "not in docs/architecture.md: {missing:#?}"
    );
}
