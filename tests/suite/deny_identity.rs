//! Every way of not being who one says, or of not being welcome any more (specification, section 2).
//!
//! Invariant: a test per path, over real TLS, on both protocols where HTTP is reached at all; what
//! never reaches HTTP must leave no trace of a request either.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::time::Duration;

use certs::oid::{self, ClaimExtension};
use certs::testing::{
    ExtendedKeyUsagePurpose, KeyUsagePurpose, Mint, Minted, TestCa, foreign_client_config, tlv,
};
use certs::{Clock, SystemClock};
use policy::deny::DenyCode;
use proxy::admin::{AuditQuery, CreateGrant};
use reference_gateway::plan;
use rustls::AlertDescription;
use serde_json::json;
use tests::expect::GENERIC;
use tests::grants::{BASE, PEER};
use tests::world::operator;
use tests::{Client, Denial, Holder, Response, Wire, World, tls};
use uuid::Uuid;

const UNAUTHORIZED: Denial = Denial::new(401, "unauthorized", DenyCode::IdentityMalformed);

const fn forbidden(reason: DenyCode) -> Denial {
    Denial::new(403, "forbidden", reason)
}

async fn ask(client: &mut Client) -> Response {
    client
        .post(&format!("{BASE}/list/tasks"), "{}")
        .await
        .unwrap()
}

/// Expects an alert and no request in the audit log.
async fn refused_by_tls(world: &World, minted: Option<&Minted>, expected: AlertDescription) {
    for wire in Wire::BOTH {
        let config = tls::client(minted, world.root(), &[wire.alpn()]);
        assert_eq!(tls::refusal(world.federation(), config).await, expected);
    }
    let inbound = AuditQuery {
        direction: Some("inbound".to_owned()),
        ..AuditQuery::default()
    };
    let rows = world.control().query_audit(inbound).await.unwrap();
    assert!(rows.is_empty(), "{rows:?}");
    assert!(world.gateway.requests().await.is_empty());
}

/// Expects this refusal of the holder of `minted`, on both protocols, and the connection closed.
async fn refused_by_http(world: &World, minted: &Minted, denial: Denial) {
    let [h1, h2] = Wire::BOTH;
    tokio::join!(
        refused_on(h1, world, minted, denial),
        refused_on(h2, world, minted, denial)
    );
    assert!(world.gateway.requests().await.is_empty());
}

async fn refused_on(wire: Wire, world: &World, minted: &Minted, denial: Denial) {
    let mut client = world.client(wire, minted).await;
    denial.check(world, &ask(&mut client).await).await;
    client.closed().await;
}

fn good(world: &World) -> Mint {
    world.mint(Uuid::new_v4(), Uuid::new_v4())
}

// What the handshake refuses.

