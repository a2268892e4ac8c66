//! The settings as an operator meets them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::Path;

use super::*;

const FILE: &str = "/etc/fed/federation.toml";

/// The least that a serving process needs.
const LEAST: &str = r#"
[federation]
public_url = "https://work.example:8443"
[enrollment]
public_url = "https://work.example:8444"
"#;

fn read(text: &str) -> Result<Config, Vec<ConfigProblem>> {
    parse(Some((Path::new(FILE), text)), &[], &[])
}

fn read_with(
    text: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Config, Vec<String>> {
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let flags: Vec<_> = flags
        .iter()
        .map(|(key, value)| Override {
            flag: format!("--set {key}"),
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        })
        .collect();
    parse(Some((Path::new(FILE), text)), &environment, &flags)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn the_revocation_canary_is_off_unless_told_and_never_too_often() {
    assert_eq!(read(LEAST).unwrap().revocation_canary, None);
    let with = |value: &str| read_with(LEAST, &[], &[("revocation_canary.every_s", value)]);
    let every = with("300").unwrap().revocation_canary;
    assert_eq!(every, Some(Duration::from_secs(300)));
    let problems = with("59").unwrap_err();
    assert!(
        problems.iter().any(|problem| problem.contains("too often")),
        "{problems:?}"
    );
    let nobody = [
        ("revocation_canary.every_s", "300"),
        ("roles.serve", "false"),
    ];
    let problems = read_with(LEAST, &[], &nobody).unwrap_err();
    assert!(
        problems
            .iter()
            .any(|problem| problem.contains("roles.serve")),
        "{problems:?}"
    );
}

#[test]
fn nothing_is_sent_without_a_collector_and_no_key_is_without_effect() {
    assert_eq!(read(LEAST).unwrap().otlp, None);
    let with = |pairs: &[(&str, &str)]| read_with(LEAST, &[], pairs);
    let plain = with(&[("otlp.endpoint", "http://otel:4318/")]).unwrap();
    let otlp = plain.otlp.unwrap();
    assert_eq!(otlp.endpoint, "http://otel:4318");
    let traces = otlp.traces.unwrap();
    assert_eq!((traces.sample_percent, traces.join_peers), (100, false));
    assert_eq!(otlp.metrics, Some(Duration::from_secs(60)));

    const HTTP: (&str, &str) = ("otlp.endpoint", "http://otel:4318");
    const HTTPS: (&str, &str) = ("otlp.endpoint", "https://otel");
    const SECRET: (&str, &str) = ("otlp.authorization_file", "token");
    const ROOT: (&str, &str) = ("otlp.root_file", "root.pem");
    const NO_TRACES: (&str, &str) = ("otlp.traces", "false");
    const NO_METRICS: (&str, &str) = ("otlp.metrics", "false");
    for (pairs, said) in [
        (
            &[("otlp.join_peers", "true")][..],
            "no effect without otlp.endpoint",
        ),
        (&[("otlp.endpoint", "grpc://otel:4317")], "another scheme"),
        (
            &[("otlp.endpoint", "http://otel:4318/v1")],
            "paths are fixed",
        ),
        (&[HTTPS], "required with an https collector"),
        (&[HTTP, ROOT], "without TLS"),
        (&[HTTP, SECRET], "in the clear"),
        (&[HTTP, NO_TRACES, NO_METRICS], "both are off"),
        (
            &[HTTP, NO_TRACES, ("otlp.join_peers", "true")],
            "no effect without otlp.traces",
        ),
        (
            &[HTTP, NO_METRICS, ("otlp.metrics_every_s", "5")],
            "no effect without otlp.metrics",
        ),
        (&[HTTP, ("otlp.sample_percent", "101")], "100"),
    ] {
        let problems = with(pairs).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.contains(said)),
            "{pairs:?}: {problems:?}"
        );
    }
    with(&[HTTPS, ROOT, SECRET]).unwrap();
    with(&[("otlp.endpoint", "http://[::1]:4318"), SECRET]).unwrap();
}

