//! `policy test` as a shell sees it.

use serde_json::Value;

use super::{Exit, Outcome, Path, invoke};

const POLICY: &str = "schema = 1\n[ceiling]\nresources = [\"tasks\"]\nmax_rows_per_query = 50\n";

fn case(name: &str, expect: &str) -> String {
    format!(
        "[[test]]\nname = \"{name}\"\ngiven = {{ peer = \"home\", scope = {{ resources = [\"tasks\"] }} }}\n\
         when = {{ verb = \"list\", resource = \"tasks\" }}\nexpect = {{ {expect} }}\n"
    )
}

/// Runs `policy test` on a policy and its cases, with more arguments.
fn test(policy: &str, cases: &str, more: &[&str]) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("10.toml"), policy).unwrap();
    std::fs::create_dir(dir.path().join("tests")).unwrap();
    std::fs::write(
        dir.path().join("tests/a.toml"),
        format!("schema = 1\n{cases}"),
    )
    .unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    let command = ["mosaic-federation", "policy", "test", &path];
    invoke(&[&command[..], more].concat())
}

#[test]
fn the_shipped_policy_passes_its_tests_and_they_hold_every_rule() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/policy.d");
    let outcome = invoke(&[
        "mosaic-federation",
        "policy",
        "test",
        shipped.to_str().unwrap(),
        "--min-coverage",
        "100",
    ]);
    assert_eq!(
        outcome.exit,
        Exit::Done,
        "{}{}",
        outcome.out,
        outcome.errors
    );
    assert!(
        outcome.out.contains("5 passed, 0 failed"),
        "{}",
        outcome.out
    );
}

#[test]
fn a_failing_case_is_shown_with_its_place_and_its_trace() {
    let outcome = test(
        POLICY,
        &case("x", "decision = \"allow\", max_rows = 100"),
        &[],
    );
    assert_eq!(outcome.exit, Exit::Failed);
    let lines: Vec<&str> = outcome.out.lines().collect();
    assert_eq!(lines[0], "FAIL  tests/a.toml:2: x");
    assert_eq!(lines[1], "      max_rows: expected 100, found 50");
    assert!(
        lines[2].starts_with("        1. identity: grant "),
        "{}",
        lines[2]
    );
    assert_eq!(lines[10], "0 passed, 1 failed");
    assert_eq!(lines[11], "0 of 2 rules are held by a test (0 %)");
    assert_eq!(lines[12], "  not held: 10.toml:3: ceiling.resources: tasks");
    assert_eq!(
        lines[13],
        "  not held: 10.toml:4: ceiling.max_rows_per_query = 50"
    );
}

#[test]
fn too_little_coverage_fails_where_it_is_asked_for() {
    let cases = case("x", "decision = \"allow\"");
    assert_eq!(test(POLICY, &cases, &[]).exit, Exit::Done);
    assert_eq!(
        test(POLICY, &cases, &["--min-coverage", "50"]).exit,
        Exit::Done
    );
    let outcome = test(POLICY, &cases, &["--min-coverage", "51", "--json"]);
    assert_eq!(outcome.exit, Exit::Failed);
    let document: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(document["passed"], 1);
    assert_eq!(document["coverage"]["percent"], 50);
    assert_eq!(document["coverage"]["rules"][0]["held_by"], "x");
    assert_eq!(document["coverage"]["rules"][1]["held_by"], Value::Null);
}

#[test]
fn what_cannot_be_read_has_its_place() {
    let outcome = test(POLICY, &case("x", "decision = \"maybe\""), &[]);
    assert_eq!(outcome.exit, Exit::Failed);
    assert!(
        outcome.errors.contains("tests/a.toml:6:"),
        "{}",
        outcome.errors
    );
    let outcome = test("schema = 1\n[ceilling]\n", "", &[]);
    assert_eq!(outcome.exit, Exit::Failed);
    assert!(outcome.errors.contains("10.toml:2:"), "{}", outcome.errors);
    let outcome = test(POLICY, "", &["--tests", "/nonexistent"]);
    assert_eq!(outcome.exit, Exit::Usage);
    assert!(outcome.errors.contains("--tests"), "{}", outcome.errors);
}
