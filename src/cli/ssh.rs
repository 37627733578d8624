//! The operator's own SSH session: `enable` must not cut it off in silence.

use std::fs;
use std::net::IpAddr;

use crate::config::{Config, Node};
use crate::types::exempt::Protocol;

/// The variable that sshd sets for what it starts.
const VARIABLE: &str = "SSH_CONNECTION";
/// So many parents are asked: `sudo` and the like strip the variable, a login shell above them has it.
const GENERATIONS: usize = 32;

/// Between whom the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SshSession {
    client: IpAddr,
    server: IpAddr,
    port: u16,
}

/// What to tell an operator whose session is about to be sealed; `None` where it is not.
pub(super) fn warning(config: &Config, node: &Node) -> Option<String> {
    let session = session(std::process::id())?;
    words(config, node, session)
}

fn words(config: &Config, node: &Node, session: SshSession) -> Option<String> {
    let SshSession { client, server, port } = session;
    let (peer, _) =
        config.pairs(node).into_iter().find(|(_, pair)| (pair.local, pair.remote) == (server, client))?;
    let exempt = config.protection.exempt.iter().any(|entry| {
        entry.is_served_by(&node.name)
            && entry.protocol == Protocol::Tcp
            && entry.ports.as_ref().is_some_and(|ports| ports.contains(&port))
    });
    (!exempt).then(|| {
        format!(
            "warning: this SSH session comes from {peer} ({client}) and will be encrypted with the rest, or end: \
             `hostseal enable --try 60s` goes back by itself unless you confirm"
        )
    })
}

/// The session of a process or the nearest of its ancestors that has one.
fn session(mut pid: u32) -> Option<SshSession> {
    for _ in 0..GENERATIONS {
        // A process that is gone, or that may not be looked at, ends the search above it, not here.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if let Some(session) = in_environment(&environment) {
            return Some(session);
        }
        pid = parent(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)?;
    }
    None
}

/// The session in an environment, as in `/proc/PID/environ`: assignments that end with NUL.
fn in_environment(environment: &[u8]) -> Option<SshSession> {
    let assignments = environment.split(|byte| *byte == 0).filter_map(|one| std::str::from_utf8(one).ok());
    let value = assignments.filter_map(|one| one.split_once('=')).find(|(name, _)| *name == VARIABLE)?.1;
    // Client, its port, server, its port (sshd(8)).
    let mut fields = value.split(' ');
    let (client, server) = (fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?);
    Some(SshSession { client, server, port: fields.next()?.parse().ok()? })
}

/// The parent in `/proc/PID/status`; `None` for the first process.
fn parent(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn config(protection: &str) -> Config {
        let nodes = "[[nodes]]\nname = \"a\"\naddresses = [\"10.99.0.1\", \"fd99::1\"]\n\
                     [[nodes]]\nname = \"b\"\naddresses = [\"10.99.0.2\", \"fd99::2\"]\n";
        Config::parse(&format!("cluster = \"c\"\n[protection]\n{protection}\n{nodes}"), "f").unwrap()
    }

    fn said(protection: &str, connection: &str) -> Option<String> {
        let config = config(protection);
        let session = in_environment(format!("A=1\0SSH_CONNECTION={connection}\0B=2\0").as_bytes())?;
        words(&config, &config.nodes[0], session)
    }

    #[test]
    fn a_session_from_a_member_is_warned_of_unless_its_port_is_exempt() {
        let from_b = "10.99.0.2 51000 10.99.0.1 22";
        let words = said("", from_b).unwrap();
        assert!(words.contains("from b (10.99.0.2)") && words.contains("enable --try 60s"), "{words}");
        assert!(!words.contains('\n'), "one line");
        assert!(said("", "fd99::2 51000 fd99::1 22").is_some());
        assert!(said("exempt = [\"tcp/2222\", \"udp/22\"]", from_b).is_some());
        assert_eq!(said("exempt = [\"tcp/20-25\"]", from_b), None);
        assert!(said("exempt = [\"tcp/22\"]", "10.99.0.2 51000 10.99.0.1 2222").is_some());
        assert_eq!(said("", "192.0.2.7 51000 10.99.0.1 22"), None, "no member");
        assert_eq!(said("", "10.99.0.2 51000 192.0.2.1 22"), None, "no address of a pair");
        assert_eq!(said("networks = [\"fd99::/64\"]", from_b), None, "not protected");
        for odd in ["", "10.99.0.2", "10.99.0.2 1 10.99.0.1", "b 1 a 22", "fe80::1%eth0 1 fe80::2%eth0 22"] {
            assert_eq!(said("", odd), None, "{odd}");
        }
    }

    #[test]
    fn an_ancestor_is_asked_where_the_variable_was_stripped() {
        let connection = "192.0.2.7 51000 192.0.2.1 22";
        let script = "env -u SSH_CONNECTION sleep 60 & echo $!; wait";
        let mut shell = Command::new("sh");
        let mut shell =
            shell.args(["-c", script]).env(VARIABLE, connection).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(shell.stdout.take().unwrap()), &mut line)
            .unwrap();
        let child: u32 = line.trim().parse().unwrap();
        let found = session(child).unwrap();
        assert_eq!((found.client.to_string(), found.port), ("192.0.2.7".to_owned(), 22));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child as i32), nix::sys::signal::SIGKILL).unwrap();
        shell.wait().unwrap();
        assert_eq!(parent("Name:\tinit\nPPid:\t0\n"), None);
    }
}
