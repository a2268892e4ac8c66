//! What is asked of step-ca, and what of its answers is taken. The real one is asked in `tests/suite/step_ca.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::future::Future;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use serde_json::{Value, json};

use super::*;
use crate::clock::{Clock as _, SystemClock};
use crate::csr::VerifiedCsr;
use crate::key::PrivateKey;
use crate::testing::{Mint, Minted, TestCa};
use crate::trust::certificate_to_pem;

const GRANT: Uuid = Uuid::from_u128(11);
const SUBJECT: Uuid = Uuid::from_u128(22);

/// Answers from a list, and keeps what was asked.
#[derive(Default)]
struct Scripted {
    answers: Mutex<Vec<Result<StepAnswer, StepUnreachable>>>,
    asked: Mutex<Vec<(String, Option<Value>)>>,
}

#[async_trait]
impl StepTransport for Scripted {
    async fn send(&self, request: StepRequest<'_>) -> Result<StepAnswer, StepUnreachable> {
        let body = request
            .body
            .map(|body| serde_json::from_slice(&body).unwrap());
        self.asked
            .lock()
            .unwrap()
            .push((request.path.to_owned(), body));
        self.answers.lock().unwrap().remove(0)
    }
}

/// Runs a future that never waits.
fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn answer(status: u16, body: &Value) -> Result<StepAnswer, StepUnreachable> {
    Ok(StepAnswer {
        status,
        date: None,
        body: body.to_string().into_bytes(),
        chain: Vec::new(),
    })
}

struct Case {
    root: TestCa,
    issuer: TestCa,
    scripted: Arc<Scripted>,
    step: StepCa,
}

fn case(answers: Vec<Result<StepAnswer, StepUnreachable>>) -> Case {
    let root = TestCa::root("step root");
    let issuer = root.intermediate("step intermediate");
    let scripted = Arc::new(Scripted {
        answers: Mutex::new(answers),
        ..Scripted::default()
    });
    let keys: Value =
        serde_json::from_str(include_str!("../../../testdata/provisioner-keys.json")).unwrap();
    let settings = StepSettings {
        origin: "https://ca.example:9000".to_owned(),
        provisioner: "mosaic-fed".to_owned(),
        key: ProvisionerKey::parse(&keys["p256"].to_string(), None).unwrap(),
        root: root.root_der().clone(),
    };
    let step = StepCa::new(settings, Arc::clone(&scripted) as Arc<dyn StepTransport>).unwrap();
    Case {
        root,
        issuer,
        scripted,
        step,
    }
}

impl Case {
    /// What the CA would answer with this certificate.
    fn signs(&self, minted: &Minted) {
        let chain = [minted.leaf(), self.issuer.der(), self.root.root_der()]
            .map(|der| certificate_to_pem(der));
        let signed = json!({"crt": chain[0], "ca": chain[1], "certChain": chain});
        self.scripted
            .answers
            .lock()
            .unwrap()
            .push(answer(201, &signed));
    }

    fn asked(&self) -> Vec<(String, Option<Value>)> {
        self.scripted.asked.lock().unwrap().clone()
    }
}

fn asked_for(key: &PrivateKey) -> ClientIssue {
    ClientIssue {
        id: Uuid::from_u128(7),
        csr: VerifiedCsr::parse(&key.csr_pem("home").unwrap()).unwrap(),
        grant: GRANT,
        subject: SUBJECT,
        lifetime: Duration::from_secs(3600),
        not_after_cap: None,
        now: SystemClock.unix_seconds(),
    }
}

fn claims(call: &Value) -> Value {
    use base64::Engine as _;
    let payload = call["ott"].as_str().unwrap().split('.').nth(1).unwrap();
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    serde_json::from_slice(&engine.decode(payload).unwrap()).unwrap()
}

#[test]
fn what_was_asked_for_is_taken_with_its_intermediate() {
    let case = case(Vec::new());
    let minted = Mint::client(GRANT, SUBJECT).sign_with(&case.issuer);
    case.signs(&minted);
    let asked = asked_for(minted.private_key());
    let issued = run(case.step.issue_client(asked.clone())).unwrap();
    assert_eq!(issued.leaf(), minted.leaf());
    assert_eq!(issued.root(), case.root.root_der());
    let calls = case.asked();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].0, "/1.0/sign");
    let call = calls[0].1.as_ref().unwrap();
    assert!(
        call["csr"]
            .as_str()
            .unwrap()
            .starts_with("-----BEGIN CERTIFICATE REQUEST")
    );
    assert_eq!(
        call["notAfter"].as_str().unwrap(),
        rfc3339(asked.now + 3600).unwrap()
    );
    let claims = claims(call);
    assert_eq!(claims["sub"], "home");
    assert_eq!(claims["aud"], "https://ca.example:9000/1.0/sign");
    assert_eq!(claims["jti"], asked.id.to_string());
    assert_eq!(claims["step"]["sha"], hex::encode(asked.csr.sha256()));
}

/// A template that takes the ids from somewhere else, or from nowhere, is found out, and its certificate is taken back.
#[test]
fn what_was_not_asked_for_is_revoked_and_refused() {
    for (minted, what) in [
        (Mint::client(SUBJECT, SUBJECT), "grant id"),
        (Mint::client(GRANT, GRANT), "subject user id"),
        (
            Mint::client(GRANT, SUBJECT).without_claim(crate::oid::ClaimExtension::Grant),
            "identity",
        ),
    ] {
        let case = case(Vec::new());
        let minted = minted.sign_with(&case.issuer);
        case.signs(&minted);
        let ok = answer(200, &json!({"status": "ok"}));
        case.scripted.answers.lock().unwrap().push(ok);
        let error = run(case.step.issue_client(asked_for(minted.private_key()))).unwrap_err();
        assert!(error.to_string().contains(what), "{what}: {error}");
        let calls = case.asked();
        assert_eq!(calls[1].0, "/1.0/revoke", "{what}");
        let call = calls[1].1.as_ref().unwrap();
        assert_eq!(call["serial"], minted.serial().to_decimal());
        assert_eq!(claims(call)["sub"], minted.serial().to_decimal());
    }
}

