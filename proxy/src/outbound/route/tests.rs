//! When a client, with its open connections, is carried over from one table to the next.
#![allow(clippy::unwrap_used)]

use certs::testing::{Mint, TestCa};
use certs::{SealingSecret, SystemClock};
use zeroize::Zeroizing;

use super::super::fixture::{Pki, reaches};
use super::super::reach::ReachRules;
use super::*;

struct Side {
    pki: Pki,
    sealer: Sealer,
    clock: Arc<dyn Clock>,
    reaches: Arc<Reaches>,
    credential: Uuid,
}

impl Side {
    fn new() -> Self {
        let secret = SealingSecret::from_bytes(Zeroizing::new(vec![5; 32])).unwrap();
        Self {
            pki: Pki::new(),
            sealer: Sealer::new(secret).unwrap(),
            clock: Arc::new(SystemClock),
            reaches: reaches(ReachRules::default()),
            credential: Uuid::new_v4(),
        }
    }

    fn peer(&self, endpoint: &str, bundle: &str) -> PeerRecord {
        PeerRecord {
            id: PeerId::new(Uuid::nil()),
            name: PeerName::parse("work").unwrap(),
            direction: PeerDirection::Outbound,
            state: PeerState::Active,
            endpoint_url: Some(endpoint.to_owned()),
            common_name: Some("work.example".to_owned()),
            trust_bundle_pem: Some(bundle.to_owned()),
            trust_generation: 1,
            checkpoint_key: None,
            created_at: UnixMillis(0),
            last_success_at: None,
            last_failure_at: None,
            last_failure: None,
        }
    }

    fn credential(&self, client: &certs::testing::Minted) -> OutboundCredential {
        let row = self.credential.to_string();
        let key = client.private_key().pkcs8();
        OutboundCredential {
            id: self.credential,
            peer: PeerId::new(Uuid::nil()),
            local_user: UserId::parse("amira").unwrap(),
            grant: GrantId::new(self.pki.grant),
            subject: SubjectId::new(self.pki.subject),
            chain_pem: client.chain_pem(),
            sealed_key: self
                .sealer
                .seal(SealPurpose::CredentialKey, &row, key)
                .unwrap(),
            state: CredentialState::Active,
            not_after: UnixMillis(i64::MAX),
            created_at: UnixMillis(0),
            began_at: None,
            skew_ms: 0,
            tries: RenewalTries::default(),
        }
    }

    fn table(
        &self,
        before: &RouteTable,
        peer: PeerRecord,
        credential: OutboundCredential,
    ) -> RouteTable {
        let basis = RouteBasis {
            sealer: &self.sealer,
            clock: &self.clock,
            deadlines: Deadlines::default(),
            reaches: &self.reaches,
        };
        RouteTable::build(vec![peer], &[credential], before, &basis)
    }
}

fn client(table: &RouteTable) -> Arc<PeerClient> {
    let user = UserId::parse("amira").unwrap();
    let route = table.find(&user, "work").unwrap();
    Arc::clone(&route.client.as_ref().unwrap().client)
}

#[test]
fn a_client_belongs_to_one_certificate_one_bundle_and_one_endpoint() {
    let side = Side::new();
    let (here, there) = ("https://127.0.0.1:1", "https://127.0.0.1:2");
    let bundle = side.pki.ca.root_pem();
    let old = side.credential(&side.pki.client);
    let first = side.table(
        &RouteTable::default(),
        side.peer(here, &bundle),
        old.clone(),
    );
    let again = side.table(&first, side.peer(here, &bundle), old.clone());
    assert!(
        Arc::ptr_eq(&client(&first), &client(&again)),
        "nothing changed"
    );

    // A renewed certificate: another serial, all else the same.
    let renewed = Mint::client(side.pki.grant, side.pki.subject).sign_with(&side.pki.ca);
    let renewed = side.credential(&renewed);
    let rotated = side.table(&again, side.peer(here, &bundle), renewed);
    assert!(
        !Arc::ptr_eq(&client(&again), &client(&rotated)),
        "new certificate"
    );

    // Another generation of trust anchors.
    let anchors = format!("{bundle}{}", TestCa::root("next root").root_pem());
    let trusted = side.table(&again, side.peer(here, &anchors), old.clone());
    assert!(
        !Arc::ptr_eq(&client(&again), &client(&trusted)),
        "new anchors"
    );

    let moved = side.table(&again, side.peer(there, &bundle), old);
    assert!(
        !Arc::ptr_eq(&client(&again), &client(&moved)),
        "new endpoint"
    );
}
