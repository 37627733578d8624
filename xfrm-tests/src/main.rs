//! The lab's command line: a shell on its hosts, the demo, the benchmarks.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xfrm_tests::harness;
use xfrm_tests::lab::inside;
use xfrm_tests::lab::place::Place;
use xfrm_tests::lab::session::{Input, Job, Show};
use xfrm_tests::shows;

/// A real kernel with ESP and as many hosts as you like, on any machine.
///
/// The first run builds a small Debian in ~/.cache/hostseal-lab (or $HOSTSEAL_LAB_CACHE). Nothing else of
/// this machine is touched.
#[derive(Parser)]
#[command(name = "cargo lab", bin_name = "cargo lab")]
struct Arguments {
    #[command(subcommand)]
    command: Ask,
}

#[derive(Subcommand)]
enum Ask {
    /// Build what the lab needs, if it is not there, and say where it would run.
    Prepare,
    /// Make hosts and run a command, or an interactive shell, on the first one.
    ///
    /// `ip netns exec b COMMAND` reaches host b, and so on. hostseal is /mnt/hostseal.
    Shell {
        /// How many hosts: a = 10.99.0.1 and fd99::1, b = 10.99.0.2 and fd99::2, …
        #[arg(long, default_value_t = 3)]
        hosts: usize,
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Run this revision and an older one in one cluster: enable, traffic, rekey, kill, upgrade, disable.
    Compat {
        /// The older one; otherwise the newest tag, or else the commit before this one.
        revision: Option<String>,
        /// With a roster instead of a file on each host: join, settings, remove, rotate. The older one has to be of an
        /// older generation, and to know rosters.
        #[arg(long)]
        cluster: bool,
    },
    /// Show hostseal at work: five hosts, one command.
    Demo,
    /// Make pictures of the exporter's page with this machine's Chromium: 16 nodes, a pair blocked, a pair clear, a node not
    /// reached; in light, in dark, and with JavaScript off.
    Page,
    /// Run a benchmark with everything optimised; without a name, list them.
    Bench {
        /// Which one.
        name: Option<String>,
        /// Its own arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Go through every transition of a protected host under load and print what it costs, as a table.
    Transitions {
        /// Only those with one of these words in their name.
        words: Vec<String>,
    },
    /// Let the agent die after each kernel operation of each transition, and start the next one.
    Faults {
        /// Only the transitions with one of these words in their name.
        words: Vec<String>,
    },
    /// Go through everything that can happen between hostseal and a stock strongSwan or Libreswan, as a table.
    Interop {
        /// Only the lines that have all of these words in them, such as `Libreswan` or `initiates`.
        words: Vec<String>,
    },
    /// Let leaders of three etcds die while members of a cluster order something that goes by etcd alone.
    Etcd {
        /// How many members, and how many leaders die; 20 and 20 by default.
        numbers: Vec<String>,
    },
    /// Take the key of five hosts away in every way, and give it back: how soon they are cut off and protected again, as a
    /// table.
    Kms {
        /// Only the lines with one of these words in their name.
        words: Vec<String>,
    },
    /// Let each alert fire in a scenario that deserves it and in no other, and show that each query of the dashboard has
    /// data: a cluster of files, one with a roster, one with a key in a KMS.
    Alerts {
        /// Only the clusters with one of these words in their name: `files`, `members`, `kms`.
        words: Vec<String>,
    },
    /// Let a cluster run with short lifetimes and many restarts, and print what it holds each minute.
    Soak {
        /// How long, such as 30m; with --virtual in whole hours, such as 24h.
        #[arg(default_value = "30m")]
        time: String,
        /// Simulated hosts in virtual time instead.
        #[arg(long = "virtual")]
        simulated: bool,
        /// With --virtual: how many.
        #[arg(long, requires = "simulated", default_value_t = 50)]
        hosts: u64,
        /// With --virtual: each host is paired with so many others only, and not with all.
        #[arg(long, requires = "simulated")]
        peers: Option<u64>,
        /// With --virtual: repeats a run.
        #[arg(long, requires = "simulated", default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    inside::run_if_inside();
    match run(Arguments::parse().command) {
        Ok(code) => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(ask: Ask) -> Result<i32> {
    match ask {
        Ask::Prepare => Place::find().map(|place| {
            println!("{}", place.root().path.display());
            0
        }),
        Ask::Shell { hosts, command } => {
            let input = if command.is_empty() { Input::Terminal } else { Input::Empty };
            harness::show(&Job::Shell { hosts, command }, input)
        }
        Ask::Compat { revision, cluster } => {
            harness::show_compatibility(revision.as_deref(), cluster, is_colourful())
        }
        Ask::Demo => show("demo", Vec::new()),
        Ask::Page => show("page", Vec::new()),
        Ask::Transitions { words } => show("transitions", words),
        Ask::Interop { words } => show("interop", words),
        Ask::Faults { words } => show("faults", words),
        Ask::Soak { time, simulated: true, hosts, peers, seed } => {
            let peers = peers.unwrap_or(hosts.saturating_sub(1));
            harness::soak_in_virtual_time(&time, [("HOSTS", hosts), ("PEERS", peers), ("SEED", seed)])
        }
        Ask::Etcd { numbers } => show("etcd", numbers),
        Ask::Kms { words } => show("kms", words),
        Ask::Alerts { words } => show("alerts", words),
        Ask::Soak { time, .. } => show("soak", vec![time]),
        Ask::Bench { name: Some(name), arguments } if asks_for_help(&arguments) => {
            let about = shows::find(&name).map(|entry| entry.about);
            ensure_known(&name)?;
            println!("{}\n\nUsage: cargo lab bench {name} [SIZE…]", about.unwrap_or_default());
            Ok(0)
        }
        // What is measured is optimised, whatever this program is: parts of it are measured too.
        Ask::Bench { name: Some(name), arguments } if cfg!(debug_assertions) => {
            ensure_known(&name)?;
            harness::in_release(&[vec!["bench".to_owned(), name], arguments].concat())
        }
        Ask::Bench { name: Some(name), arguments } => show(&name, arguments),
        Ask::Bench { name: None, .. } => {
            for entry in shows::ALL {
                println!("{:12} {}", entry.name, entry.about);
            }
            Ok(0)
        }
    }
}

fn asks_for_help(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| argument == "--help" || argument == "-h")
}

fn ensure_known(name: &str) -> Result<()> {
    anyhow::ensure!(
        shows::find(name).is_some(),
        "there is no `{name}`; `cargo lab bench` lists what there is"
    );
    Ok(())
}

fn show(name: &str, arguments: Vec<String>) -> Result<i32> {
    ensure_known(name)?;
    let show = Show { name: name.to_owned(), arguments, colour: is_colourful() };
    harness::show(&Job::Show(show), Input::Empty)
}

fn is_colourful() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