#[test]
fn defaults_are_those_of_the_specification() {
    let config = read(LEAST).unwrap();
    assert_eq!(config.federation.listen, "0.0.0.0:8443".parse().unwrap());
    assert_eq!(config.enrollment.listen, "0.0.0.0:8444".parse().unwrap());
    assert_eq!(config.ops.listen, "127.0.0.1:9464".parse().unwrap());
    assert_eq!(
        config.data_dir,
        Path::new("/etc/fed/./mosaic-federation-data")
    );
    assert_eq!(config.admin.socket, config.data_dir.join("admin.sock"));
    assert_eq!(config.session.socket, config.data_dir.join("session.sock"));
    assert_eq!(config.session.listen, None);
    assert_eq!(config.gateway.url, "http://127.0.0.1:14242");
    assert_eq!(config.gateway.preset, Preset::Mosaic);
    assert_eq!(config.gateway.auth, GatewayAuth::SubjectToken);
    assert_eq!(
        config.seal,
        SealSource::Generated(config.data_dir.join("sealing.key"))
    );
    assert_eq!(config.limits.facts_cache, Duration::from_secs(2));
    assert_eq!(config.limits.enrollment_token_ttl, Duration::from_secs(900));
    assert_eq!(
        config.limits.client_certificate,
        Duration::from_secs(90 * 86_400)
    );
    assert_eq!(config.limits.renewal_overlap, Duration::from_secs(3_600));
    assert_eq!(config.timeouts.total, Duration::from_secs(30));
    assert_eq!(config.tls.server_names, ["work.example"]);
}

#[test]
fn the_life_of_certificates_is_given_once() {
    let lifetime = |lines: &str| {
        let text = format!("{LEAST}[limits]\n{lines}");
        read(&text).map(|config| config.limits.client_certificate)
    };
    assert_eq!(
        lifetime("client_certificate_s = 300").unwrap(),
        Duration::from_secs(300)
    );
    let twice = lifetime("client_certificate_s = 300\nclient_certificate_days = 90");
    let problems = twice.unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].key, "limits.client_certificate_s");
    assert!(lifetime("client_certificate_s = 299").is_err());
}

#[test]
fn a_server_certificate_from_files_is_named_whole() {
    let tls = |lines: &str| read(&format!("{LEAST}{lines}")).map(|config| config.tls.files);
    assert_eq!(tls("").unwrap(), None);
    let named = "[tls]\ncertificate_file = \"c.pem\"\nkey_file = \"k.pem\"\n";
    let files = tls(named).unwrap().unwrap();
    assert_eq!(files.certificate, Path::new("/etc/fed/c.pem"));
    assert_eq!((files.roots, files.root), (None, None));
    let whole = format!("root = \"r.pem\"\n{named}roots_file = \"all.pem\"\n");
    let files = tls(&whole).unwrap().unwrap();
    assert_eq!(files.root.unwrap(), Path::new("/etc/fed/r.pem"));
    for (lines, key) in [
        (
            "[tls]\ncertificate_file = \"c.pem\"",
            "tls.certificate_file",
        ),
        ("[tls]\nkey_file = \"k.pem\"", "tls.key_file"),
        ("[tls]\nroots_file = \"r.pem\"", "tls.roots_file"),
        ("root = \"r.pem\"", "enrollment.root"),
    ] {
        let problems = tls(lines).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].key, key);
    }
}

