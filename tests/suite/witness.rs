//! An independent witness: OpenSSL enrolls, shakes hands and asks, as a library and as programs.
//!
//! Invariant: nothing of the product's own TLS or X.509 code is on the client's side here, so both
//! sides cannot be wrong in the same way. Where a program is not installed its test says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use certs::oid::{self, ClaimExtension};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::{MessageDigest, hash};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVersion};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyParam;
use openssl::x509::{X509, X509NameBuilder, X509PurposeId, X509ReqBuilder, X509StoreContext};
use policy::id::GrantId;
use reference_gateway::plan;
use serde_json::{Value, json};
use tests::World;
use uuid::Uuid;

const LIST: &str = "/api/federation/v1/list/tasks";

/// What a peer holds after enrolling.
#[derive(Clone)]
struct Enrolled {
    grant: GrantId,
    subject: Uuid,
    key: PKey<Private>,
    answer: Value,
}

impl Enrolled {
    fn pem(&self, name: &str) -> String {
        self.answer[name].as_str().unwrap().to_owned()
    }

    fn certificate(&self) -> X509 {
        X509::from_pem(self.pem("certPem").as_bytes()).unwrap()
    }
}

/// Runs what blocks beside the sidecar.
async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn connector(roots: &str) -> openssl::ssl::SslConnectorBuilder {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    let mut store = X509StoreBuilder::new().unwrap();
    for root in X509::stack_from_pem(roots.as_bytes()).unwrap() {
        store.add_cert(root).unwrap();
    }
    builder.set_cert_store(store.build());
    builder.set_alpn_protos(b"\x08http/1.1").unwrap();
    builder
}

fn connect(
    address: SocketAddr,
    connector: SslConnector,
) -> Result<SslStream<TcpStream>, Box<dyn std::error::Error + Send + Sync>> {
    let socket = TcpStream::connect(address)?;
    Ok(connector.connect(&address.ip().to_string(), socket)?)
}

/// One request, and everything the server says until it closes.
fn exchange(stream: &mut SslStream<TcpStream>, path: &str, body: &str) -> std::io::Result<String> {
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// What the server says before it is asked anything. In TLS 1.3 that is where a client certificate
/// is refused.
fn listen(stream: &mut SslStream<TcpStream>) -> Result<String, String> {
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .map(|_| text)
        .map_err(|error| error.to_string())
}

fn body_of(response: &str) -> Value {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    serde_json::from_str(body).unwrap()
}

fn certificate_request(key: &PKey<Private>) -> String {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, "home").unwrap();
    let mut request = X509ReqBuilder::new().unwrap();
    request.set_subject_name(&name.build()).unwrap();
    request.set_pubkey(key).unwrap();
    request.sign(key, MessageDigest::sha256()).unwrap();
    String::from_utf8(request.build().to_pem().unwrap()).unwrap()
}

