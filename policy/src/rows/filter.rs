//! What may pass, compiled from a permit: the one way to a row filter.
//!
//! Invariant: no filter exists without a permit, and a filter that could not do what its rules say is an error when
//! it is made, not a row that slips through. Elsewhere on purpose: bytes (`scan.rs`), the rule of ownership
//! (`ownership.rs`), names (`fields.rs`), writing (`write.rs`).

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use crate::decision::Permit;
use crate::mapping::FieldMap;
use crate::native::NativeFacts;

use super::fields::{Fields, NO_SLOT, Slot};
use super::mark::{Kind, Mark};
use super::order::{self, KeyMarks};
use super::ownership::{Ownership, Places, References, RowAccess};
use super::redact::Redaction;
use super::scan::Scanner;
use super::text;

/// Narrowing on top of ownership: which rows were asked for. Rows that do not match are skipped, not withheld.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowMatch {
    /// Gateway member names and the string each must hold; a member that is absent or no string does not match.
    pub equals: Vec<(String, String)>,
    /// Gateway member that must hold a non-empty string: notes are tasks with something in them at some gateways.
    pub non_empty: Option<String>,
}

/// Why a filter cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// Policy removes a member that ownership is decided on.
    #[error(
        "policy removes {0:?}, which the mapping needs for identity or ownership: take it off [redaction.fields]"
    )]
    RemovesOwnership(String),
    /// The rows are matched by a member that is removed: the match would reveal its value.
    #[error(
        "rows cannot be matched by {0:?}, a member that redaction removes: ask without this filter"
    )]
    MatchesRemoved(String),
    /// One member name serves as id or instant and as a reference, which cannot both be right.
    #[error("the mapping uses {0:?} both for identity and as a reference: give each its own field")]
    Ambiguous(String),
    /// More matched names than a row filter holds.
    #[error("too many filters at once: ask with at most 16")]
    TooManyNames,
}

/// Decides on rows and redacts them (specification, section 6.3). Share it in an `Arc` between readers.
#[derive(Clone, Debug)]
pub struct RowFilter {
    pub(super) fields: Fields,
    ownership: Ownership,
    id: Slot,
    created_at: Slot,
    owner: Slot,
    team: Slot,
    project: Slot,
    mission: Slot,
    /// What the row says it is, where it says so.
    declared: Slot,
    /// Slots that must not be marked twice in a row.
    singular: u32,
    equals: Vec<(Slot, Box<str>)>,
    non_empty: Option<Slot>,
    pub(super) spare: Spare,
}

/// What a reader of an earlier body has learnt: the names and their order, and whose ids are whose.
///
/// What it knows depends on the filter alone, and it decides nothing: it only finds the same answers
/// sooner, so a short body does not pay for learning them again.
#[derive(Debug)]
pub(super) struct Learnt {
    pub(super) scanner: Scanner,
    pub(super) places: Places,
}

impl Learnt {
    pub(super) const fn nothing() -> Self {
        Self {
            scanner: Scanner::new(),
            places: Places::new(),
        }
    }
}

/// What the last reader learnt, for the next one.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Option<Learnt>>);

impl Clone for Spare {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Spare {
    /// What was left behind, or nothing.
    pub(super) fn take(&self) -> Learnt {
        let left = self.0.lock().ok().and_then(|mut spare| spare.take());
        left.unwrap_or_else(Learnt::nothing)
    }

    /// Leaves it for the next reader.
    pub(super) fn leave(&self, learnt: Learnt) {
        if let Ok(mut spare) = self.0.lock() {
            *spare = Some(learnt);
        }
    }
}

/// The member by which rows of mixed collections say what they are.
const DECLARED: &str = "type";
/// Letters of the names of the sensitive resources, as a row may spell them.
const SENSITIVE: [&str; 4] = ["credential", "credentials", "apikey", "apikeys"];

/// The letters of a name in lower case, without what separates its words.
fn letters(name: &[u8]) -> impl Iterator<Item = u8> {
    name.iter()
        .filter(|byte| !matches!(byte, b'_' | b'-' | b'.' | b' '))
        .map(u8::to_ascii_lowercase)
}

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Withhold,
    Skip,
}

