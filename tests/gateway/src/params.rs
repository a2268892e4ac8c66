//! Paths and queries, taken apart.
//!
//! Invariant: in `internal-v1` a parameter that is unknown, repeated or malformed is refused, so
//! that a caller's narrowing can never be dropped by a typing error. The `mosaic` shape ignores
//! what it does not know, as its framework does.

use axum::extract::Query;
use axum::http::Uri;

use crate::failure::Failure;
use crate::record::Collection;
use crate::store::Column;
use crate::visibility::Narrowing;

/// Most rows of one answer: the largest row cap of a scope, and one to see whether more exist.
pub const MAX_LIMIT: u32 = 10_001;
const DEFAULT_LIMIT: u32 = 100;

/// The parameters of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListParams {
    /// At most this many rows.
    pub limit: u32,
    /// Only rows after this `(createdAt, id)`.
    pub before: Option<(String, String)>,
    /// Teams and personal rows asked for.
    pub narrowing: Narrowing,
    /// Equality conditions.
    pub equals: Vec<(Column, String)>,
}

/// The columns a collection can be filtered by, with their parameter names.
#[must_use]
pub const fn filters(collection: Collection) -> &'static [(&'static str, Column)] {
    match collection {
        Collection::Tasks => &[
            ("status", Column::Status),
            ("projectId", Column::Project),
            ("missionId", Column::Mission),
        ],
        Collection::Notes => &[("missionId", Column::Mission)],
        Collection::Projects => &[("status", Column::Status)],
        Collection::Missions => &[("status", Column::Status), ("projectId", Column::Project)],
        _ => &[],
    }
}

impl ListParams {
    /// Parse the query of an `internal-v1` list.
    ///
    /// # Errors
    /// 400 for anything unknown, repeated or malformed.
    pub fn parse(collection: Collection, uri: &Uri) -> Result<Self, Failure> {
        let mut limit = None;
        let mut before = None;
        let mut narrowing = Narrowing::default();
        let mut equals: Vec<(Column, String)> = Vec::new();
        for (name, value) in pairs(uri)? {
            match name.as_str() {
                "limit" => once(&mut limit, parse_limit(&value, MAX_LIMIT)?, "limit")?,
                "before" => once(&mut before, parse_before(&value)?, "before")?,
                "team" => narrowing.teams.push(value),
                "personal" => {
                    once(&mut narrowing.personal, parse_bool(&value)?, "personal")?;
                }
                _ => {
                    let (_, column) = filters(collection)
                        .iter()
                        .find(|(known, _)| *known == name)
                        .ok_or_else(|| Failure::invalid("an unknown query parameter"))?;
                    if equals.iter().any(|(other, _)| other == column) {
                        return Err(Failure::invalid("a query parameter is repeated"));
                    }
                    equals.push((*column, value));
                }
            }
        }
        Ok(Self {
            limit: limit.unwrap_or(DEFAULT_LIMIT),
            before,
            narrowing,
            equals,
        })
    }
}

/// The filters among the query of a `mosaic` list.
///
/// # Errors
/// 400 when the query is not form-encoded.
pub fn known_filters(collection: Collection, uri: &Uri) -> Result<Vec<(Column, String)>, Failure> {
    Ok(pairs(uri)?
        .into_iter()
        .filter_map(|(name, value)| {
            let known = filters(collection).iter().find(|(known, _)| *known == name);
            known.map(|(_, column)| (*column, value))
        })
        .collect())
}

/// `limit` and `after` of the facts.
///
/// # Errors
/// 400 for anything unknown, repeated or malformed.
pub fn parse_facts(uri: &Uri) -> Result<(usize, Option<String>), Failure> {
    let (mut limit, mut after) = (None, None);
    for (name, value) in pairs(uri)? {
        match name.as_str() {
            "limit" => once(&mut limit, parse_limit(&value, 1_000)?, "limit")?,
            "after" => once(&mut after, value, "after")?,
            _ => return Err(Failure::invalid("an unknown query parameter")),
        }
    }
    let limit = usize::try_from(limit.unwrap_or(1_000)).unwrap_or(1);
    Ok((limit, after))
}

/// `query` and `limit` of a `mosaic` search.
///
/// # Errors
/// 400 without a query, or with a limit outside 1 to 1,000.
pub fn parse_search(uri: &Uri) -> Result<(String, usize), Failure> {
    let (mut query, mut limit) = (None, 10);
    for (name, value) in pairs(uri)? {
        match name.as_str() {
            "query" => query = Some(value),
            "limit" => limit = parse_limit(&value, 1_000)?,
            _ => {}
        }
    }
    let query = query.ok_or_else(|| Failure::invalid("query is missing"))?;
    Ok((query, usize::try_from(limit).unwrap_or(1)))
}

/// Refuse any parameter where none is known.
///
/// # Errors
/// 400 when there is one.
pub fn no_params(uri: &Uri) -> Result<(), Failure> {
    match uri.query() {
        None | Some("") => Ok(()),
        Some(_) => Err(Failure::invalid("an unknown query parameter")),
    }
}

/// The segments of a path, percent-decoded once each.
///
/// # Errors
/// 404 when a segment does not decode to UTF-8.
pub fn segments(uri: &Uri) -> Result<Vec<String>, Failure> {
    uri.path()
        .trim_start_matches('/')
        .split('/')
        .map(|segment| percent_decode(segment).ok_or_else(Failure::not_found))
        .collect()
}

fn percent_decode(segment: &str) -> Option<String> {
    let mut bytes = segment.bytes();
    let mut decoded = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut nibble = || char::from(bytes.next()?).to_digit(16);
            let value = nibble()? * 16 + nibble()?;
            decoded.push(u8::try_from(value).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Failure> {
    Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map(|Query(pairs)| pairs)
        .map_err(|_| Failure::invalid("the query is not form-encoded"))
}

fn once<T>(slot: &mut Option<T>, value: T, name: &str) -> Result<(), Failure> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Failure::invalid(&format!("{name} is repeated"))),
    }
}

fn parse_limit(value: &str, max: u32) -> Result<u32, Failure> {
    value
        .parse()
        .ok()
        .filter(|limit| (1..=max).contains(limit))
        .ok_or_else(|| Failure::invalid(&format!("limit must be 1..={max}")))
}

fn parse_bool(value: &str) -> Result<bool, Failure> {
    value
        .parse()
        .map_err(|_| Failure::invalid("personal must be true or false"))
}

/// `<createdAt>,<id>` as the gateway itself wrote them.
fn parse_before(value: &str) -> Result<(String, String), Failure> {
    value
        .split_once(',')
        .filter(|(created_at, id)| is_created_at(created_at) && !id.is_empty())
        .map(|(created_at, id)| (created_at.to_owned(), id.to_owned()))
        .ok_or_else(|| Failure::invalid("before must be <createdAt>,<id> of a row"))
}

fn is_created_at(text: &str) -> bool {
    let form = b"dddd-dd-ddTdd:dd:dd.dddZ";
    text.len() == form.len()
        && text.bytes().zip(form).all(|(byte, form)| match form {
            b'd' => byte.is_ascii_digit(),
            _ => byte == *form,
        })
}
