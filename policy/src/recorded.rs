//! What is kept of a decision with the record of its request, in a few bytes, and the trace told from them later.
//!
//! Invariant: kept are the values that the decision came to (teams, personal rows, rows, counts of facts) and the
//! effective revision under which it fell: a keyed hash over scope, ceiling, redaction and mapping. So what is told
//! later was decided then, and scope and ceiling are told only from a grant that has this very revision.
//! Elsewhere on purpose: the refusal, if any, which is a column of the record; finding the grant (the proxy).

use crate::decision::Permit;
use crate::deny::{Deny, DenyCode};
use crate::explain::{PermitFigures, Told, Trace, refusal_text};
use crate::grant::GrantStatus;
use crate::id::{GrantId, TeamId, UserId};
use crate::native::FactCounts;
use crate::peer::{PeerName, PeerState};
use crate::reach::RowLimit;
use crate::resource::Resource;
use crate::revision::EffectiveRevision;
use crate::snapshot::GrantEntry;

/// The version of the form.
const VERSION: u8 = 1;
const DEGRADED: u8 = 1;
const PERSONAL: u8 = 1;
const REFUSED: u8 = 0;
const PERMITTED: u8 = 1;
/// Names of teams end before this many bytes, so that the figures of a permit for each resource still fit behind them.
const NAMES_END: usize = 352;
/// The most bytes of the figures of one permit, without names.
const FIGURES: usize = 22;

/// A decision as it is kept with a record: version 1, flags, effective revision, edit counter, then for each resource
/// asked for what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedDecision(Vec<u8>);

/// The bytes are not a recorded decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a recorded decision of a version this program knows")]
pub struct RecordedDecisionError;

impl RecordedDecision {
    /// The most bytes one takes.
    pub const MAX_BYTES: usize = 512;

    /// Begins the record of a decision under a grant.
    #[must_use]
    pub fn under(entry: &GrantEntry) -> Self {
        let mut bytes = Vec::with_capacity(64);
        let degraded = entry.peer.state == PeerState::Degraded;
        bytes.extend([VERSION, if degraded { DEGRADED } else { 0 }]);
        bytes.extend_from_slice(entry.effective_revision.as_bytes());
        push_number(&mut bytes, entry.grant.edit);
        Self(bytes)
    }

    /// Adds a refusal; the code itself is with the record.
    pub fn refused(&mut self, deny: &Deny) {
        self.0.extend([REFUSED, code_of(deny.resource())]);
    }

    /// Adds a permit.
    pub fn permitted(&mut self, permit: &Permit) {
        let bytes = &mut self.0;
        if bytes.len() + FIGURES > Self::MAX_BYTES {
            // One permit for each resource fits; more are not decided in one request.
            return;
        }
        bytes.extend([PERMITTED, code_of(Some(permit.resource()))]);
        bytes.push(if permit.include_personal() {
            PERSONAL
        } else {
            0
        });
        let facts = permit.facts();
        for number in [
            permit.row_limit().rows(),
            permit.row_cap().rows(),
            facts.teams,
            facts.projects,
            facts.missions,
        ] {
            push_number(bytes, u64::from(number));
        }
        let teams = permit.teams();
        let mut room = NAMES_END.saturating_sub(bytes.len());
        let named = teams
            .iter()
            .take(usize::from(u8::MAX))
            .take_while(|team| {
                let cost = team.as_str().len() + 2;
                let fits = cost <= room;
                room = room.saturating_sub(cost);
                fits
            })
            .count();
        // At most 255 by the line above.
        bytes.push(u8::try_from(named).unwrap_or(u8::MAX));
        push_number(
            bytes,
            u64::try_from(teams.len() - named).unwrap_or(u64::MAX),
        );
        for team in teams.iter().take(named) {
            push_number(
                bytes,
                u64::try_from(team.as_str().len()).unwrap_or(u64::MAX),
            );
            bytes.extend_from_slice(team.as_str().as_bytes());
        }
    }

