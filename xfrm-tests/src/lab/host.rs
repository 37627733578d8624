//! A host: a network namespace and a mount namespace, held by their descriptors.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::until;

/// How long one command may take, unless it says otherwise.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// The address family of a test, a stream or a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both, for loops.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A host by one of its addresses.
#[derive(Clone)]
pub struct End {
    /// The host.
    pub host: Host,
    /// The address, which is on one of its interfaces.
    pub address: IpAddr,
}

/// A handle; clones are the same host. Its processes end when the last handle goes.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    name: String,
    number: u16,
    net: File,
    mnt: File,
}

impl Host {
    /// A new host without a cable. `number` counts from 1.
    ///
    /// # Errors
    /// When the kernel refuses namespaces or mounts.
    pub fn new(name: &str, number: u16) -> Result<Self> {
        let (net, mnt) = thread::scope(|scope| scope.spawn(make_namespaces).join())
            .map_err(|_| anyhow!("the thread that makes a host panicked"))?
            .with_context(|| format!("cannot make host {name}"))?;
        let host = Self(Arc::new(Inner { name: name.to_owned(), number, net, mnt }));
        host.within(quiet_network)?.with_context(|| format!("cannot set up the network of {name}"))?;
        host.run("ip link set lo up")?;
        Ok(host)
    }

    /// What the configuration calls it: a, b, c, …
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its number, from 1: the last part of its addresses.
    pub fn number(&self) -> u16 {
        self.0.number
    }

    /// 10.99.0.N.
    pub fn v4(&self) -> Ipv4Addr {
        let [high, low] = self.0.number.to_be_bytes();
        Ipv4Addr::new(10, 99, high, low)
    }

