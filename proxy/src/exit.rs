//! How the process ends, as scripts see it.
//!
//! Invariant: the numbers are part of the interface (the specification, section 10) and never change meaning.

use std::process::ExitCode;

/// The outcome of one invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done as asked.
    Done,
    /// Tried and failed.
    Failed,
    /// The command line or settings are wrong; nothing was tried.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// Not allowed.
    Denied,
    /// Nobody answers, or the change is committed but not yet effective everywhere.
    Unavailable,
}

impl Exit {
    /// The number given to the system.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Denied => 4,
            Self::Unavailable => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}