impl RowFilter {
    /// Compiles the filter for the rows of one gateway collection.
    ///
    /// # Errors
    /// [`FilterError`] when mapping, redaction and match contradict each other.
    pub fn new(
        permit: &Permit,
        facts: Arc<NativeFacts>,
        fields: &FieldMap,
        matching: &RowMatch,
    ) -> Result<Self, FilterError> {
        let access = RowAccess {
            resource: permit.resource(),
            user: permit.user().clone(),
            teams: Arc::clone(permit.teams()),
            include_personal: permit.include_personal(),
        };
        Self::compile(
            access,
            Arc::clone(permit.redaction()),
            facts,
            fields,
            matching,
        )
    }

    pub(super) fn compile(
        access: RowAccess,
        redaction: Arc<Redaction>,
        facts: Arc<NativeFacts>,
        map: &FieldMap,
        matching: &RowMatch,
    ) -> Result<Self, FilterError> {
        let mut fields = Fields::new(access.resource, redaction, &map.id, &map.created_at);
        let mut singular = 0;
        let mut mark = |name: Option<&str>, exempt: bool| -> Result<Slot, FilterError> {
            let Some(name) = name else {
                return Ok(NO_SLOT);
            };
            if exempt && fields.removed_by_policy(name) {
                return Err(FilterError::RemovesOwnership(name.to_owned()));
            }
            let slot = fields.mark(name, exempt).ok_or(FilterError::TooManyNames)?;
            singular |= 1u32.checked_shl(slot.into()).unwrap_or_default();
            Ok(slot)
        };
        let id = mark(Some(&map.id), true)?;
        let created_at = mark(Some(&map.created_at), true)?;
        let owner = mark(map.owner.as_deref(), true)?;
        let team = mark(map.team.as_deref(), true)?;
        let project = mark(map.project.as_deref(), true)?;
        let mission = mark(map.mission.as_deref(), true)?;
        let declared = mark(Some(DECLARED), false)?;
        let references = [owner, team, project, mission];
        if id == created_at || references.contains(&id) || references.contains(&created_at) {
            return Err(FilterError::Ambiguous(map.id.to_string()));
        }
        let equals = matching
            .equals
            .iter()
            .map(|(name, value)| Ok((mark(Some(name), false)?, value.as_str().into())))
            .collect::<Result<Vec<_>, FilterError>>()?;
        let non_empty = match &matching.non_empty {
            Some(name) => Some(mark(Some(name), false)?),
            None => None,
        };
        let matched = matching.equals.iter().map(|(name, _)| name);
        if let Some(name) = matched.clone().find(|name| fields.is_removed(name)) {
            return Err(FilterError::MatchesRemoved(name.clone()));
        }
        Ok(Self {
            fields,
            ownership: Ownership::new(access, facts),
            id,
            created_at,
            owner,
            team,
            project,
            mission,
            declared,
            singular,
            equals,
            non_empty,
            spare: Spare::default(),
        })
    }

    /// Judges the row that `found` was filled from, and gives its key when it has a sound one. Only such rows pass.
    #[inline]
    pub(super) fn judge(
        &self,
        row: &[u8],
        found: &Scanner,
        places: &mut Places,
    ) -> (Verdict, Option<KeyMarks>) {
        let key = self.key(row, found);
        let is_sound = key.is_some() && !found.any_twice(self.singular);
        let verdict =
            if !is_sound || self.is_sensitive(row, found) || !self.is_allowed(row, found, places) {
                Verdict::Withhold
            } else if self.is_asked_for(row, found) {
                Verdict::Pass
            } else {
                Verdict::Skip
            };
        (verdict, key)
    }

    /// Where the key of the row lies; `None` when it has no sound id or instant.
    #[inline]
    pub(super) fn key(&self, row: &[u8], found: &Scanner) -> Option<KeyMarks> {
        order::key_marks(row, found.only(self.id)?, found.only(self.created_at)?)
    }

