//! The agents that run in this network namespace, from `/proc`: they are found there whatever became of their
//! files, and whether they answer or not.

use std::fs;
use std::io;
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
    use super::*;

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
