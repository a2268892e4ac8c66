//! Verifying rows against their chains.
//!
//! Invariant: a report without a finding means that every row with a link is what was written, that none is missing between
//! the first and the last of its chain, that every chain begins where its predecessor ended, and that every
//! expected head is there. The first thing wrong is named, and nothing behind it is trusted.

use std::collections::HashMap;

use policy::id::GrantId;
use serde_json::Value;
use uuid::Uuid;

use super::super::history::grant_of;
use super::super::place::HistoryHead;
use super::super::query::AuditRow;
use super::{BEGIN_ACTION, ChainHash, ChainKey, Head, Link, NO_HASH, PREDECESSOR, PREDECESSOR_SEQ};

/// What is wrong with a row, or with what should be there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The row is not what was written: a field, its number or a hash was changed.
    #[error("the row was changed after it was written")]
    Changed,
    /// Rows are missing in front of this one.
    #[error("rows {from} to {to} of chain {chain} are missing in front of this row")]
    Missing {
        /// The chain they belong to.
        chain: Uuid,
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// The row stands in the wrong place, or twice.
    #[error("the row is out of order: row {expected} of its chain belongs here")]
    OutOfOrder {
        /// The number that belongs here.
        expected: u64,
    },
    /// The row follows another one than the one in front of it.
    #[error("the row does not follow the row in front of it")]
    BrokenLink,
    /// The row has no place in a chain, though chains had begun.
    #[error("the row has no place in a chain: it was not written by the sidecar")]
    Unlinked,
    /// The end of a chain is missing: a head is known that the rows do not reach.
    #[error("the end of chain {chain} is missing: {found} rows are there, row {known} is known")]
    Cut {
        /// The chain.
        chain: Uuid,
        /// The last row that is there.
        found: u64,
        /// The row that is known from elsewhere.
        known: u64,
    },
    /// The row's place in the history of its grant is not the one it was given.
    #[error(
        "the row's place in the history of its grant (gseq, ghash) was changed after it was written"
    )]
    History,
    /// A row has another hash than the one that is known from elsewhere.
    #[error("the row is another one than the one that is known from a checkpoint")]
    OtherHistory,
}

/// The first thing wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The row where it shows; for a missing end, the last row that is there, or 0.
    pub position: i64,
    /// The id of that row.
    pub id: Option<Uuid>,
    /// Its place in a chain, as it claims.
    pub link: Option<Link>,
    /// What is wrong.
    pub fault: Fault,
}

/// What verifying found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Rows with a place in a chain that were verified.
    pub verified: u64,
    /// Rows from before there were chains, of which nothing can be said.
    pub unlinked: u64,
    /// Where each chain ends, in the order in which they began.
    pub heads: Vec<Head>,
    /// The first thing wrong.
    pub finding: Option<Finding>,
}

/// Where a chain has got to.
#[derive(Debug, Clone, Copy)]
struct End {
    head: Head,
    position: i64,
    id: Uuid,
}

/// Verifies rows one after the other, in the order of their positions.
#[derive(Debug)]
pub struct Verifier<'k> {
    key: Option<&'k ChainKey>,
    report: Report,
    ends: HashMap<Uuid, End>,
    order: Vec<Uuid>,
    expected: HashMap<(Uuid, u64), ChainHash>,
    /// After a gap: the row that is missing, in case it only stands elsewhere.
    looking_for: Option<(Uuid, u64)>,
    /// How far the history of each grant has got.
    histories: HashMap<GrantId, HistoryHead>,
    /// Where the chains had got to when a history was found not to go on.
    trusted: Option<HashMap<Uuid, End>>,
    /// Earlier rows were verified elsewhere.
    resumed: bool,
    buffer: Vec<u8>,
}

impl<'k> Verifier<'k> {
    /// A verifier that has seen nothing.
    #[must_use]
    pub fn new(key: &'k ChainKey) -> Self {
        Self::with(Some(key))
    }

    /// A verifier without the key: it takes the hashes of rows as they are, and verifies that the rows follow each other.
    #[must_use]
    pub fn of_structure() -> Self {
        Self::with(None)
    }

    fn with(key: Option<&'k ChainKey>) -> Self {
        Self {
            key,
            report: Report::default(),
            ends: HashMap::new(),
            order: Vec::new(),
            expected: HashMap::new(),
            looking_for: None,
            histories: HashMap::new(),
            trusted: None,
            resumed: false,
            buffer: Vec::new(),
        }
    }