    /// The bytes to keep.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes bytes that were kept; what they say is read by [`RecordedDecision::decode`].
    ///
    /// # Errors
    /// [`RecordedDecisionError`] for more bytes than one takes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, RecordedDecisionError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(RecordedDecisionError);
        }
        Ok(Self(bytes))
    }

    /// Reads the decision back.
    ///
    /// # Errors
    /// [`RecordedDecisionError`] for anything that this program does not write.
    pub fn decode(&self) -> Result<DecidedThen, RecordedDecisionError> {
        let mut rest = Bytes(&self.0);
        if rest.byte()? != VERSION {
            return Err(RecordedDecisionError);
        }
        let peer_state = match rest.byte()? {
            0 => PeerState::Active,
            DEGRADED => PeerState::Degraded,
            _ => return Err(RecordedDecisionError),
        };
        let revision: [u8; 16] = rest
            .take(16)?
            .try_into()
            .map_err(|_| RecordedDecisionError)?;
        let mut then = DecidedThen {
            peer_state,
            effective_revision: EffectiveRevision::from_bytes(revision),
            edit: rest.number()?,
            answers: Vec::new(),
        };
        while !rest.0.is_empty() {
            then.answers.push(rest.answer()?);
        }
        Ok(then)
    }
}

/// A decision read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedThen {
    /// The state of the peer; its grant was active.
    pub peer_state: PeerState,
    /// Under which it was decided.
    pub effective_revision: EffectiveRevision,
    /// The edit counter of the grant.
    pub edit: u64,
    /// What came of each resource; none for capabilities, or when the request ended before.
    pub answers: Vec<AnswerThen>,
}

/// What came of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerThen {
    /// Refused before the native facts.
    Refused(Option<Resource>),
    /// Permitted.
    Permitted(PermittedThen),
}

/// A permit, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermittedThen {
    /// The resource.
    pub resource: Resource,
    /// The teams whose rows could pass, as far as their names were kept.
    pub teams: Vec<TeamId>,
    /// How many more there were.
    pub unnamed_teams: u64,
    /// Whether personal rows could pass.
    pub include_personal: bool,
    /// The rows of the answer.
    pub row_limit: RowLimit,
    /// The cap of scope and policy.
    pub row_cap: RowLimit,
    /// How many facts it was decided on.
    pub facts: FactCounts,
}

/// What a record says besides the decision: who asked for what, and how it ended.
#[derive(Clone, Debug)]
pub struct RecordedRequest<'a> {
    /// The grant.
    pub grant: GrantId,
    /// The name of its peer, and the user; they never change.
    pub of: Option<(&'a PeerName, &'a UserId)>,
    /// The verb as asked.
    pub verb: &'a str,
    /// The resource as asked.
    pub resource: Option<&'a str>,
    /// Why there was no whole answer.
    pub denied: Option<DenyCode>,
}

impl DecidedThen {
    /// The steps of the decision, one trace for each resource asked for. `entry` is the grant as it was: only one with
    /// the recorded effective revision is told from, another is passed over.
    #[must_use]
    pub fn traces(&self, request: &RecordedRequest<'_>, entry: Option<&GrantEntry>) -> Vec<Trace> {
        let entry = entry.filter(|entry| entry.effective_revision == self.effective_revision);
        let states = (GrantStatus::Active, self.peer_state);
        let told = Told {
            asker: Some(request.asker(Some(states))),
            entry,
        };
        if self.answers.is_empty() {
            return vec![request.without_answers(&told)];
        }
        let trace = |answer: &AnswerThen| match answer {
            AnswerThen::Refused(resource) => request.refused(&told, *resource),
            AnswerThen::Permitted(permit) => {
                let mut trace = told.admitted(request.verb, permit.resource);
                told.permitted(&mut trace, permit.resource, &permit.figures());
                if let Some(code) = request.denied {
                    let name = permit.resource.as_str();
                    trace.step(code.stage().as_str(), name, refusal_text(code));
                }
                trace
            }
        };
        self.answers.iter().map(trace).collect()
    }
}

impl RecordedRequest<'_> {
    /// The trace of a request that ended before a decision was made: who asked is not told from the present.
    #[must_use]
    pub fn undecided(&self) -> Trace {
        let told = Told {
            asker: Some(self.asker(None)),
            entry: None,
        };
        self.without_answers(&told)
    }

    fn asker(&self, states: Option<(GrantStatus, PeerState)>) -> String {
        let grant = self.grant;
        match (self.of, states) {
            (Some((peer, user)), Some((status, state))) => {
                format!("grant {grant} ({status}) of peer {peer} ({state}) for user {user}")
            }
            (Some((peer, user)), None) => format!("grant {grant} of peer {peer} for user {user}"),
            (None, _) => format!("grant {grant}"),
        }
    }

    fn without_answers(&self, told: &Told<'_>) -> Trace {
        let name = self.resource.unwrap_or("no resource");
        match self.denied {
            Some(code) => told.refused(code, self.verb, name, None),
            None => told.unfinished(self.verb),
        }
    }

    fn refused(&self, told: &Told<'_>, resource: Option<Resource>) -> Trace {
        let name = match (resource, self.resource) {
            (Some(resource), _) => resource.as_str(),
            (None, Some(name)) => name,
            (None, None) => "no resource",
        };
        match self.denied {
            Some(code) => told.refused(code, self.verb, name, resource),
            None => told.unfinished(self.verb),
        }
    }
}

