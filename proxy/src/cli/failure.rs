//! Why a command failed: what, why, and what to do.
//!
//! Invariant: failures go to standard error only, as three lines or, with `--json`, as one envelope
//! `{"error":{"code","message","hint"}}`; standard output then holds nothing or only whole rows.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::config::ConfigProblem;
use crate::exit::Exit;

/// A command that did not do what was asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CliFailure {
    /// How the process ends.
    pub(super) exit: Exit,
    /// The reason for programs.
    pub(super) code: Box<str>,
    /// What failed.
    pub(super) what: String,
    /// Why.
    pub(super) why: String,
    /// What to do.
    pub(super) remedy: Option<String>,
    /// One line for each of several problems.
    pub(super) problems: Vec<String>,
}

impl CliFailure {
    pub(super) fn new(
        exit: Exit,
        code: &str,
        what: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self {
            exit,
            code: code.into(),
            what: what.into(),
            why: why.into(),
            remedy: None,
            problems: Vec::new(),
        }
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub(super) fn problems(mut self, problems: Vec<String>) -> Self {
        self.problems = problems;
        self
    }

    /// Settings that cannot be used.
    pub(super) fn settings(problems: &[ConfigProblem]) -> Self {
        let why = format!("{} problem(s)", problems.len());
        Self::new(
            Exit::Usage,
            "invalid_settings",
            "the settings cannot be used",
            why,
        )
        .remedy("correct them; docs/reference/configuration.md lists every key")
        .problems(problems.iter().map(ToString::to_string).collect())
    }

    /// The envelope of a door, with the exit status that its code means.
    pub(super) fn envelope(what: impl Into<String>, status: u16, answer: &Value) -> Self {
        let text = |path: &str| {
            answer
                .pointer(path)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let code = text("/error/code").unwrap_or_else(|| "malformed_answer".to_owned());
        let exit = match code.as_str() {
            "not_found" => Exit::NotFound,
            "forbidden" | "unauthorized" | "scope_violation" => Exit::Denied,
            "unavailable" | "not_yet_effective" | "rate_limited" => Exit::Unavailable,
            _ => Exit::Failed,
        };
        let why =
            text("/error/message").unwrap_or_else(|| format!("it answered with status {status}"));
        let reason = text("/error/details/reason").filter(|reason| !why.contains(reason));
        let why = reason.map_or_else(|| why.clone(), |reason| format!("{why} ({reason})"));
        let problems = answer
            .pointer("/error/details/problems")
            .and_then(Value::as_array);
        let problems = problems
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let mut failure = Self::new(exit, &code, what, why).problems(problems);
        failure.remedy = text("/error/details/hint");
        failure
    }

    /// Writes the failure.
    pub(super) fn write(&self, json: bool, to: &mut dyn Write) -> io::Result<()> {
        if json {
            let mut error = Map::new();
            error.insert("code".to_owned(), self.code.as_ref().into());
            error.insert(
                "message".to_owned(),
                format!("{}: {}", self.what, self.why).into(),
            );
            if let Some(remedy) = &self.remedy {
                error.insert("hint".to_owned(), remedy.as_str().into());
            }
            if !self.problems.is_empty() {
                error.insert("details".to_owned(), json!({"problems": self.problems}));
            }
            return writeln!(to, "{}", json!({ "error": error }));
        }
        writeln!(to, "error: {}", super::output::plain(&self.what))?;
        writeln!(to, "  why: {}", super::output::plain(&self.why))?;
        for problem in &self.problems {
            writeln!(to, "    {}", super::output::plain(problem))?;
        }
        match &self.remedy {
            Some(remedy) => writeln!(to, "  do:  {}", super::output::plain(remedy)),
            None => Ok(()),
        }
    }
}

impl From<io::Error> for CliFailure {
    /// Of writing the output; everything else names what it did.
    fn from(error: io::Error) -> Self {
        let exit = if error.kind() == io::ErrorKind::BrokenPipe {
            Exit::Done
        } else {
            Exit::Failed
        };
        Self::new(
            exit,
            "output",
            "the output could not be written",
            error.to_string(),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn envelope(code: &str) -> CliFailure {
        let answer = json!({"error": {"code": code, "message": "m", "details": {"hint": "h", "reason": "r"}}});
        CliFailure::envelope("w", 400, &answer)
    }

    #[test]
    fn codes_become_exit_statuses() {
        for (code, number) in [
            ("invalid_request", 1),
            ("conflict", 1),
            ("not_found", 3),
            ("forbidden", 4),
            ("unauthorized", 4),
            ("scope_violation", 4),
            ("unavailable", 5),
            ("rate_limited", 5),
            ("not_yet_effective", 5),
            ("something else", 1),
        ] {
            assert_eq!(envelope(code).exit.number(), number, "{code}");
        }
    }

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        let mut text = Vec::new();
        envelope("not_found").write(false, &mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "error: w\n  why: m (r)\n  do:  h\n"
        );
        let mut text = Vec::new();
        envelope("not_found").write(true, &mut text).unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            value,
            json!({"error": {"code": "not_found", "message": "w: m (r)", "hint": "h"}})
        );
    }

    #[test]
    fn words_from_elsewhere_cannot_steer_the_terminal() {
        let failure = CliFailure::new(Exit::Failed, "c", "w", "a\u{1b}[31m\nerror: forged");
        let mut text = Vec::new();
        failure.write(false, &mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "error: w\n  why: a\\u{1b}[31m\\nerror: forged\n"
        );
    }
}
