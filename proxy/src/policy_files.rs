//! Reading `policy.d`: every `*.toml` of the directory, in name order, parsed and checked together.
//!
//! Invariant: all or nothing. A file that cannot be read, is not UTF-8 or has a problem makes the
//! whole set unusable, and every problem is reported.

use std::path::Path;

use aws_lc_rs::digest;
use policy::rules::RuleSet;

use crate::store::PolicyFile;

/// Largest policy file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// One problem of the policy files.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PolicyProblem {
    /// The file, within the policy directory.
    pub file: String,
    /// Line, from 1, when known.
    pub line: Option<usize>,
    /// Column, from 1, when known.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl std::fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

fn unreadable(file: &str, message: String, hint: &str) -> PolicyProblem {
    PolicyProblem {
        file: file.to_owned(),
        line: None,
        column: None,
        message,
        hint: hint.to_owned(),
    }
}

/// Loads the texts of a policy directory. Names that begin with a dot are left out, as editors and
/// mounted volumes use them for their own ends.
///
/// # Errors
/// Every file that cannot be read.
pub fn load(dir: &Path) -> Result<Vec<PolicyFile>, Vec<PolicyProblem>> {
    let shown = dir.display().to_string();
    let listing = std::fs::read_dir(dir).map_err(|error| {
        vec![unreadable(
            &shown,
            format!("the policy directory cannot be read: {error}"),
            "create it, or set `policy.dir`",
        )]
    })?;
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for entry in listing {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(error) => {
                problems.push(unreadable(&shown, error.to_string(), "check the directory"));
                continue;
            }
        };
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if name.starts_with('.') || path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        match read(&path) {
            Ok(text) => files.push(PolicyFile {
                name: name.to_owned(),
                text,
            }),
            Err(message) => problems.push(unreadable(
                name,
                message,
                "make it a readable UTF-8 file of at most 1 MiB",
            )),
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    if problems.is_empty() {
        Ok(files)
    } else {
        Err(problems)
    }
}

fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if size > MAX_FILE {
        return Err(format!("it is larger than {MAX_FILE} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// SHA-256 over names and texts of a set, by which one is told from another.
#[must_use]
pub fn hash_of(files: &[PolicyFile]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for file in files {
        for part in [file.name.as_bytes(), file.text.as_bytes()] {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            context.update(&length.to_be_bytes());
            context.update(part);
        }
    }
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    hash
}

/// Parses and checks all files together.
///
/// # Errors
/// Every problem of every file.
pub fn parse(files: &[PolicyFile]) -> Result<RuleSet, Vec<PolicyProblem>> {
    let texts: Vec<(&str, &str)> = files
        .iter()
        .map(|file| (file.name.as_str(), file.text.as_str()))
        .collect();
    RuleSet::parse(&texts).map_err(|problems| {
        problems
            .into_iter()
            .map(|problem| PolicyProblem {
                file: problem.file,
                line: Some(problem.line),
                column: Some(problem.column),
                message: problem.message,
                hint: problem.hint,
            })
            .collect()
    })
}
