//! A chain and a key make a credential only if they belong together.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use uuid::Uuid;

use super::*;
use crate::testing::{Mint, TestCa};

#[test]
fn a_credential_states_what_its_leaf_states() {
    let ca = TestCa::root("root").intermediate("below");
    let minted = Mint::server(&["work.example"])
        .validity(1_700_000_000, 1_800_000_000)
        .sign_with(&ca);
    let credential =
        Credential::from_pem(minted.chain_pem().as_bytes(), minted.key_pem().as_bytes()).unwrap();
    assert_eq!(credential.chain(), minted.chain);
    assert_eq!(credential.chain_pem(), minted.chain_pem());
    assert_eq!(credential.fingerprint(), minted.fingerprint());
    assert_eq!(*credential.serial(), minted.serial());
    assert_eq!(credential.not_before(), 1_700_000_000);
    assert_eq!(credential.not_after(), 1_800_000_000);
    assert_eq!(credential.root(), Some(ca.root_der()));
    // Held once: two users of it share one key.
    assert!(Arc::ptr_eq(
        &credential.certified_key(),
        &credential.clone().certified_key()
    ));
    let debug = format!("{credential:?}");
    assert!(debug.contains("redacted") && !debug.contains("CertifiedKey"));
}

#[test]
fn a_chain_without_its_root_has_none() {
    let ca = TestCa::root("root").intermediate("below");
    let client = Mint::client(Uuid::from_u128(1), Uuid::from_u128(2)).sign_with(&ca);
    assert_eq!(client.credential().root(), None);
    // The same name twice is not a self-signature.
    let posing = TestCa::root("same").intermediate("same");
    let mut server = Mint::server(&["a.example"]).sign_with(&posing);
    server.chain.truncate(2);
    assert_eq!(server.credential().root(), None);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let ca = TestCa::root("root");
    let mint = || Mint::client(Uuid::from_u128(1), Uuid::from_u128(2));
    let (one, two) = (mint().sign_with(&ca), mint().sign_with(&ca));
    let join = |chain: &[CertificateDer<'static>]| {
        Credential::new(chain.to_vec(), one.private_key()).map(|_| ())
    };
    assert_eq!(join(&one.chain), Ok(()));
    assert_eq!(join(&two.chain), Err(CredentialError::KeyMismatch));
    assert_eq!(join(&[]), Err(CredentialError::EmptyChain));
    let upside_down = [ca.der().clone(), one.leaf().clone()];
    assert_eq!(join(&upside_down), Err(CredentialError::KeyMismatch));
    let garbage = CertificateDer::from(vec![1, 2, 3]);
    assert_eq!(
        join(&[garbage]),
        Err(CredentialError::Leaf(IdentityError::MalformedCertificate))
    );
    let text = Credential::from_pem(one.key_pem().as_bytes(), one.key_pem().as_bytes());
    assert!(matches!(text, Err(CredentialError::MalformedPem { .. })));
}