#[test]
fn a_chain_to_another_root_is_refused() {
    let case = case(Vec::new());
    let stranger = TestCa::root("stranger");
    let minted = Mint::client(GRANT, SUBJECT).sign_with(&stranger);
    case.signs(&minted);
    let ok = answer(200, &json!({"status": "ok"}));
    case.scripted.answers.lock().unwrap().push(ok);
    let error = run(case.step.issue_client(asked_for(minted.private_key()))).unwrap_err();
    assert!(matches!(error, CaError::Chain(_)), "{error}");
}

#[test]
fn a_refusal_says_what_the_ca_said_without_control_characters() {
    let told = json!({"status": 401, "message": "token\r\nused \u{1b}[2J already"});
    let case = case(vec![answer(401, &told)]);
    let key = PrivateKey::generate_p256().unwrap();
    let error = run(case.step.issue_client(asked_for(&key))).unwrap_err();
    assert_eq!(
        error,
        CaError::Refused {
            status: 401,
            reason: "tokenused [2J already".to_owned()
        }
    );
}

#[test]
fn an_unreachable_ca_and_an_unreadable_answer_are_told_apart() {
    let key = PrivateKey::generate_p256().unwrap();
    let down = case(vec![Err(StepUnreachable {
        why: "connection refused".to_owned(),
    })]);
    let error = run(down.step.issue_client(asked_for(&key))).unwrap_err();
    assert!(error.to_string().contains("connection refused"), "{error}");
    for body in [json!({}), json!({"crt": "x"}), json!([])] {
        let odd = case(vec![answer(201, &body)]);
        let error = run(odd.step.issue_client(asked_for(&key))).unwrap_err();
        assert!(matches!(error, CaError::Unreadable { .. }), "{error}");
    }
}

#[test]
fn a_certificate_does_not_outlive_its_grant_and_is_not_asked_for_when_too_short() {
    let ours = case(Vec::new());
    let minted = Mint::client(GRANT, SUBJECT).sign_with(&ours.issuer);
    ours.signs(&minted);
    let ok = answer(200, &json!({"status": "ok"}));
    ours.scripted.answers.lock().unwrap().push(ok);
    let mut asked = asked_for(minted.private_key());
    asked.not_after_cap = Some(asked.now + 600);
    // The CA did not keep to it.
    let error = run(ours.step.issue_client(asked.clone())).unwrap_err();
    assert_eq!(
        error,
        CaError::Mismatch {
            what: "end of validity"
        }
    );
    let sent = ours.asked()[0].1.as_ref().unwrap()["notAfter"].clone();
    assert_eq!(sent, rfc3339(asked.now + 600).unwrap());
    let silent = case(Vec::new());
    asked.not_after_cap = Some(asked.now + 299);
    assert_eq!(
        run(silent.step.issue_client(asked)).unwrap_err(),
        CaError::LifetimeTooShort { available: 299 }
    );
    assert!(silent.asked().is_empty());
}

#[test]
fn a_ca_without_a_crl_is_known_as_such() {
    for (status, body, has_crl) in [
        (404, json!({}), false),
        (501, json!({"message": "CRL is disabled"}), false),
        (200, json!("der"), true),
    ] {
        let mut health = answer(200, &json!({"status": "ok"}));
        if let Ok(answer) = &mut health {
            answer.date = Some(1_800_000_090);
        }
        let case = case(vec![health, answer(status, &body)]);
        assert_eq!(
            run(case.step.health(1_800_000_000)).unwrap(),
            StepHealth {
                clock_ahead: Some(90),
                has_crl
            }
        );
    }
}

#[test]
fn plain_http_and_a_leaf_as_root_are_refused() {
    let keys: Value =
        serde_json::from_str(include_str!("../../../testdata/provisioner-keys.json")).unwrap();
    let root = TestCa::root("step root");
    let settings = |origin: &str, root: CertificateDer<'static>| StepSettings {
        origin: origin.to_owned(),
        provisioner: "mosaic-fed".to_owned(),
        key: ProvisionerKey::parse(&keys["p256"].to_string(), None).unwrap(),
        root,
    };
    let transport = || Arc::new(Scripted::default()) as Arc<dyn StepTransport>;
    let plain = settings("http://ca.example:9000", root.root_der().clone());
    assert_eq!(
        StepCa::new(plain, transport()).unwrap_err(),
        CaError::NotHttps
    );
    let leaf = Mint::client(GRANT, SUBJECT).sign_with(&root);
    let wrong = settings("https://ca.example:9000", leaf.leaf().clone());
    assert!(matches!(
        StepCa::new(wrong, transport()).unwrap_err(),
        CaError::Root(_)
    ));
    let intermediate = root.intermediate("not a root");
    let wrong = settings("https://ca.example:9000", intermediate.der().clone());
    assert!(matches!(
        StepCa::new(wrong, transport()).unwrap_err(),
        CaError::Root(_)
    ));
}

#[test]
fn serial_numbers_in_decimal() {
    for (octets, decimal) in [
        (&[1_u8][..], "1"),
        (&[10], "10"),
        (&[1, 0], "256"),
        (&[0, 0xff, 0xff, 0xff, 0xff], "4294967295"),
        (
            &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            "18446744073709551615",
        ),
    ] {
        assert_eq!(Serial::decode(octets).unwrap().to_decimal(), decimal);
    }
}
