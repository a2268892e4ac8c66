//! One answer of the gateway as a stream of filtered rows.
//!
//! Invariant: rows come out only through the filter; the end is reported only when the gateway's
//! body was complete and sound.

use std::sync::Arc;

use policy::decision::Permit;
use policy::deny::DenyCode;
use policy::rows::{FilterError, RowError, RowFilter, RowKey, RowReader, RowsAt, Step, Tally};

use super::Gateway;
use super::client::{Answer, Authority, GatewayClient};
use super::credential::SubjectAuth;
use super::error::GatewayError;
use crate::message::headers::RequestTag;

/// Why reading rows failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The gateway could not be asked or its answer could not be received.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// What it answered is not rows.
    #[error(transparent)]
    Rows(#[from] RowError),
    /// Its rows are not in the order its mapping promises.
    #[error(
        "the gateway's rows are not in descending order of creation: check the paging of its mapping"
    )]
    Disorder,
    /// It answered another row than the one asked for.
    #[error("the gateway answered another row than the one asked for")]
    OtherRow,
}

impl PageError {
    /// The reason a peer is given.
    #[must_use]
    pub const fn deny_code(&self) -> DenyCode {
        match self {
            Self::Gateway(error) => error.deny_code(),
            Self::Rows(_) | Self::Disorder | Self::OtherRow => DenyCode::GatewayMalformed,
        }
    }
}

/// Why rows could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Asking and reading.
    #[error(transparent)]
    Page(#[from] PageError),
    /// No filter for them.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

impl From<GatewayError> for ReadError {
    fn from(error: GatewayError) -> Self {
        Self::Page(PageError::Gateway(error))
    }
}

impl ReadError {
    /// The reason an asker is given.
    #[must_use]
    pub const fn deny_code(&self) -> DenyCode {
        match self {
            Self::Page(error) => error.deny_code(),
            Self::Filter(FilterError::MatchesRemoved(_) | FilterError::TooManyNames) => {
                DenyCode::InvalidFilter
            }
            Self::Filter(_) => DenyCode::GatewayMalformed,
        }
    }
}

/// Asks the gateway under one permit, as its subject.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// The client of the gateway.
    pub client: &'a GatewayClient,
    /// The permit asked under.
    pub permit: &'a Permit,
    /// The subject's authorization.
    pub auth: &'a SubjectAuth,
    /// Of the federated request.
    pub tag: RequestTag<'a>,
}

impl Gateway {
    /// The authorization to ask as the subject of a permit.
    ///
    /// # Errors
    /// [`GatewayError`], when there is no credential.
    pub fn auth_for(&self, permit: &Permit) -> Result<SubjectAuth, GatewayError> {
        self.credentials.for_subject(permit.user(), permit.grant())
    }

    /// To ask under a permit, with the authorization that [`auth_for`](Self::auth_for) gave for its subject.
    #[must_use]
    pub fn asking<'a>(
        &'a self,
        permit: &'a Permit,
        auth: &'a SubjectAuth,
        tag: RequestTag<'a>,
    ) -> Asking<'a> {
        Asking {
            client: &self.client,
            permit,
            auth,
            tag,
        }
    }
}

impl<'a> Asking<'a> {
    /// Asks for `target` and reads its rows through `filter`.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn page(
        &self,
        target: &str,
        filter: Arc<RowFilter>,
        rows: RowsAt,
    ) -> Result<Page<'a>, GatewayError> {
        let authority = Authority::Permit(self.permit);
        let answer = self
            .client
            .ask(&authority, target, self.auth, self.tag)
            .await?;
        Ok(Page {
            answer,
            reader: Box::new(RowReader::new(filter, rows)),
        })
    }
}

/// A page being read.
pub struct Page<'c> {
    answer: Answer<'c>,
    // Boxed: a page is handed on several times, and its reader is large.
    reader: Box<RowReader>,
}

/// What a step of a page came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// A row passed and stands at the end of the output.
    Row,
    /// A row was examined and did not pass.
    Skipped,
    /// The page is complete.
    End,
}

impl Page<'_> {
    /// Reads on to the next row or the end; a row that passes is appended to `out`.
    ///
    /// # Errors
    /// [`PageError`].
    pub async fn next(&mut self, out: &mut Vec<u8>) -> Result<Reading, PageError> {
        loop {
            if let Some(reading) = self.ready(out)? {
                return Ok(reading);
            }
            self.receive().await?;
        }
    }

    /// As [`Page::next`], of what has arrived; `None` when more must be received.
    ///
    /// # Errors
    /// [`PageError`].
    pub fn ready(&mut self, out: &mut Vec<u8>) -> Result<Option<Reading>, PageError> {
        Ok(match self.reader.step(out)? {
            Step::Row => Some(Reading::Row),
            Step::Withheld | Step::Unmatched => Some(Reading::Skipped),
            Step::End => Some(Reading::End),
            Step::NeedInput => None,
        })
    }

    /// Receives the next piece of the body, or its end.
    ///
    /// # Errors
    /// [`PageError`].
    pub async fn receive(&mut self) -> Result<(), PageError> {
        match self.answer.chunk().await? {
            Some(chunk) => self.reader.push(chunk),
            None => self.reader.close(),
        }
        Ok(())
    }

    /// The key of the row examined last.
    #[must_use]
    pub fn key(&self) -> Option<RowKey<'_>> {
        self.reader.key()
    }

    /// The instant of the row examined last that had a key, in nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn key_nanos(&self) -> Option<i64> {
        self.reader.key_nanos()
    }

    /// Counts so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.reader.tally()
    }

    /// Ends a page that was read to [`Reading::End`]; the connection goes back to the pool. A page
    /// that is dropped instead closes its connection.
    pub fn release(self) {
        self.answer.release();
    }
}
