//! `hostseal exporter`: shows monitoring systems and people what the agent says. It has no powers and needs no file: only
//! the agent's socket for onlookers. Whoever asks it can keep neither it nor the agent from their work.
//!
//! ```text
//! listen      where it listens
//! serve       connections, within bounds
//! routes      what is asked, and what is answered
//! source      what the agent says to monitoring systems
//! page        what it says to people, as a document
//! names       by which names browsers may ask for that
//! asked_once  what is asked once for all who want to know at the moment
//! memory      what is still true without an agent
//! ```

mod asked_once;
mod listen;
mod memory;
mod names;
mod page;
mod routes;
mod serve;
mod source;

use std::path::PathBuf;

use self::listen::ScrapeSocket;
use self::memory::Memory;
use self::names::HostNames;
use self::page::PageSource;
use self::routes::Desk;
use self::source::AgentSource;
use super::args::{ExporterArgs, Invocation};
use super::client::Client;
use super::exit::{CommandError, Exit};
use super::metrics::{by_files, onlookers_socket, readable};
use crate::config::MetricsRules;
use crate::machine;

/// An exporter that is bound, and has asked nobody yet: the moment to give up what it was started with.
pub struct Exporter {
    sockets: Vec<ScrapeSocket>,
    socket: PathBuf,
    state: Option<PathBuf>,
    memory: Memory,
    names: HostNames,
}

impl Exporter {
    /// Binds what the command line says, or takes what the service manager has handed over, or else binds what the
    /// configuration says.
    ///
    /// # Errors
    /// The configuration is wrong, or the system refuses.
    pub fn open(invocation: &Invocation, args: &ExporterArgs) -> Result<Self, CommandError> {
        let configured = || {
            let config = &invocation.config;
            let text = readable(config)
                .map_err(|error| CommandError::io(format!("reading {}", config.display()), &error))?;
            let rules = MetricsRules::of_file(&text.unwrap_or_default(), &config.display().to_string())?;
            Ok(rules.listen)
        };
        let sockets = listen::sockets(args.listen.clone(), configured)?;
        let boot = machine::boot()
            .map_err(|error| CommandError::io("asking for this start of the system", &error))?;
        let name = machine::host_name().inspect_err(|error| {
            tracing::warn!("the page is not shown by the name of this host, which is not known: {error}");
        });
        Ok(Self {
            sockets,
            socket: onlookers_socket(invocation, args.socket.as_deref()),
            memory: Memory::open(args.state.as_deref(), boot.id, by_files(&invocation.config)),
            state: args.state.clone(),
            names: HostNames::new(name.ok().as_deref(), &args.names),
        })
    }

    /// The directory that it writes in.
    pub fn writes(&self) -> Option<PathBuf> {
        self.state.clone()
    }

    /// Serves until it is killed.
    ///
    /// # Errors
    /// The system refuses.
    pub fn run(self) -> Result<Exit, CommandError> {
        let desk = Desk {
            metrics: AgentSource::new(Client::new(self.socket.clone()), self.memory),
            page: PageSource::new(Client::new(self.socket)),
            names: self.names,
        };
        serve::run(self.sockets, desk).map_err(|error| CommandError::io("serving", &error))?;
        Ok(Exit::Done)
    }
}
