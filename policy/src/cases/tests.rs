//! Cases: what they say, how they fail, which rules they hold in place. Elsewhere on purpose: the command (the proxy).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use super::*;
use crate::rules::RuleSet;

const POLICY: &str = r#"
schema = 1
[ceiling]
resources = ["tasks", "notes"]
max_rows_per_query = 500
teams = ["platform"]
[peers.home]
resources = ["tasks"]
max_rows_per_query = 200
include_personal = false
allow_sensitive = ["credentials"]
[redaction]
exempt = ["tasks.usage.tokenCount"]
fields.tasks = ["internalNote"]
"#;

const CASES: &str = r#"
schema = 1
[[test]]
name = "home sees tasks of its team"
given.peer = "home"
given.teams = ["platform", "sales"]
given.scope.resources = ["tasks", "credentials"]
given.scope.filters.tasks.include_teams = ["platform", "sales"]
given.scope.max_rows_per_query = 1000
when.verb = "list"
when.resource = "tasks"
expect.decision = "allow"
expect.teams = ["platform"]
expect.include_personal = false
expect.max_rows = 200
expect.removes = ["internalNote", "user.password"]
expect.keeps = ["title", "usage.tokenCount"]

[[test]]
name = "home does not see notes"
given = { peer = "home", scope = { resources = ["notes"] } }
when = { verb = "list", resource = "notes" }
expect = { decision = "deny", code = "ceiling" }

[[test]]
name = "others see notes, and their own only"
given = { peer = "other", scope = { resources = ["notes"], max_rows_per_query = 1000 } }
when = { verb = "get", resource = "notes" }
expect = { decision = "allow", teams = [], include_personal = true, max_rows = 500 }

[[test]]
name = "others cannot be granted credentials"
given = { peer = "other", scope = { resources = ["credentials"] } }
when = { verb = "list", resource = "credentials" }
expect = { decision = "scope_refused" }

[[test]]
name = "others see tasks"
given = { peer = "other", scope = { resources = ["tasks", "projects"] } }
when = { verb = "capabilities" }
expect = { decision = "allow", resources = ["tasks"], max_rows = 100 }
"#;

fn parse(text: &str) -> Result<Vec<PolicyCase>, Vec<Problem>> {
    PolicyCase::parse(&[("cases.toml", text)])
}

fn rules(text: &str) -> Arc<RuleSet> {
    Arc::new(RuleSet::parse(&[("policy.toml", text)]).unwrap())
}

/// The differences of the only case in `text`, under [`POLICY`].
fn differences(text: &str) -> Vec<String> {
    let cases = parse(&format!("schema = 1\n[[test]]\nname = \"x\"\n{text}")).unwrap();
    cases[0].run(&rules(POLICY)).differences
}

#[test]
fn a_case_passes_when_the_decision_is_as_expected() {
    let rules = rules(POLICY);
    for case in parse(CASES).unwrap() {
        let verdict = case.run(&rules);
        assert!(verdict.passes(), "{}: {verdict:?}", case.name);
    }
}

#[test]
fn every_rule_is_held_by_some_case() {
    let found = coverage(&[("policy.toml", POLICY)], &parse(CASES).unwrap()).unwrap();
    let bare: Vec<_> = found
        .entries
        .iter()
        .filter(|entry| entry.covered_by.is_none())
        .collect();
    assert!(bare.is_empty(), "{bare:#?}");
    assert_eq!((found.covered(), found.entries.len()), (10, 10));
    assert_eq!(found.percent(), 100);
    assert_eq!(found.entries[0].rule, "ceiling.resources: tasks");
    assert_eq!(found.entries[2].rule, "ceiling.max_rows_per_query = 500");
    assert_eq!(
        (found.entries[3].line, found.entries[3].rule.as_str()),
        (6, "ceiling.teams: platform")
    );
}

#[test]
fn a_rule_without_a_case_is_named_with_its_place() {
    let cases = parse(CASES).unwrap();
    let only: Vec<_> = cases.into_iter().take(1).collect();
    let found = coverage(&[("policy.toml", POLICY)], &only).unwrap();
    let bare: Vec<_> = found
        .entries
        .iter()
        .filter(|entry| entry.covered_by.is_none())
        .map(|entry| (entry.line, entry.rule.as_str()))
        .collect();
    assert_eq!(
        bare,
        [
            (4, "ceiling.resources: notes"),
            (5, "ceiling.max_rows_per_query = 500")
        ]
    );
    assert_eq!(found.percent(), 80);
}

