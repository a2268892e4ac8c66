"""Starting the sidecar under test and onboarding one peer, by its own commands.

The certificate is obtained as a peer would obtain it, but with openssl and curl, so that the load generator has
the key: enrollment token, CSR over a P-256 key, redemption on the enrollment listener.
"""
import json
import os
import re
import subprocess
import sys

import bodies
import targets

SCOPE = {
    "resources": ["tasks"],
    "filters": {"tasks": {"include_teams": [bodies.TEAM], "include_personal": True}},
    "max_rows_per_query": 1000,
}
# The limits are drawn from and never met.
POLICY = ('schema = 1\n[ceiling]\nresources = ["tasks"]\nmax_rows_per_query = 1000\n'
          'rate_limit = { per_minute = 10000000, burst = 1000000 }\n')
SETTINGS = """data_dir = "{data}"
[roles]
serve = true
ask = false
[federation]
listen = "127.0.0.1:{port}"
worker_threads = 1
[enrollment]
listen = "127.0.0.1:{enrollment}"
[ops]
listen = "127.0.0.1:{ops}"
[gateway]
url = "http://127.0.0.1:{upstream}"
preset = "internal-v1"
auth = "{auth}"
{service}[policy]
dir = "{policy}"
[limits]
peer_concurrency = 10000
handshakes_per_minute = 10000000
handshake_burst = 1000000
[log]
level = "warn"
"""
SERVICE = """service_token_file = "{at}/service.token"
assertion = "v1"
audience = "bench"
jwks_file = "{at}/jwks.json"
"""


# The asking side: its door on loopback, one worker thread, no policy, and limits that are never met.
ASKING = """data_dir = "{data}"
[roles]
serve = false
ask = true
[federation]
worker_threads = 1
[session]
listen = "127.0.0.1:{port}"
[ops]
listen = "127.0.0.1:{ops}"
[cache]
max_bytes = {cache}
[limits]
peer_requests = 10000
[log]
level = "warn"
"""
LOCAL_USER = "bench"


def run(words, **more):
    """Runs a command; its standard output. Ends the run, with what it said, when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, **more)
    if done.returncode:
        sys.exit("error: `%s` failed (%d)\n%s%s" % (" ".join(words), done.returncode, done.stdout, done.stderr))
    return done.stdout


def found(pattern, text):
    """What a command printed that looks like `pattern`."""
    match = re.search(pattern, text)
    if not match:
        sys.exit("error: expected something like %s in:\n%s" % (pattern, text))
    return match.group(0)


def _write(path, text):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return path


def _settings(bench, at, auth):
    ports = {name: targets.free_port() for name in ("port", "enrollment", "ops")}
    policy = os.path.join(at, "policy.d")
    os.makedirs(policy)
    _write(os.path.join(policy, "10-base.toml"), POLICY)
    _write(os.path.join(at, "service.token"), targets.TOKEN)
    service = SERVICE.format(at=at) if auth == "service_token" else ""
    text = SETTINGS.format(data=os.path.join(at, "data"), upstream=bench.upstream_port, auth=auth, policy=policy,
                           service=service, **ports)
    return _write(os.path.join(at, "federation.toml"), text), ports


def pending(cli, peer):
    """A pending grant for a peer."""
    return found(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", run(
        cli + ["grant", "create", "--user", bodies.OWNER, "--peer", peer, "--scope", "-"], input=json.dumps(SCOPE)))


def _invited(cli, peer):
    """A pending grant for a peer; its enrollment URL, with the fingerprint."""
    grant = pending(cli, peer)
    return found(r"https://[^\s\"]+/enrollment/[0-9a-f]{64}#sha256=[0-9a-f]{64}", run(cli + ["grant", "token", grant]))


def _redeem(at, cli):
    """Redeems an enrollment token for a certificate; the files that a client then needs."""
    url = _invited(cli, "bench").split("#")[0]
    ca, cert, key, csr = (os.path.join(at, name) for name in ("root.pem", "client.pem", "client.key", "client.csr"))
    _write(ca, run(cli + ["ca", "export"]))
    run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key])
    run(["openssl", "req", "-new", "-key", key, "-subj", "/CN=bench", "-out", csr])
    with open(csr) as file:
        body = _write(os.path.join(at, "csr.json"), json.dumps({"csrPem": file.read()}))
    answer = json.loads(run(["curl", "-sS", "--fail-with-body", "--cacert", ca, "-H", "Content-Type: application/json",
                             "--data", "@" + body, url]))
    _write(cert, answer["certPem"])
    return targets.Files(ca, cert, key)


def onboarded(bench, name, auth):
    """A running sidecar with one active grant."""
    at = os.path.join(bench.directory, name)
    os.makedirs(at)
    config, ports = _settings(bench, at, auth)
    binary = os.path.join(bench.binaries, "mosaic-federation")
    cli = [binary, "--config", config]
    ready = "http://127.0.0.1:%d/readyz" % ports["ops"]
    title = "sidecar" if auth == "subject_token" else "sidecar (service_token)"
    target = targets.Target(name, ports["port"], cli + ["serve"], wire=True, ready=ready, title=title)
    target.start(bench.log)
    bench.running.append(target)
    if auth == "subject_token":
        token = os.path.join(at, "service.token")
        run(cli + ["gateway", "token", "set", "--user", bodies.OWNER, "--token-file", token])
    target.files = _redeem(at, cli)
    return target


def asking(bench, name, cached):
    """A sidecar that asks another one as a peer, each with a process of its own; what is asked is its session door.

    With `cached` only the asking side is measured: the other one answers the question once in a while."""
    work = onboarded(bench, name + "-work", "subject_token")
    invitation = _invited(work.command[:-1], "home")
    at = os.path.join(bench.directory, name)
    os.makedirs(at)
    ports = {key: targets.free_port() for key in ("port", "ops")}
    text = ASKING.format(data=os.path.join(at, "data"), cache=64 << 20 if cached else 0, **ports)
    cli = work.command[:1] + ["--config", _write(os.path.join(at, "federation.toml"), text)]
    ready = "http://127.0.0.1:%d/readyz" % ports["ops"]
    title = "session door, from memory" if cached else "sidecar to sidecar"
    home = targets.Door(name, ports["port"], cli + ["serve"], ready=ready, title=title)
    home.start(bench.log)
    bench.running.append(home)
    run(cli + ["peer", "add", invitation, "--user", LOCAL_USER, "--name", "work"])
    made = json.loads(run(cli + ["--json", "session", "create", "--user", LOCAL_USER]))
    home.token = made["token"]
    home.parts, home.helpers = ([home], [work]) if cached else ([home, work], [])
    return home


def hits(target):
    """Answers that an asking sidecar has given from memory; None for what is none."""
    if target.command[-1:] != ["serve"]:
        return None
    return json.loads(run(target.command[:-1] + ["--json", "status"]))["cache"]["hits"]
