//! The helper of hostseal's agent that keeps a roster in etcd. It has no powers: systemd runs it as a user who is
//! nobody else, or it becomes one before it hears anything. Whatever it says is checked by the agent.

mod agent;
mod etcd;
mod message;
mod powers;
mod rpc;
mod session;
mod tls;

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use anyhow::Context as _;
use clap::Parser;
use hostseal_store_protocol::{StoreNews, encode, words};

use crate::agent::{AgentEnd, Opened};
use crate::etcd::Endpoint;
use crate::session::Store;

/// Keeps the roster of a hostseal cluster in etcd, for the agent of this host.
///
/// systemd starts it when the agent connects (hostseal-etcd.socket), with that socket as its standard input. Elsewhere,
/// start it as root with --listen and --user: it binds the socket, and gives root up for good.
#[derive(Parser)]
#[command(name = "hostseal-etcd", version)]
struct Arguments {
    /// The socket to bind; without it, standard input is a socket that listens.
    #[arg(long, value_name = "PATH", requires = "user")]
    listen: Option<PathBuf>,
    /// The user to become, who should have nothing else.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostseal-etcd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let listener = match &arguments.listen {
        Some(path) => bind(path).with_context(|| format!("{} cannot be bound", path.display()))?,
        None => {
            powers::standard_input().context("standard input is no socket: say --listen PATH --user NAME")?
        }
    };
    powers::give_up(arguments.user.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    loop {
        let (stream, _) = listener.accept().context("standard input is no socket that listens")?;
        if let Err(error) = serve(stream, &runtime) {
            eprintln!("hostseal-etcd: {error:#}");
        }
    }
}

/// Only root, who binds it, may connect.
fn bind(path: &PathBuf) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(before);
    listener
}

/// Serves an agent until it is gone: there is one at a time.
fn serve(stream: UnixStream, runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    let opened = agent::open(&stream)?;
    let store = store(opened).inspect_err(|error| refuse(&stream, error))?;
    runtime.block_on(async {
        let mut agent = AgentEnd::new(stream)?;
        store.serve(&mut agent).await;
        Ok(())
    })
}

fn store(opened: Opened) -> anyhow::Result<Store> {
    let Opened { endpoints, prefix, files } = opened;
    let read = |url: &String| {
        Endpoint::read(url).with_context(|| format!("{url}: an endpoint is https://HOST:PORT"))
    };
    let endpoints = endpoints.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    anyhow::ensure!(!endpoints.is_empty() && !prefix.is_empty(), "there is no endpoint or no prefix");
    Ok(Store { endpoints, config: tls::config(files)?, prefix })
}

/// Says why an agent is not served. It may be gone by now.
fn refuse(mut stream: &UnixStream, error: &anyhow::Error) {
    let away = StoreNews::Away { why: words(&format!("{error:#}")) };
    let _ = io::Write::write_all(&mut stream, &encode(&away));
}
