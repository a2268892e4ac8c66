//! What a place may change, and what it may not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use certs::SystemClock;
use certs::publish::channel;
use certs::testing::{CrlMint, TestCa};
use rustls_pki_types::CertificateDer;

use super::*;

fn lists() -> Lists {
    let (publisher, _) = channel(CrlSet::default());
    let terms = CrlTerms {
        required: true,
        grace: 0,
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    Lists::new(terms, publisher, Arc::new(SystemClock), metrics)
}

fn issuers(ca: &TestCa, others: &[CertificateDer<'static>]) -> CrlIssuers {
    CrlIssuers::new(&ca.anchors(1), others, SystemClock.unix_seconds())
}

fn numbers(lists: &Lists, place: &str) -> Vec<String> {
    let view = lists.view();
    let place = view.iter().find(|one| one.place == place).unwrap();
    let mut numbers: Vec<String> = place
        .lists
        .iter()
        .map(|list| list.number.clone().unwrap())
        .collect();
    numbers.sort();
    numbers
}

#[test]
fn a_place_goes_forward_or_stays() {
    let (lists, ca) = (lists(), TestCa::root("root"));
    let issuers = issuers(&ca, &[]);
    let offer = |number: u64| lists.offer("p", &[CrlMint::number(number).sign_with(&ca)], &issuers);
    assert!(
        matches!(offer(2), Offer::Changed(kept) if kept.len() == 1 && !kept[0].issuer.is_empty())
    );
    assert!(matches!(
        offer(1),
        Offer::Refused(CrlError::Backwards { .. })
    ));
    assert!(lists.view()[0].failure.is_some());
    assert!(matches!(offer(3), Offer::Changed(_)));
    assert_eq!(lists.view()[0].failure, None);
    assert_eq!(numbers(&lists, "p"), ["3"]);
    let same = CrlMint::number(4).sign_with(&ca);
    assert!(matches!(
        lists.offer("p", std::slice::from_ref(&same), &issuers),
        Offer::Changed(_)
    ));
    assert_eq!(lists.offer("p", &[same], &issuers), Offer::Same);
    assert!(matches!(
        lists.offer("p", &[], &issuers),
        Offer::Refused(CrlError::Empty)
    ));
    assert_eq!(numbers(&lists, "p"), ["4"]);
}

#[test]
fn a_list_that_is_gone_from_a_place_stays_in_force() {
    let (lists, ca) = (lists(), TestCa::root("root"));
    let middle = ca.intermediate("middle");
    let issuers = issuers(&ca, &[middle.der().clone()]);
    let both = [
        CrlMint::number(1).sign_with(&ca),
        CrlMint::number(2).sign_with(&middle),
    ];
    assert!(matches!(
        lists.offer("p", &both, &issuers),
        Offer::Changed(_)
    ));
    let one = [CrlMint::number(3).sign_with(&ca)];
    assert!(matches!(lists.offer("p", &one, &issuers), Offer::Changed(kept) if kept.len() == 2));
    assert_eq!(numbers(&lists, "p"), ["2", "3"]);
    assert!(lists.view()[0].failure.as_ref().unwrap().contains("gone"));
}

#[test]
fn one_bad_list_refuses_what_came_with_it_and_a_foreign_one_does_not() {
    let (lists, ca, other) = (lists(), TestCa::root("root"), TestCa::root("other"));
    let issuers = issuers(&ca, &[]);
    let good = CrlMint::number(1).sign_with(&ca);
    let foreign = CrlMint::number(1).sign_with(&other);
    let forged = CrlMint::number(1).sign_as(&other, &ca);
    assert!(matches!(
        lists.offer("p", &[good.clone(), forged], &issuers),
        Offer::Refused(CrlError::BadSignature)
    ));
    assert_eq!(lists.view()[0].state, "missing");
    assert!(matches!(
        lists.offer("p", &[good, foreign.clone()], &issuers),
        Offer::Changed(_)
    ));
    let view = &lists.view()[0];
    assert_eq!(
        (view.foreign, view.lists.len(), view.state),
        (1, 1, "fresh")
    );
    assert!(matches!(
        lists.offer("q", &[foreign], &issuers),
        Offer::Same
    ));
    assert!(
        lists.view()[1].failure.is_some(),
        "a foreign list is no coverage"
    );
}

#[test]
fn a_file_that_goes_ends_only_when_another_has_its_lists() {
    let (lists, ca) = (lists(), TestCa::root("root"));
    let issuers = issuers(&ca, &[]);
    let list = |number: u64| [CrlMint::number(number).sign_with(&ca)];
    assert!(matches!(
        lists.offer("d/a", &list(5), &issuers),
        Offer::Changed(_)
    ));
    assert!(!lists.end("d/a"));
    assert!(matches!(
        lists.offer("d/b", &list(4), &issuers),
        Offer::Changed(_)
    ));
    assert!(!lists.end("d/a"), "an older one is no replacement");
    assert!(matches!(
        lists.offer("d/b", &list(6), &issuers),
        Offer::Changed(_)
    ));
    assert!(lists.end("d/a"));
    assert_eq!(lists.places(), ["d/b"]);
    assert!(lists.end("d/never"));
}