#[test]
fn a_server_certificate_of_a_step_ca_is_named_whole_and_alone() {
    const CA: &str = "[ca]\nbackend = \"step-ca\"\nurl = \"https://ca.example:9000\"\nroot_file = \"r.pem\"\nkey_file = \"k.jwk\"\n";
    const STEP: &str =
        "[tls]\nstep_ca_provisioner = \"mosaic-server\"\nstep_ca_key_file = \"s.jwk\"\n";
    let tls = |lines: &str| read(&format!("{LEAST}{lines}")).map(|config| config.tls.step);
    assert_eq!(tls(CA).unwrap(), None);
    let step = tls(&format!("{CA}{STEP}")).unwrap().unwrap();
    assert_eq!(step.provisioner, "mosaic-server");
    assert_eq!(step.key_file, Path::new("/etc/fed/s.jwk"));
    assert_eq!(step.password_file, None);
    let with_password = format!("{CA}{STEP}step_ca_password_file = \"p\"\n");
    let step = tls(&with_password).unwrap().unwrap();
    assert_eq!(step.password_file.unwrap(), Path::new("/etc/fed/p"));
    let files = "certificate_file = \"c.pem\"\nkey_file = \"k.pem\"\n";
    let for_peers = STEP.replace("mosaic-server", "mosaic-fed");
    for (lines, key) in [
        (STEP.to_owned(), "tls.step_ca_provisioner"),
        (
            format!("{CA}{STEP}[roles]\nserve = false\nask = true\n"),
            "tls.step_ca_provisioner",
        ),
        (format!("{CA}{STEP}{files}"), "tls.step_ca_provisioner"),
        (format!("{CA}{for_peers}"), "tls.step_ca_provisioner"),
        (
            format!("{CA}{}", STEP.replace("mosaic-server", "")),
            "tls.step_ca_provisioner",
        ),
        (
            format!("{CA}[tls]\nstep_ca_provisioner = \"s\"\n"),
            "tls.step_ca_provisioner",
        ),
        (
            format!("{CA}[tls]\nstep_ca_key_file = \"s.jwk\"\n"),
            "tls.step_ca_key_file",
        ),
        (
            format!("{CA}[tls]\nstep_ca_password_file = \"p\"\n"),
            "tls.step_ca_password_file",
        ),
    ] {
        let problems = tls(&lines).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].key, key);
        assert!(problems[0].hint.is_some());
    }
}

#[test]
fn without_a_file_the_public_urls_are_asked_for() {
    let problems = parse(None, &[], &[]).unwrap_err();
    let keys: Vec<_> = problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    assert_eq!(keys, ["federation.public_url", "enrollment.public_url"]);
    assert!(problems.iter().all(|problem| problem.hint.is_some()));
}

#[test]
fn a_process_that_only_asks_needs_nothing() {
    let config = read("[roles]\nserve = false").unwrap();
    assert_eq!(config.federation.public_url, None);
    assert!(config.tls.server_names.is_empty());
}

#[test]
fn on_loopback_the_public_url_follows_the_listener() {
    let text = "[federation]\nlisten = \"127.0.0.1:0\"\n[enrollment]\nlisten = \"[::1]:9\"";
    let config = read(text).unwrap();
    let url = config.federation.public_url.unwrap();
    assert_eq!(url.to_string(), "https://127.0.0.1:0");
    assert_eq!(url.with_port(4711).to_string(), "https://127.0.0.1:4711");
    assert_eq!(
        config.enrollment.public_url.unwrap().to_string(),
        "https://[::1]:9"
    );
    assert_eq!(config.tls.server_names, ["127.0.0.1", "::1"]);
}

