//! The four processes of the demo, and their files.
//!
//! Invariant: every file is in one temporary directory, readable by its owner only; every process is in a group of
//! its own, so that Ctrl-C reaches the demo alone and the demo ends them; when a `Stage` is gone, so are both.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::directory::{TemporaryDirectory, make_directory};
use super::{DemoFailure, DemoOptions, system};

/// Longest wait for a process to be ready, and for a command.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a process that starts.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of each log that are printed after a failure.
const LOG_TAIL: usize = 15;

/// The rules of the serving side.
const WORK_POLICY: &str = "\
schema = 1

[ceiling]
resources = [\"tasks\", \"notes\", \"memory\", \"projects\", \"missions\"]
";
/// What the grant of the demo opens.
const WORK_SCOPE: &str = "\
{
  \"resources\": [\"tasks\", \"notes\"],
  \"filters\": {\"tasks\": {\"include_teams\": [\"platform\"]}},
  \"max_rows_per_query\": 5
}
";
/// The gateway's token of the user whose data is opened.
const WORK_TOKEN: &str = "token-e1\n";

/// On whose side something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The serving side.
    Work,
    /// The asking side.
    Home,
}

impl Side {
    /// As it is printed, and the name of its directory.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Home => "home",
        }
    }

    const fn data_set(self) -> &'static str {
        match self {
            Self::Work => "plan",
            Self::Home => "home",
        }
    }

    /// The settings, with `url` for the gateway.
    fn settings(self, url: &str) -> String {
        let listeners = match self {
            Self::Work => {
                "[roles]\nask = false\n\n[federation]\nlisten = \"127.0.0.1:0\"\n\n\
                 [enrollment]\nlisten = \"127.0.0.1:0\"\n"
            }
            // Asking twice within seconds is to show the serving side at work, not the cache.
            Self::Home => "[roles]\nserve = false\n\n[cache]\nmax_bytes = 0\n",
        };
        format!(
            "data_dir = \"data\"\n\n{listeners}\n[ops]\nlisten = \"127.0.0.1:0\"\n\n\
             [gateway]\nurl = \"{url}\"\npreset = \"mosaic\"\n"
        )
    }
}

struct Process {
    name: String,
    child: Child,
}

/// The processes and files of a demo.
pub(super) struct Stage {
    program: PathBuf,
    gateway_binary: PathBuf,
    // Dropped first: a process that still lives may write files.
    processes: Vec<Process>,
    /// The command that is running.
    under_way: Mutex<Option<Child>>,
    directory: TemporaryDirectory,
    work_url: String,
    home_url: String,
    control_url: String,
}

impl Stage {
    /// Makes the files; no process yet.
    pub(super) fn make(options: &DemoOptions) -> Result<Self, DemoFailure> {
        let directory = TemporaryDirectory::make()?;
        let stage = Self {
            program: options.program.clone(),
            gateway_binary: options.gateway_binary.clone(),
            processes: Vec::new(),
            under_way: Mutex::new(None),
            directory,
            work_url: String::new(),
            home_url: String::new(),
            control_url: String::new(),
        };
        for side in [Side::Work, Side::Home] {
            make_directory(&stage.directory(side))?;
        }
        make_directory(&stage.directory(Side::Work).join("policy.d"))?;
        stage.write(Side::Work, "policy.d/10-base.toml", WORK_POLICY)?;
        stage.write(Side::Work, "scope.json", WORK_SCOPE)?;
        stage.write(Side::Work, "amira.token", WORK_TOKEN)?;
        Ok(stage)
    }

