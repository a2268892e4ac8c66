//! Playing the steps: do, print, compare with what has to be seen.
//!
//! Invariant: what is printed is what was seen, whole; a step that saw something else ends the demo after it has
//! been printed.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use super::stage::{Side, Stage};
use super::steps::{Act, Step};
use super::{DemoFailure, printing, system};

/// How often a step that may come to be seen later is tried, and the time between.
const TRIES: usize = 30;
const BETWEEN: Duration = Duration::from_millis(100);

/// What a step did.
#[derive(Debug, Default)]
struct Seen {
    /// The line a user would have typed, without the prompt.
    typed: String,
    exit: i32,
    out: String,
    errors: String,
}

/// A demo under way.
pub(super) struct Play<'a> {
    stage: &'a Stage,
    out: &'a mut dyn Write,
    kept: BTreeMap<&'static str, String>,
    has_session: bool,
    number: usize,
}

impl<'a> Play<'a> {
    pub(super) fn new(stage: &'a Stage, out: &'a mut dyn Write) -> Self {
        Self {
            stage,
            out,
            kept: BTreeMap::new(),
            has_session: false,
            number: 0,
        }
    }

    /// How many numbered steps there were.
    pub(super) const fn numbered(&self) -> usize {
        self.number
    }

    /// Plays one step.
    pub(super) async fn step(&mut self, step: &Step) -> Result<(), DemoFailure> {
        if !step.say.is_empty() {
            self.number += 1;
            writeln!(self.out, "{}. {}\n", self.number, step.say).map_err(printing)?;
        }
        let mut tries = if step.soon { TRIES } else { 1 };
        let (seen, complaint) = loop {
            let seen = self.perform(step.act).await?;
            let complaint = complaint(
                step,
                &seen,
                |name| self.kept(name),
                |text| self.filled(text),
            );
            tries -= 1;
            if complaint.is_none() || tries == 0 {
                break (seen, complaint);
            }
            tokio::time::sleep(BETWEEN).await;
        };
        self.print(step.act, &seen).map_err(printing)?;
        if let Some(why) = complaint {
            return Err(DemoFailure::Step {
                number: self.number,
                what: seen.typed,
                why,
            });
        }
        if !step.keeps.is_empty() {
            self.kept.insert(step.keeps, seen.out.trim_end().to_owned());
        }
        Ok(())
    }

    async fn perform(&mut self, act: Act) -> Result<Seen, DemoFailure> {
        Ok(match act {
            Act::Command(side, words) => {
                let words = self.filled(words);
                let arguments: Vec<String> = words.split(' ').map(str::to_owned).collect();
                let session =
                    (self.has_session && side == Side::Home).then(|| self.kept("session"));
                let output = self.stage.command(side, &arguments, session).await?;
                Seen {
                    typed: format!("mosaic-federation {words}"),
                    // Without a status a signal ended it: never what is expected.
                    exit: output.status.code().unwrap_or(-1),
                    out: String::from_utf8_lossy(&output.stdout).into_owned(),
                    errors: String::from_utf8_lossy(&output.stderr).into_owned(),
                }
            }
            Act::Print(side, name) => {
                let path = self.stage.directory(side).join(name);
                let out = std::fs::read_to_string(&path)
                    .map_err(system(format!("`{}` cannot be read", path.display())))?;
                Seen {
                    typed: format!("cat {name}"),
                    out,
                    ..Seen::default()
                }
            }
            Act::Session => {
                self.has_session = true;
                Seen {
                    typed: format!("export MOSAIC_SESSION_TOKEN={}", self.kept("session")),
                    ..Seen::default()
                }
            }
            Act::Misbehave(behaviour) => {
                self.stage.misbehave(behaviour).await?;
                let control = self.stage.control_url();
                Seen {
                    typed: format!("PUT {control}/_control {behaviour}"),
                    ..Seen::default()
                }
            }
        })
    }

    fn print(&mut self, act: Act, seen: &Seen) -> io::Result<()> {
        let prompt = match act {
            Act::Command(side, _) | Act::Print(side, _) => format!("{}$ ", side.name()),
            Act::Session => format!("{}$ ", Side::Home.name()),
            // Not a command: the demo itself asks for it.
            Act::Misbehave(_) => String::new(),
        };
        writeln!(self.out, "{prompt}{}", seen.typed)?;
        write!(self.out, "{}{}", seen.out, seen.errors)?;
        if seen.exit != 0 {
            writeln!(self.out, "[exit status {}]", seen.exit)?;
        }
        writeln!(self.out)?;
        self.out.flush()
    }

    fn kept(&self, name: &str) -> &str {
        self.kept.get(name).map_or("", String::as_str)
    }

    /// The text with what was kept instead of `{name}`.
    fn filled(&self, text: &str) -> String {
        self.kept
            .iter()
            .fold(text.to_owned(), |text, (name, value)| {
                text.replace(&format!("{{{name}}}"), value)
            })
    }
}

/// What is not as it has to be, if anything.
fn complaint<'k>(
    step: &Step,
    seen: &Seen,
    kept: impl Fn(&str) -> &'k str,
    filled: impl Fn(&str) -> String,
) -> Option<String> {
    if seen.exit != step.exit {
        return Some(format!(
            "ended with status {} instead of {}",
            seen.exit, step.exit
        ));
    }
    let is_there = |text: &str| seen.out.contains(text) || seen.errors.contains(text);
    let missing = step
        .shows
        .iter()
        .map(|text| filled(text))
        .find(|text| !is_there(text));
    if let Some(missing) = missing {
        return Some(format!("does not show `{missing}`"));
    }
    if let Some(shown) = step.hides.iter().find(|text| is_there(text)) {
        return Some(format!("shows `{shown}`, which it must not"));
    }
    let differs = !step.same_as.is_empty() && kept(step.same_as) != seen.out.trim_end();
    differs.then(|| format!("shows something else than before:\n{}", kept(step.same_as)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::demo::steps::STEPS;

    fn step() -> Step {
        Step {
            say: "",
            act: Act::Session,
            exit: 3,
            shows: &["a {x}"],
            hides: &["secret"],
            keeps: "",
            same_as: "before",
            soon: false,
        }
    }

    fn judged(exit: i32, out: &str, errors: &str) -> Option<String> {
        let seen = Seen {
            exit,
            out: out.to_owned(),
            errors: errors.to_owned(),
            ..Seen::default()
        };
        complaint(&step(), &seen, |_| "same", |text| text.replace("{x}", "b"))
    }

    #[test]
    fn a_step_passes_only_when_all_is_as_expected() {
        assert_eq!(judged(3, "same\n", "a b"), None);
        assert!(
            judged(0, "same\n", "a b")
                .unwrap()
                .contains("status 0 instead of 3")
        );
        assert!(
            judged(3, "same\n", "a c")
                .unwrap()
                .contains("does not show `a b`")
        );
        assert!(
            judged(3, "same\n", "a b secret")
                .unwrap()
                .contains("must not")
        );
        assert!(judged(3, "other\n", "a b").unwrap().contains("than before"));
    }

    #[test]
    fn every_step_is_checked_against_something() {
        for step in STEPS {
            let is_command = matches!(step.act, Act::Command(..));
            let is_checked = !step.shows.is_empty() || !step.same_as.is_empty();
            assert!(is_checked || !is_command, "{:?}", step.act);
        }
    }
}
