//! The ends of `hostseal init`, `hostseal join` and `hostseal leave --to-file`: the agent starts, and the operator hears what there is now.

use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use zeroize::Zeroizing;

use super::member::OwnMember;
use crate::cli::args::{InitArgs, Invocation, JoinArgs};
use crate::cli::client::Client;
use crate::cli::enable::{Course, gone};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::follow::follow;
use crate::cli::present::Shown as _;
use crate::cli::progress::View;
use crate::cli::render::{Extent, names};
use crate::cli::term::{Audience, Style, print, print_json, tell};
use crate::cli::{context, start};
use crate::config::Config;
use crate::control::{FormerMember, NewCluster, NewMember};
use crate::observe::status::Status;
use crate::store::config_file;
use crate::types::RowState;
use crate::types::units::{counted, listed};

/// What stands before a token where somebody gives the whole command.
const COMMAND: &str = "hostseal join ";
/// The most octets that are read of a token.
const TOKEN_MAX: usize = 8192;
/// How long a new agent may take to answer.
const START: Duration = Duration::from_secs(30);
/// So many nodes are named.
const NAMED: usize = 12;

/// A cluster that was joined, for programs.
#[derive(Serialize)]
struct JoinedJson<'j> {
    #[serde(flatten)]
    joined: &'j NewMember,
    /// How this host stands now; `None` where the cluster is not to be protected.
    status: Option<&'j Status>,
}

/// The token that the command line gives, or standard input.
///
/// # Errors
/// It cannot be read.
pub fn token(args: &JoinArgs) -> Result<Zeroizing<String>, CommandError> {
    let given = match args.token.0.as_str() {
        "-" => read_secret_line("the token")?,
        token => Zeroizing::new(token.to_owned()),
    };
    Ok(Zeroizing::new(bare(&given).to_owned()))
}

/// A secret from standard input, so that it does not stand in the process list.
pub(super) fn read_secret_line(what: &str) -> Result<Zeroizing<String>, CommandError> {
    // Its full size at once: growing would leave copies behind.
    let mut given = Zeroizing::new(String::with_capacity(TOKEN_MAX));
    let read = std::io::stdin().lock().take(TOKEN_MAX as u64).read_to_string(&mut given);
    read.map_err(|error| CommandError::io(format!("reading {what} from standard input"), &error))?;
    Ok(given)
}

/// A token without the command that may stand before it, as `hostseal token create` prints it.
fn bare(given: &str) -> &str {
    let given = given.trim();
    given.strip_prefix(COMMAND).unwrap_or(given).trim()
}

/// Shows how far a command is.
pub fn step(invocation: &Invocation, step: &dyn fmt::Display) {
    if !invocation.quiet {
        tell(&step.to_string());
    }
}

/// Ends `hostseal init`: shows what was founded, and starts the agent.
///
/// # Errors
/// The agent does not start, or nobody can be told.
pub fn founded(invocation: &Invocation, args: &InitArgs, founded: &NewCluster) -> Result<Exit, CommandError> {
    // First: whatever comes of the agent, the recovery key is shown. And the agent starts, whether anybody reads that.
    let shown = match args.json {
        true => print_json(founded),
        false => print(&found_words(founded)),
    };
    start_agent(invocation, "the cluster is founded")?;
    shown.map(|_| Exit::Done)
}

/// Ends `hostseal join`: starts the agent and, if the cluster is to be protected, follows it until this host is.
///
/// # Errors
/// The agent does not start or ends, or nobody can be told.
pub fn joined(invocation: &Invocation, args: &JoinArgs, joined: &NewMember) -> Result<Exit, CommandError> {
    let deadline = Instant::now() + args.timeout;
    let shown = if args.json { Ok(Audience::There) } else { print(&join_words(joined)) };
    let member = start_agent(invocation, "this host has joined")?;
    shown?;
    if !joined.desired_on {
        if args.json {
            print_json(&JoinedJson { joined, status: None })?;
        }
        return Ok(Exit::Done);
    }
    let (view, mut course) = (View::new(invocation.quiet), Course::new(member.config.protection.mode));
    let status =
        follow(&member.client, view, RowState::Protected, deadline, |progress| course.is_over(progress))
            .map_err(gone)?;
    match args.json {
        true => print_json(&JoinedJson { joined, status: Some(&status) })?,
        false => print(&status.text(Extent::of_stdout(), Style::of_stdout()))?,
    };
    Ok(if status.only_waits() { Exit::Waiting } else { status.exit() })
}