    /// A head that is known from elsewhere and must be among the rows.
    pub fn expect(&mut self, head: Head) {
        if head.seq > 0 {
            self.expected.insert((head.chain, head.seq), head.hash);
        }
    }

    /// Rows of this chain up to `head` are not among those that come: they were verified elsewhere.
    pub fn resume(&mut self, head: Head) {
        self.resumed = true;
        self.expected.remove(&(head.chain, head.seq));
        self.order.push(head.chain);
        let end = End {
            head,
            position: 0,
            id: Uuid::nil(),
        };
        self.ends.insert(head.chain, end);
    }

    /// The next row.
    pub fn push(&mut self, row: &AuditRow) {
        if self.is_of_history() {
            self.look_on(row);
        } else if self.report.finding.is_some() {
            self.seek(row);
        } else if let Err(fault) = self.check(row) {
            self.found(row, fault);
        }
    }

    fn found(&mut self, row: &AuditRow, fault: Fault) {
        if let Fault::Missing { chain, from, .. } = &fault {
            self.looking_for = Some((*chain, *from));
        }
        self.report.finding = Some(Finding {
            position: row.position,
            id: Some(row.record.id),
            link: row.link,
            fault,
        });
    }

    /// Whether so far only a history was found not to go on.
    fn is_of_history(&self) -> bool {
        let found = self.report.finding.as_ref();
        found.is_some_and(|found| found.fault == Fault::History)
    }

