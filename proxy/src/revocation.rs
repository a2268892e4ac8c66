//! Revocation lists, both ways: ours as others read it, and those of others as we obey them.
//!
//! Invariant: what a list names is taken away like anything an operator takes away: by an act in the store, applied by the
//! directory, with gates and leases. Until that has happened the list itself refuses, at the handshake and for each request.
//! A list that cannot be read, is forged, foreign, older or of the future changes nothing that was in force.
//!
//! `published.rs` makes our own list, `responder.rs` answers OCSP, `lists.rs` holds the lists in force, `places.rs` reads
//! them, `effect.rs` takes away what they name, `telling.rs` tells another authority what was revoked here. The formats are
//! in `certs`, the routes in `enrollment/revocation.rs`.

mod effect;
mod lists;
mod places;
mod published;
mod responder;
mod telling;

pub use effect::{Effect, Progress};
pub use lists::{ListView, Lists, Offer, PlaceView};
pub use places::{FetchList, Fetched, Place, Places, PlacesParts};
pub use published::{ListFailure, PublishedCrl, ShownCrl};
pub use responder::{OcspAnswer, Responder};
pub use telling::Telling;