#[test]
fn environment_wins_over_file_and_flags_over_both() {
    let text = format!("data_dir = \"of-file\"\n{LEAST}drain_s = 1\n").replace(
        "[enrollment]",
        "drain_s = 1\nmax_connections = 1\nhandshake_timeout_ms = 1000\n[enrollment]",
    );
    let text = text.trim_end().trim_end_matches("drain_s = 1");
    let config = read_with(
        text,
        &[
            ("MOSAIC_FEDERATION_FEDERATION__DRAIN_S", "2"),
            ("MOSAIC_FEDERATION_FEDERATION__MAX_CONNECTIONS", "2"),
            ("MOSAIC_FEDERATION_DATA_DIR", "of-environment"),
            ("MOSAIC_FEDERATION_SESSION__USERS", r#"{"1000" = "alice"}"#),
            (
                "MOSAIC_FEDERATION_TLS__SERVER_NAMES",
                "a.example, b.example",
            ),
            ("MOSAIC_FEDERATION_CONFIG", "ignored-here"),
            ("OTHER", "x"),
        ],
        &[
            ("federation.drain_s", "3"),
            ("roles.ask", "false"),
            ("gateway.preset", "internal-v1"),
        ],
    )
    .unwrap();
    assert_eq!(config.federation.handshake_timeout, Duration::from_secs(1));
    assert_eq!(config.federation.max_connections, 2);
    assert_eq!(config.federation.drain, Duration::from_secs(3));
    assert_eq!(
        config.data_dir,
        Path::new("of-environment"),
        "relative to the working directory"
    );
    assert_eq!(config.session.users.len(), 1);
    assert_eq!(
        config.tls.server_names,
        ["work.example", "a.example", "b.example"]
    );
    assert!(!config.roles.ask);
    assert_eq!(config.gateway.preset, Preset::InternalV1);
}

#[test]
fn everything_wrong_is_reported_at_once_with_its_place() {
    let text = "\
[federation]
lisen = \"0.0.0.0:8443\"
listen = \"nowhere\"
drain_s = -1
handshake_timeout_ms = \"5s\"

[gatway]
url = \"x\"

[gateway]
preset = \"mosiac\"

[limits]
facts_cache_ms = 10001
";
    let environment = [
        ("MOSAIC_FEDERATION_OPS__LISTN", "x"),
        ("MOSAIC_FEDERATION_ROLES__ASK", "maybe"),
    ];
    let problems = read_with(text, &environment, &[("rate.limit", "1")]).unwrap_err();
    let expected = [
        "/etc/fed/federation.toml:2:1: federation.lisen: unknown key; did you mean `listen`?",
        "/etc/fed/federation.toml:3:10: federation.listen: \"nowhere\" is not an address with a port; write it as 127.0.0.1:8443 or [::1]:8443",
        "/etc/fed/federation.toml:4:11: federation.drain_s: must be a whole number from 0 to 600, not -1",
        "/etc/fed/federation.toml:5:24: federation.handshake_timeout_ms: must be a whole number from 100 to 60000, not \"5s\"",
        "/etc/fed/federation.toml:7:2: gatway: unknown key; did you mean `gateway`?",
        "/etc/fed/federation.toml:11:10: gateway.preset: must be one of \"mosaic\", \"internal-v1\", \"mapped\", not \"mosiac\"; did you mean \"mosaic\"?",
        "/etc/fed/federation.toml:14:18: limits.facts_cache_ms: must be a whole number from 0 to 10000, not 10001",
        "environment MOSAIC_FEDERATION_OPS__LISTN: ops.listn: unknown key; did you mean `ops.listen` (MOSAIC_FEDERATION_OPS__LISTEN)?",
        "environment MOSAIC_FEDERATION_ROLES__ASK: roles.ask: must be true or false, not \"maybe\"",
        "--set rate.limit: rate.limit: unknown key",
        "default: enrollment.public_url: is required when the listener is not on a loopback address; set it to the URL peers reach this server by, as https://host:port",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn syntax_errors_have_a_place() {
    let problems = read("[federation\nlisten = ").unwrap_err();
    assert!(
        matches!(problems[0].source, Source::File { line: 1 | 2, .. }),
        "{problems:?}"
    );
}

#[test]
fn relations_between_keys_are_checked() {
    for (text, key, says) in [
        (
            "[roles]\nserve = false\nask = false",
            "roles.serve",
            "both roles are off",
        ),
        (
            "[federation]\npublic_url = \"http://x\"",
            "federation.public_url",
            "https://",
        ),
        (
            "[session]\nlisten = \"0.0.0.0:8480\"",
            "session.listen",
            "loopback",
        ),
        (
            "[session]\nlisten = \"127.0.0.1:9464\"",
            "ops.listen",
            "taken by session.listen",
        ),
        (
            "[enrollment]\nlisten = \"127.0.0.1:8443\"",
            "enrollment.listen",
            "taken by federation.listen",
        ),
        (
            "[session]\nusers = { \"root\" = \"alice\" }",
            "session.users",
            "is not a uid",
        ),
        (
            "[session]\nusers = { \"01\" = \"alice\" }",
            "session.users",
            "is not a uid",
        ),
        (
            "[session]\nusers = { \"1\" = \"\" }",
            "session.users",
            "uid 1",
        ),
        (
            "[session]\nsocket = \"a\"\n[admin]\nsocket = \"a\"",
            "session.socket",
            "same socket",
        ),
        ("[gateway]\nurl = \"ftp://x\"", "gateway.url", "scheme"),
        ("[gateway]\nurl = \"unix:x\"", "gateway.url", "absolute"),
        (
            "[gateway]\nurl = \"http://u@x\"",
            "gateway.url",
            "credentials",
        ),
        (
            "[gateway]\nurl = \"http://x/api\"",
            "gateway.url",
            "end after host",
        ),
        (
            "[gateway]\naudience = \"x\"",
            "gateway.audience",
            "no effect",
        ),
        (
            "[gateway]\nauth = \"service_token\"",
            "gateway.auth",
            "impersonation",
        ),
        (
            "[gateway]\npreset = \"mapped\"\nauth = \"service_token\"",
            "gateway.auth",
            "nothing would prove",
        ),
        (
            "[gateway]\nauth = \"service_token\"",
            "gateway.jwks_file",
            "required",
        ),
        (
            "[gateway]\nauth = \"service_token\"",
            "gateway.assertion",
            "required",
        ),
        (
            "[seal]\nsecret_file = \"a\"\nsecret_env = \"B\"",
            "seal.secret_env",
            "together",
        ),
        (
            "[seal]\nsecret_env = \"A=B\"",
            "seal.secret_env",
            "name of an environment variable",
        ),
        (
            "[seal]\nsecret_file = \"a\"\nsecret_credential = \"b\"",
            "seal.secret_credential",
            "together",
        ),
        (
            "[seal]\nsecret_credential = \"a/b\"",
            "seal.secret_credential",
            "name of a credential",
        ),
        (
            "[tls]\nserver_names = [\"a b\"]",
            "tls.server_names",
            "neither",
        ),
        ("[ca]\nurl = \"https://ca\"", "ca.url", "no effect"),
        (
            "[ca]\npassword_file = \"x\"",
            "ca.password_file",
            "no effect",
        ),
        ("[ca]\nbackend = \"step-ca\"", "ca.url", "required"),
        ("[ca]\nbackend = \"step-ca\"", "ca.root_file", "required"),
        ("[ca]\nbackend = \"step-ca\"", "ca.key_file", "required"),
        (
            "[ca]\nbackend = \"step-ca\"\nurl = \"http://ca\"",
            "ca.url",
            "https://",
        ),
        (
            "[ca]\nbackend = \"step-ca\"\nurl = \"https://u@ca\"",
            "ca.url",
            "credentials",
        ),
        (
            "[ca]\nbackend = \"step-ca\"\nurl = \"https://ca/x\"",
            "ca.url",
            "end after host",
        ),
        (
            "[timeouts]\ntls_ms = 30001",
            "timeouts.tls_ms",
            "longer than",
        ),
        (
            "[breaker]\nopen_ms = 2000\nopen_max_ms = 1000",
            "breaker.open_ms",
            "longer than",
        ),
        ("data_dir = \"\"", "data_dir", "not a path"),
    ] {
        let problems = read(text).unwrap_err();
        let found = problems
            .iter()
            .any(|problem| problem.key == key && problem.message.contains(says));
        assert!(found, "{text}: {problems:#?}");
    }
}

#[test]
fn a_step_ca_is_read_with_its_files() {
    assert_eq!(read(LEAST).unwrap().ca, Ca::Embedded);
    let text = format!(
        "{LEAST}[ca]\nbackend = \"step-ca\"\nurl = \"https://ca.example:9000/\"\nroot_file = \"root.crt\"\n\
         key_file = \"/run/key\"\n"
    );
    assert_eq!(
        read(&text).unwrap().ca,
        Ca::Step {
            origin: "https://ca.example:9000".to_owned(),
            root_file: "/etc/fed/root.crt".into(),
            provisioner: "mosaic-fed".to_owned(),
            key_file: "/run/key".into(),
            password_file: None,
        }
    );
}

#[test]
fn a_service_token_needs_all_of_its_keys() {
    let text = format!(
        "{LEAST}[gateway]\npreset = \"internal-v1\"\nauth = \"service_token\"\nassertion = \"v1\"\n\
         audience = \"gateway\"\nservice_token_file = \"token\"\njwks_file = \"/run/jwks.json\"\n"
    );
    let auth = read(&text).unwrap().gateway.auth;
    let expected = GatewayAuth::ServiceToken {
        token_file: "/etc/fed/token".into(),
        audience: "gateway".to_owned(),
        jwks_file: "/run/jwks.json".into(),
    };
    assert_eq!(auth, expected);
}

#[test]
fn socket_paths_that_cannot_be_bound_are_refused() {
    let text = format!("data_dir = \"/{}\"\n{LEAST}", "x".repeat(100));
    let problems = read(&text).unwrap_err();
    let keys: Vec<_> = problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    assert_eq!(keys, ["session.socket", "admin.socket"]);
}

#[test]
fn what_a_container_platform_adds_is_no_setting() {
    let links = [
        ("MOSAIC_FEDERATION_SERVICE_HOST", "10.0.0.1"),
        ("MOSAIC_FEDERATION_SERVICE_PORT", "8443"),
        ("MOSAIC_FEDERATION_SERVICE_PORT_FEDERATION", "8443"),
        ("MOSAIC_FEDERATION_PORT", "tcp://10.0.0.1:8443"),
        ("MOSAIC_FEDERATION_PORT_8443_TCP_ADDR", "10.0.0.1"),
    ];
    assert!(read_with(LEAST, &links, &[]).is_ok());
    assert!(read_with(LEAST, &[("MOSAIC_FEDERATION_PORTS", "1")], &[]).is_err());
}

#[test]
fn a_variable_may_hold_the_sealing_secret_itself() {
    let text = format!("{LEAST}[seal]\nsecret_env = \"MOSAIC_FEDERATION_SEAL_SECRET\"\n");
    let config = read_with(&text, &[("MOSAIC_FEDERATION_SEAL_SECRET", "0123")], &[]).unwrap();
    assert_eq!(
        config.seal,
        SealSource::Environment("MOSAIC_FEDERATION_SEAL_SECRET".to_owned())
    );
    let other = read_with(LEAST, &[("MOSAIC_FEDERATION_SEAL_SECRET", "0123")], &[]).unwrap_err();
    assert!(
        !other.join("").contains("0123"),
        "a value that may be a secret was printed"
    );
}

#[test]
fn a_missing_file_is_a_problem_of_its_own() {
    let problems = load(Some(Path::new("/nonexistent/federation.toml")), &[], &[]).unwrap_err();
    assert!(
        problems[0]
            .to_string()
            .starts_with("/nonexistent/federation.toml: cannot be read")
    );
}

#[test]
fn the_shipped_examples_load() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (file, serve, ask) in [
        ("compose/federation.toml", true, true),
        ("compose/work/federation.toml", true, false),
        ("compose/home/federation.toml", false, true),
    ] {
        let config = load(Some(&root.join(file)), &[], &[]);
        let config = config.unwrap_or_else(|problems| panic!("{file}: {problems:#?}"));
        assert_eq!((config.roles.serve, config.roles.ask), (serve, ask));
    }
}

#[test]
fn the_reference_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/configuration.md");
    let page = settings_reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "{} is stale: run the tests with UPDATE_DOCS=1",
        path.display()
    );
}

