//! What lies around the rows: objects on the way to them, other members, space, and the end of the body.
//!
//! Invariant: the rows are found at one place or not at all. A member on the path that occurs twice, or is missing, or
//! is something else, is an error, because an answer of another shape than the mapping says cannot be judged.
//! Elsewhere on purpose: the rows themselves (`reader.rs`), values passed over (`walk.rs`).

use crate::mapping::MemberPath;

use super::input::Input;
use super::text;
use super::walk::{Fault, Walk, Walker};

/// Longest member name accepted around the rows, in bytes as written.
const MAX_NAME: usize = 64 << 10;

/// Where the rows of an answer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowsAt {
    pub(super) path: Vec<Box<str>>,
    pub(super) single: bool,
}

impl RowsAt {
    /// The rows are the elements of the array at `path`; of the body itself for the empty path.
    #[must_use]
    pub fn rows(path: &MemberPath) -> Self {
        Self {
            path: path.names().map(Into::into).collect(),
            single: false,
        }
    }

    /// The only row is the value at `path`; the body itself for the empty path. Null there means that there is none.
    #[must_use]
    pub fn item(path: &MemberPath) -> Self {
        Self {
            path: path.names().map(Into::into).collect(),
            single: true,
        }
    }
}

/// Why a body cannot be read. Rows given before stand, but the answer must not look complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// The body ended early.
    #[error("the gateway's answer ends early: look for a timeout or a crash there")]
    Truncated,
    /// The body is not JSON.
    #[error("the gateway's answer is not JSON at byte {offset}: look at what it sent")]
    Malformed {
        /// Bytes of the body before the fault.
        offset: u64,
    },
    /// The body is not UTF-8.
    #[error("the gateway's answer is not UTF-8 at byte {offset}: look at what it sent")]
    NotUtf8 {
        /// Bytes of the body before the fault.
        offset: u64,
    },
    /// Arrays and objects are nested more than 64 deep.
    #[error(
        "the gateway's answer is nested more than 64 deep at byte {offset}: such rows cannot be shared"
    )]
    TooDeep {
        /// Bytes of the body before the fault.
        offset: u64,
    },
    /// Nothing is at the path of the mapping.
    #[error(
        "the gateway's answer has no rows where the mapping expects them: check the mapping of this resource"
    )]
    NoRows,
    /// What is at the path of the mapping is not an array, or not an object on the way there.
    #[error(
        "the gateway's answer has something else where the mapping expects rows: check the mapping of this resource"
    )]
    NotRows,
    /// A member on the path to the rows occurs twice.
    #[error("the gateway's answer names its rows twice: which are meant cannot be told")]
    RowsTwice,
    /// A member name around the rows is longer than 64 KiB.
    #[error("the gateway's answer has a member name over 64 KiB: look at what it sent")]
    NameTooLong,
}

impl RowError {
    /// The error for a fault `walked` bytes after the first one not done with.
    pub(super) fn of(fault: Fault, input: &Input, walked: usize) -> Self {
        match fault {
            Fault::Syntax(at) => Self::Malformed {
                offset: input.offset(walked + at),
            },
            Fault::Utf8(at) => Self::NotUtf8 {
                offset: input.offset(walked + at),
            },
            Fault::Depth(at) => Self::TooDeep {
                offset: input.offset(walked + at),
            },
        }
    }
}

/// What one move around the rows came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Something was read; go on.
    Moved,
    /// The input is used up.
    Starved,
    /// What is next is the value at the path.
    AtRows,
    /// The input is used up, and the body may end here.
    Sound,
}

#[derive(Debug)]
enum State {
    /// Before the body, or before the value of a member on the path.
    Value,
    /// After `{`: a name or `}`.
    FirstName,
    /// After `,`: a name.
    Name,
    /// In a name; `walked` bytes of it are read, and none are done with.
    InName { walker: Walker, walked: usize },
    /// After a name.
    Colon { on_path: bool },
    /// In a value of no interest.
    Passing(Walker),
    /// After a member.
    AfterMember,
    /// After the outermost value.
    Tail,
}

/// Reads towards the rows, and from them to the end.
#[derive(Debug)]
pub(super) struct Envelope {
    path: Vec<Box<str>>,
    state: State,
    // Objects open on the path, and one bit for each whose member of the path was found.
    open: usize,
    found: u64,
}

