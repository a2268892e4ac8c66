//! A side that asks, seen from its session door: sessions, peers, and the query form.
//!
//! Invariant: as in `home.rs`, it learns of a serving side only what an enrollment URL and answers say.

use proxy::admin::{AddPeer, CreateSession};
use serde_json::{Value, json};

use crate::home::door;
use crate::response::Response;
use crate::world::{World, operator};

impl World {
    /// A session token of a local user.
    pub async fn session(&self, user: &str) -> String {
        let request = CreateSession {
            user: user.to_owned(),
            ttl_s: None,
        };
        let made = self.control().create_session(&operator(), request).await;
        made.unwrap_or_else(|failure| panic!("{failure:?}")).token
    }

    /// Lets `user` of this side ask `peer`, as `subject` there, under the local name `name`.
    pub async fn befriend(
        &self,
        user: &str,
        name: &str,
        peer: &World,
        subject: &str,
        scope: Value,
    ) {
        self.befriend_at(user, name, peer, subject, scope, None)
            .await;
    }

    /// The same, with the peer asked at `endpoint` instead of at what it says of itself.
    pub async fn befriend_at(
        &self,
        user: &str,
        name: &str,
        peer: &World,
        subject: &str,
        scope: Value,
        endpoint: Option<String>,
    ) {
        peer.let_in(subject).await;
        let grant = peer
            .pending_for(&format!("for-{name}"), subject, scope)
            .await;
        let request = AddPeer {
            url: peer.enrollment_url(grant.id).await,
            user: user.to_owned(),
            name: name.to_owned(),
            endpoint,
            fingerprint: None,
            trust_root_pem: None,
        };
        let added = self.control().add_peer(&operator(), request).await;
        assert_eq!(
            added.unwrap_or_else(|failure| panic!("{failure:?}")).notice,
            None
        );
    }

    /// Asks the query form of the door.
    pub async fn query(&self, token: &str, body: &Value) -> Response {
        self.door(token, "/v1/query", body).await
    }

    /// A POST to the door's unix socket.
    pub async fn door(&self, token: &str, path: &str, body: &Value) -> Response {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let socket = &self.config.session.socket;
        door(socket, path, &headers, body.to_string()).await
    }

    /// Every page of a list.
    pub async fn pages(&self, token: &str, source: &str, resource: &str, limit: u32) -> Vec<Value> {
        let mut pages: Vec<Value> = Vec::new();
        let mut question = json!({"source": source, "verb": "list", "resource": resource, "params": {"limit": limit}});
        loop {
            let answer = self.query(token, &question).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let page = answer.json();
            question["cursor"] = page["nextCursor"].clone();
            pages.push(page);
            if question["cursor"].is_null() {
                return pages;
            }
            assert!(pages.len() < 10_000, "it never ends");
        }
    }
}
