//! What of this host's system gets in the way of protection: IPsec of other software, and holes.

use super::exit::{CommandError, Exit};
use super::status::read_kernel;
use super::term::tell;
use crate::config::{Config, Exemptions, Node};
use crate::machine::{self, Network};
use crate::observe::strangers::Ground;
use crate::observe::{default_blocks, holes, strangers};
use crate::types::{Pair, Problem};
use crate::xfrm::Tables;

/// The IPsec of other software that concerns the pairs of this host.
///
/// # Errors
/// The kernel's tables cannot be read.
pub(super) fn problems(config: &Config, node: &Node) -> Result<Vec<Problem>, CommandError> {
    let pairs = config.pairs(node);
    let exempt = Exemptions::of(config, Some(node));
    let mut found = strangers::problems(&read_kernel()?.strangers, Ground { pairs: &pairs, exempt: &exempt });
    found.extend(dropped_by_default()?);
    Ok(found)
}

/// Packets that this system drops as no policy matches them.
///
/// # Errors
/// The kernel does not tell.
pub(super) fn dropped_by_default() -> Result<Option<Problem>, CommandError> {
    let failed = |error| CommandError::io("asking for the kernel's default policy", &error);
    let blocks = Tables::open().and_then(|mut tables| tables.default_blocks()).map_err(failed)?;
    Ok(default_blocks::problem(blocks))
}

/// Interfaces that let packets past the policies.
///
/// # Errors
/// The kernel does not tell of its network.
pub(super) fn holes(config: &Config, node: &Node) -> Result<Vec<Problem>, CommandError> {
    let pairs: Vec<Pair> = config.pairs(node).into_iter().map(|(_, pair)| pair).collect();
    let network = Network::open().map_err(|error| CommandError::io("asking for this host's network", &error));
    Ok(holes::problems(&machine::holes(&mut network?, &pairs)))
}

/// Refuses to protect a host on which other software decides first: its traffic would get past
/// hostseal's policies, or hostseal's peers would drop it. What has no effect is only said.
pub(super) fn check(config: &Config, node: &Node) -> Result<(), CommandError> {
    let (wrong, harmless): (Vec<_>, Vec<_>) =
        problems(config, node)?.into_iter().partition(Problem::is_critical);
    harmless.iter().for_each(|problem| tell(&problem.message));
    if wrong.is_empty() {
        return Ok(());
    }
    let messages: Vec<&str> = wrong.iter().map(|problem| problem.message.as_str()).collect();
    let message = format!("nothing has been changed: {}", messages.join("\n"));
    Err(CommandError::new(Exit::Failed, message))
}
