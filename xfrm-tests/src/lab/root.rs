//! The root: a small Debian that holds the tools of the lab and the kernel of user-mode Linux.
//!
//! It is built once, kept in a cache outside the checkout, and only ever read after that, so that any
//! number of labs can share it.

use std::fs::{self, File};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{env, io, thread};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::geteuid;
use sha2::{Digest as _, Sha256};

use super::annex::{ANNEXES, Annex};
use super::mirror::{Mirror, apt_transport_options};

/// The suite that the root is made of.
const SUITE: &str = "trixie";
/// The suite that user-mode Linux comes from: older builds panic on CPUs with AMX.
const UML_SUITE: &str = "testing";
/// The package with the kernel.
const UML_PACKAGE: &str = "user-mode-linux";
/// What the hosts of the lab need beyond the essential packages.
const PACKAGES: &str = "iproute2,iputils-ping,tcpdump,iperf3,strongswan-swanctl,charon-systemd,\
    libstrongswan-standard-plugins,strongswan-pki,libstrongswan-extra-plugins,libcharon-extra-plugins,nftables,procps,kmod,\
    netcat-openbsd,curl,tshark,tmux,ethtool,socat,util-linux,ansible-core,openssh-server,cloud-init,etcd-server,etcd-client,prometheus";
/// Raised when the way of building changes and the packages do not.
const RECIPE: u32 = 1;

/// A finished root.
#[derive(Debug, Clone)]
pub struct Root {
    /// Where it lies.
    pub path: PathBuf,
}

impl Root {
    /// The root of this recipe, built now when the cache does not hold it.
    ///
    /// # Errors
    /// What could not be had, and what to do about it.
    pub fn prepare() -> Result<Self> {
        let cache = cache_dir()?;
        let path = cache.join(format!("root-{}", recipe_id()));
        if path.is_dir() {
            return Ok(Self { path });
        }
        fs::create_dir_all(&cache).with_context(|| format!("cannot create the cache {}", cache.display()))?;
        let lock = File::create(cache.join("lock")).context("cannot create the cache's lock")?;
        if lock.try_lock().is_err() {
            say("another run is building the lab's root; waiting for it");
            lock.lock().context("cannot lock the cache")?;
        }
        // Whoever held the lock may have built it.
        if !path.is_dir() {
            build(&cache, &path)
                .with_context(|| format!("the lab's root could not be built in {}", cache.display()))?;
        }
        Ok(Self { path })
    }
}

/// A line about progress, on stderr so that it is seen while tests are being captured.
pub fn say(line: &str) {
    if io::stderr().is_terminal() {
        eprintln!("\x1b[2mlab:\x1b[0m {line}");
    } else {
        eprintln!("lab: {line}");
    }
}

/// `$HOSTSEAL_LAB_CACHE`, else `hostseal-lab` in the user's cache directory.
pub(super) fn cache_dir() -> Result<PathBuf> {
    if let Some(path) = env::var_os("HOSTSEAL_LAB_CACHE") {
        return Ok(path.into());
    }
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache")))
        .context("neither HOSTSEAL_LAB_CACHE nor HOME is set: where shall the lab's root be kept?")?;
    Ok(base.join("hostseal-lab"))
}

/// Twelve digits that change with anything that goes into the root.
fn recipe_id() -> String {
    let annexes = ANNEXES.map(|annex| [annex.path, annex.suite, annex.packages].join(" ")).join(" ");
    let recipe = format!("{RECIPE} {SUITE} {UML_SUITE} {UML_PACKAGE} {PACKAGES} {annexes}");
    Sha256::digest(recipe).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Builds the root beside its place and moves it there when it is whole.
fn build(cache: &Path, path: &Path) -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "user-mode Linux is packaged for x86-64 only");
    let started = Instant::now();
    need_mmdebstrap()?;
    let mirror = Mirror::find()?;
    // A leftover of a build that was interrupted; nobody else writes here while we hold the lock.
    let work = cache.join("building");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    let root = work.join("root");
    fs::create_dir_all(&work)?;
    say(&format!("building the lab's root in {} (once; some minutes, 1.1 GB)", cache.display()));
    say(&format!("1/2 Debian {SUITE} with iproute2, tcpdump, strongSwan, …; {UML_PACKAGE}; other peers"));
    let package = gather(&mirror, &work)?;
    say("2/2 putting it together");
    run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root), &work.join("unpack.log"))?;
    adapt(&root)?;
    for annex in &ANNEXES {
        attach(annex, &annex_in(&work, annex).join("root"), &root)?;
    }
    fs::rename(&root, path).context("cannot move the finished root to its place")?;
    fs::remove_dir_all(&work).context("cannot remove the working directory of the build")?;
    say(&format!("the root is ready ({} s)", started.elapsed().as_secs()));
    Ok(())
}

/// Installs mmdebstrap when we may, and otherwise says how.
fn need_mmdebstrap() -> Result<()> {
    let runs = |program: &str| {
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if runs("mmdebstrap") {
        return Ok(());
    }
    ensure!(
        geteuid().is_root(),
        "mmdebstrap is not installed; install it: sudo apt-get install mmdebstrap uidmap"
    );
    say("installing mmdebstrap on this machine");
    let log = env::temp_dir().join(format!("hostseal-lab-apt-{}.log", std::process::id()));
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.args(["install", "-y", "--no-install-recommends", "mmdebstrap"]);
        run(apt.env("DEBIAN_FRONTEND", "noninteractive"), &log)
    };
    // The lists of a fresh machine are often missing or old.
    let installed =
        install().or_else(|_| run(Command::new("apt-get").arg("update"), &log).and_then(|()| install()));
    let _ = fs::remove_file(&log);
    installed.context("mmdebstrap could not be installed")?;
    ensure!(runs("mmdebstrap"), "mmdebstrap was installed and does not run");
    Ok(())
}

