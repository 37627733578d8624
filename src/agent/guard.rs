//! `hostseal guard`: blocks sealed pairs before any network is up, with no agent.
//!
//! A kernel starts with empty tables: sealed pairs would be in the clear until an agent runs. The guard
//! takes the agent's first step, decided by the same machines ([`first_step`]), and needs
//! neither keys nor sockets nor an address of this host for it. The agent then finds its first step done,
//! so that nothing changes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};

use super::single::Single;
use crate::config::{Config, ConfigError, Exemptions, Node, WhoamiError};
use crate::host::guard::{self, block_all, first_step};
use crate::host::scheme::Scheme;
use crate::machine::{self, named_node, own_addresses};
use crate::observe::explain::in_the_way;
use crate::protect::Plan;
use crate::store::{Places, Saved, SavedError, addresses_in, config_file, enabled};
use crate::types::Pair;
use crate::types::units::counted;
use crate::xfrm;

/// Puts in what a sealed pair without keys has in the kernel. Says what it did.
///
/// # Errors
/// The configuration is wrong, or the kernel does not let us. Where it cannot be known what was sealed (the file, the
/// state or both are broken, the node is unknown), what they name is blocked, and that is an error too.
pub fn guard(path: &Path) -> anyhow::Result<String> {
    match config_file::load_or_last_good(path) {
        // A broken file must not open what the last good one has sealed.
        Ok((config, _)) => guard_by(path, &config),
        Err(broken) => guard_without_file(path, broken),
    }
}

fn guard_by(path: &Path, config: &Config) -> anyhow::Result<String> {
    if Single::new(&config.run_dir).runs()? {
        return Ok(AGENT_RUNS.to_owned());
    }
    let sealed = match sealed_pairs(path, config) {
        Ok(ToGuard::Nothing(why)) => return Ok(format!("nothing to guard: {why}")),
        Ok(ToGuard::Pairs(node, sealed)) => Ok((node, sealed)),
        Err(unknown) => Err(unknown),
    };
    let mut kernel = xfrm::Tables::open().context("the kernel's IPsec tables cannot be opened")?;
    let actual = kernel.read()?;
    match sealed {
        Ok((node, sealed)) => {
            let plan = first_step(&Scheme::of(config, node), &sealed, actual, Instant::now());
            carry_out(&mut kernel, &plan)?;
            let (pairs, changes) = (counted(sealed.len(), "sealed pair"), counted(plan.ops.len(), "change"));
            Ok(format!("guarding {pairs} ({changes} in the kernel)"))
        }
        Err(unknown) => {
            let listed = config.nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect();
            carry_out(&mut kernel, &block_all(&listed, &Exemptions::of(config, None), &actual))?;
            Err(anyhow::Error::new(unknown)
                .context("what was sealed cannot be known, so every listed address is blocked"))
        }
    }
}

/// The file is broken or gone, and no good one was kept: what the state has as sealed is blocked. Where that is lost or
/// broken too on a host that was enabled, every address that stands in the file is.
fn guard_without_file(path: &Path, broken: ConfigError) -> anyhow::Result<String> {
    let places = Places::of(path);
    if Single::new(&places.run_dir).runs()? {
        return Ok(AGENT_RUNS.to_owned());
    }
    let state = places.state_path();
    let is_there = state.exists();
    let remotes: BTreeSet<IpAddr> = match Saved::load(&state) {
        Ok(mut saved) if is_there => {
            let sealed = guard::sealed(&mut saved, &machine::boot()?).unwrap_or_default();
            sealed.into_iter().map(|pair| pair.remote).collect()
        }
        Ok(_) if !enabled::is_marked(path) => BTreeSet::new(),
        Ok(_) | Err(_) => addresses_in(path),
    };
    if remotes.is_empty() {
        return Err(broken.into());
    }
    let mut kernel = xfrm::Tables::open().context("the kernel's IPsec tables cannot be opened")?;
    let actual = kernel.read()?;
    carry_out(&mut kernel, &block_all(&remotes, &Exemptions::default(), &actual))?;
    let blocked: Vec<String> = remotes.iter().map(IpAddr::to_string).collect();
    bail!(
        "the configuration cannot be read, and no good one was kept, so all is blocked between this host and {}: \
         mend it, or `hostseal disable --force`\n{broken}",
        blocked.join(", ")
    )
}

/// Said where an agent does it.
const AGENT_RUNS: &str = "an agent runs and guards this host itself";

/// What is to be guarded.
enum ToGuard<'c> {
    /// Nothing, and why.
    Nothing(&'static str),
    /// These pairs of this host.
    Pairs(&'c Node, BTreeSet<Pair>),
}

/// Why the sealed pairs are not known.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error(transparent)]
    Saved(#[from] SavedError),
    #[error(transparent)]
    Whoami(#[from] WhoamiError),
    #[error("the system does not say when it was started: {0}")]
    Boot(#[from] io::Error),
}

fn sealed_pairs<'c>(path: &Path, config: &'c Config) -> Result<ToGuard<'c>, Unknown> {
    let mut saved = match enabled::in_place_of_lost_state(path, config) {
        Some(saved) => saved,
        None => Saved::load(&config.state_path())?,
    };
    let sealed = match guard::sealed(&mut saved, &machine::boot()?) {
        Ok(sealed) => sealed,
        Err(why) => return Ok(ToGuard::Nothing(why)),
    };
    // Before the network is up there are none, and the saved name counts.
    let own = own_addresses().unwrap_or_default();
    let node = config.whoami(&own, named_node().as_deref(), saved.node.as_ref())?;
    Ok(ToGuard::Pairs(node, sealed))
}

fn carry_out(kernel: &mut xfrm::Tables, plan: &Plan) -> anyhow::Result<()> {
    let results = kernel.apply(&plan.ops, &BTreeMap::new());
    let refused = results.into_iter().filter_map(Result::err).map(|error| error.to_string());
    let conflicts = plan.conflicts.iter().map(in_the_way);
    let wrong: Vec<String> = refused.chain(conflicts).collect();
    if !wrong.is_empty() {
        bail!("not everything is guarded: {}", wrong.join("; "));
    }
    Ok(())
}