impl PermittedThen {
    fn figures(&self) -> PermitFigures<'_> {
        PermitFigures {
            facts: self.facts,
            teams: &self.teams,
            unnamed: self.unnamed_teams,
            include_personal: self.include_personal,
            row_cap: self.row_cap,
            row_limit: self.row_limit,
        }
    }
}

/// The numbers of resources in the form; they never change.
const CODES: [(u8, Resource); 7] = [
    (1, Resource::Tasks),
    (2, Resource::Notes),
    (3, Resource::Memory),
    (4, Resource::Projects),
    (5, Resource::Missions),
    (6, Resource::Credentials),
    (7, Resource::ApiKeys),
];

const fn code_of(resource: Option<Resource>) -> u8 {
    match resource {
        None => 0,
        Some(Resource::Tasks) => 1,
        Some(Resource::Notes) => 2,
        Some(Resource::Memory) => 3,
        Some(Resource::Projects) => 4,
        Some(Resource::Missions) => 5,
        Some(Resource::Credentials) => 6,
        Some(Resource::ApiKeys) => 7,
    }
}

/// Seven bits a byte, the lowest first; the last has its high bit clear.
fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        // The mask leaves one byte.
        bytes.push(u8::try_from(number & 0x7f).unwrap_or(0x7f) | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap_or(0x7f));
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordedDecisionError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(RecordedDecisionError)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, RecordedDecisionError> {
        self.take(1)?.first().copied().ok_or(RecordedDecisionError)
    }

    fn number(&mut self) -> Result<u64, RecordedDecisionError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let low = u64::from(byte & 0x7f);
            number |= low.checked_shl(shift).ok_or(RecordedDecisionError)?;
            if byte & 0x80 == 0 {
                // A number has one form only: no leading zero, nothing past 64 bits.
                let wide = shift == 63 && low > 1;
                let padded = shift > 0 && low == 0;
                return if wide || padded {
                    Err(RecordedDecisionError)
                } else {
                    Ok(number)
                };
            }
        }
        Err(RecordedDecisionError)
    }

    fn small(&mut self) -> Result<u16, RecordedDecisionError> {
        u16::try_from(self.number()?).map_err(|_| RecordedDecisionError)
    }

    fn rows(&mut self) -> Result<RowLimit, RecordedDecisionError> {
        RowLimit::new(self.number()?).map_err(|_| RecordedDecisionError)
    }

    fn resource(&mut self) -> Result<Option<Resource>, RecordedDecisionError> {
        let code = self.byte()?;
        if code == 0 {
            return Ok(None);
        }
        let known = CODES.iter().find(|(known, _)| *known == code);
        known
            .map(|(_, resource)| Some(*resource))
            .ok_or(RecordedDecisionError)
    }

    fn answer(&mut self) -> Result<AnswerThen, RecordedDecisionError> {
        let kind = self.byte()?;
        let resource = self.resource()?;
        if kind == REFUSED {
            return Ok(AnswerThen::Refused(resource));
        }
        let (PERMITTED, Some(resource)) = (kind, resource) else {
            return Err(RecordedDecisionError);
        };
        let flags = self.byte()?;
        if flags & !PERSONAL != 0 {
            return Err(RecordedDecisionError);
        }
        let (row_limit, row_cap) = (self.rows()?, self.rows()?);
        let facts = FactCounts {
            teams: self.small()?,
            projects: self.small()?,
            missions: self.small()?,
        };
        let named = self.byte()?;
        let unnamed_teams = self.number()?;
        let teams = (0..named)
            .map(|_| {
                let length = usize::from(self.small()?);
                let text = std::str::from_utf8(self.take(length)?);
                let text = text.map_err(|_| RecordedDecisionError)?;
                TeamId::parse(text).map_err(|_| RecordedDecisionError)
            })
            .collect::<Result<_, _>>()?;
        Ok(AnswerThen::Permitted(PermittedThen {
            resource,
            teams,
            unnamed_teams,
            include_personal: flags == PERSONAL,
            row_limit,
            row_cap,
            facts,
        }))
    }
}

#[cfg(test)]
mod tests;