    /// Whether the row says of itself that it is of a sensitive resource, whatever list it stands in. A gateway
    /// that mixes its collections up would otherwise show the subject's own credentials as rows of another kind.
    #[inline]
    fn is_sensitive(&self, row: &[u8], found: &Scanner) -> bool {
        let declared = found.only(self.declared).and_then(|mark| string(row, mark));
        declared.is_some_and(|declared| {
            SENSITIVE
                .iter()
                .any(|name| letters(&declared).eq(name.bytes()))
        })
    }

    #[inline]
    fn is_allowed(&self, row: &[u8], found: &Scanner, places: &mut Places) -> bool {
        let read = |slot| plain_reference(row, found, slot);
        match (
            read(self.owner),
            read(self.team),
            read(self.project),
            read(self.mission),
        ) {
            (Ok(owner), Ok(team), Ok(project), Ok(mission)) => {
                let references = References {
                    owner,
                    team,
                    project,
                    mission,
                };
                self.ownership.passes(references, places)
            }
            _ => self.is_allowed_unescaped(row, found, places),
        }
    }

    /// As [`Self::is_allowed`], for references that are escaped or no references at all.
    #[cold]
    fn is_allowed_unescaped(&self, row: &[u8], found: &Scanner, places: &mut Places) -> bool {
        let read = |slot| Reference::read(row, found, slot);
        let (owner, team) = (read(self.owner), read(self.team));
        let (project, mission) = (read(self.project), read(self.mission));
        match (owner, team, project, mission) {
            (Some(owner), Some(team), Some(project), Some(mission)) => {
                let references = References {
                    owner: owner.id(),
                    team: team.id(),
                    project: project.id(),
                    mission: mission.id(),
                };
                self.ownership.passes(references, places)
            }
            _ => false,
        }
    }

    #[inline]
    fn is_asked_for(&self, row: &[u8], found: &Scanner) -> bool {
        let text = |slot| found.only(slot).and_then(|mark| string(row, mark));
        self.equals
            .iter()
            .all(|(slot, value)| text(*slot).is_some_and(|found| *found == *value.as_bytes()))
            && self
                .non_empty
                .is_none_or(|slot| text(slot).is_some_and(|found| !found.is_empty()))
    }

    /// The resource whose rows this filter decides on.
    #[must_use]
    pub const fn resource(&self) -> crate::resource::Resource {
        self.ownership.resource()
    }
}

/// A value that cannot be taken as its bytes.
struct NotPlain;

/// A reference, when it is absent, null or a string without escapes, as nearly all are.
#[inline]
fn plain_reference<'a>(
    row: &'a [u8],
    found: &Scanner,
    slot: Slot,
) -> Result<Option<&'a [u8]>, NotPlain> {
    match found.only(slot) {
        None => Ok(None),
        Some(mark) => match mark.kind {
            Kind::Null => Ok(None),
            Kind::Plain => Ok(Some(mark.bytes(row))),
            Kind::Escaped | Kind::Integer | Kind::Other => Err(NotPlain),
        },
    }
}

/// A reference as the row gives it.
enum Reference<'a> {
    Absent,
    Id(Cow<'a, [u8]>),
}

impl<'a> Reference<'a> {
    /// `None` when the row has something there that is neither string nor null.
    #[inline]
    fn read(row: &'a [u8], found: &Scanner, slot: Slot) -> Option<Self> {
        match found.only(slot) {
            None => Some(Self::Absent),
            Some(mark) if mark.kind == Kind::Null => Some(Self::Absent),
            Some(mark) => string(row, mark).map(Self::Id),
        }
    }

    #[inline]
    fn id(&self) -> Option<&[u8]> {
        match self {
            Self::Absent => None,
            Self::Id(id) => Some(id),
        }
    }
}

/// The text of a string value, unescaped.
#[inline]
fn string(row: &[u8], mark: Mark) -> Option<Cow<'_, [u8]>> {
    match mark.kind {
        Kind::Plain => Some(Cow::Borrowed(mark.bytes(row))),
        Kind::Escaped => text::decode(mark.bytes(row), true)
            .map(|text| Cow::Owned(text.into_owned().into_bytes())),
        Kind::Null | Kind::Integer | Kind::Other => None,
    }
}