    /// Starts gateways, then sidecars; returns when all answer.
    pub(super) async fn start(&mut self) -> Result<(), DemoFailure> {
        for side in [Side::Work, Side::Home] {
            let mut gateway = Command::new(&self.gateway_binary);
            gateway.args(["--db", "gateway.db", "--ready-file", "gateway.ready"]);
            gateway.args(["--data", side.data_set(), "--control", "127.0.0.1:0"]);
            self.spawn(side, "gateway", gateway)?;
        }
        self.work_url = self.gateway_ready(Side::Work, "listening on ").await?;
        self.control_url = self.gateway_ready(Side::Work, "control on ").await?;
        self.home_url = self.gateway_ready(Side::Home, "listening on ").await?;
        for side in [Side::Work, Side::Home] {
            self.write(
                side,
                "federation.toml",
                &side.settings(self.gateway_url(side)),
            )?;
            let mut sidecar = Command::new(&self.program);
            sidecar.arg("serve");
            self.spawn(side, "sidecar", sidecar)?;
        }
        for side in [Side::Work, Side::Home] {
            // The last listener to be bound: when it is there, all are.
            let socket = self.directory(side).join("data/admin.sock");
            self.ready(side, "sidecar", async || {
                UnixStream::connect(&socket).await.ok().map(drop)
            })
            .await?;
        }
        Ok(())
    }

    /// Where one side keeps its files; commands of that side are run there.
    pub(super) fn directory(&self, side: Side) -> PathBuf {
        self.directory.path().join(side.name())
    }

    /// Where a side's gateway listens.
    pub(super) fn gateway_url(&self, side: Side) -> &str {
        match side {
            Side::Work => &self.work_url,
            Side::Home => &self.home_url,
        }
    }

    /// Where the work gateway is told to misbehave.
    pub(super) fn control_url(&self) -> &str {
        &self.control_url
    }

    /// Runs this program with `arguments` on one side, as a user there would.
    pub(super) async fn command(
        &self,
        side: Side,
        arguments: &[String],
        session: Option<&str>,
    ) -> Result<Output, DemoFailure> {
        let mut command = self.on(side, Command::new(&self.program));
        command.args(arguments).stdin(Stdio::null());
        if let Some(token) = session {
            command.env("MOSAIC_SESSION_TOKEN", token);
        }
        let ran = tokio::time::timeout(PATIENCE, self.run(command)).await;
        let ran = ran.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        ran.map_err(system(format!(
            "`{}` cannot be run",
            self.program.display()
        )))
    }

    /// Runs a command to its end. One that is given up stays in its place, for `close` to end it and wait for it.
    async fn run(&self, mut command: Command) -> io::Result<Output> {
        let mut place = self.under_way.lock().await;
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let child = place.insert(child);
        let (out, errors) = (child.stdout.take(), child.stderr.take());
        let (status, stdout, stderr) = tokio::join!(child.wait(), whole(out), whole(errors));
        *place = None;
        Ok(Output {
            status: status?,
            stdout: stdout?,
            stderr: stderr?,
        })
    }

    /// Sets how the work gateway misbehaves: `PUT /_control`.
    pub(super) async fn misbehave(&self, behaviour: &'static str) -> Result<(), DemoFailure> {
        let told = async {
            let authority = self.control_url.trim_start_matches("http://");
            let stream = TcpStream::connect(authority)
                .await
                .map_err(io::Error::other)?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(io::Error::other)?;
            let request = Request::builder()
                .method(Method::PUT)
                .uri("/_control")
                .header(header::HOST, authority)
                .body(Full::new(Bytes::from_static(behaviour.as_bytes())))
                .map_err(io::Error::other)?;
            // Both together: the connection moves the bytes and ends after the answer.
            let asked = async move {
                sender
                    .send_request(request)
                    .await
                    .map(|answer| answer.status())
            };
            let (answered, _moved) = tokio::join!(asked, connection);
            let status = answered.map_err(io::Error::other)?;
            match status.is_success() {
                true => Ok(()),
                false => Err(io::Error::other(format!(
                    "it answered with status {status}"
                ))),
            }
        };
        let told = tokio::time::timeout(PATIENCE, told)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        told.map_err(system("the work gateway does not take its orders"))
    }