#[tokio::test(flavor = "multi_thread")]
async fn no_certificate() {
    let world = World::start().await;
    refused_by_tls(&world, None, AlertDescription::CertificateRequired).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_of_another_authority() {
    let world = World::start().await;
    let holder = world.amira().await;
    // The same name, the same grant and subject, another key.
    let other = TestCa::root("work authority");
    let minted = world
        .mint(holder.grant.uuid(), holder.subject)
        .sign_with(&other);
    refused_by_tls(&world, Some(&minted), AlertDescription::UnknownCA).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_signed_by_itself() {
    let world = World::start().await;
    let minted = good(&world).self_signed();
    refused_by_tls(&world, Some(&minted), AlertDescription::UnknownCA).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_expired_at_the_handshake() {
    let world = World::start().await;
    let minted = good(&world).expired().sign_with(&world.ca);
    refused_by_tls(&world, Some(&minted), AlertDescription::CertificateExpired).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_not_yet_valid() {
    let world = World::start().await;
    let minted = good(&world).not_yet_valid().sign_with(&world.ca);
    refused_by_tls(&world, Some(&minted), AlertDescription::CertificateExpired).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_for_servers_only() {
    let world = World::start().await;
    let minted = good(&world)
        .eku(&[ExtendedKeyUsagePurpose::ServerAuth])
        .sign_with(&world.ca);
    refused_by_tls(&world, Some(&minted), AlertDescription::UnknownCA).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_of_an_authority() {
    let world = World::start().await;
    let minted = good(&world).as_ca().sign_with(&world.ca);
    refused_by_tls(&world, Some(&minted), AlertDescription::UnknownCA).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_whose_signature_was_tampered_with() {
    let world = World::start().await;
    let mut minted = good(&world).sign_with(&world.ca);
    let mut leaf = minted.chain[0].to_vec();
    *leaf.last_mut().unwrap() ^= 1;
    minted.chain[0] = leaf.into();
    refused_by_tls(&world, Some(&minted), AlertDescription::UnknownCA).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_revoked_at_the_handshake() {
    let world = World::start().await;
    let holder = world.amira().await;
    world.revoke(holder.grant).await;
    let alert = AlertDescription::CertificateRevoked;
    refused_by_tls(&world, Some(&holder.minted), alert).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_over_tls_1_2() {
    let world = World::start().await;
    let holder = world.amira().await;
    let config = foreign_client_config(
        Some(&holder.minted),
        world.root(),
        &[&rustls::version::TLS12],
    );
    let alert = tls::refusal(world.federation(), config).await;
    assert_eq!(alert, AlertDescription::ProtocolVersion);
    world.stop().await;
}

// Extensions that are missing or malformed.

/// A test per defect of either extension: a name, and what becomes of the certificate.
macro_rules! malformed {
    ($($name:ident: $defect:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let world = World::start().await;
            let defect: fn(Mint, ClaimExtension) -> Mint = $defect;
            let [grant, subject] =
                ClaimExtension::ALL.map(|claim| defect(good(&world), claim).sign_with(&world.ca));
            tokio::join!(
                refused_by_http(&world, &grant, UNAUTHORIZED),
                refused_by_http(&world, &subject, UNAUTHORIZED)
            );
            world.stop().await;
        }
    )*};
}

const ID: &str = "0a11ce00-0000-4000-8000-0000000000e1";
const UTF8_STRING: u8 = 0x0c;

malformed! {
    extension_missing: |mint, claim| mint.without_claim(claim);
    extension_twice: |mint, claim| {
        mint.with_extension_raw(claim.arcs(), &oid::encode(Uuid::new_v4()))
    };
    extension_of_another_string_type: |mint, claim| {
        mint.claim_raw(claim, &tlv(0x13, ID.as_bytes()))
    };
    extension_of_raw_uuid_bytes: |mint, claim| {
        mint.claim_raw(claim, Uuid::new_v4().as_bytes())
    };
    extension_without_a_value: |mint, claim| mint.claim_raw(claim, &[]);
    extension_with_an_empty_string: |mint, claim| mint.claim_raw(claim, &[UTF8_STRING, 0]);
    extension_too_short: |mint, claim| {
        mint.claim_raw(claim, &tlv(UTF8_STRING, &ID.as_bytes()[..35]))
    };
    extension_too_long: |mint, claim| {
        mint.claim_raw(claim, &tlv(UTF8_STRING, format!("{ID}0").as_bytes()))
    };
    extension_shorter_than_its_length: |mint, claim| {
        mint.claim_raw(claim, &[&[UTF8_STRING, 36], &ID.as_bytes()[..30]].concat())
    };
    extension_with_a_long_form_length: |mint, claim| {
        mint.claim_raw(claim, &[&[UTF8_STRING, 0x81, 36], ID.as_bytes()].concat())
    };
    extension_with_trailing_bytes: |mint, claim| {
        mint.claim_raw(claim, &[&tlv(UTF8_STRING, ID.as_bytes())[..], &[0]].concat())
    };
    extension_in_upper_case: |mint, claim| {
        mint.claim_raw(claim, &tlv(UTF8_STRING, ID.to_uppercase().as_bytes()))
    };
    extension_without_hyphens: |mint, claim| {
        let bare = ID.replace('-', "");
        mint.claim_raw(claim, &tlv(UTF8_STRING, format!("{bare:<36}").as_bytes()))
    };
    extension_that_is_no_uuid: |mint, claim| {
        mint.claim_raw(claim, &tlv(UTF8_STRING, "g".repeat(36).as_bytes()))
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn key_usage_without_digital_signature() {
    let world = World::start().await;
    let minted = good(&world)
        .key_usage(&[KeyUsagePurpose::KeyEncipherment])
        .sign_with(&world.ca);
    refused_by_http(&world, &minted, UNAUTHORIZED).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_extended_key_usage() {
    let world = World::start().await;
    let minted = good(&world).eku(&[]).sign_with(&world.ca);
    // The path verifies without the extension; that it must be there is for the identity to say.
    refused_by_http(&world, &minted, UNAUTHORIZED).await;
    world.stop().await;
}

// What must not be told apart.

async fn unregistered(world: &World) -> Minted {
    let holder = world.amira().await;
    world
        .mint(holder.grant.uuid(), holder.subject)
        .sign_with(&world.ca)
}

async fn subject_swapped(world: &World) -> Minted {
    world.let_in(plan::AMIRA).await;
    let grant = world
        .pending(plan::AMIRA, json!({"resources": ["tasks"]}))
        .await;
    let ben = policy::id::UserId::parse(plan::BEN).unwrap();
    let subject = policy::id::SubjectId::of_user(&ben).uuid();
    let minted = world.mint(grant.id.uuid(), subject).sign_with(&world.ca);
    world.register(grant.id, &minted).await;
    minted
}

async fn of_another_grant(world: &World) -> Minted {
    let first = world.amira().await;
    let second = world
        .pending(plan::AMIRA, json!({"resources": ["notes"]}))
        .await;
    // Names the first grant, is registered for the second.
    let minted = world
        .mint(first.grant.uuid(), first.subject)
        .sign_with(&world.ca);
    world.register(second.id, &minted).await;
    minted
}

async fn of_a_pending_grant(world: &World) -> Minted {
    let grant = world
        .pending(plan::AMIRA, json!({"resources": ["tasks"]}))
        .await;
    world
        .mint(grant.id.uuid(), grant.subject.uuid())
        .sign_with(&world.ca)
}

async fn of_a_grant_pending_again(world: &World) -> Minted {
    let holder = world.amira().await;
    world.set_grant_pending(holder.grant).await;
    holder.minted
}

async fn of_a_peer_pending_again(world: &World) -> Minted {
    let holder = world.amira().await;
    world.set_peer_state(PEER, "pending").await;
    holder.minted
}

#[tokio::test(flavor = "multi_thread")]
async fn leaf_not_registered() {
    let world = World::start().await;
    let minted = unregistered(&world).await;
    let denial = forbidden(DenyCode::CertificateUnregistered);
    refused_by_http(&world, &minted, denial).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaf_registered_to_another_grant() {
    let world = World::start().await;
    let minted = of_another_grant(&world).await;
    let denial = forbidden(DenyCode::CertificateUnregistered);
    refused_by_http(&world, &minted, denial).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subject_of_another_user() {
    let world = World::start().await;
    let minted = subject_swapped(&world).await;
    refused_by_http(&world, &minted, forbidden(DenyCode::SubjectMismatch)).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grant_unknown() {
    let world = World::start().await;
    let minted = good(&world).sign_with(&world.ca);
    refused_by_http(&world, &minted, forbidden(DenyCode::GrantUnknown)).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grant_pending() {
    let world = World::start().await;
    let minted = of_a_grant_pending_again(&world).await;
    refused_by_http(&world, &minted, forbidden(DenyCode::GrantPending)).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_that_never_enrolled() {
    let world = World::start().await;
    let minted = of_a_peer_pending_again(&world).await;
    refused_by_http(&world, &minted, forbidden(DenyCode::PeerUnknown)).await;
    world.stop().await;
}

/// Whoever probes learns nothing: status, headers and body are the same but for id and time.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_that_would_tell_which_grants_exist_are_identical() {
    for wire in Wire::BOTH {
        let mut seen = Vec::new();
        let worlds = [World::start().await, World::start().await];
        let [world, other] = &worlds;
        let probes = [
            (world, good(world).sign_with(&world.ca)),
            (world, unregistered(world).await),
            (world, subject_swapped(world).await),
            (world, of_another_grant(world).await),
            (world, of_a_pending_grant(world).await),
            (world, of_a_grant_pending_again(world).await),
            (other, of_a_peer_pending_again(other).await),
        ];
        for (world, minted) in probes {
            let mut answer = world.ask_on(wire, &minted, "/list/tasks", &json!({})).await;
            assert!(answer.text().contains(GENERIC));
            let id = answer.request_id().to_owned();
            answer.body = answer.text().replace(&id, "ID").into_bytes();
            let its_own = ["x-request-id", "date", "x-mosaic-time"];
            answer
                .headers
                .retain(|(name, _)| !its_own.contains(&name.as_str()));
            seen.push(answer);
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:#?}");
        for world in worlds {
            world.stop().await;
        }
    }
}

// What is over, said to whoever held it.

/// A world, a holder, and one open connection of either protocol that has been answered once.
async fn connected(world: &World, holder: &Holder) -> Vec<Client> {
    let mut clients = Vec::new();
    for wire in Wire::BOTH {
        let mut client = world.client(wire, &holder.minted).await;
        assert_eq!(ask(&mut client).await.status, 200);
        clients.push(client);
    }
    clients
}

/// The next request of each open connection gets this refusal, and the connection is closed.
async fn told(world: &World, clients: Vec<Client>, denial: Denial) {
    for mut client in clients {
        denial.check(world, &ask(&mut client).await).await;
        client.closed().await;
    }
}

/// The same where what looks for grants that have run out may come first, and close the connection untold.
async fn told_or_closed(world: &World, clients: Vec<Client>, denial: Denial) {
    for mut client in clients {
        if let Ok(answer) = client.post(&format!("{BASE}/list/tasks"), "{}").await {
            denial.check(world, &answer).await;
        }
        client.closed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grant_revoked_on_an_open_connection() {
    let world = World::start().await;
    let holder = world.amira().await;
    let mut clients = connected(&world, &holder).await;
    let http1 = vec![clients.remove(0)];
    drop(clients);
    world.revoke(holder.grant).await;
    told(&world, http1, forbidden(DenyCode::GrantRevoked)).await;
    world.stop().await;
}

/// A connection of HTTP/2 may have frames queued, so it is cut at once when it was ever answered;
/// one that was not is told.
#[tokio::test(flavor = "multi_thread")]
async fn grant_revoked_on_an_open_http2_connection() {
    let world = World::start().await;
    let holder = world.amira().await;
    let mut answered = world.client(Wire::H2, &holder.minted).await;
    assert_eq!(ask(&mut answered).await.status, 200);
    let mut fresh = world.client(Wire::H2, &holder.minted).await;
    let unknown = fresh.post(&format!("{BASE}/nothing"), "{}").await.unwrap();
    assert_eq!(unknown.status, 404);
    world.revoke(holder.grant).await;
    assert!(
        answered
            .post(&format!("{BASE}/list/tasks"), "{}")
            .await
            .is_err()
    );
    told(&world, vec![fresh], forbidden(DenyCode::GrantRevoked)).await;
    world.stop().await;
}

fn expiring(user: &str, seconds: u32) -> CreateGrant {
    CreateGrant {
        user: user.to_owned(),
        peer: PEER.to_owned(),
        scope: json!({"resources": ["tasks"]}),
        expires_at: None,
        expires_in_s: Some(seconds),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grant_expired() {
    let world = World::builder().manual_clock().start().await;
    world.let_in(plan::AMIRA).await;
    let grant = world
        .control()
        .create_grant(&operator(), expiring(plan::AMIRA, 600))
        .await
        .unwrap();
    let subject = grant.subject.uuid();
    let holder = Holder {
        grant: grant.id,
        subject,
        minted: world.mint(grant.id.uuid(), subject).sign_with(&world.ca),
    };
    world.register(grant.id, &holder.minted).await;
    let clients = connected(&world, &holder).await;
    world.pass(Duration::from_millis(599_999)).await;
    let last = world.ask(&holder.minted, "/capabilities", &json!({})).await;
    assert_eq!(last.status, 200);
    world.pass(Duration::from_millis(1)).await;
    let denial = forbidden(DenyCode::GrantExpired);
    told_or_closed(&world, clients, denial).await;
    world.gateway.forget_requests().await;
    for wire in Wire::BOTH {
        // The grant runs out once: what closes its connections can come before one answer, not before two.
        let mut told = None;
        while told.is_none() {
            let mut client = world.client(wire, &holder.minted).await;
            told = client.post(&format!("{BASE}/list/tasks"), "{}").await.ok();
            client.closed().await;
        }
        denial.check(&world, &told.unwrap()).await;
    }
    assert!(world.gateway.requests().await.is_empty());
    world.stop().await;
}

async fn short_lived(world: &World, seconds: i64) -> Holder {
    world.let_in(plan::AMIRA).await;
    let grant = world
        .pending(plan::AMIRA, json!({"resources": ["tasks"]}))
        .await;
    let now = SystemClock.unix_seconds();
    let subject = grant.subject.uuid();
    let minted = world
        .mint(grant.id.uuid(), subject)
        .validity(now - 60, now + seconds)
        .sign_with(&world.ca);
    world.register(grant.id, &minted).await;
    Holder {
        grant: grant.id,
        subject,
        minted,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_expired_since_the_handshake() {
    let world = World::builder().manual_clock().start().await;
    let holder = short_lived(&world, 600).await;
    let clients = connected(&world, &holder).await;
    world.pass(Duration::from_secs(660)).await;
    told(&world, clients, forbidden(DenyCode::CertificateExpired)).await;
    let config = tls::client(Some(&holder.minted), world.root(), &["h2"]);
    let alert = tls::refusal(world.federation(), config).await;
    assert_eq!(alert, AlertDescription::CertificateExpired);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_revoked_since_the_handshake() {
    let world = World::start().await;
    let holder = world.amira().await;
    let clients = connected(&world, &holder).await;
    world.set_certificate_state(&holder.minted, "revoked").await;
    told(&world, clients, forbidden(DenyCode::CertificateRevoked)).await;
    let config = tls::client(Some(&holder.minted), world.root(), &["http/1.1"]);
    let alert = tls::refusal(world.federation(), config).await;
    assert_eq!(alert, AlertDescription::CertificateRevoked);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_superseded() {
    let world = World::start().await;
    let holder = world.amira().await;
    let clients = connected(&world, &holder).await;
    world
        .set_certificate_state(&holder.minted, "superseded")
        .await;
    let denial = forbidden(DenyCode::CertificateSuperseded);
    told(&world, clients, denial).await;
    world.gateway.forget_requests().await;
    refused_by_http(&world, &holder.minted, denial).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_replaced_by_a_new_token() {
    let world = World::start().await;
    let holder = world.amira().await;
    let mut client = world.client(Wire::H1, &holder.minted).await;
    assert_eq!(ask(&mut client).await.status, 200);
    let replaced = world.replace_token(holder.grant).await;
    assert_eq!(replaced.revoked_certificates, 1);
    // The grant is pending again, and that comes before the certificate.
    told(&world, vec![client], forbidden(DenyCode::GrantPending)).await;
    let config = tls::client(Some(&holder.minted), world.root(), &["http/1.1"]);
    let alert = tls::refusal(world.federation(), config).await;
    assert_eq!(alert, AlertDescription::CertificateRevoked);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_suspended() {
    let world = World::start().await;
    let holder = world.amira().await;
    let mut client = world.client(Wire::H1, &holder.minted).await;
    assert_eq!(ask(&mut client).await.status, 200);
    world.suspend(PEER).await;
    let denial = forbidden(DenyCode::PeerSuspended);
    told(&world, vec![client], denial).await;
    world.gateway.forget_requests().await;
    refused_by_http(&world, &holder.minted, denial).await;
    world.resume(PEER).await;
    for wire in Wire::BOTH {
        let again = world
            .ask_on(wire, &holder.minted, "/list/tasks", &json!({}))
            .await;
        assert_eq!(again.status, 200);
    }
    world.stop().await;
}

// Order.

/// The certificate's subject is compared before the state of the grant is looked at, so a stranger
/// does not even learn that the grant is over.
#[tokio::test(flavor = "multi_thread")]
async fn subject_is_judged_before_the_state_of_the_grant() {
    let world = World::start().await;
    let minted = subject_swapped(&world).await;
    let mut client = world.client(Wire::H1, &minted).await;
    let grants = world.control().list_grants().await.unwrap();
    let denial = forbidden(DenyCode::SubjectMismatch);
    world.revoke(grants[0].id).await;
    denial.check(&world, &ask(&mut client).await).await;
    world.stop().await;
}

/// Who asks is judged before anything of the request.
#[tokio::test(flavor = "multi_thread")]
async fn identity_is_judged_before_the_request() {
    let world = World::start().await;
    let minted = unregistered(&world).await;
    let denial = forbidden(DenyCode::CertificateUnregistered);
    for wire in Wire::BOTH {
        for (path, body) in [
            ("/list/tasks", "{"),
            ("/list/credentials", "{}"),
            ("/nothing", "{}"),
            ("/list/tasks", r#"{"cursor":"forged"}"#),
        ] {
            let mut client = world.client(wire, &minted).await;
            let answer = client.post(&format!("{BASE}{path}"), body).await.unwrap();
            denial.check(&world, &answer).await;
        }
    }
    world.stop().await;
}