    /// fd99::N, with N in hexadecimal.
    pub fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, self.0.number)
    }

    /// One of both.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4().into(),
            Family::V6 => self.v6().into(),
        }
    }

    /// The host by one of both.
    pub fn end(&self, family: Family) -> End {
        End { host: self.clone(), address: self.address(family) }
    }

    /// The hardware address of its interface.
    pub fn mac(&self) -> [u8; 6] {
        let [high, low] = self.0.number.to_be_bytes();
        [2, 0, 0, 0, high, low]
    }

    /// A path that names its network namespace to other programs for as long as the host lives.
    pub fn net_path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.net.as_raw_fd())
    }

    /// Gives its end of the cable its addresses and brings it up.
    ///
    /// # Errors
    /// When the kernel refuses, or there is no cable.
    pub fn network_up(&self) -> Result<()> {
        self.run(&format!(
            "ip address add {}/16 dev eth0 && ip address add {}/64 dev eth0 nodad && ip link set eth0 up",
            self.v4(),
            self.v6()
        ))?;
        Ok(())
    }

    /// What is left of it after its power was cut: all its processes are gone at once, and a new host of the same name
    /// has its configuration and its state directory, an empty kernel, and no cable.
    ///
    /// # Errors
    /// When the kernel refuses, or a process does not end.
    pub(super) fn reborn(&self) -> Result<Self> {
        self.0.end_processes()?;
        let kept = format!("/tmp/kept-by-{}.tar", self.name());
        self.run(&format!("tar -C / -cf {kept} $(cd / && ls -d etc/hostseal var/lib/hostseal)"))?;
        let host = Self::new(self.name(), self.number())?;
        host.run(&format!("tar -C / -xf {kept} && rm {kept}"))?;
        // The kernel below goes on: what was written under this start of the system is of another one now.
        host.run("sed -i s/$(cat /proc/sys/kernel/random/boot_id)/before/ /var/lib/hostseal/state.json")?;
        Ok(host)
    }

    /// Runs `action` on a thread inside the host: what it opens, reads and starts is the host's.
    ///
    /// # Errors
    /// When the host cannot be entered, or `action` panics.
    pub fn within<T: Send>(&self, action: impl FnOnce() -> T + Send) -> Result<T> {
        let enter = || -> Result<T> {
            // A thread that shares its working directory with others may not change its mounts.
            unshare(CloneFlags::CLONE_FS)?;
            setns(&self.0.mnt, CloneFlags::CLONE_NEWNS)?;
            setns(&self.0.net, CloneFlags::CLONE_NEWNET)?;
            Ok(action())
        };
        thread::scope(|scope| scope.spawn(enter).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .with_context(|| format!("cannot enter host {}", self.name()))
    }

    /// Runs a shell command line to its end.
    ///
    /// # Errors
    /// When it fails, with what it wrote.
    pub fn run(&self, line: &str) -> Result<String> {
        let output = self.output(line)?;
        ensure!(
            output.status.success(),
            "on {}: `{line}` failed with {}\n{}{}",
            self.name(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a shell command line to its end, which may be a failure. It is stopped after a minute.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, line: &str) -> Result<Output> {
        let limit = COMMAND_LIMIT.as_secs().to_string();
        self.output_of(Command::new("timeout").args([&limit, "sh", "-c", line]))
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output_of(&self, command: &mut Command) -> Result<Output> {
        let program = command.get_program().to_string_lossy().into_owned();
        self.within(|| command.stdin(Stdio::null()).output())?
            .with_context(|| format!("on {}: cannot run {program}", self.name()))
    }

    /// Whether a shell command line succeeds.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn succeeds(&self, line: &str) -> Result<bool> {
        Ok(self.output(line)?.status.success())
    }

    /// Starts a command and goes on. Standard input is empty; the other streams are as `command` says.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Process> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = self
            .within(|| command.stdin(Stdio::null()).spawn())?
            .with_context(|| format!("on {}: cannot start {program}", self.name()))?;
        Ok(Process { child, program })
    }

    /// Writes a file as the host sees it, with its directory. `mode` is like `0o600`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str, mode: u32) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        self.within(|| -> Result<()> {
            if let Some(directory) = Path::new(path).parent() {
                fs::create_dir_all(directory)?;
            }
            fs::write(path, text)?;
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
            Ok(())
        })?
        .with_context(|| format!("on {}: cannot write {path}", self.name()))
    }

    /// Reads a file as the host sees it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &str) -> Result<String> {
        self.within(|| fs::read_to_string(path))?
            .with_context(|| format!("on {}: cannot read {path}", self.name()))
    }

    /// Sends `count` pings in `family` to another host and returns how many were answered. They go out
    /// 50 ms apart.
    ///
    /// # Errors
    /// When ping does not report.
    pub fn ping(&self, to: &Host, family: Family, count: u32) -> Result<u32> {
        self.ping_at(to.address(family), count)
    }

    /// The same, sent to an address that something on the way may turn into another's.
    ///
    /// # Errors
    /// When ping does not report.
    pub fn ping_at(&self, address: IpAddr, count: u32) -> Result<u32> {
        let output = self.output(&format!("ping -n -q -i 0.05 -W 1 -c {count} {address}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.split(", ")
            .find_map(|part| part.strip_suffix(" received")?.parse().ok())
            .with_context(|| format!("ping said:\n{text}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The processes in its network namespace.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        self.0.processes()
    }
}

impl Inner {
    fn processes(&self) -> Result<Vec<Pid>> {
        let own = fs::read_link(format!("/proc/self/fd/{}", self.net.as_raw_fd()))?;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process that has just ended has no namespace any more.
            if fs::read_link(entry.path().join("ns/net")).is_ok_and(|net| net == own) {
                found.push(Pid::from_raw(pid));
            }
        }
        Ok(found)
    }
}

impl Inner {
    fn end_processes(&self) -> Result<()> {
        // A daemon may start another one while it is being ended, so look again until none is left.
        until(&format!("no process left on {}", self.name), Duration::from_secs(10), || {
            let left = self.processes()?;
            for pid in &left {
                let _ = kill(*pid, Signal::SIGKILL);
            }
            ensure!(left.is_empty(), "{left:?}");
            Ok::<_, anyhow::Error>(())
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.end_processes() {
            eprintln!("{error:#}");
        }
    }
}

/// Makes the namespaces of a host around the calling thread, which is of no other use after that.
fn make_namespaces() -> Result<(File, File)> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("private mounts")?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).context("/sys")?;
    // What a host writes is its own and goes with it.
    mount(Some("host"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).context("/run")?;
    for (name, place) in [("etc", "/etc"), ("var", "/var/lib")] {
        let upper = format!("/run/.lab/{name}/upper");
        let work = format!("/run/.lab/{name}/work");
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(&work)?;
        let options = format!("lowerdir={place},upperdir={upper},workdir={work}");
        mount(Some("host"), place, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("overlay on {place}"))?;
    }
    Ok((File::open("/proc/thread-self/ns/net")?, File::open("/proc/thread-self/ns/mnt")?))
}

/// Addresses are usable at once and nobody announces routers.
fn quiet_network() -> Result<()> {
    for interface in ["all", "default"] {
        for (key, value) in [("accept_dad", "0"), ("accept_ra", "0"), ("router_solicitations", "0")] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/{key}"), value)
                .with_context(|| format!("sysctl {key}"))?;
        }
    }
    Ok(())
}

/// A process on a host. It is killed when this goes.
pub struct Process {
    /// The process itself, for its streams.
    pub child: Child,
    program: String,
}

impl Process {
    /// Its number.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("cannot send {signal} to {}", self.program))
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it is still there after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        until(&format!("{} has ended", self.program), limit, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