    /// Waits for a process to end by itself; without one there is nothing to wait for.
    pub(super) async fn any_end(&mut self) -> DemoFailure {
        loop {
            for process in &mut self.processes {
                if let Ok(Some(status)) = process.child.try_wait() {
                    let source = io::Error::other(status.to_string());
                    return system(format!("{} ended by itself", process.name))(source);
                }
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Prints the end of every log.
    pub(super) fn write_log_tails(&self, out: &mut dyn Write) -> io::Result<()> {
        for process in &self.processes {
            let path = self.directory.path().join(format!("{}.log", process.name));
            let log = std::fs::read(path).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            writeln!(out, "-- the last lines of {}.log", process.name)?;
            for line in lines.iter().skip(lines.len().saturating_sub(LOG_TAIL)) {
                writeln!(out, "{line}")?;
            }
        }
        out.flush()
    }

    /// Ends the processes and removes the files.
    pub(super) async fn close(mut self) -> Result<(), DemoFailure> {
        let commands = self.under_way.get_mut().iter_mut();
        let processes = self.processes.iter_mut().map(|process| &mut process.child);
        for child in processes.chain(commands) {
            // Killed, not asked: nothing of a demo is worth waiting for. One that is gone already is no failure.
            let _ = child.kill().await;
        }
        self.directory.remove()
    }

    fn write(&self, side: Side, name: &str, text: &str) -> Result<(), DemoFailure> {
        let path = self.directory(side).join(name);
        std::fs::write(&path, text)
            .map_err(system(format!("`{}` cannot be written", path.display())))
    }

    /// A command in that side's directory, untouched by the settings of whoever runs the demo.
    fn on(&self, side: Side, mut command: Command) -> Command {
        let foreign = std::env::vars_os()
            .map(|(name, _)| name)
            .filter(|name| name.to_string_lossy().starts_with("MOSAIC_"));
        for name in foreign {
            command.env_remove(name);
        }
        command
            .current_dir(self.directory(side))
            .kill_on_drop(true)
            .process_group(0);
        command
    }

    fn spawn(&mut self, side: Side, role: &str, command: Command) -> Result<(), DemoFailure> {
        let name = format!("{}/{role}", side.name());
        let path = self.directory.path().join(format!("{name}.log"));
        let unwritable = format!("`{}` cannot be written", path.display());
        let log = std::fs::File::create(&path).map_err(system(&unwritable))?;
        let same_log = log.try_clone().map_err(system(&unwritable))?;
        let mut command = self.on(side, command);
        command.stdin(Stdio::null()).stdout(log).stderr(same_log);
        let program = command
            .as_std()
            .get_program()
            .to_string_lossy()
            .into_owned();
        let child = command
            .spawn()
            .map_err(system(format!("`{program}` cannot be started")))?;
        self.processes.push(Process { name, child });
        Ok(())
    }

    /// What a gateway's ready file says after `label`.
    async fn gateway_ready(&mut self, side: Side, label: &str) -> Result<String, DemoFailure> {
        let path = self.directory(side).join("gateway.ready");
        self.ready(side, "gateway", async || {
            let text = std::fs::read_to_string(&path).ok()?;
            text.lines()
                .find_map(|line| line.strip_prefix(label).map(str::to_owned))
        })
        .await
    }

    /// Looks until `seen` finds something, the process ends, or patience does.
    async fn ready<T>(
        &mut self,
        side: Side,
        role: &str,
        seen: impl AsyncFn() -> Option<T>,
    ) -> Result<T, DemoFailure> {
        let name = format!("{}/{role}", side.name());
        let not_ready = |why: String| DemoFailure::NotReady {
            process: name.clone(),
            why,
        };
        let looked = async {
            loop {
                if let Some(found) = seen().await {
                    return Ok(found);
                }
                let ended = self
                    .processes
                    .iter_mut()
                    .find(|process| process.name == name)
                    .and_then(|process| process.child.try_wait().ok().flatten());
                if let Some(status) = ended {
                    return Err(not_ready(format!("it ended with {status}")));
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let looked = tokio::time::timeout(PATIENCE, looked).await;
        looked.unwrap_or_else(|_| Err(not_ready(format!("not within {} s", PATIENCE.as_secs()))))
    }
}

/// All that a command writes to one of its outputs.
async fn whole(output: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut output) = output {
        output.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}
