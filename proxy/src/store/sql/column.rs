//! Reading columns.
//!
//! Invariant: a value that is not what this program writes becomes [`StoreError::Corrupt`] with table and column, never
//! a default. Statements are in the files of their concern.

use std::str::FromStr;

use policy::time::UnixMillis;
use sqlx::{Decode, Row, Type};
use uuid::Uuid;

use super::dialect::{Db, DbRow};
use crate::store::{Sha256, StoreError};

/// One row of one table.
#[derive(Clone, Copy)]
pub(super) struct Columns<'r> {
    pub(super) table: &'static str,
    pub(super) row: &'r DbRow,
}

impl<'r> Columns<'r> {
    fn raw<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: Decode<'r, Db> + Type<Db>,
    {
        self.row
            .try_get(column)
            .map_err(|error| StoreError::corrupt(self.table, format!("{column}: {error}")))
    }

    fn broken(&self, column: &'static str, why: impl ToString) -> StoreError {
        StoreError::corrupt(self.table, format!("{column}: {}", why.to_string()))
    }

    pub(super) fn text(&self, column: &'static str) -> Result<String, StoreError> {
        self.raw(column)
    }

    /// A text that is only looked at.
    pub(super) fn borrowed(&self, column: &'static str) -> Result<&'r str, StoreError> {
        self.raw(column)
    }

    pub(super) fn opt_text(&self, column: &'static str) -> Result<Option<String>, StoreError> {
        self.raw(column)
    }

    pub(super) fn bytes(&self, column: &'static str) -> Result<Vec<u8>, StoreError> {
        self.raw(column)
    }

    pub(super) fn opt_bytes(&self, column: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        self.raw(column)
    }

    pub(super) fn integer(&self, column: &'static str) -> Result<i64, StoreError> {
        self.raw(column)
    }

    /// A count of any unsigned type.
    pub(super) fn count<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, StoreError> {
        T::try_from(self.integer(column)?).map_err(|_| self.broken(column, "out of range"))
    }

    /// An optional count of any unsigned type.
    pub(super) fn opt_count<T: TryFrom<i64>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        self.raw::<Option<i64>>(column)?
            .map(|value| T::try_from(value).map_err(|_| self.broken(column, "out of range")))
            .transpose()
    }

    pub(super) fn millis(&self, column: &'static str) -> Result<UnixMillis, StoreError> {
        self.integer(column).map(UnixMillis)
    }

    pub(super) fn opt_millis(
        &self,
        column: &'static str,
    ) -> Result<Option<UnixMillis>, StoreError> {
        Ok(self.raw::<Option<i64>>(column)?.map(UnixMillis))
    }

    pub(super) fn digest(&self, column: &'static str) -> Result<Sha256, StoreError> {
        Sha256::try_from(self.bytes(column)?.as_slice())
            .map_err(|_| self.broken(column, "not 32 bytes"))
    }

    /// Canonical text of anything that parses from text.
    pub(super) fn parsed<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: FromStr,
        T::Err: ToString,
    {
        self.raw::<&str>(column)?
            .parse()
            .map_err(|error: T::Err| self.broken(column, error))
    }

    pub(super) fn uuid(&self, column: &'static str) -> Result<Uuid, StoreError> {
        self.parsed(column)
    }

    /// A UUID kept as its 16 bytes.
    pub(super) fn blob_uuid(&self, column: &'static str) -> Result<Uuid, StoreError> {
        Uuid::from_slice(self.raw::<&[u8]>(column)?).map_err(|error| self.broken(column, error))
    }

    /// As [`blob_uuid`](Self::blob_uuid), for a column that may be null.
    pub(super) fn opt_blob_uuid(&self, column: &'static str) -> Result<Option<Uuid>, StoreError> {
        self.raw::<Option<&[u8]>>(column)?
            .map(|bytes| Uuid::from_slice(bytes).map_err(|error| self.broken(column, error)))
            .transpose()
    }

    /// Thirty-two bytes.
    pub(super) fn hash(&self, column: &'static str) -> Result<[u8; 32], StoreError> {
        self.opt_hash(column)?
            .ok_or_else(|| self.broken(column, "is null"))
    }

    /// As [`hash`](Self::hash), for a column that may be null.
    pub(super) fn opt_hash(&self, column: &'static str) -> Result<Option<[u8; 32]>, StoreError> {
        self.raw::<Option<&[u8]>>(column)?
            .map(|bytes| {
                bytes
                    .try_into()
                    .map_err(|_| self.broken(column, "not 32 bytes"))
            })
            .transpose()
    }

    /// A member of a closed set.
    pub(super) fn member<T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, StoreError> {
        parse(self.raw::<&str>(column)?).ok_or_else(|| self.broken(column, "not a known value"))
    }
}