/// The agent of a host that is to become a member, which may have to end for that.
pub struct RunningAgent(Option<(Client, Config)>);

impl RunningAgent {
    /// The one that runs now, if one does.
    pub fn of(invocation: &Invocation) -> Self {
        let config = config_file::load(&invocation.config).ok();
        let of_config = config.map(|config| (context::client(&config), config));
        Self(of_config.filter(|(client, _)| client.is_there().is_ok_and(|there| there)))
    }

    /// Has it go on, where it has ended and nothing came of it because of `error`: the kernel has had what it needs
    /// meanwhile.
    pub fn go_on(self, invocation: &Invocation, error: CommandError) -> CommandError {
        let Some((client, config)) = self.0.filter(|(client, _)| client.is_there().is_ok_and(|there| !there))
        else {
            return error;
        };
        let started = start::start(invocation, &config)
            .and_then(|started| start::wait(started, &client, Instant::now() + START));
        match started {
            Ok(()) => error,
            Err(other) => {
                let message =
                    format!("{}; and the agent does not run again: {}", error.message, other.message);
                CommandError::new(error.exit, message)
            }
        }
    }
}

/// Ends `hostseal leave --to-file`: starts the agent, which goes on by the file.
///
/// # Errors
/// The agent does not start, or nobody can be told.
pub fn left(invocation: &Invocation, left: &FormerMember, json: bool) -> Result<Exit, CommandError> {
    let shown = match json {
        true => print_json(left),
        false => print(&left_words(left)),
    };
    if left.protected {
        start_agent(invocation, "this host runs by its file now")?;
    }
    shown.map(|_| Exit::Done)
}

/// Starts the agent of this new member. If that fails, what is `done` stays done.
fn start_agent(invocation: &Invocation, done: &str) -> Result<OwnMember, CommandError> {
    let started = OwnMember::of(invocation)
        .and_then(|member| member.start_agent(invocation, Instant::now() + START).map(|()| member));
    started.map_err(|error| {
        let message = format!(
            "{done}, and the agent does not run: {}. Once that is mended, start it (`systemctl start hostseal`, or \
             `hostseal agent`)",
            error.message
        );
        CommandError::new(error.exit, message)
    })
}

fn found_words(founded: &NewCluster) -> Zeroizing<String> {
    let NewCluster { cluster, node, addresses, recovery, to_join, former_file, desired_on } = founded;
    let former = former_file.as_deref().map(former_words).unwrap_or_default();
    let mut next = match to_join.as_slice() {
        [] => "  hostseal token create       prints the command that joins one more node\n".to_owned(),
        waiting => format!(
            "  hostseal token create NODE  prints the command that joins one of the nodes of the file: {}.\n{:30}Until \
             then it runs by its file, and is protected as before\n",
            listed(waiting, NAMED),
            ""
        ),
    };
    if !desired_on {
        next.push_str("  hostseal enable --cluster   protects all of them\n");
    }
    Zeroizing::new(format!(
        "cluster {cluster} is founded; this host is its node {node} ({}), an admin\n{former}\n\
         recovery key  {}\n\n\
         It is shown this once, and is on no host. Write it down and keep it away from all nodes: it outranks all \
         admins, so it\nis what helps where they are lost or stolen, and whoever has it decides about the cluster.\n\n\
         Next:\n{next}",
        names(addresses),
        recovery.as_str()
    ))
}

fn join_words(joined: &NewMember) -> String {
    let NewMember { cluster, node, addresses, admin, nodes, desired_on, to_join, former_file } = joined;
    let admin = if *admin { ", an admin" } else { "" };
    let next = match desired_on {
        true => "",
        false => "; it is not enabled (`hostseal enable --cluster`)",
    };
    let rest = match (former_file, to_join.as_slice()) {
        (None, _) => String::new(),
        (Some(file), []) => format!("{}all nodes of the file have joined\n", former_words(file)),
        (Some(file), waiting) => {
            format!(
                "{}these nodes of the file are still to join: {}\n",
                former_words(file),
                listed(waiting, NAMED)
            )
        }
    };
    format!(
        "joined cluster {cluster} as node {node} ({}){admin}; it has {} now{next}\n{rest}",
        names(addresses),
        counted(*nodes, "node")
    )
}

