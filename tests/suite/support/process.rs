//! A sidecar as a process of its own, on what a sidecar in this process has left behind.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use certs::testing::TestCa;
use proxy::config::Config;
use tempfile::TempDir;
use tests::replicas::Beside;
use tests::{GatewayProcess, World};

use super::reader::PATIENCE;

/// A running process and what was in its [`World`].
pub struct Process {
    child: Child,
    /// Where its federation listener is.
    pub federation: SocketAddr,
    /// Where its enrollment listener is.
    pub enrollment: SocketAddr,
    /// Everything it wrote to standard error so far.
    pub log: Arc<Mutex<String>>,
    /// Settings that override those in the directory.
    settings: Vec<String>,
    pub gateway: GatewayProcess,
    pub ca: TestCa,
    pub dir: TempDir,
    /// Where the side is reached, if that is not at the process itself.
    beside: Option<Beside>,
}

/// The program, as built by the same profile as this test.
pub fn program() -> PathBuf {
    built("mosaic-federation")
}

/// A program of the workspace, as built by the same profile as this test.
pub fn built(name: &str) -> PathBuf {
    let dir = match std::env::var_os("MOSAIC_TEST_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let own = std::env::current_exe().unwrap();
            own.parent().and_then(Path::parent).unwrap().to_owned()
        }
    };
    let program = dir.join(name);
    assert!(
        program.exists(),
        "{} is missing: build it first (cargo build -p proxy with this profile)",
        program.display()
    );
    program
}

/// A process that listens.
pub struct Spawned {
    pub child: Child,
    /// Where it listens; `None` without the role.
    pub federation: Option<SocketAddr>,
    pub enrollment: Option<SocketAddr>,
    pub log: Arc<Mutex<String>>,
}

/// The command that serves on the settings in `dir`, some of them overridden.
pub fn serve(dir: &Path, log_level: &str, settings: &[String]) -> Command {
    let mut command = Command::new(program());
    command.args(["serve", "--set", &format!("log.level={log_level}")]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.arg("--config").arg(dir.join("federation.toml"));
    command
}

/// Starts a sidecar and waits until it listens, which it logs at `info`.
pub fn spawn(command: &mut Command) -> Spawned {
    let mut child = command
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let log = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&log);
    let (send, ready) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if line.contains("ready addresses=") {
                // Nobody listens once the start has been waited for.
                let _unheard = send.send(line.clone());
            }
            let mut kept = kept.lock().unwrap();
            kept.push_str(&line);
            kept.push('\n');
        }
    });
    let line = ready
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|error| panic!("{error}: {}", log.lock().unwrap()));
    let address = |name: &str| -> Option<SocketAddr> {
        let (_, rest) = line.split_once(&format!("{name}: Some("))?;
        Some(rest.split(')').next().unwrap().parse().unwrap())
    };
    Spawned {
        federation: address("federation"),
        enrollment: address("enrollment"),
        child,
        log,
    }
}

impl Process {
    /// Stops the sidecar of `world` and starts it again as a process.
    pub async fn take_over(world: World, log_level: &str) -> Self {
        Self::take_over_with(world, log_level, Vec::new()).await
    }

    /// As [`take_over`](Self::take_over), with settings overridden from then on.
    pub async fn take_over_with(world: World, log_level: &str, settings: Vec<String>) -> Self {
        let World {
            gateway,
            sidecar,
            ca,
            dir,
            mut beside,
            ..
        } = world;
        // One process follows on all of them.
        if let Some(beside) = &mut beside {
            beside.stop().await;
        }
        sidecar.stop().await.unwrap();
        let Spawned {
            child,
            federation,
            enrollment,
            log,
        } = spawn(&mut serve(dir.path(), log_level, &settings));
        let process = Self {
            child,
            federation: federation.unwrap(),
            enrollment: enrollment.unwrap(),
            log,
            settings,
            gateway,
            ca,
            dir,
            beside,
        };
        process.lead_here();
        process
    }

    /// Whether it is reached through a balancer.
    pub const fn is_behind_balancer(&self) -> bool {
        self.beside.is_some()
    }

    /// Has balancers lead to it.
    fn lead_here(&self) {
        if let Some(beside) = &self.beside {
            beside.federation.lead_to(vec![self.federation]);
            beside.enrollment.lead_to(vec![self.enrollment]);
        }
    }

    /// Its settings, without those that override them.
    pub fn config(&self) -> Config {
        let file = self.dir.path().join("federation.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        tests::world::configuration(file, &text)
    }

    /// Starts the program with further settings, which it must refuse. Returns why.
    pub fn fails_to_start(&self, settings: &[&str]) -> String {
        let mut all = self.settings.clone();
        all.extend(settings.iter().map(|setting| (*setting).to_owned()));
        let output = serve(self.dir.path(), "warn", &all)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// Starts the program again on what the killed one left.
    pub fn start_again(&mut self) {
        let spawned = spawn(&mut serve(self.dir.path(), "info", &self.settings));
        self.child = spawned.child;
        self.federation = spawned.federation.unwrap();
        self.enrollment = spawned.enrollment.unwrap();
        self.log = spawned.log;
        self.lead_here();
    }

    /// Starts the program again, which takes over from the running one. Returns that one, which ends by itself.
    pub fn follow(&mut self) -> Child {
        let mut command = serve(self.dir.path(), "info", &self.settings);
        let spawned = spawn(command.arg("--upgrade"));
        assert_eq!(spawned.federation, Some(self.federation));
        self.log = spawned.log;
        std::mem::replace(&mut self.child, spawned.child)
    }

    /// The directory of the sidecar's database.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: nothing in the process runs any more.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM: it ends in order.
    pub fn stop(&mut self) {
        let told = Command::new("kill").arg(self.id().to_string()).status();
        assert!(told.unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    /// Forgets the peak of memory so far.
    pub fn reset_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.id()), "5").unwrap();
    }

    /// Resident memory and its peak, bytes.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let kib = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (kib("VmRSS:") * 1024, kib("VmHWM:") * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already.
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}
