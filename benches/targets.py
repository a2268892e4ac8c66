"""The servers that are measured: how each is started, asked and stopped.

Each listens on a free loopback port, works with one thread, and has its files in the run's own directory. All
ask the same upstream for the same path; the sidecar and nginx + Lua are asked in the wire protocol, the others
pass the gateway's own path through.
"""
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import bodies
import sidecar

HERE = os.path.dirname(os.path.abspath(__file__))
TOKEN = "bench-gateway-token"
START_SECONDS = 20


def free_port():
    """A loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Files:
    """A trust anchor, and a client's chain and key."""

    def __init__(self, ca, cert, key):
        self.ca, self.cert, self.key = ca, cert, key


class Target:
    """One server. `wire` says whether it speaks the wire protocol or the gateway's own."""

    def __init__(self, name, port, command, files=None, wire=False, ready=None, title=None):
        self.name, self.port, self.command, self.files = name, port, command, files
        self.wire, self.ready, self.title = wire, ready, title or name
        self.process = None
        # What is measured of it, and what else works for it.
        self.parts, self.helpers = [self], []

    def start(self, log):
        """Starts it and waits until it answers."""
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        try:
            while not self._answers():
                if self.process.poll() is not None or time.monotonic() > end:
                    sys.exit("error: %s did not start\n  do: run again with --keep and see %s" % (self.name, log.name))
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise

    def _answers(self):
        try:
            if self.ready:
                urllib.request.urlopen(self.ready, timeout=1).close()
            else:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except (OSError, urllib.error.URLError):
            return False

    def stop(self):
        """Ends it and waits for its end."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def asking(self, path, params):
        """What the load generator is told, to ask a server that speaks the wire protocol."""
        files, body = self.files, json.dumps({"params": params}, separators=(",", ":"))
        return ["https://127.0.0.1:%d/api/federation/v1/%s" % (self.port, path), "--method", "POST", "--header",
                "Content-Type: application/json", "--body", body, "--ca", files.ca, "--cert", files.cert, "--key", files.key]

    def question(self, rows):
        """What the load generator is told, to ask for `rows` rows."""
        if self.wire:
            return self.asking("list/tasks", {"limit": rows}) + ["--tagged", "--rows", str(rows)]
        scheme = "https" if self.files else "http"
        path = "/internal/v1/tasks?limit=%d&team=%s&personal=true" % (rows + 1, bodies.TEAM)
        words = ["--rows", str(rows)]
        if self.files:
            words += ["--ca", self.files.ca, "--cert", self.files.cert, "--key", self.files.key]
        return ["%s://127.0.0.1:%d%s" % (scheme, self.port, path)] + words


class Door(Target):
    """The session door of a home: plain HTTP on loopback, with a session's token."""

    token = ""

    def question(self, rows):
        body = json.dumps({"params": {"limit": rows}}, separators=(",", ":"))
        return ["http://127.0.0.1:%d/peers/work/api/federation/v1/list/tasks" % self.port,
                "--method", "POST", "--header", "Content-Type: application/json",
                "--header", "Authorization: Bearer " + self.token, "--body", body, "--rows", str(rows)]


class Bench:
    """Everything that runs, in one temporary directory."""

    def __init__(self, directory, binaries):
        self.directory, self.binaries = directory, binaries
        self.certs = os.path.join(directory, "certs")
        self.log = open(os.path.join(directory, "servers.log"), "ab")
        subprocess.run([os.path.join(HERE, "certs.sh"), self.certs], check=True, stdout=self.log, stderr=self.log)
        self.sizes = bodies.write(os.path.join(directory, "www"))
        self.upstream_port = free_port()
        self.upstream = Target("upstream", self.upstream_port, self._nginx("upstream", self.upstream_port))
        self.upstream.start(self.log)
        self.running = [self.upstream]

    def helpers_of(self, target):
        """Servers that work for a target and are no part of it."""
        return [helper for helper in [self.upstream, *target.helpers] if helper not in target.parts]

    def _pair(self, name, port, own):
        """The plain front of two nginx, whose second is the one that is measured alone, too."""
        back_port = free_port()
        back = Target(name + "-back", back_port, self._nginx("mtls", back_port, name + "-back"), own)
        back.start(self.log)
        self.running.append(back)
        front = Target(name, port, self._nginx("front", port, name, BACK=str(back_port)), title="nginx to nginx")
        front.parts = [front, back]
        return front

    def _nginx(self, name, port, unique=None, **more):
        with open(os.path.join(self.certs, "client.serial")) as file:
            serial = file.read().strip()
        values = {
            "RUN": self.directory, "CERTS": self.certs, "WWW": os.path.join(self.directory, "www"), "HERE": HERE,
            "PORT": str(port), "UPSTREAM": str(self.upstream_port), "SERIAL": serial, "TOKEN": TOKEN,
            "OWNER": bodies.OWNER, "TEAM": bodies.TEAM, "USER": "user root;" if os.getuid() == 0 else "",
            "NAME": unique or name, **more,
        }
        with open(os.path.join(HERE, "nginx", name + ".conf.in")) as file:
            text = file.read()
        for key, value in values.items():
            text = text.replace("@%s@" % key, value)
        path = os.path.join(self.directory, values["NAME"] + ".conf")
        with open(path, "w") as file:
            file.write(text)
        return ["nginx", "-c", path, "-e", os.path.join(self.directory, values["NAME"] + ".start.err")]

    def target(self, name):
        """Makes and starts one target by its name."""
        own = Files(*(os.path.join(self.certs, file) for file in ("ca.pem", "client.pem", "client.key")))
        port = free_port()
        if name == "upstream":
            return self.upstream
        if name in ("sidecar", "sidecar-service-token"):
            auth = "subject_token" if name == "sidecar" else "service_token"
            target = sidecar.onboarded(self, name, auth)
        elif name in ("door", "pair"):
            target = sidecar.asking(self, name, cached=name == "door")
        elif name == "echo":
            body = os.path.join(self.directory, "echo.json")
            with open(os.path.join(self.directory, "www", "rows20.json")) as file:
                rows = json.load(file)["rows"]
            # As the door answers from memory.
            items = [{"_source": "work", "_cached": True, **row} for row in rows]
            with open(body, "w") as file:
                json.dump({"items": items, "_partial": False, "_truncated": False, "_cached": True}, file,
                          separators=(",", ":"))
            command = [os.path.join(self.binaries, "echo"), "127.0.0.1:%d" % port, body]
            target = Door(name, port, command, title="plain HTTP echo")
        elif name == "nginx-pair":
            target = self._pair(name, port, own)
        elif name == "bare":
            chain, key = (os.path.join(self.certs, file) for file in ("server.pem", "server.key"))
            command = [os.path.join(self.binaries, "bare-pingora"), "127.0.0.1:%d" % port,
                       "127.0.0.1:%d" % self.upstream_port, own.ca, chain, key]
            target = Target(name, port, command, own, title="bare Pingora")
        elif name == "nginx":
            target = Target(name, port, self._nginx("mtls", port), own)
        elif name == "lua":
            target = Target(name, port, self._nginx("lua", port), own, wire=True, title="nginx + Lua")
        else:
            sys.exit("error: no target is named %s" % name)
        if not target.process:
            target.start(self.log)
        self.running.append(target)
        return target

    def stop(self):
        """Ends everything that was started."""
        for target in reversed(self.running):
            target.stop()
        self.log.close()
