//! A network of its own for a process, in which packets to one address can be made to vanish.
//!
//! Invariant: nothing outside the namespace changes but one pair of interfaces, and both go with it.

use std::net::Ipv4Addr;
use std::process::{Command, Output};

/// A network namespace with one link to this one.
pub struct Namespace {
    name: String,
    here: String,
    there: String,
    /// The address of this side of the link.
    pub address: Ipv4Addr,
    /// Another one of this side, so that packets to one vanish while those to the other one arrive.
    pub other: Ipv4Addr,
    /// The address inside.
    pub inside: Ipv4Addr,
}

fn ip(arguments: &str) -> Result<Output, String> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        Ok(output)
    } else {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(format!("ip {arguments}: {why}"))
    }
}

impl Namespace {
    /// Makes one; the reason when this user or kernel cannot.
    pub fn make() -> Result<Self, String> {
        let process = std::process::id();
        // Two bytes of the process id tell namespaces of tests that run at once apart.
        let [_, _, high, low] = process.to_be_bytes();
        let address = Ipv4Addr::new(10, 213, high, low & 0b1111_1100 | 1);
        let inside = Ipv4Addr::new(10, 213, high, low & 0b1111_1100 | 2);
        let other = Ipv4Addr::new(10, 214, high, low & 0b1111_1100 | 1);
        let made = Self {
            name: format!("mosaic-{process}"),
            here: format!("mfa{process}"),
            there: format!("mfb{process}"),
            address,
            other,
            inside,
        };
        let Self {
            name, here, there, ..
        } = &made;
        ip(&format!("netns add {name}"))?;
        // From here on the namespace is removed with `made`, whatever fails.
        ip(&format!(
            "link add {here} type veth peer name {there} netns {name}"
        ))?;
        ip(&format!("addr add {address}/30 dev {here}"))?;
        ip(&format!("link set {here} up"))?;
        ip(&format!("addr add {other}/32 dev {here}"))?;
        ip(&format!("-n {name} addr add {inside}/30 dev {there}"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} link set {there} up"))?;
        ip(&format!("-n {name} route add {other}/32 dev {there}"))?;
        Ok(made)
    }

    /// What a program is started through to be inside.
    pub fn enter(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// The same program with the same arguments, inside.
    pub fn entered(&self, command: &Command) -> Command {
        let [program, arguments @ ..] = self.enter();
        let mut inside = Command::new(program);
        inside.args(arguments);
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }

    /// Lets every packet to this side vanish: it is sent to a machine that is not there.
    pub fn vanish(&self) {
        self.vanish_to(self.address);
    }

    /// The same with packets to one address of this side.
    pub fn vanish_to(&self, address: Ipv4Addr) {
        let (name, there) = (&self.name, &self.there);
        let nowhere = "lladdr 02:00:00:00:00:99 nud permanent";
        ip(&format!(
            "-n {name} neigh replace {address} dev {there} {nowhere}"
        ))
        .unwrap();
    }

    /// Ends that.
    pub fn appear(&self) {
        self.appear_to(self.address);
    }

    /// Ends it for one address.
    pub fn appear_to(&self, address: Ipv4Addr) {
        let (name, there) = (&self.name, &self.there);
        ip(&format!("-n {name} neigh del {address} dev {there}")).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The link goes with its end inside; what was never made cannot be removed.
        let _gone = ip(&format!("netns del {}", self.name));
    }
}