/// Enrolls with OpenSSL as the client: the URL's hash is checked against the chain it sees.
async fn enroll(world: &World) -> Enrolled {
    world.let_in(plan::AMIRA).await;
    let grant = world
        .pending(plan::AMIRA, json!({"resources": ["tasks"]}))
        .await;
    let url = world.enrollment_url(grant.id).await;
    let (address, root) = (world.enrollment(), world.ca.root_pem());
    let (key, answer) = blocking(move || {
        let (url, pin) = url.split_once("#sha256=").unwrap();
        let path = &url[url.find("/api/").unwrap()..];
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let mut stream = connect(address, connector(&root).build()).unwrap();
        let chain = stream.ssl().peer_cert_chain().unwrap();
        let last = chain.get(chain.len() - 1).unwrap().to_der().unwrap();
        let digest = hash(MessageDigest::sha256(), &last).unwrap();
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, pin);
        let body = json!({ "csrPem": certificate_request(&key) }).to_string();
        let response = exchange(&mut stream, path, &body).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        (key, body_of(&response))
    })
    .await;
    Enrolled {
        grant: grant.id,
        subject: grant.subject.uuid(),
        key,
        answer,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_enrolls_and_the_certificate_is_what_it_must_be() {
    let world = World::start().await;
    let enrolled = enroll(&world).await;
    let grant = enrolled.grant.to_string();
    assert_eq!(enrolled.pem("grantId"), grant);
    assert_eq!(enrolled.pem("subjectUserId"), enrolled.subject.to_string());
    let certificate = enrolled.certificate();
    assert!(certificate.public_key().unwrap().public_eq(&enrolled.key));
    // Each extension: its object identifier, then an OCTET STRING with exactly the value.
    let der = certificate.to_der().unwrap();
    let claims = [
        (ClaimExtension::Grant, enrolled.grant.uuid()),
        (ClaimExtension::Subject, enrolled.subject),
    ];
    for (claim, value) in claims {
        let arcs = claim.der_content();
        let content = oid::encode(value);
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
        let extension = [
            &[0x06, length(arcs)],
            arcs,
            &[0x04, length(&content)],
            &content[..],
        ]
        .concat();
        let found = der
            .windows(extension.len())
            .filter(|part| *part == extension)
            .count();
        assert_eq!(found, 1, "{claim}");
    }
    // OpenSSL's own path validation, for a client, strictly.
    let mut store = X509StoreBuilder::new().unwrap();
    store
        .add_cert(X509::from_pem(world.ca.root_pem().as_bytes()).unwrap())
        .unwrap();
    let mut rules = X509VerifyParam::new().unwrap();
    rules.set_purpose(X509PurposeId::SSL_CLIENT).unwrap();
    rules
        .set_flags(openssl::x509::verify::X509VerifyFlags::X509_STRICT)
        .unwrap();
    store.set_param(&rules).unwrap();
    let store = store.build();
    let mut context = X509StoreContext::new().unwrap();
    let none = Stack::new().unwrap();
    let verified = context
        .init(&store, &certificate, &none, |context| {
            let good = context.verify_cert()?;
            Ok((good, context.error()))
        })
        .unwrap();
    assert!(verified.0, "{}", verified.1);
    world.stop().await;
}

fn mutual(roots: &str, enrolled: &Enrolled) -> openssl::ssl::SslConnectorBuilder {
    let mut builder = connector(roots);
    builder.set_private_key(&enrolled.key).unwrap();
    builder.set_certificate(&enrolled.certificate()).unwrap();
    builder
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_asks_as_a_library() {
    let world = World::start().await;
    let enrolled = enroll(&world).await;
    let address = world.federation();
    // What enrollment handed out is enough to verify the server.
    let roots = enrolled.pem("trustBundlePem");
    let holder = enrolled.clone();
    let answer = blocking(move || {
        let mut stream = connect(address, mutual(&roots, &holder).build()).unwrap();
        assert_eq!(stream.ssl().version_str(), "TLSv1.3");
        assert_eq!(
            stream.ssl().selected_alpn_protocol(),
            Some(&b"http/1.1"[..])
        );
        let response = exchange(&mut stream, LIST, "{}").unwrap();
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        body_of(&response)
    })
    .await;
    assert!(!answer["items"].as_array().unwrap().is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_without_a_certificate_is_refused() {
    let world = World::start().await;
    let (address, roots) = (world.federation(), world.ca.root_pem());
    let said = blocking(move || {
        connect(address, connector(&roots).build())
            .map_err(|error| error.to_string())
            .and_then(|mut stream| listen(&mut stream))
    })
    .await
    .unwrap_err();
    assert!(said.contains("certificate required"), "{said}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_with_tls_1_2_is_refused() {
    let world = World::start().await;
    let enrolled = enroll(&world).await;
    let (address, roots) = (world.federation(), world.ca.root_pem());
    let said = blocking(move || {
        let mut builder = mutual(&roots, &enrolled);
        builder
            .set_max_proto_version(Some(SslVersion::TLS1_2))
            .unwrap();
        connect(address, builder.build())
            .map(drop)
            .unwrap_err()
            .to_string()
    })
    .await;
    assert!(said.contains("protocol version"), "{said}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_is_refused_after_revocation() {
    let world = World::start().await;
    let enrolled = enroll(&world).await;
    world.revoke(enrolled.grant).await;
    let (address, roots) = (world.federation(), world.ca.root_pem());
    let said = blocking(move || {
        connect(address, mutual(&roots, &enrolled).build())
            .map_err(|error| error.to_string())
            .and_then(|mut stream| listen(&mut stream))
    })
    .await
    .unwrap_err();
    assert!(said.contains("certificate revoked"), "{said}");
    world.stop().await;
}

// Programs.

/// The files a program is given: root, certificate, key.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn write(enrolled: &Enrolled) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = enrolled.key.private_key_to_pem_pkcs8().unwrap();
        std::fs::write(dir.path().join("root.pem"), enrolled.pem("trustBundlePem")).unwrap();
        std::fs::write(dir.path().join("cert.pem"), enrolled.pem("certPem")).unwrap();
        std::fs::write(dir.path().join("key.pem"), key).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Whether a program is installed; says so when it is not.
fn is_installed(program: &str) -> bool {
    let found = Command::new(program)
        .arg(if program == "curl" {
            "--version"
        } else {
            "version"
        })
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        support::skipped("witness", &format!("{program} is not installed"));
    }
    found
}

/// Runs a program with this input; the input stays open until the output has ended.
fn run(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that is refused may be gone before it has read anything.
    let _written = stdin.write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    output
}

fn s_client(address: SocketAddr, root: &Path, more: &[&str]) -> Output {
    let address = address.to_string();
    let mut arguments = vec![
        "s_client",
        "-connect",
        &address,
        "-CAfile",
        root.to_str().unwrap(),
        "-verify_return_error",
        "-verify_ip",
        "127.0.0.1",
        "-alpn",
        "http/1.1",
        "-ign_eof",
    ];
    arguments.extend_from_slice(more);
    let request =
        "GET /api/federation/v1/capabilities HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n";
    run("openssl", &arguments, request)
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_s_client_asks() {
    if !is_installed("openssl") {
        return;
    }
    let world = World::start().await;
    let enrolled = enroll(&world).await;
    let files = Files::write(&enrolled);
    let address = world.federation();
    let (good, anonymous) = blocking(move || {
        let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
        let root = files.path("root.pem");
        let mutual = [
            "-cert",
            cert.to_str().unwrap(),
            "-key",
            key.to_str().unwrap(),
        ];
        (
            s_client(address, &root, &mutual),
            s_client(address, &root, &[]),
        )
    })
    .await;
    let text = String::from_utf8_lossy(&good.stdout).into_owned();
    for expected in [
        "Verify return code: 0 (ok)",
        "TLSv1.3",
        "HTTP/1.1 200 ",
        "\"supported_verbs\"",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(
        !text.contains("Post-Handshake New Session Ticket"),
        "{text}"
    );
    let text = String::from_utf8_lossy(&anonymous.stdout).into_owned();
    assert!(!text.contains("HTTP/1.1 "), "{text}");
    let said = String::from_utf8_lossy(&anonymous.stderr).into_owned();
    assert!(said.contains("certificate required"), "{said}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_asks() {
    if !is_installed("curl") {
        return;
    }
    let world = World::start().await;
    let enrolled = enroll(&world).await;
    let files = Files::write(&enrolled);
    let address = world.federation();
    let ask = move |protocol: &str, with_certificate: bool| {
        let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
        let root = files.path("root.pem");
        let url = format!("https://{address}{LIST}");
        let mut arguments = vec![
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--noproxy",
            "*",
            protocol,
            "--cacert",
            root.to_str().unwrap(),
            "--header",
            "content-type: application/json",
            "--data",
            "{\"params\":{\"limit\":1}}",
            "--write-out",
            "\n%{http_code} %{http_version}",
            &url,
        ];
        if with_certificate {
            let mutual = [
                "--cert",
                cert.to_str().unwrap(),
                "--key",
                key.to_str().unwrap(),
            ];
            arguments.extend_from_slice(&mutual);
        }
        run("curl", &arguments, "")
    };
    let (answers, anonymous) = blocking(move || {
        let answers = [("--http1.1", "1.1"), ("--http2", "2")]
            .map(|(protocol, version)| (ask(protocol, true), version));
        (answers, ask("--http1.1", false))
    })
    .await;
    for (output, version) in answers {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, codes) = text.rsplit_once('\n').unwrap();
        assert_eq!(codes, format!("200 {version}"));
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["items"].as_array().unwrap().len(), 1);
    }
    assert!(!anonymous.status.success());
    let text = String::from_utf8_lossy(&anonymous.stdout).into_owned();
    assert!(
        text.ends_with("000 0") || text.ends_with("000 1.1"),
        "{text}"
    );
    world.stop().await;
}