#[test]
fn a_case_that_fails_holds_nothing_and_a_rule_without_effect_is_none() {
    let policy = "schema = 1\n[ceiling]\nresources = [\"tasks\"]\ninclude_personal = true\n";
    let failing = "schema = 1\n[[test]]\nname = \"x\"\ngiven = { peer = \"a\", scope = { resources = [\"tasks\"] } }\n\
        when = { verb = \"list\", resource = \"tasks\" }\nexpect = { decision = \"deny\", code = \"ceiling\" }\n";
    let found = coverage(&[("policy.toml", policy)], &parse(failing).unwrap()).unwrap();
    assert_eq!(found.entries.len(), 1, "{found:?}");
    assert_eq!(found.percent(), 0);
    assert_eq!(coverage(&[], &[]).unwrap().percent(), 100);
}

#[test]
fn differences_say_what_was_expected_and_what_was_found() {
    let given = "given = { peer = \"home\", teams = [\"platform\"], scope = { resources = [\"tasks\"], \
        filters = { tasks = { include_teams = [\"platform\"] } } } }\n\
        when = { verb = \"list\", resource = \"tasks\", limit = 7 }\n";
    let of = |expect: &str| differences(&format!("{given}expect = {{ {expect} }}"));
    assert_eq!(
        of("decision = \"deny\", code = \"ceiling\""),
        ["decision: expected deny ceiling, found allow"]
    );
    assert_eq!(
        of(
            "decision = \"allow\", teams = [\"sales\"], include_personal = true, max_rows = 8, \
            removes = [\"title\"], keeps = [\"internalNote\"]"
        ),
        [
            "teams: expected [sales], found [platform]",
            "include_personal: expected true, found false",
            "max_rows: expected 8, found 7",
            "removes: expected title removed, found kept",
            "keeps: expected internalNote kept, found removed",
        ]
    );
    let refused = differences(
        "given = { peer = \"other\", scope = { resources = [\"credentials\"] } }\n\
         when = { verb = \"list\", resource = \"credentials\" }\nexpect = { decision = \"allow\" }",
    );
    assert_eq!(refused.len(), 1);
    assert!(
        refused[0].starts_with("decision: expected allow, found scope_refused (the scope is not valid: resources: credentials is sensitive"),
        "{refused:?}"
    );
}

#[test]
fn states_of_peer_and_grant_are_given_too() {
    for (given, code) in [
        ("grant = \"revoked\"", "grant_revoked"),
        ("grant = \"expired\"", "grant_expired"),
        ("grant = \"pending\"", "grant_pending"),
        ("peer_state = \"suspended\"", "peer_suspended"),
        ("peer_state = \"pending\"", "peer_unknown"),
        ("peer_state = \"degraded\"", "unknown_verb"),
    ] {
        let text = format!(
            "given = {{ peer = \"home\", scope = {{ resources = [\"tasks\"] }}, {given} }}\n\
             when = {{ verb = \"erase\", resource = \"tasks\" }}\nexpect = {{ decision = \"deny\", code = \"{code}\" }}"
        );
        assert_eq!(differences(&text), [""; 0], "{given}");
    }
}

#[test]
fn every_problem_has_its_place() {
    let text = r#"schema = 1
[[test]]
name = "a"
given = { peer = "home", scope = { resources = ["tasks"], filter = 1 }, team = ["x"] }
when = { verb = "list", resource = "tasks", limit = 0 }
expect = { decision = "allow", code = "ceiling" }
[[test]]
name = "a"
given = { peer = "home", scope = { resources = ["tasks"] } }
when = { verb = "capabilities" }
expect = { decision = "allow", teams = [] }
[[test]]
name = "b"
given = { peer = "home", scope = { resources = ["tasks"] }, gateway = "x" }
when = { verb = "list" }
expect = { decision = "deny", code = "gateway_timeout" }
[[test]]
name = "c"
given = { peer = "home", scope = { resources = ["tasks"] } }
expect = { decision = "maybe" }
[[test]]
name = "d"
given = { peer = "home", scope = { resources = ["tasks"] } }
when = { verb = "list" }
expect = { decision = "deny" }
"#;
    let problems = parse(text).unwrap_err();
    let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [4, 4, 5, 6, 11, 14, 16, 17, 20, 25], "{problems:#?}");
    assert!(
        problems[0]
            .to_string()
            .contains("scope: filter: unknown key"),
        "{}",
        problems[0]
    );
    assert!(
        problems[6]
            .to_string()
            .contains("no decision refuses with it"),
        "{}",
        problems[6]
    );
    assert!(
        parse("[[test]]\n")
            .unwrap_err()
            .iter()
            .any(|problem| problem.message.contains("schema"))
    );
    assert!(
        parse("schema = 1\ntest = 3\n").unwrap_err()[0]
            .hint
            .contains("[[test]]")
    );
    let doubled = format!("{CASES}{}", &CASES[CASES.find("[[test]]").unwrap()..]);
    assert_eq!(parse(&doubled).unwrap_err().len(), 5);
}
