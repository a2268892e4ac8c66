//! `policy test`: the test cases of a policy, and which rules they hold.
//!
//! Invariant: needs no running sidecar and changes nothing. Cases are files of their own directory, since every file
//! of the policy's directory is policy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::policy::cases::{CaseVerdict, Coverage, PolicyCase, coverage};
use serde_json::{Value, json};

use super::super::arguments::PolicyTest;
use super::super::failure::CliFailure;
use super::super::output::{Console, plain};
use super::{invalid, pairs};
use crate::exit::Exit;
use crate::policy_files;
use crate::store::PolicyFile;

/// Where cases are, within the directory of the policy.
const TESTS: &str = "tests";

pub(super) fn run(
    dir: &Path,
    asked: &PolicyTest,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let files = policy_files::load(dir).map_err(|problems| invalid(dir, &problems))?;
    let rules = policy_files::parse(&files).map_err(|problems| invalid(dir, &problems))?;
    let tests = asked.tests.clone().unwrap_or_else(|| dir.join(TESTS));
    let cases = load_cases(&tests)?;
    let rules = Arc::new(rules);
    let verdicts: Vec<_> = cases.iter().map(|case| case.run(&rules)).collect();
    let held = coverage(&pairs(&files), &cases).map_err(|problems| unusable(&tests, &problems))?;
    let failed = verdicts.iter().filter(|verdict| !verdict.passes()).count();
    let enough = asked
        .min_coverage
        .is_none_or(|least| held.percent() >= usize::from(least));
    if console.json {
        console.document(&document(&cases, &verdicts, &held))?;
    } else {
        print(&cases, &verdicts, &held, console)?;
    }
    if let (false, Some(least)) = (enough, asked.min_coverage) {
        console.note(&format!("fewer rules are held than {least} %"))?;
    }
    Ok(if failed == 0 && enough {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn load_cases(dir: &Path) -> Result<Vec<PolicyCase>, CliFailure> {
    let files = policy_files::load(dir).map_err(|problems| {
        let texts = problems.iter().map(ToString::to_string).collect();
        CliFailure::new(
            Exit::Usage,
            "unreadable",
            "the test cases cannot be read",
            dir.display().to_string(),
        )
        .remedy("write them there, or name their directory with --tests")
        .problems(texts)
    })?;
    let named: Vec<PolicyFile> = files
        .into_iter()
        .map(|file| PolicyFile {
            name: shown(dir, &file.name),
            text: file.text,
        })
        .collect();
    PolicyCase::parse(&pairs(&named)).map_err(|problems| unusable(dir, &problems))
}

/// The name of a file of cases, with its directory, so that it is not taken for one of the policy's.
fn shown(dir: &Path, name: &str) -> String {
    let last = dir.file_name().map_or_else(PathBuf::new, PathBuf::from);
    last.join(name).display().to_string()
}

fn unusable(dir: &Path, problems: &[::policy::rules::Problem]) -> CliFailure {
    let why = format!("{} problem(s) in {}", problems.len(), dir.display());
    CliFailure::new(
        Exit::Failed,
        "invalid_tests",
        "the test cases cannot be used",
        why,
    )
    .remedy("correct them; docs/policy.md describes the files")
    .problems(problems.iter().map(ToString::to_string).collect())
}

fn print(
    cases: &[PolicyCase],
    verdicts: &[CaseVerdict],
    held: &Coverage,
    console: &mut Console<'_>,
) -> Result<(), CliFailure> {
    let mut failed = 0_usize;
    for (case, verdict) in cases.iter().zip(verdicts) {
        if verdict.passes() {
            continue;
        }
        failed += 1;
        let (file, line, name) = (plain(&case.file), case.line, plain(&case.name));
        console.line(&format!("FAIL  {file}:{line}: {name}"))?;
        for difference in &verdict.differences {
            console.line(&format!("      {}", plain(difference)))?;
        }
        for step in verdict.trace.lines() {
            console.line(&format!("        {}", plain(step)))?;
        }
    }
    let passed = cases.len() - failed;
    console.line(&format!("{passed} passed, {failed} failed"))?;
    let (covered, all) = (held.covered(), held.entries.len());
    let percent = held.percent();
    console.line(&format!(
        "{covered} of {all} rules are held by a test ({percent} %)"
    ))?;
    for entry in held.entries.iter().filter(|one| one.covered_by.is_none()) {
        let (file, line, rule) = (plain(&entry.file), entry.line, plain(&entry.rule));
        console.line(&format!("  not held: {file}:{line}: {rule}"))?;
    }
    if cases.is_empty() {
        console.note("there are no test cases")?;
    }
    Ok(())
}

fn document(cases: &[PolicyCase], verdicts: &[CaseVerdict], held: &Coverage) -> Value {
    let tests: Vec<_> = cases
        .iter()
        .zip(verdicts)
        .map(|(case, verdict)| {
            json!({
                "name": case.name,
                "file": case.file,
                "line": case.line,
                "passed": verdict.passes(),
                "differences": verdict.differences,
                "trace": verdict.trace.lines().collect::<Vec<_>>(),
            })
        })
        .collect();
    let rules: Vec<_> = held
        .entries
        .iter()
        .map(|entry| {
            json!({
                "file": entry.file,
                "line": entry.line,
                "rule": entry.rule,
                "held_by": entry.covered_by,
            })
        })
        .collect();
    let passed = verdicts.iter().filter(|verdict| verdict.passes()).count();
    json!({
        "passed": passed,
        "failed": verdicts.len() - passed,
        "tests": tests,
        "coverage": {"percent": held.percent(), "held": held.covered(), "rules": rules},
    })
}