/// The federated tier with these settings besides the least.
fn federated(settings: &[(&str, &str)]) -> Result<Federated, Vec<String>> {
    let mut flags = vec![("tier", "federated")];
    flags.extend(settings);
    match read_with(LEAST, &[], &flags)?.tier {
        Tier::Federated(servers) => Ok(*servers),
        Tier::Embedded => panic!("{settings:?}"),
    }
}

const DATABASE: &str = "postgres://mosaic@db.example/federation";
const VALKEY: (&str, &str) = ("valkey.url", "rediss://limits.example");

#[test]
fn the_tier_needs_its_servers_and_takes_none_that_it_has_no_use_for() {
    assert_eq!(read(LEAST).unwrap().tier, Tier::Embedded);
    let problems = federated(&[]).unwrap_err().join("\n");
    assert!(
        problems.contains("database.url") && problems.contains("valkey.url"),
        "{problems}"
    );
    for key in ["database.url", "database.schema", "valkey.url"] {
        let problems = read_with(LEAST, &[], &[(key, "postgres://me@localhost/x")]).unwrap_err();
        assert!(
            problems.join("\n").contains("of no use with tier"),
            "{problems:?}"
        );
    }
}

#[test]
fn another_host_is_reached_by_a_verified_connection_or_not_at_all() {
    let servers = federated(&[("database.url", DATABASE), VALKEY]).unwrap();
    assert_eq!(servers.database.tls, PostgresTls::Verified { roots: None });
    let with_roots = [
        ("database.url", DATABASE),
        ("database.root_file", "root.pem"),
        VALKEY,
    ];
    let roots = federated(&with_roots).unwrap().database.tls;
    assert!(
        matches!(roots, PostgresTls::Verified { roots: Some(_) }),
        "{roots:?}"
    );
    for mode in ["disable", "require"] {
        let url = format!("{DATABASE}?sslmode={mode}");
        let problems = federated(&[("database.url", &url), VALKEY]).unwrap_err();
        assert!(
            problems
                .join("\n")
                .contains("without a verified connection"),
            "{problems:?}"
        );
        let allowed = [
            ("database.url", url.as_str()),
            ("database.allow_unverified", "true"),
            VALKEY,
        ];
        let tls = federated(&allowed).unwrap().database.tls;
        assert!(!matches!(tls, PostgresTls::Verified { .. }), "{tls:?}");
    }
    for local in ["127.0.0.1", "[::1]", "localhost"] {
        let url = format!("postgres://mosaic@{local}/federation");
        let tls = federated(&[("database.url", &url), VALKEY])
            .unwrap()
            .database
            .tls;
        assert_eq!(tls, PostgresTls::Off);
        let useless = [
            ("database.url", url.as_str()),
            ("database.root_file", "root.pem"),
            VALKEY,
        ];
        assert!(federated(&useless).is_err());
    }
    let plain = [
        ("database.url", DATABASE),
        ("valkey.url", "redis://limits.example"),
    ];
    let problems = federated(&plain).unwrap_err().join("\n");
    assert!(problems.contains("in the clear"), "{problems}");
}

