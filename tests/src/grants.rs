//! Grants and those who hold them.
//!
//! Invariant: a holder's certificate is registered by the same conditional steps as an enrollment;
//! only the certificate itself is the test's, so that any defect can be registered.

use certs::testing::Minted;
use policy::id::GrantId;
use policy::time::UnixMillis;
use proxy::admin::{CreateGrant, GrantView};
use proxy::store::{Act, EnrolledCertificate, Enrollment, IssueIntent, NewToken, TokenClaim};
use reference_gateway::plan;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::response::Response;
use crate::wire::{Client, Wire};
use crate::world::{World, operator};

/// The peer that holds grants unless told otherwise.
pub const PEER: &str = "home";

/// Base path of the federation listener.
pub const BASE: &str = "/api/federation/v1";

/// A grant in force and the certificate that opens it.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The grant.
    pub grant: GrantId,
    /// The subject, as certificates name them.
    pub subject: Uuid,
    /// Certificate, chain and key.
    pub minted: Minted,
}

impl World {
    /// Registers the gateway token of a user of the plan.
    pub async fn let_in(&self, user: &str) {
        let known = plan::plan().users.into_iter().find(|one| one.id == user);
        let token = known.expect("a user of the plan").token();
        self.let_in_with(user, &token).await;
    }

    /// Registers a gateway token of any user.
    pub async fn let_in_with(&self, user: &str, token: &str) {
        self.control()
            .set_gateway_token(&operator(), user, token.to_owned().into())
            .await
            .unwrap();
        // Other replicas take it over behind the act.
        for control in self.controls().skip(1) {
            control.follow_others().await;
        }
    }

    /// A pending grant for [`PEER`].
    pub async fn pending(&self, user: &str, scope: Value) -> GrantView {
        self.pending_for(PEER, user, scope).await
    }

    /// A pending grant for a peer.
    pub async fn pending_for(&self, peer: &str, user: &str, scope: Value) -> GrantView {
        let request = CreateGrant {
            user: user.to_owned(),
            peer: peer.to_owned(),
            scope,
            expires_at: None,
            expires_in_s: None,
        };
        self.control()
            .create_grant(&operator(), request)
            .await
            .unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    /// Registers a certificate, whatever its defects, for a pending grant, which becomes active.
    pub async fn register(&self, grant: GrantId, minted: &Minted) {
        let parsed = minted.leaf();
        let window = certs::PeerIdentity::decode(parsed, 0)
            .map(|identity| (identity.not_before, identity.not_after));
        let now = self.control().now();
        let (not_before, not_after) = match window {
            Ok((from, to)) => (UnixMillis(from * 1000), UnixMillis(to * 1000)),
            Err(_) => (now, now.saturating_add(30 * 86_400_000)),
        };
        let entry = EnrolledCertificate {
            fingerprint: minted.fingerprint(),
            serial: minted.serial().as_str().to_owned(),
            not_before,
            not_after,
            der: minted.leaf().to_vec(),
        };
        let store = &self.control().store;
        let act = || Act {
            id: Uuid::now_v7(),
            actor: operator(),
            now,
        };
        let sha256 = minted.fingerprint();
        let token = NewToken {
            grant,
            sha256,
            prefix: "01234567".to_owned(),
            expires_at: now.saturating_add(60_000),
        };
        let created = store.create_token(&act(), token).await.unwrap();
        assert!(created.changed);
        let claim = store.claim_token(&act(), &sha256).await.unwrap().value;
        assert!(matches!(claim, TokenClaim::Claimed(_)), "{claim:?}");
        let intent = Uuid::now_v7();
        let issue = IssueIntent {
            id: intent,
            grant,
            csr_sha256: sha256,
        };
        let recorded = store.record_issue_intent(&act(), issue).await.unwrap();
        assert!(recorded.changed);
        let enrollment = Enrollment {
            intent,
            grant,
            certificate: entry,
        };
        let enrolled = store.complete_enrollment(&act(), enrollment).await.unwrap();
        assert!(enrolled.changed);
        self.refresh().await;
    }

    /// A grant in force for [`PEER`], its certificate, and the user's gateway token.
    pub async fn holder(&self, user: &str, scope: Value) -> Holder {
        self.holder_of(PEER, user, scope).await
    }

    /// A grant in force for a peer, its certificate, and the user's gateway token (plan data).
    pub async fn holder_of(&self, peer: &str, user: &str, scope: Value) -> Holder {
        self.let_in(user).await;
        let grant = self.pending_for(peer, user, scope).await;
        let subject = grant.subject.uuid();
        let minted = self.mint(grant.id.uuid(), subject).sign_with(&self.ca);
        self.register(grant.id, &minted).await;
        Holder {
            grant: grant.id,
            subject,
            minted,
        }
    }

    /// Amira of the plan, for her tasks, notes and memory.
    pub async fn amira(&self) -> Holder {
        let scope = json!({"resources": ["tasks", "notes", "memory"],
            "filters": {"tasks": {"include_teams": ["platform"]}}});
        self.holder(plan::AMIRA, scope).await
    }

    /// Connects as the holder of a certificate.
    pub async fn client(&self, wire: Wire, minted: &Minted) -> Client {
        Client::open(wire, self.federation(), minted, self.root())
            .await
            .unwrap()
    }

    /// Asks one question on a connection of its own.
    pub async fn ask(&self, minted: &Minted, path: &str, body: &Value) -> Response {
        self.ask_on(Wire::H1, minted, path, body).await
    }

    /// Asks each replica the same on a connection of its own, so that each has what it keeps for itself, such as facts.
    pub async fn ask_each(&self, minted: &Minted, path: &str, body: &Value) -> Vec<Response> {
        let (path, body) = (format!("{BASE}{path}"), body.to_string());
        let mut answers = Vec::new();
        for control in self.controls() {
            let address = control.addresses.federation.unwrap();
            let mut client = Client::open(Wire::H1, address, minted, self.root())
                .await
                .unwrap();
            answers.push(client.post(&path, &body).await.unwrap());
        }
        answers
    }

    /// Asks one question on a connection of its own, in this protocol; `path` is below [`BASE`].
    pub async fn ask_on(&self, wire: Wire, minted: &Minted, path: &str, body: &Value) -> Response {
        self.client(wire, minted)
            .await
            .post(&format!("{BASE}{path}"), &body.to_string())
            .await
            .unwrap()
    }
}
