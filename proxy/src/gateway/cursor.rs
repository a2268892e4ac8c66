//! List cursors: where to read on, sealed so that only we can write one.
//!
//! Invariant: a cursor opens only for the grant (or the local user), resource, filter and effective
//! revision it was made for (specification, section 3); whatever else is sent is one error, with no
//! hint why.

use certs::seal::PageSealer;
use policy::decision::Basis;
use policy::deny::DenyCode;
use policy::request::QueryFilter;
use policy::resource::Resource;

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
    /// Binds to one question, by whose right it is asked and under which revision.
    #[must_use]
    pub fn new(basis: &Basis, resource: Resource, filter: &QueryFilter) -> Self {
        let mut bound = Vec::with_capacity(64);
        let mut push = |field: &[u8]| {
            let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
            bound.extend_from_slice(&length.to_be_bytes());
            bound.extend_from_slice(field);
        };
        match basis {
            Basis::Grant(entry) => push(entry.grant.id.as_bytes()),
            // Shorter than the id of a grant, so neither is ever taken for the other.
            Basis::Local(local) => {
                push(b"local");
                push(local.user().as_str().as_bytes());
            }
        }
        push(resource.as_str().as_bytes());
        push(basis.effective_revision().as_bytes());
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
