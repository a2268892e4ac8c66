//! The hostile certificates: one row for each, with what becomes of it at a real handshake, and what OpenSSL makes of
//! the same chain.
//!
//! Invariant: the two implementations agree on every row (`X509_verify_cert` for a TLS client, with `X509_STRICT` and
//! security level 2) but those that say why they do not; and those do differ, so that no excuse outlives its cause.
//! The rows are in the files below, by what they are about.

mod forge;
mod form;
mod key;
mod leaf;
mod path;

use std::sync::OnceLock;

use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::{X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509, X509PurposeId, X509StoreContext};

use super::*;
use crate::clock::Clock;

/// What becomes of who presents it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The handshake ends with this alert.
    Alert(Alert),
    /// The handshake passes, the leaf gives no identity: 401 `unauthorized`.
    Unauthorized,
    /// The leaf gives an identity: what it may do is for the store to say.
    Read,
}

use Fate::{Read, Unauthorized};

const UNTRUSTED: Fate = Fate::Alert(Alert::UnknownCA);
const EXPIRED: Fate = Fate::Alert(Alert::CertificateExpired);

/// What OpenSSL makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Second {
    /// It accepts what gives an identity, and nothing else.
    Agrees,
    /// It accepts what is refused here: why.
    Laxer(&'static str),
    /// It refuses what is accepted here: why.
    Stricter(&'static str),
}

use Second::{Agrees, Laxer, Stricter};

type Row = (&'static str, Fate, Second, fn(&TestCa) -> Minted);

/// The time of the table, which stands.
static NOW: OnceLock<i64> = OnceLock::new();

/// No handshake takes longer, whatever is presented.
const PATIENCE: Duration = Duration::from_secs(5);

fn openssl_accepts(minted: &Minted, root: &CertificateDer<'_>, now: i64) -> bool {
    let Some(Ok(chain)) = (!minted.chain.is_empty()).then(|| {
        minted
            .chain
            .iter()
            .map(|der| X509::from_der(der))
            .collect::<Result<Vec<_>, _>>()
    }) else {
        return false;
    };
    let mut param = X509VerifyParam::new().unwrap();
    param.set_time(now);
    param.set_purpose(X509PurposeId::SSL_CLIENT).unwrap();
    param.set_flags(X509VerifyFlags::X509_STRICT).unwrap();
    // 112 bits: no RSA below 2048, no SHA-1.
    param.set_auth_level(2);
    let mut store = X509StoreBuilder::new().unwrap();
    store.add_cert(X509::from_der(root).unwrap()).unwrap();
    store.set_param(&param).unwrap();
    let mut intermediates = Stack::new().unwrap();
    for above in &chain[1..] {
        intermediates.push(above.clone()).unwrap();
    }
    X509StoreContext::new()
        .unwrap()
        .init(&store.build(), &chain[0], &intermediates, |context| {
            let good = context.verify_cert()?;
            if !good {
                println!("    OpenSSL: {}", context.error().error_string());
            }
            Ok(good)
        })
        .unwrap_or(false)
}

impl Serving {
    fn fate(&self, minted: &Minted) -> Result<Fate, String> {
        let began = SystemClock.boot_nanos();
        let meeting = self.meet(self.foreign(Some(minted)));
        let took = Duration::from_nanos(SystemClock.boot_nanos() - began);
        if took > PATIENCE {
            return Err(format!("the handshake took {took:?}"));
        }
        if let Some(alert) = meeting.alert() {
            return Ok(Fate::Alert(alert));
        }
        if !meeting.succeeded() {
            return Err(format!(
                "{:?} {:?}",
                meeting.client_error, meeting.server_error
            ));
        }
        Ok(match PeerIdentity::decode(minted.leaf(), 1) {
            Ok(identity) => {
                let known = [identity.grant, identity.subject].map(|id| id.as_u128());
                assert_eq!(known, [1, 2], "an identity that is not in it");
                Read
            }
            Err(error) => {
                println!("    {error}");
                Unauthorized
            }
        })
    }
}

#[test]
fn every_hostile_certificate_meets_its_fate_and_openssl_agrees() {
    let serving = serving();
    let root = serving.ca.root_der().clone();
    NOW.set(serving.clock.unix_seconds()).unwrap();
    let rows: Vec<Row> = [leaf::ROWS, form::ROWS, key::ROWS, path::ROWS].concat();
    let mut names: Vec<&str> = rows.iter().map(|row| row.0).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rows.len(), "each has a name of its own");
    assert!(rows.len() >= 60, "{}", rows.len());
    let mut wrong = Vec::new();
    for (name, expected, second, forge) in rows {
        println!("{name}");
        let minted = forge(&serving.ca);
        let fate = serving.fate(&minted);
        if fate != Ok(expected) {
            wrong.push(format!("{name}: {fate:?} instead of {expected:?}"));
        }
        let accepted = openssl_accepts(&minted, &root, serving.clock.unix_seconds());
        let expected = match second {
            Agrees => expected == Read,
            Laxer(_) => true,
            Stricter(_) => false,
        };
        if accepted != expected {
            wrong.push(format!("{name}: OpenSSL accepts: {accepted}"));
        }
        let _ = serving
            .refusals
            .lock()
            .unwrap()
            .drain(..)
            .inspect(|refusal| println!("    {refusal:?}"))
            .count();
    }
    assert!(
        wrong.is_empty(),
        "{} rows:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
