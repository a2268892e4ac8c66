//! A real step-ca in a process of its own.
//!
//! `MOSAIC_TEST_STEP_CA` names the program (`./run test` finds or builds one); without it the tests of it say that they were
//! skipped.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use certs::testing::TestCa;
use certs::trust::certificate_to_pem;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The template that is shipped.
pub const TEMPLATE: &str = include_str!("../../../compose/step-ca/federation.tpl");
/// The one for listeners.
pub const SERVER_TEMPLATE: &str = include_str!("../../../compose/step-ca/server.tpl");
const KEYS: &str = include_str!("../../../certs/testdata/provisioner-keys.json");
/// How often the process is asked whether it has started, and how long apart.
const LOOKS: u32 = 3_000;
const APART: Duration = Duration::from_millis(20);

/// The program, or `None` after having said so.
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("MOSAIC_TEST_STEP_CA").map(PathBuf::from);
    if path.is_none() {
        super::skipped("step-ca", "MOSAIC_TEST_STEP_CA is not set");
    }
    path
}

fn spawn(program: &Path, config: &Path, log: std::fs::File) -> Child {
    Command::new(program)
        .arg(config)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Whether it listens at last; not when somebody else has its port. It says so before it tries, behind this place of its log, and then
/// ends at once.
fn listens(child: &mut Child, address: SocketAddr, log: &Path, begun: usize) -> bool {
    let said = || std::fs::read_to_string(log).unwrap();
    let mut reached = 0;
    for _ in 0..LOOKS {
        let all = said();
        let said = &all[begun..];
        if child.try_wait().unwrap().is_some() {
            assert!(said.contains("address already in use"), "{said}");
            return false;
        }
        let tried = said.contains("Serving HTTPS on");
        if tried && std::net::TcpStream::connect(address).is_ok() {
            reached += 1;
            if reached > 1 {
                return true;
            }
        }
        std::thread::sleep(APART);
    }
    panic!("{}", said());
}

/// A running step-ca with one JWK provisioner.
pub struct StepProcess {
    child: Child,
    dir: TempDir,
    address: SocketAddr,
}

impl StepProcess {
    /// One whose provisioner writes certificates by `template` and lets them live for `max` at most.
    pub fn start(program: &Path, template: &str, max: &str) -> Self {
        Self::start_with(program, template, max, SERVER_TEMPLATE)
    }

    /// The same; a second provisioner writes those of listeners by `servers`. They are dated back so far, and live so short,
    /// that they are due for renewal soon after they were issued.
    pub fn start_with(program: &Path, template: &str, max: &str, servers: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = TestCa::root("step root");
        let issuer = root.intermediate("step intermediate");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let root_file = write("root.crt", &root.root_pem());
        let issuer_file = write("issuer.crt", &certificate_to_pem(issuer.der()));
        let issuer_key = write("issuer.key", &issuer.key_pem());
        let keys: Value = serde_json::from_str(KEYS).unwrap();
        write("provisioner.jwk", &keys["p256"].to_string());
        write("provisioner.jwe", keys["jwe"].as_str().unwrap());
        write("password", "correct horse battery\n");
        let mut public = keys["p256"].clone();
        public.as_object_mut().unwrap().remove("d");
        public["kid"] = keys["thumb"].clone();
        public["use"] = "sig".into();
        public["alg"] = "ES256".into();
        let settings = |address: SocketAddr| {
            json!({
                "root": root_file,
                "crt": issuer_file,
                "key": issuer_key,
                "address": address.to_string(),
                "dnsNames": ["127.0.0.1", "localhost"],
                "logger": {"format": "text"},
                "db": {"type": "bbolt", "dataSource": dir.path().join("db")},
                "crl": {"enabled": true, "generateOnRevoke": true},
                "authority": {"backdate": "12m0s", "provisioners": [{
                    "type": "JWK",
                    "name": "mosaic-server",
                    "key": public,
                    "claims": {
                        "minTLSCertDuration": "5m0s",
                        "defaultTLSCertDuration": "6m0s",
                        "maxTLSCertDuration": "6m0s",
                    },
                    "options": {"x509": {"template": servers}},
                }, {
                    "type": "JWK",
                    "name": "mosaic-fed",
                    "key": public,
                    "claims": {
                        "minTLSCertDuration": "5m0s",
                        "defaultTLSCertDuration": max,
                        "maxTLSCertDuration": max,
                    },
                    "options": {"x509": {"template": template}},
                }]},
            })
        };
        let (config, log) = (dir.path().join("ca.json"), dir.path().join("log"));
        loop {
            // A port that was free a moment ago: the program cannot say which it took.
            let address = TcpListener::bind("127.0.0.1:0")
                .and_then(|socket| socket.local_addr())
                .unwrap();
            std::fs::write(&config, settings(address).to_string()).unwrap();
            let written = std::fs::File::create(&log).unwrap();
            let mut child = spawn(program, &config, written);
            if listens(&mut child, address, &log, 0) {
                return Self {
                    child,
                    dir,
                    address,
                };
            }
        }
    }

    /// Starts it again where it was, with what it knew.
    pub fn restart(&mut self, program: &Path) {
        let (log, begun) = (self.file("log"), self.log().len());
        for _ in 0..LOOKS {
            let written = std::fs::File::options().append(true).open(&log).unwrap();
            self.child = spawn(program, &self.file("ca.json"), written);
            if listens(&mut self.child, self.address, &log, begun) {
                return;
            }
        }
        panic!("{}", self.log());
    }

    /// Its origin.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// A file of its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The section `[ca]` for it; `key` is `provisioner.jwk` or `provisioner.jwe`.
    pub fn settings(&self, key: &str) -> String {
        let path = |name: &str| self.file(name).display().to_string();
        let mut text = format!(
            "[ca]\nbackend = \"step-ca\"\nurl = \"{}\"\nroot_file = \"{}\"\nkey_file = \"{}\"\n",
            self.url(),
            path("root.crt"),
            path(key)
        );
        if key.ends_with(".jwe") {
            text.push_str(&format!("password_file = \"{}\"\n", path("password")));
        }
        text
    }

    /// The section `[tls]` for it.
    pub fn server_settings(&self) -> String {
        let key = self.file("provisioner.jwk").display().to_string();
        format!("[tls]\nstep_ca_provisioner = \"mosaic-server\"\nstep_ca_key_file = \"{key}\"\n")
    }

    /// Ends it.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for StepProcess {
    fn drop(&mut self) {
        self.stop();
    }
}