    /// Whether something wrong was found and nothing more can be learned about it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.report.finding.is_some() && self.looking_for.is_none() && !self.is_of_history()
    }

    /// The first thing wrong so far.
    #[must_use]
    pub const fn finding(&self) -> Option<&Finding> {
        self.report.finding.as_ref()
    }

    /// What was found.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.report.heads = self
            .order
            .iter()
            .filter_map(|chain| {
                let ends = self.trusted.as_ref().unwrap_or(&self.ends);
                ends.get(chain).map(|end| end.head)
            })
            .collect();
        if self.report.finding.is_none() || self.is_of_history() {
            let cut = self
                .expected
                .keys()
                .map(|(chain, seq)| (self.order.iter().position(|one| one == chain), *seq, *chain))
                .max_by_key(|(place, seq, _)| (*place, *seq));
            if let Some((_, known, chain)) = cut {
                let end = self.ends.get(&chain);
                self.report.finding = Some(Finding {
                    position: end.map_or(0, |end| end.position),
                    id: end.map(|end| end.id),
                    link: None,
                    fault: Fault::Cut {
                        chain,
                        found: end.map_or(0, |end| end.head.seq),
                        known,
                    },
                });
            }
        }
        self.report
    }

    /// After a gap: a row that turns up later was moved, not removed.
    fn seek(&mut self, row: &AuditRow) {
        let Some((chain, seq)) = self.looking_for else {
            return;
        };
        let found = row
            .link
            .is_some_and(|link| link.chain == chain && link.seq == seq);
        if found {
            self.looking_for = None;
            if let Some(finding) = &mut self.report.finding {
                finding.fault = Fault::OutOfOrder { expected: seq };
            }
        }
    }

    /// After a row that does not go on the history of its grant. Several processes each have a chain, and a grant's history goes through
    /// all of them: a row that is missing from one shows in the next row of the grant first, and in the chain a little later.
    fn look_on(&mut self, row: &AuditRow) {
        let Some(link) = row.link else {
            return;
        };
        let found = self.report.finding.as_ref().map(|found| found.position);
        let stood = self.ends.get(&link.chain).map(|end| end.position);
        // What is missing behind the row that was found is another matter.
        if let Err(fault @ Fault::Missing { .. }) = self.follow(row, &link)
            && stood < found
        {
            self.found(row, fault);
        }
    }

    fn check(&mut self, row: &AuditRow) -> Result<(), Fault> {
        let Some(link) = row.link else {
            if self.ends.is_empty() {
                self.report.unlinked = self.report.unlinked.saturating_add(1);
                return Ok(());
            }
            return Err(Fault::Unlinked);
        };
        let before = self.ends.get(&link.chain).copied();
        self.follow(row, &link)?;
        if let Err(fault) = self.check_history(row, &link) {
            let mut trusted = self.ends.clone();
            match before {
                Some(end) => trusted.insert(link.chain, end),
                None => trusted.remove(&link.chain),
            };
            self.trusted = Some(trusted);
            return Err(fault);
        }
        self.report.verified = self.report.verified.saturating_add(1);
        Ok(())
    }

    /// The row is what was written and stands where its chain goes on.
    fn follow(&mut self, row: &AuditRow, link: &Link) -> Result<(), Fault> {
        if let Some(key) = self.key {
            let (chain, seq) = (link.chain, link.seq);
            let hash = key.hash(chain, seq, &link.prev_hash, &row.record, &mut self.buffer);
            if hash != link.hash {
                return Err(Fault::Changed);
            }
        }
        match self.ends.get(&link.chain) {
            Some(end) => {
                let expected = end.head.seq.saturating_add(1);
                if link.seq > expected {
                    return Err(Fault::Missing {
                        chain: link.chain,
                        from: expected,
                        to: link.seq.saturating_sub(1),
                    });
                }
                if link.seq < expected {
                    return Err(Fault::OutOfOrder { expected });
                }
                if link.prev_hash != end.head.hash {
                    return Err(Fault::BrokenLink);
                }
            }
            None => self.begins(row, link)?,
        }
        if let Some(known) = self.expected.remove(&(link.chain, link.seq))
            && known != link.hash
        {
            return Err(Fault::OtherHistory);
        }
        let end = End {
            head: link.head(),
            position: row.position,
            id: row.record.id,
        };
        self.ends.insert(link.chain, end);
        Ok(())
    }

    /// A request of a peer follows the one before it in the history of its grant; rows from before there were histories have
    /// no place, and of a history whose beginning is elsewhere the first row is taken as it is.
    fn check_history(&mut self, row: &AuditRow, link: &Link) -> Result<(), Fault> {
        let grant = grant_of(&row.record);
        let known = grant.and_then(|grant| self.histories.get(&grant).copied());
        let (Some(grant), Some(place)) = (grant, row.history) else {
            let has_none = row.history.is_none() && known.is_none();
            return if has_none {
                Ok(())
            } else {
                Err(Fault::History)
            };
        };
        let shown = HistoryHead {
            chain: link.chain,
            gseq: place.gseq,
            ghash: place.ghash,
        };
        if known.is_some() || !self.resumed || place.gseq == 1 {
            let before = known.unwrap_or(HistoryHead::NONE);
            if before.next(grant, link.chain, &row.record, &mut self.buffer) != shown {
                return Err(Fault::History);
            }
        }
        self.histories.insert(grant, shown);
        Ok(())
    }

    /// The first row of a chain continues from the end of its predecessor.
    fn begins(&mut self, row: &AuditRow, link: &Link) -> Result<(), Fault> {
        if link.seq != 1 {
            return Err(Fault::Missing {
                chain: link.chain,
                from: 1,
                to: link.seq.saturating_sub(1),
            });
        }
        let detail = row.record.detail.as_ref();
        let begins = row
            .record
            .action
            .as_ref()
            .is_some_and(|act| act.as_str() == BEGIN_ACTION);
        if !begins {
            return Err(Fault::BrokenLink);
        }
        let predecessor = detail
            .and_then(|detail| detail.value(PREDECESSOR))
            .and_then(Value::as_str)
            .and_then(|text| Uuid::try_parse(text).ok());
        let known = detail
            .and_then(|detail| detail.value(PREDECESSOR_SEQ))
            .and_then(Value::as_u64)
            .unwrap_or(0);
        match predecessor {
            None if link.prev_hash != NO_HASH || !self.ends.is_empty() => {
                return Err(Fault::BrokenLink);
            }
            None => {}
            Some(chain) => self.follows(chain, known, link)?,
        }
        self.order.push(link.chain);
        Ok(())
    }

    fn follows(&self, chain: Uuid, known: u64, link: &Link) -> Result<(), Fault> {
        let found = self.ends.get(&chain).map_or(0, |end| end.head.seq);
        if found < known {
            return Err(Fault::Missing {
                chain,
                from: found.saturating_add(1),
                to: known,
            });
        }
        // A predecessor that went on after the hand-over has moved past the place it was followed at; that
        // the place existed is in the hash of this row.
        let differs = self
            .ends
            .get(&chain)
            .is_some_and(|end| end.head.seq == known && end.head.hash != link.prev_hash);
        if differs {
            return Err(Fault::BrokenLink);
        }
        Ok(())
    }
}

/// Verifies rows that are at hand: names the first one that was changed, is missing or is out of order.
#[must_use]
pub fn verify<'r>(
    rows: impl IntoIterator<Item = &'r AuditRow>,
    key: &ChainKey,
    expected: &[Head],
) -> Report {
    let mut verifier = Verifier::new(key);
    for head in expected {
        verifier.expect(*head);
    }
    for row in rows {
        verifier.push(row);
        if verifier.is_settled() {
            break;
        }
    }
    verifier.finish()
}