#[test]
fn several_servers_of_limits_are_held_to_what_one_is() {
    let with = |url, more: &[(&str, &str)]| {
        let mut settings = vec![("database.url", DATABASE), ("valkey.url", url)];
        settings.extend(more);
        federated(&settings).map(|servers| servers.valkey)
    };
    let sentinels = "rediss-sentinel://one.example,two.example/limits";
    let password = ("valkey.sentinel_password_file", "password");
    let user = ("valkey.sentinel_user", "watcher");
    let roots = ("valkey.root_file", "root.pem");
    let read = with(sentinels, &[password, user, roots]).unwrap();
    let service = "limits".to_owned();
    assert_eq!(read.servers.kind, ValkeyKind::Sentinel { service });
    assert!(!read.only_this_host && read.sentinel_password_file.is_some() && read.roots.is_some());
    // One of them is on another host, and nothing is encrypted.
    for plain in [
        "redis-sentinel://localhost,two.example/limits",
        "redis-cluster://[::1],two.example",
    ] {
        let problems = with(plain, &[]).unwrap_err().join("\n");
        assert!(problems.contains("in the clear"), "{problems}");
        let allowed = with(plain, &[("valkey.allow_unverified", "true")]);
        assert!(!allowed.unwrap().only_this_host);
    }
    let here = with("redis-cluster://localhost", &[]).unwrap();
    assert!(here.only_this_host);
    // What would not be used is not accepted.
    for (url, more) in [
        (sentinels, vec![user]),
        ("rediss-cluster://one.example", vec![password]),
        ("rediss://one.example", vec![user, password]),
        ("redis://localhost", vec![roots]),
    ] {
        let problems = with(url, &more).unwrap_err().join("\n");
        assert!(
            problems.contains("no use") || problems.contains("no password"),
            "{problems}"
        );
    }
}

#[test]
fn a_password_stands_in_one_place_and_is_shown_nowhere() {
    let url = "postgres://mosaic:geheim@db.example/federation";
    let valkey = ("valkey.url", "rediss://:verborgen@limits.example");
    let servers = federated(&[("database.url", url), valkey]).unwrap();
    let shown = format!("{servers:?}");
    assert!(
        !shown.contains("geheim") && !shown.contains("verborgen"),
        "{shown}"
    );
    for second in ["database.password_file", "database.password_credential"] {
        let problems =
            federated(&[("database.url", url), (second, "password"), valkey]).unwrap_err();
        let problems = problems.join("\n");
        assert!(problems.contains("holds a password"), "{problems}");
        assert!(!problems.contains("geheim"), "{problems}");
    }
    let schema = [
        ("database.url", DATABASE),
        ("database.schema", "pg_mine"),
        VALKEY,
    ];
    assert!(federated(&schema).is_err());
}