fn left_words(left: &FormerMember) -> String {
    let FormerMember { cluster, node, key_file, former_file, .. } = left;
    let former = former_file.as_ref();
    let former =
        former.map(|file| format!("the file that it had as a member is kept in {}\n", file.display()));
    format!(
        "this host runs by its file, where it is node {node}; its key is {} now\n{}the other nodes of {cluster} go on with \
         it as before, until they run by the file too\n",
        key_file.display(),
        former.unwrap_or_default()
    )
}

fn former_words(file: &Path) -> String {
    format!("the file that this host ran by is kept in {}\n", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_come_with_its_command() {
        for given in [
            "hostseal1_abc",
            " hostseal1_abc\n",
            "hostseal join hostseal1_abc\n",
            "hostseal join  hostseal1_abc",
        ] {
            assert_eq!(bare(given), "hostseal1_abc", "{given:?}");
        }
        assert_eq!(bare("hostseal1_a\nbc"), "hostseal1_a\nbc", "whoever reads it takes white space out");
    }

    #[test]
    fn what_was_founded() {
        let founded = NewCluster {
            cluster: "prod".to_owned(),
            node: "a".parse().unwrap(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            recovery: Zeroizing::new("hostseal-recovery1_xyz".to_owned()),
            to_join: Vec::new(),
            former_file: None,
            desired_on: false,
        };
        let words = found_words(&founded);
        assert!(
            words.starts_with(
                "cluster prod is founded; this host is its node a (10.0.0.1, fd00::1), an admin\n"
            )
        );
        assert_eq!(words.matches("hostseal-recovery1_xyz").count(), 1);
        assert!(words.contains("hostseal token create"), "{}", *words);
        assert!(words.lines().all(|line| line.len() <= 120), "{}", *words);
        let json = serde_json::to_value(&founded).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "cluster": "prod", "node": "a", "addresses": ["10.0.0.1", "fd00::1"],
                "recovery_key": "hostseal-recovery1_xyz", "to_join": [], "former_file": null, "desired_on": false
            })
        );
    }

    #[test]
    fn what_was_founded_of_a_file() {
        let words = found_words(&NewCluster {
            cluster: "prod".to_owned(),
            node: "a".parse().unwrap(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            recovery: Zeroizing::new("hostseal-recovery1_xyz".to_owned()),
            to_join: vec!["b".parse().unwrap(), "c".parse().unwrap()],
            former_file: Some("/etc/hostseal/hostseal.toml.former".into()),
            desired_on: true,
        });
        assert!(words.contains("an admin\nthe file that this host ran by is kept in /etc"), "{}", *words);
        assert!(words.contains("the nodes of the file: b, c.\n") && !words.contains("enable"), "{}", *words);
    }

    #[test]
    fn what_was_joined() {
        let mut joined = NewMember {
            cluster: "prod".to_owned(),
            node: "c".parse().unwrap(),
            addresses: vec!["10.0.0.3".parse().unwrap()],
            admin: false,
            nodes: 3,
            desired_on: true,
            to_join: vec!["d".parse().unwrap()],
            former_file: None,
        };
        assert_eq!(join_words(&joined), "joined cluster prod as node c (10.0.0.3); it has 3 nodes now\n");
        (joined.admin, joined.desired_on) = (true, false);
        assert_eq!(
            join_words(&joined),
            "joined cluster prod as node c (10.0.0.3), an admin; it has 3 nodes now; it is not enabled (`hostseal enable \
             --cluster`)\n"
        );
        joined.former_file = Some("/f".into());
        assert!(
            join_words(&joined).ends_with("is kept in /f\nthese nodes of the file are still to join: d\n")
        );
        joined.to_join.clear();
        assert!(join_words(&joined).ends_with("all nodes of the file have joined\n"));
        let json = serde_json::to_value(JoinedJson { joined: &joined, status: None }).unwrap();
        assert_eq!(
            (&json["node"], &json["desired_on"], &json["status"]),
            (&"c".into(), &false.into(), &().into())
        );
    }
}
