//! An asking side over a real store, with one peer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

/// An asking side with one peer `work` of user `amira` (uid 1000); `bo` (uid 1001) has none.
pub(super) struct Side {
    pub(super) outbound: Outbound,
    pub(super) store: Arc<SqliteStore>,
    writer: AuditWriter,
    _dir: TempDir,
}

/// A peer to be known: its name, whose it is, its certificates, where it is.
pub(super) struct Known<'a> {
    pub(super) name: &'a str,
    pub(super) user: &'a str,
    pub(super) pki: &'a Pki,
    pub(super) address: SocketAddr,
}

impl Side {
    pub(super) async fn with_peer(pki: &Pki, address: SocketAddr) -> Self {
        Self::with_rules(pki, address, ReachRules::default()).await
    }

    pub(super) async fn with_rules(pki: &Pki, address: SocketAddr, rules: ReachRules) -> Self {
        let work = Known {
            name: "work",
            user: "amira",
            pki,
            address,
        };
        Self::with_all(&[work], OwnRows::EMPTY, rules).await
    }

    pub(super) async fn with(peers: &[Known<'_>], local: OwnRows) -> Self {
        Self::with_all(peers, local, ReachRules::default()).await
    }

    async fn with_all(peers: &[Known<'_>], local: OwnRows, rules: ReachRules) -> Self {
        let dir = TempDir::new().unwrap();
        let now = UnixMillis(certs::Clock::unix_millis(&SystemClock));
        let options = SqliteOptions::new(dir.path().join("db"), Uuid::new_v4(), now);
        let store = Arc::new(SqliteStore::open(&options).await.unwrap());
        let secret = SealingSecret::from_bytes(Zeroizing::new(vec![7; 32])).unwrap();
        let sealer = Arc::new(Sealer::new(secret).unwrap());
        for peer in peers {
            let credential_id = Uuid::new_v4();
            let key = peer.pki.client.private_key().pkcs8();
            let sealed_key = sealer
                .seal(SealPurpose::CredentialKey, &credential_id.to_string(), key)
                .unwrap();
            let new = NewOutboundPeer {
                only_new: false,
                id: PeerId::new(Uuid::new_v4()),
                name: PeerName::parse(peer.name).unwrap(),
                endpoint_url: format!("https://{}", peer.address),
                common_name: format!("{}.example", peer.name),
                trust_bundle_pem: peer.pki.ca.root_pem(),
                trust_generation: 1,
                checkpoint_key: None,
                credential_id,
                local_user: UserId::parse(peer.user).unwrap(),
                grant: GrantId::new(peer.pki.grant),
                subject: SubjectId::new(peer.pki.subject),
                chain_pem: peer.pki.client.chain_pem(),
                sealed_key,
                not_after: now.saturating_add(86_400_000),
                began_at: now,
                skew_ms: 0,
            };
            let act = StoreAct {
                id: Uuid::now_v7(),
                actor: Actor::Sidecar("test"),
                now,
            };
            let _ = store.add_outbound_peer(&act, new).await.unwrap();
        }
        let (audit, writer) =
            crate::audit::fixture::writer_in(dir.path(), Arc::clone(&store) as Arc<dyn AuditLog>);
        let users = [(1000, "amira"), (1001, "bo")];
        let outbound = Outbound::new(OutboundParts {
            spans: crate::telemetry::spans::Spans::off(),
            store: Arc::clone(&store) as Arc<dyn Store>,
            sealer,
            clock: Arc::new(SystemClock),
            audit,
            deadlines: Deadlines {
                total: Duration::from_secs(5),
                ..QUICK
            },
            fanout_deadline: Duration::from_millis(600),
            session_users: users
                .map(|(uid, user)| (uid, UserId::parse(user).unwrap()))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
            local: Arc::new(local),
            cursors: cursors(),
            reaches: reaches(rules),
            cache_bytes: 1 << 20,
            told: crate::telemetry::steps::log,
        });
        outbound.load().await.unwrap();
        Self {
            outbound,
            store,
            writer,
            _dir: dir,
        }
    }

    /// Asks the query form as `amira`.
    pub(super) async fn query(&self, body: &Value) -> (StatusCode, Value) {
        let request = Request::post("/v1/query")
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()));
        let response = answer(&self.outbound, AMIRA, request.unwrap()).await;
        let (head, body) = response.into_parts();
        let body = to_bytes(body, 1 << 24).await.unwrap();
        (head.status, serde_json::from_slice(&body).unwrap())
    }

    pub(super) async fn ask(
        &self,
        doorway: Doorway,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (StatusCode, HeaderMap, Value) {
        let mut request = Request::post(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = answer(
            &self.outbound,
            doorway,
            request.body(Body::from("{}")).unwrap(),
        )
        .await;
        let (head, body) = response.into_parts();
        let body = to_bytes(body, 1 << 24).await.unwrap();
        (
            head.status,
            head.headers,
            serde_json::from_slice(&body).unwrap(),
        )
    }

    pub(super) async fn credential_state(&self) -> CredentialState {
        self.store.list_outbound_credentials().await.unwrap()[0].state
    }

    pub(super) async fn records(self) -> Vec<AuditRow> {
        self.writer.drain(Duration::from_secs(5)).await.unwrap();
        let filter = AuditFilter {
            direction: Some(crate::audit::Direction::Outbound),
            ..AuditFilter::default()
        };
        self.store.query_audit(&filter).await.unwrap()
    }
}

pub(super) async fn side(
    script: impl Fn(usize) -> Act + Send + Sync + 'static,
) -> (Side, Arc<Log>) {
    let pki = Pki::new();
    let (address, log) = start(pki.ordinary(BOTH), script).await;
    (Side::with_peer(&pki, address).await, log)
}

pub(super) fn refusal(status: u16, code: &str, reason: Option<&str>) -> Act {
    let mut error = value!({"code": code, "message": "no", "requestId": "b-1"});
    if let Some(reason) = reason {
        error["details"] = value!({ "reason": reason });
    }
    json(status, value!({ "error": error }).to_string())
}
