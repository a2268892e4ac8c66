//! List cursors: where to read on, sealed so that only we can write one.
//!
//! Invariant: a cursor opens only for the grant, resource, filter and effective revision it was made
//! for (specification, section 3); whatever else is sent is one error, with no hint why.

use certs::seal::PageSealer;
use policy::deny::DenyCode;
use policy::id::GrantId;
use policy::request::QueryFilter;
use policy::resource::Resource;
use policy::revision::EffectiveRevision;

/// Version of the content.
const VERSION: u8 = 1;

/// The last row that was examined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Its creation instant as the gateway wrote it.
    pub created_at: String,
    /// Its id.
    pub id: String,
}

/// What a cursor is good for.
#[derive(Debug, Clone)]
pub struct CursorBinding(Vec<u8>);

impl CursorBinding {
    /// Binds to one question under one revision.
    #[must_use]
    pub fn new(
        grant: GrantId,
        resource: Resource,
        filter: &QueryFilter,
        revision: EffectiveRevision,
    ) -> Self {
        let mut bound = Vec::with_capacity(64);
        let mut push = |field: &[u8]| {
            let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
            bound.extend_from_slice(&length.to_be_bytes());
            bound.extend_from_slice(field);
        };
        push(grant.as_bytes());
        push(resource.as_str().as_bytes());
        push(revision.as_bytes());
        for (key, value) in filter.iter() {
            push(key.as_bytes());
            push(value.as_bytes());
        }
        Self(bound)
    }
}

/// Seals a position as the text of `nextCursor`.
///
/// # Errors
/// [`DenyCode::GatewayMalformed`] when the position is too long for a cursor of 1 KiB.
pub fn seal(
    sealer: &PageSealer,
    position: &Position,
    binding: &CursorBinding,
) -> Result<String, DenyCode> {
    let created = position.created_at.as_bytes();
    let length = u8::try_from(created.len()).map_err(|_| DenyCode::GatewayMalformed)?;
    let content = [&[VERSION, length], created, position.id.as_bytes()].concat();
    sealer
        .seal(&content, &binding.0)
        .map_err(|_| DenyCode::GatewayMalformed)
}

/// Opens the text of a cursor.
///
/// # Errors
/// [`DenyCode::InvalidCursor`].
pub fn open(
    sealer: &PageSealer,
    cursor: &str,
    binding: &CursorBinding,
) -> Result<Position, DenyCode> {
    let content = sealer
        .open(cursor, &binding.0)
        .map_err(|_| DenyCode::InvalidCursor)?;
    let text =
        |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| DenyCode::InvalidCursor);
    match content.as_slice() {
        [VERSION, length, rest @ ..] => {
            let (created, id) = rest
                .split_at_checked(usize::from(*length))
                .ok_or(DenyCode::InvalidCursor)?;
            Ok(Position {
                created_at: text(created)?,
                id: text(id)?,
            })
        }
        _ => Err(DenyCode::InvalidCursor),
    }
}
