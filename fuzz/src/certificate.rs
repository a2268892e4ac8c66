//! Certificates: an identity that decodes is spelled in the certificate, byte for byte.

use certs::PeerIdentity;
use certs::oid;

pub(crate) fn attack(bytes: &[u8]) {
    if let Ok(uuid) = oid::decode(bytes) {
        assert_eq!(oid::encode(uuid), bytes, "one spelling for each id");
    }
    let Ok(identity) = PeerIdentity::decode(bytes, 1) else {
        return;
    };
    for id in [identity.grant, identity.subject] {
        let spelled = oid::encode(id);
        assert!(
            bytes.windows(spelled.len()).any(|window| window == spelled),
            "an id that the certificate does not spell"
        );
    }
    assert_eq!(identity.fingerprint, certs::identity::fingerprint(bytes));
    assert_eq!(identity.trust_generation, 1);
}