impl Envelope {
    pub(super) const fn new(path: Vec<Box<str>>) -> Self {
        Self {
            path,
            state: State::Value,
            open: 0,
            found: 0,
        }
    }

    /// Containers open around the value at the path.
    pub(super) fn depth(&self) -> u8 {
        u8::try_from(self.open).unwrap_or(u8::MAX)
    }

    /// The value at the path was read.
    pub(super) const fn value_ended(&mut self) {
        self.state = if self.open == 0 {
            State::Tail
        } else {
            State::AfterMember
        };
    }

    /// The value at the path is of no interest.
    pub(super) fn pass_value(&mut self) {
        self.state = State::Passing(Walker::new(self.depth()));
    }

    /// Makes one move.
    pub(super) fn advance(&mut self, input: &mut Input) -> Result<Progress, RowError> {
        match &mut self.state {
            State::InName { walker, walked } => {
                let unread = input.rest().get(*walked..).unwrap_or_default();
                let result = walker.walk(unread);
                let before = *walked;
                *walked += match result {
                    Ok(Walk::Done(length)) => length,
                    _ => unread.len(),
                };
                let length = *walked;
                return match result {
                    Err(fault) => Err(RowError::of(fault, input, before)),
                    _ if length > MAX_NAME => Err(RowError::NameTooLong),
                    Ok(Walk::More) => Ok(Progress::Starved),
                    Ok(Walk::Done(_)) => self.name_ended(input, length),
                };
            }
            State::Passing(walker) => {
                return match walker.walk(input.rest()) {
                    Err(fault) => Err(RowError::of(fault, input, 0)),
                    Ok(Walk::More) => {
                        input.take_all();
                        Ok(Progress::Starved)
                    }
                    Ok(Walk::Done(length)) => {
                        input.take(length);
                        self.value_ended();
                        Ok(Progress::Moved)
                    }
                };
            }
            _ => {}
        }
        match input.peek() {
            Some(byte) => self.between(byte, input),
            None if matches!(self.state, State::Tail) => Ok(Progress::Sound),
            None => Ok(Progress::Starved),
        }
    }

    /// One byte between names and values.
    fn between(&mut self, byte: u8, input: &mut Input) -> Result<Progress, RowError> {
        self.state = match (&self.state, byte) {
            (State::Value, _) if self.open == self.path.len() => return Ok(Progress::AtRows),
            (State::Value, b'{') if self.open < 64 => {
                self.open += 1;
                State::FirstName
            }
            (State::Value, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                return Err(RowError::NotRows);
            }
            (State::FirstName | State::AfterMember, b'}') => {
                self.open = self.open.saturating_sub(1);
                if self.found & (1 << self.open) == 0 {
                    return Err(RowError::NoRows);
                }
                match self.open {
                    0 => State::Tail,
                    _ => State::AfterMember,
                }
            }
            (State::AfterMember, b',') => State::Name,
            (State::FirstName | State::Name, b'"') => {
                self.state = State::InName {
                    walker: Walker::new(self.depth()),
                    walked: 0,
                };
                return Ok(Progress::Moved);
            }
            (State::Colon { on_path: true }, b':') => State::Value,
            (State::Colon { on_path: false }, b':') => State::Passing(Walker::new(self.depth())),
            _ => {
                return Err(RowError::Malformed {
                    offset: input.offset(0),
                });
            }
        };
        input.take(1);
        Ok(Progress::Moved)
    }

    /// A name of `length` bytes, quotes included, was read.
    fn name_ended(&mut self, input: &mut Input, length: usize) -> Result<Progress, RowError> {
        let raw = input
            .rest()
            .get(1..length.saturating_sub(1))
            .unwrap_or_default();
        let name = text::decode(raw, raw.contains(&b'\\')).ok_or(RowError::Malformed {
            offset: input.offset(0),
        })?;
        let level = self.open.saturating_sub(1);
        let on_path = self.path.get(level).is_some_and(|wanted| **wanted == *name);
        if on_path {
            if self.found & (1 << level) != 0 {
                return Err(RowError::RowsTwice);
            }
            self.found |= 1 << level;
        }
        input.take(length);
        self.state = State::Colon { on_path };
        Ok(Progress::Moved)
    }
}
