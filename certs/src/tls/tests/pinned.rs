//! Enrollment: the pinned root is the only thing that is trusted.

use super::*;

fn enroll(server: &Minted, pin: [u8; 32], name: &'static str) -> Meeting {
    let (_, credential) = channel(server.credential());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let resolver = LiveServerResolver::new(credential);
    let server = enrollment_server_config(resolver, Arc::clone(&clock)).unwrap();
    meet(pinned_client_config(pin, clock).unwrap(), server, name)
}

#[test]
fn the_pin_names_the_root_and_nothing_else() {
    let root = TestCa::root("enrollment");
    let below = root.intermediate("below");
    let other = TestCa::root("other");
    let pin = root.root_sha256();
    let mint = || Mint::server(&["work.example"]);
    for good in [mint().sign_with(&root), mint().sign_with(&below)] {
        let meeting = enroll(&good, pin, "work.example");
        assert!(meeting.succeeded(), "{:?}", meeting.client_error);
        assert_eq!(meeting.server.alpn_protocol(), Some(ALPN_HTTP_1_1));
        assert!(meeting.server.peer_certificates().is_none());
    }
    let good = mint().sign_with(&root);
    let mut root_added = mint().sign_with(&other);
    root_added.chain.push(root.root_der().clone());
    let with_intermediate = mint().sign_with(&below);
    let intermediate = fingerprint(&with_intermediate.chain[1]);
    let self_signed = mint().self_signed();
    let cases = [
        ("another pin", &good, other.root_sha256()),
        ("no pin at all", &good, [0; 32]),
        ("the leaf's hash", &good, good.fingerprint()),
        ("an intermediate's hash", &with_intermediate, intermediate),
        (
            "a self-signed leaf's hash",
            &self_signed,
            self_signed.fingerprint(),
        ),
        ("the pinned root beside a foreign chain", &root_added, pin),
        (
            "the root left out",
            &mint().root_in_chain(false).sign_with(&root),
            pin,
        ),
        ("expired", &mint().expired().sign_with(&root), pin),
        (
            "a client's certificate",
            &mint()
                .eku(&[ExtendedKeyUsagePurpose::ClientAuth])
                .sign_with(&root),
            pin,
        ),
    ];
    for (name, server, pin) in cases {
        let meeting = enroll(server, pin, "work.example");
        assert!(
            matches!(meeting.client_error, Some(Error::InvalidCertificate(_))),
            "{name}: {:?}",
            meeting.client_error
        );
    }
    assert!(!enroll(&good, pin, "evil.example").succeeded());
}
