//! What the process gives up before it holds anything of value: being dumped, being traced, files it does not need.
//!
//! Invariant: nothing here widens what the process may do. Core dumps and tracing are given up always, or the start
//! fails; the file system as far as the kernel can (Landlock), or, when the settings demand it, wholly or not at all.
//! Both hold for every thread, since they come before the first one is started, and cannot be taken back.
//!
//! Which files are needed is listed in `app/confinement.rs`.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, path_beneath_rules,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use serde::Serialize;

/// The newest set of rights that this program knows; older kernels enforce their part of it.
const RIGHTS: ABI = ABI::V5;

/// How far the file system is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// Every right that this program knows is enforced.
    Full,
    /// Those that this kernel knows.
    Partial,
    /// None: the kernel has no Landlock.
    Unavailable,
    /// None: the settings say so, or this is not a process of its own.
    Off,
}

/// What is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Hardening {
    /// Whether core dumps and tracing by other processes of the same user are off.
    pub memory_protected: bool,
    /// How far the file system is confined.
    pub files: Confinement,
}

impl Hardening {
    /// Nothing was given up.
    pub const NONE: Self = Self {
        memory_protected: false,
        files: Confinement::Off,
    };
}

/// Why the process could not be hardened.
#[derive(Debug, thiserror::Error)]
pub enum HardeningError {
    /// Core dumps or tracing.
    #[error("core dumps and tracing cannot be switched off: {0}")]
    Memory(#[from] std::io::Error),
    /// Landlock refused what should have been possible.
    #[error("the file system cannot be confined: {0}")]
    Files(#[from] RulesetError),
    /// The settings demand more than the kernel can.
    #[error(
        "hardening.landlock is \"required\" and this kernel enforces it {0}: use a kernel with Landlock (5.13, better 6.10 or later), or set \"best_effort\""
    )]
    TooLittle(&'static str),
}

/// The files a process needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Files and directories that are read. What does not exist is left out.
    pub read: Vec<PathBuf>,
    /// Files and directories that are written too.
    pub write: Vec<PathBuf>,
}

/// Switches core dumps off, and tracing by other processes of the same user (`PR_SET_DUMPABLE`).
///
/// # Errors
/// What the kernel says.
pub fn protect_memory() -> Result<(), HardeningError> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(std::io::Error::from)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(std::io::Error::from)?;
    Ok(())
}

/// Confines this thread, and every one it starts, to the files it needs. No file can be executed any more.
///
/// # Errors
/// What the kernel says; with `is_required`, when not every right is enforced.
pub fn confine(needs: &Needs, is_required: bool) -> Result<Confinement, HardeningError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut write: BitFlags<AccessFs> = AccessFs::from_all(RIGHTS);
    write.remove(AccessFs::Execute);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RIGHTS))?
        .create()?
        .add_rules(path_beneath_rules(existing(&needs.read), read))?
        .add_rules(path_beneath_rules(existing(&needs.write), write))?
        .restrict_self()?;
    let confinement = match status.ruleset {
        RulesetStatus::FullyEnforced => Confinement::Full,
        RulesetStatus::PartiallyEnforced => Confinement::Partial,
        RulesetStatus::NotEnforced => Confinement::Unavailable,
    };
    match confinement {
        Confinement::Partial if is_required => Err(HardeningError::TooLittle("in part")),
        Confinement::Unavailable if is_required => Err(HardeningError::TooLittle("not at all")),
        enforced => Ok(enforced),
    }
}

fn existing(paths: &[PathBuf]) -> impl Iterator<Item = &Path> {
    paths
        .iter()
        .map(PathBuf::as_path)
        .filter(|path| path.exists())
}
