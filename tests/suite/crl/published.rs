//! Our own list and our OCSP responder, as OpenSSL and curl see them.

use std::path::PathBuf;
use std::process::Command;

use certs::testing::Minted;
use certs::trust::certificate_to_pem;
use openssl::x509::{CrlStatus, ReasonCode, X509, X509Crl};
use proxy::admin::{CheckOutcome, ForgetUser, RevokeCertificate};
use reference_gateway::plan;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tests::command::command;
use tests::world::operator;
use tests::{Holder, World};

use super::support::acts::member;
use super::support::enroll::{redeem, request, ticket};
use super::{comes, revocation};

/// curl against the enrollment listener, with the world's root.
struct Curl<'a> {
    world: &'a World,
    root: PathBuf,
}

/// Status, head and body of an answer.
struct Got {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

impl<'a> Curl<'a> {
    fn new(world: &'a World) -> Self {
        let root = world.dir.path().join("curl-root.pem");
        std::fs::write(&root, world.ca.root_pem()).unwrap();
        Self { world, root }
    }

    fn ask(&self, path: &str, arguments: &[&str]) -> Got {
        let head = self.world.dir.path().join("head");
        let done = Command::new("curl")
            .args(["-sS", "--path-as-is", "--cacert"])
            .arg(&self.root)
            .arg("-D")
            .arg(&head)
            .args(arguments)
            .arg(format!("https://{}{path}", self.world.enrollment()))
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        let head = std::fs::read_to_string(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Got {
            status,
            head,
            body: done.stdout,
        }
    }

    fn list(&self) -> X509Crl {
        let got = self.ask("/api/federation/crl", &[]);
        assert_eq!(got.status, 200, "{}", got.head);
        assert_eq!(got.header("content-type"), Some("application/pkix-crl"));
        let list = X509Crl::from_der(&got.body).unwrap();
        let root = X509::from_der(self.world.root()).unwrap();
        assert!(list.verify(&root.public_key().unwrap()).unwrap());
        list
    }
}

/// The code of the reason (RFC 5280, section 5.3.1) that a list gives for a certificate; `None` when it does not name it.
fn reason(list: &X509Crl, minted: &Minted) -> Option<Option<i64>> {
    let certificate = X509::from_der(minted.leaf()).unwrap();
    match list.get_by_cert(&certificate) {
        CrlStatus::NotRevoked => None,
        CrlStatus::Revoked(entry) | CrlStatus::RemoveFromCrl(entry) => {
            let code = entry.extension::<ReasonCode>().unwrap();
            Some(code.map(|(_, code)| code.get_i64().unwrap()))
        }
    }
}

async fn number(world: &World) -> u64 {
    revocation(world).await["published"]["number"]
        .as_u64()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_revocation_is_on_the_list_when_the_act_returns() {
    let world = World::start().await;
    let curl = Curl::new(&world);
    assert!(curl.list().get_revoked().is_none(), "it begins empty");
    let keep = member(&world, "stays").await;
    let by_grant = member(&world, "by-grant").await;
    let by_certificate = member(&world, "by-certificate").await;
    let by_certificate_for = member(&world, "by-certificate-for").await;
    let by_peer = member(&world, "by-peer").await;
    let replaced = member(&world, "replaced").await;
    let mut last = number(&world).await;
    let mut grew = async |what: &str| {
        let next = number(&world).await;
        assert!(next > last, "{what}: number {next} after {last}");
        last = next;
    };
    let control = world.control();

    world.revoke(by_grant.grant).await;
    assert_eq!(reason(&curl.list(), &by_grant.minted), Some(Some(9)));
    grew("grant revoke").await;

    let serial = by_certificate.minted.serial();
    control
        .revoke_certificate(&operator(), serial.as_str(), RevokeCertificate::default())
        .await
        .unwrap();
    assert_eq!(reason(&curl.list(), &by_certificate.minted), Some(None));
    grew("cert revoke").await;
    let socket = &world.config.admin.socket;
    let serial = by_certificate_for.minted.serial();
    let revoke = async |why: &str| {
        let arguments = ["cert", "revoke", serial.as_str(), "--reason", why];
        command(socket, &arguments).await
    };
    // Of an authority's key, a hold that could not be ended, and no reason at all.
    for why in ["ca_compromise", "certificate_hold", "whim"] {
        let refused = revoke(why).await;
        assert_eq!(refused.exit, 2, "{refused:?}");
    }
    assert_eq!(reason(&curl.list(), &by_certificate_for.minted), None);
    let done = revoke("key_compromise").await;
    assert_eq!(done.exit, 0, "{done:?}");
    assert_eq!(
        reason(&curl.list(), &by_certificate_for.minted),
        Some(Some(1))
    );
    grew("cert revoke --reason").await;

    world.remove("by-peer").await;
    assert_eq!(reason(&curl.list(), &by_peer.minted), Some(Some(5)));
    // Again, as after one that gave up waiting.
    world.remove("by-peer").await;
    grew("peer remove").await;

    world.replace_token(replaced.grant).await;
    assert_eq!(reason(&curl.list(), &replaced.minted), Some(Some(4)));
    grew("grant token --replace").await;

    assert_eq!(reason(&curl.list(), &keep.minted), None);
    let request = ForgetUser { reason: None };
    control
        .forget_user(&operator(), plan::AMIRA, request)
        .await
        .unwrap();
    assert_eq!(reason(&curl.list(), &keep.minted), Some(Some(9)));
    grew("user forget").await;

    // What OpenSSL makes of a certificate with the list beside it.
    let dir = world.dir.path();
    std::fs::write(dir.join("list.pem"), curl.list().to_pem().unwrap()).unwrap();
    std::fs::write(dir.join("leaf.pem"), certificate_to_pem(keep.minted.leaf())).unwrap();
    let said = Command::new("openssl")
        .args(["verify", "-crl_check", "-CAfile"])
        .arg(&curl.root)
        .arg("-CRLfile")
        .arg(dir.join("list.pem"))
        .arg(dir.join("leaf.pem"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("certificate revoked"), "{said}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_says_what_it_is_and_is_not_sent_twice() {
    let world = World::start().await;
    let curl = Curl::new(&world);
    let first = curl.ask("/api/federation/crl", &[]);
    for name in ["last-modified", "expires"] {
        assert!(
            first.header(name).unwrap().ends_with("GMT"),
            "{}",
            first.head
        );
    }
    let control = first.header("cache-control").unwrap();
    assert!(
        control.contains("public") && control.contains("max-age=60"),
        "{control}"
    );
    let tag = first.header("etag").unwrap();
    let known = format!("If-None-Match: {tag}");
    let again = curl.ask("/api/federation/crl", &["-H", &known]);
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.header("etag"), Some(tag));
    let late = curl.ask(
        "/api/federation/crl",
        &["-H", "If-Modified-Since: Fri, 01 Jan 2027 00:00:00 GMT"],
    );
    let early = curl.ask(
        "/api/federation/crl",
        &["-H", "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT"],
    );
    assert_eq!(early.status, 200);
    assert!(late.status == 304 || late.status == 200);
    assert_eq!(curl.ask("/api/federation/crl", &["-I"]).status, 200);
    let posted = curl.ask("/api/federation/crl", &["-X", "POST"]);
    assert_eq!(
        (posted.status, posted.header("allow")),
        (405, Some("GET, HEAD"))
    );

    let holder = member(&world, "home").await;
    world.revoke(holder.grant).await;
    let after = curl.ask("/api/federation/crl", &["-H", &known]);
    assert_eq!(after.status, 200, "another list has another tag");
    assert_ne!(after.header("etag"), Some(tag));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_go_on_after_a_restart_and_every_six_hours() {
    let world = World::builder().manual_clock().start().await;
    let holder = member(&world, "home").await;
    let before = number(&world).await;
    let world = world.restart().await;
    assert_eq!(number(&world).await, before, "nothing has changed");
    world.pass(std::time::Duration::from_secs(11)).await;
    world.revoke(holder.grant).await;
    let revoked = number(&world).await;
    assert_eq!(revoked, before + 1);
    world.pass(std::time::Duration::from_secs(6 * 3_600)).await;
    let next = comes("the next list", async || {
        let next = number(&world).await;
        (next > revoked).then_some(next)
    })
    .await;
    assert_eq!(next, revoked + 1);
    let view = revocation(&world).await;
    assert_eq!(view["published"]["entries"], 1);
    let curl = Curl::new(&world);
    assert!(reason(&curl.list(), &holder.minted).is_some());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_went_back_gets_a_list_of_its_own() {
    let world = World::builder().manual_clock().start().await;
    let holder = member(&world, "home").await;
    world.revoke(holder.grant).await;
    let before = number(&world).await;
    let now = world.control().now().0;
    world.clock().set_unix_millis(now - 600_000);
    let world = world.restart().await;
    assert_eq!(number(&world).await, before + 1);
    let curl = Curl::new(&world);
    assert!(reason(&curl.list(), &holder.minted).is_some());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolled_certificate_says_where_and_doctor_names_those_that_do_not() {
    let world = World::start().await;
    let (_, ticket) = ticket(&world).await;
    let (_, csr) = request();
    let response = redeem(world.enrollment(), ticket.pin, &ticket.token, &csr)
        .await
        .unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    let pem = response.json()["certPem"].as_str().unwrap().to_owned();
    let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let leaf = X509::from_der(&leaf).unwrap();
    let points = leaf.crl_distribution_points().unwrap();
    let url = points[0].distpoint().unwrap().fullname().unwrap()[0]
        .uri()
        .unwrap()
        .to_owned();
    let responder = leaf.ocsp_responders().unwrap()[0].to_string();
    let (_, path) = url.split_once(&world.enrollment().to_string()).unwrap();
    assert_eq!(path, "/api/federation/crl");
    assert!(responder.ends_with("/api/federation/ocsp"), "{responder}");
    let check = async |name: &str| {
        let checks = world.control().checks().await.unwrap();
        checks.into_iter().find(|one| one.name == name)
    };
    assert!(check("distribution points").await.is_none());
    let list = check("revocation list").await.unwrap();
    assert_eq!(list.outcome, CheckOutcome::Ok, "{}", list.found);
    // One from before.
    member(&world, "older").await;
    let silent = check("distribution points").await.unwrap();
    assert_eq!(silent.outcome, CheckOutcome::Warn);
    assert!(
        silent.found.starts_with("1 client certificate"),
        "{}",
        silent.found
    );
    world.stop().await;
}

/// OpenSSL's client, its request and answer carried by curl.
struct Ocsp<'a> {
    curl: Curl<'a>,
}

impl Ocsp<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.curl.world.dir.path().join(name)
    }

    fn run(command: &mut Command) -> String {
        let done = command.output().unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
    }

    fn request(&self, leaf: &[u8], nonce: &str) -> Vec<u8> {
        std::fs::write(self.path("leaf"), certificate_to_pem(leaf)).unwrap();
        Self::run(
            Command::new("openssl")
                .args(["ocsp", nonce, "-issuer"])
                .arg(&self.curl.root)
                .arg("-cert")
                .arg(self.path("leaf"))
                .arg("-reqout")
                .arg(self.path("request")),
        );
        std::fs::read(self.path("request")).unwrap()
    }

    fn judge(&self, answer: &[u8]) -> String {
        std::fs::write(self.path("answer"), answer).unwrap();
        Self::run(
            Command::new("openssl")
                .args(["ocsp", "-no_nonce", "-issuer"])
                .arg(&self.curl.root)
                .arg("-CAfile")
                .arg(&self.curl.root)
                .arg("-cert")
                .arg(self.path("leaf"))
                .arg("-reqin")
                .arg(self.path("request"))
                .arg("-respin")
                .arg(self.path("answer")),
        )
    }

    fn post(&self) -> Got {
        let data = format!("@{}", self.path("request").display());
        let arguments = [
            "-H",
            "content-type: application/ocsp-request",
            "--data-binary",
            &data,
        ];
        self.curl.ask("/api/federation/ocsp", &arguments)
    }

    fn get(&self, request: &[u8], more: &[&str]) -> Got {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(request);
        let text = text.replace('+', "%2B").replace('=', "%3D");
        self.curl.ask(&format!("/api/federation/ocsp/{text}"), more)
    }

    fn status(&self, leaf: &[u8]) -> String {
        self.request(leaf, "-nonce");
        let got = self.post();
        assert_eq!(got.status, 200, "{}", got.head);
        assert_eq!(
            got.header("content-type"),
            Some("application/ocsp-response")
        );
        assert_eq!(got.header("cache-control"), Some("no-store"));
        let said = self.judge(&got.body);
        assert!(said.contains("Response verify OK"), "{said}");
        let (_, status) = said.split_once("leaf: ").unwrap();
        status.lines().next().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_responder_answers_for_what_was_issued_and_for_nothing_else() {
    let world = World::start().await;
    let ocsp = Ocsp {
        curl: Curl::new(&world),
    };
    let holder: Holder = member(&world, "home").await;
    let never = world
        .mint(holder.grant.uuid(), holder.subject)
        .sign_with(&world.ca);
    assert_eq!(ocsp.status(holder.minted.leaf()), "good");
    assert_eq!(ocsp.status(never.leaf()), "unknown");
    // The certificate of the listener itself, which is in no row.
    let pem = world.dir.path().join("served.pem");
    let shown = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "openssl s_client -connect {} -showcerts </dev/null 2>/dev/null | openssl x509 > {}",
            world.enrollment(),
            pem.display()
        ))
        .status()
        .unwrap();
    assert!(shown.success());
    let served = CertificateDer::from_pem_slice(&std::fs::read(&pem).unwrap()).unwrap();
    assert_eq!(ocsp.status(&served), "good");

    // By GET the answer may be kept, and is the same until something changes.
    let request = ocsp.request(holder.minted.leaf(), "-no_nonce");
    // Each replica has signed its own.
    let mut signed = Vec::new();
    let mut tags = Vec::new();
    for _ in world.replicas() {
        let first = ocsp.get(&request, &[]);
        assert!(ocsp.judge(&first.body).contains("leaf: good"));
        let control = first.header("cache-control").unwrap();
        assert!(control.contains("max-age=300"), "{control}");
        tags.push(first.header("etag").unwrap().to_owned());
        signed.push(first.body);
    }
    for _ in world.replicas() {
        let again = ocsp.get(&request, &[]);
        assert!(signed.contains(&again.body), "signed once");
    }
    let known = format!("If-None-Match: {}", tags.join(", "));
    assert_eq!(ocsp.get(&request, &["-H", &known]).status, 304);

    let serial = holder.minted.serial();
    world
        .control()
        .revoke_certificate(&operator(), serial.as_str(), RevokeCertificate::default())
        .await
        .unwrap();
    let after = ocsp.get(&request, &["-H", &known]);
    assert!(ocsp.judge(&after.body).contains("leaf: revoked"));
    assert_eq!(ocsp.status(holder.minted.leaf()), "revoked");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_gets_the_status_for_that() {
    let (world, other) = (World::start().await, World::start().await);
    let (ocsp, foreign) = (
        Ocsp {
            curl: Curl::new(&world),
        },
        Ocsp {
            curl: Curl::new(&other),
        },
    );
    let text = |got: &Got| {
        assert_eq!(got.status, 200, "{}", got.head);
        std::fs::write(ocsp.path("refusal"), &got.body).unwrap();
        Ocsp::run(
            Command::new("openssl")
                .args(["ocsp", "-noverify", "-resp_text", "-respin"])
                .arg(ocsp.path("refusal")),
        )
    };
    std::fs::write(ocsp.path("request"), "not a request").unwrap();
    assert!(text(&ocsp.post()).contains("malformedrequest (1)"));
    std::fs::write(ocsp.path("request"), vec![0x30; 64 * 1024]).unwrap();
    assert!(text(&ocsp.post()).contains("malformedrequest (1)"));
    assert!(text(&ocsp.get(b"neither", &[])).contains("malformedrequest (1)"));
    let got = ocsp.curl.ask("/api/federation/ocsp/%2a%2a%2a", &[]);
    assert!(text(&got).contains("malformedrequest (1)"));
    // Of another authority.
    let holder = member(&other, "home").await;
    let request = foreign.request(holder.minted.leaf(), "-no_nonce");
    std::fs::write(ocsp.path("request"), &request).unwrap();
    assert!(text(&ocsp.post()).contains("unauthorized (6)"));
    let plain = ocsp
        .curl
        .ask("/api/federation/ocsp", &["--data-binary", "x"]);
    assert_eq!(plain.status, 415);
    let got = ocsp.curl.ask("/api/federation/ocsp", &[]);
    assert_eq!((got.status, got.header("allow")), (405, Some("POST")));
    other.stop().await;
    world.stop().await;
}
