//! The agents that run in this network namespace, from `/proc`: they are found there whatever became of their
//! files, and whether they answer or not.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::prctl;

/// What the process of an agent is called, whatever its program file is.
const NAME: &str = "hostseal";
/// The command that makes a process one.
const COMMAND: &[u8] = b"agent";

/// Has this process, an agent, found as one.
///
/// # Errors
/// The system refused.
pub(super) fn join() -> nix::Result<()> {
    prctl::set_name(c"hostseal")
}

/// The other agents in this network namespace, by their process numbers. Those in other process namespaces
/// cannot be seen.
///
/// # Errors
/// `/proc` cannot be read.
pub(super) fn find() -> io::Result<Vec<i32>> {
    let network = fs::read_link("/proc/thread-self/ns/net")?;
    let own = std::process::id().cast_signed();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.filter(|pid| *pid != own) else { continue };
        // One that has just ended has no network any more, and cannot be read.
        if is_agent(&entry.path())
            && fs::read_link(entry.path().join("ns/net")).is_ok_and(|its| its == network)
        {
            found.push(pid);
        }
    }
    Ok(found)
}

fn is_agent(process: &Path) -> bool {
    fs::read_to_string(process.join("status")).is_ok_and(|status| is_of_root(&status))
        && fs::read(process.join("cmdline")).is_ok_and(|line| is_command(&line))
        && !is_lent(&process.join("exe"))
}

/// Whether anybody who runs this program gets its owner's powers: then it is root's process, and not by root's wish, and
/// whoever started it has chosen its name.
fn is_lent(program: &Path) -> bool {
    fs::metadata(program).is_ok_and(|found| found.mode() & 0o6000 != 0)
}

/// Whether a process has our name, and root runs it (proc_pid_status(5)): anybody can have the name.
fn is_of_root(status: &str) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    field("Name") == Some(NAME) && field("Uid").is_some_and(|uids| uids.split('\t').all(|uid| uid == "0"))
}

/// Whether a command line, with a zero behind each word, is that of an agent.
fn is_command(line: &[u8]) -> bool {
    line.split(|byte| *byte == 0).skip(1).any(|word| word == COMMAND)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// Anybody can run a program that the system lends root's powers by a link of our name, and some take them whole
    /// at once (sudo(8)).
    #[test]
    fn a_program_that_anybody_may_run_as_root_is_no_agent() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join(NAME);
        fs::copy("/bin/sh", &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
        let mut command = Command::new(&program);
        command.args(["-c", "read line", "agent"]).stdin(Stdio::piped());
        let mut lent = command.spawn().unwrap();
        let status = format!("/proc/{}/status", lent.id());
        while !fs::read_to_string(&status).unwrap().starts_with("Name:\thostseal\n") {
            std::thread::yield_now();
        }
        assert!(is_of_root(&fs::read_to_string(&status).unwrap()));
        assert!(!find().unwrap().contains(&lent.id().cast_signed()));
        drop(lent.stdin.take());
        lent.wait().unwrap();
    }

    #[test]
    fn only_roots_agents_count() {
        let status = |name: &str, uids: &str| format!("Name:\t{name}\nUmask:\t0077\nUid:\t{uids}\nGid:\t0\n");
        assert!(is_of_root(&status("hostseal", "0\t0\t0\t0")));
        assert!(!is_of_root(&status("hostseal", "1000\t0\t0\t0")));
        assert!(!is_of_root(&status("hostseal-keeper", "0\t0\t0\t0")));
        assert!(!is_of_root(""));
        assert!(is_command(b"/usr/sbin/hostseal\0agent\0"));
        assert!(is_command(b"hostseal\0--config\0/x\0agent\0--detached\0"));
        assert!(!is_command(b"agent\0status\0--watch\0"));
        assert!(!is_command(b""));
    }
}
