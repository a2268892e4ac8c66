//! A serving and an asking side, each over a real store.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::limit::{Quota, SourceLimits, SourceQuotas};
use crate::telemetry::Metrics;
use policy::rate::Rate;

pub(super) fn now() -> UnixMillis {
    UnixMillis(SystemClock.unix_millis())
}

pub(super) fn act() -> Act {
    Act {
        id: Uuid::now_v7(),
        actor: Actor::Sidecar("test"),
        now: now(),
    }
}

pub(super) async fn store() -> (Arc<SqliteStore>, TempDir) {
    let dir = TempDir::new().unwrap();
    let options = SqliteOptions::new(dir.path().join("db"), Uuid::new_v4(), now());
    (Arc::new(SqliteStore::open(&options).await.unwrap()), dir)
}

#[derive(Default)]
pub(super) struct Applied(pub(super) AtomicUsize);

#[async_trait]
impl ApplyChanges for Applied {
    async fn apply_changes(&self) -> Result<(), String> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// The serving side: enrollment listener, and a federation listener that answers `capabilities`.
pub(super) struct Serving {
    pub(super) store: Arc<SqliteStore>,
    pub(super) applied: Arc<Applied>,
    pub(super) public_url: String,
    pub(super) pin: [u8; 32],
    _stop: watch::Sender<bool>,
    _dir: TempDir,
}

impl Serving {
    pub(super) async fn new() -> Self {
        Self::at("127.0.0.1").await
    }

    /// `host` is where the federation endpoint is said to be.
    pub(super) async fn at(host: &str) -> Self {
        let (store, dir) = store().await;
        let pki = Pki::new();
        let ca = EmbeddedCa::load(pki.ca.root_der().clone(), &pki.ca.private_key()).unwrap();
        let server = Mint::server(&["127.0.0.1"]).sign_with(&pki.ca);
        let config = pki.server_config(&server, RevokedSet::default(), BOTH);
        let script = |_| answer_json(200, r#"{"resources":["tasks"],"_x":1}"#);
        let (federation, _log) = start(config, script).await;
        let applied = Arc::new(Applied::default());
        let terms = EnrollmentTerms {
            endpoint_url: format!("https://{host}:{}", federation.port()),
            common_name: "work.example".to_owned(),
            server_anchors_pem: {
                let root = pki.ca.root_pem();
                Arc::new(move || root.clone())
            },
            trust_generation: Arc::new(|| 1),
            certificate_lifetime: Duration::from_secs(90 * 86_400),
            checkpoint_key: "7a".repeat(32),
        };
        let redeemer = Redeemer::new(
            Arc::clone(&store) as Arc<dyn Store>,
            Arc::new(ca) as Arc<dyn CertificateAuthority>,
            Arc::new(SystemClock),
            Arc::clone(&applied) as Arc<dyn ApplyChanges>,
            terms,
        );
        let (_, credential) = channel(server.credential());
        let tls = certs::tls::enrollment_server_config(
            LiveServerResolver::new(credential),
            Arc::new(SystemClock),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let public_url = format!("https://{}", listener.local_addr().unwrap());
        let (stop, stopped) = watch::channel(false);
        let routes = router(Arc::new(redeemer), None);
        let quota = Quota::of(Rate::DEFAULT);
        let quotas = SourceQuotas {
            handshakes: quota,
            failures: quota,
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let sources = SourceLimits::new("enrollment", quotas, Arc::new(SystemClock), metrics);
        tokio::spawn(serve(
            listener,
            tls.unwrap(),
            routes,
            EnrollmentLimits::default(),
            (sources, crate::transport::Balancers::default()),
            stopped,
        ));
        Self {
            store,
            applied,
            public_url,
            pin: pki.ca.root_sha256(),
            _stop: stop,
            _dir: dir,
        }
    }

    pub(super) async fn grant(&self) -> GrantId {
        let user = UserId::parse("bea").unwrap();
        let grant = NewGrant {
            id: GrantId::new(Uuid::new_v4()),
            peer_name: PeerName::parse("home").unwrap(),
            peer_id: PeerId::new(Uuid::new_v4()),
            user,
            scope: Scope::parse_text(r#"{"resources":["tasks"]}"#, &[]).unwrap(),
            expires_at: None,
        };
        self.store
            .create_grant(&act(), grant)
            .await
            .unwrap()
            .value
            .grant
            .id
    }

    pub(super) async fn url(&self, grant: GrantId) -> String {
        let token = EnrollmentToken::draw().unwrap();
        let new = NewToken {
            grant,
            sha256: token.sha256(),
            prefix: token.prefix().to_owned(),
            expires_at: now().saturating_add(600_000),
        };
        let _ = self.store.create_token(&act(), new).await.unwrap();
        enrollment_url(&self.public_url, &token, &self.pin)
    }
}

/// The asking side.
pub(super) struct Asking {
    pub(super) outbound: Outbound,
    pub(super) store: Arc<SqliteStore>,
    _writer: AuditWriter,
    _dir: TempDir,
}

impl Asking {
    pub(super) async fn new() -> Self {
        let (store, dir) = store().await;
        let secret = SealingSecret::from_bytes(Zeroizing::new(vec![9; 32])).unwrap();
        let (audit, writer) =
            crate::audit::fixture::writer_in(dir.path(), Arc::clone(&store) as Arc<dyn AuditLog>);
        let outbound = Outbound::new(OutboundParts {
            spans: crate::telemetry::spans::Spans::off(),
            store: Arc::clone(&store) as Arc<dyn Store>,
            sealer: Arc::new(Sealer::new(secret).unwrap()),
            clock: Arc::new(SystemClock),
            audit,
            deadlines: QUICK,
            session_users: BTreeMap::new(),
            fanout_deadline: Duration::from_secs(2),
            local: Arc::new(OwnRows::EMPTY),
            cursors: cursors(),
            reaches: reaches(ReachRules::default()),
            cache_bytes: 0,
            told: crate::telemetry::steps::log,
        });
        Self {
            outbound,
            store,
            _writer: writer,
            _dir: dir,
        }
    }

    pub(super) fn route(&self, name: &str) -> Option<Arc<PeerRoute>> {
        self.outbound
            .routes()
            .find(&UserId::parse("amira").unwrap(), name)
            .ok()
    }
}