/// Fetches everything, at the same time: the root and the annexes unpacked, the kernel as a package.
fn gather(mirror: &Mirror, work: &Path) -> Result<PathBuf> {
    thread::scope(|scope| {
        let annexes = ANNEXES.each_ref().map(|annex| {
            scope.spawn(move || {
                bootstrap(mirror, annex.suite, "extract", annex.packages, &annex_in(work, annex))
                    .with_context(|| format!("the annex {} could not be built", annex.path))
            })
        });
        let package = scope.spawn(|| download_uml(mirror, work));
        bootstrap(mirror, SUITE, "minbase", PACKAGES, work)?;
        for annex in annexes {
            annex.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        package.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Where an annex is built.
fn annex_in(work: &Path, annex: &Annex) -> PathBuf {
    work.join(annex.path.replace('/', "_"))
}

/// Unpacks a Debian system into `root` in `work`: of that variant of mmdebstrap's, with these packages. It goes
/// through a tar archive, so that all files belong to us, root or not.
fn bootstrap(mirror: &Mirror, suite: &str, variant: &str, packages: &str, work: &Path) -> Result<()> {
    let (archive, root) = (work.join("root.tar"), work.join("root"));
    fs::create_dir_all(&root)?;
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--skip=check/empty", "--architectures=amd64", "--format=tar"])
        .args([format!("--variant={variant}"), format!("--include={packages}")])
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    for option in apt_transport_options()? {
        command.arg(format!("--aptopt={option}"));
    }
    command.arg(suite).arg(&archive).arg(mirror.line(suite));
    run(&mut command, &work.join("mmdebstrap.log"))?;
    let mut unpack = Command::new("tar");
    unpack.args(["-x", "--no-same-owner", "--exclude=./dev/*", "-f"]).arg(&archive).arg("-C").arg(&root);
    run(&mut unpack, &work.join("tar.log"))?;
    fs::remove_file(&archive).context("cannot remove the archive of the root")
}

/// Fetches the package with the kernel through apt, with separate lists and a separate cache.
fn download_uml(mirror: &Mirror, work: &Path) -> Result<PathBuf> {
    let apt = work.join("apt");
    for part in ["state", "cache"] {
        fs::create_dir_all(apt.join(part))?;
    }
    let sources = apt.join("sources.list");
    fs::write(&sources, mirror.line(UML_SUITE) + "\n")?;
    let command = || {
        let mut command = Command::new("apt-get");
        command
            .current_dir(&apt)
            .arg("-q")
            .arg(format!("-oDir::Etc::SourceList={}", sources.display()))
            .arg("-oDir::Etc::SourceParts=-")
            .arg(format!("-oDir::State={}", apt.join("state").display()))
            .arg("-oDir::State::Status=/dev/null")
            .arg(format!("-oDir::Cache={}", apt.join("cache").display()))
            .args(["-oAPT::Sandbox::User=root", "-oAPT::Architecture=amd64", "-oAPT::Architectures=amd64"])
            .args(["-oAcquire::Languages=none", "-oAcquire::Check-Valid-Until=false"]);
        command
    };
    run(command().arg("update"), &work.join("update.log"))?;
    run(command().args(["download", UML_PACKAGE]), &work.join("download.log"))?;
    fs::read_dir(&apt)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .with_context(|| format!("apt-get download {UML_PACKAGE} left no package"))
}

/// Puts the kernel's modules where modprobe looks and checks that the kernel is there.
fn adapt(root: &Path) -> Result<()> {
    ensure!(root.join("usr/bin/linux.uml").is_file(), "{UML_PACKAGE} holds no /usr/bin/linux.uml");
    let modules = root.join("usr/lib/modules");
    ensure!(!modules.exists(), "the root already has kernel modules");
    std::os::unix::fs::symlink("uml/modules", modules).context("cannot link the kernel's modules")
}

/// Moves an annex to its place in the root.
fn attach(annex: &Annex, built: &Path, root: &Path) -> Result<()> {
    let program = built.join(annex.program.trim_start_matches('/'));
    ensure!(program.is_file(), "Debian {} has no {} in {}", annex.suite, annex.program, annex.packages);
    // What base-files does when it is configured, which the packages of an annex are not.
    let run = built.join("var/run");
    fs::remove_dir(&run).with_context(|| format!("{} is no empty directory", run.display()))?;
    std::os::unix::fs::symlink("/run", &run).with_context(|| format!("cannot link {}", run.display()))?;
    let place = root.join(annex.path.trim_start_matches('/'));
    fs::rename(built, &place).with_context(|| format!("cannot move an annex to {}", place.display()))
}

/// Runs a command with its output in `log`; shows the end of it when the command fails.
fn run(command: &mut Command, log: &Path) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        bail!("{program} failed ({status}):\n{}", lines[lines.len().saturating_sub(15)..].join("\n"));
    }
    Ok(())
}
