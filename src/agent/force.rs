//! `hostseal disable --force`: back to clear at once, whatever is broken; the truth is told afterwards.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::keeper::Keeper;
use super::service;
use super::single::Single;
use crate::observe::causes;
use crate::store::{ClusterFiles, Places, Saved, SavedError, enabled};
use crate::xfrm;

/// How often, and how far apart, it is looked whether anything of ours comes back: an agent that was not found puts
/// it back within a tenth of a second.
const LOOKS: u32 = 10;
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Removes everything that carries our tag from the kernel, and remembers that protection is off, with no
/// agent, secret or valid file needed. An agent that runs is ended first, or it would put all of it back.
/// Says what was removed.
///
/// # Errors
/// The kernel does not let us; an agent cannot be ended; or what was removed comes back.
pub fn force_clear(path: &Path) -> anyhow::Result<String> {
    let mut kernel = xfrm::Tables::open().context("the kernel's IPsec tables cannot be opened")?;
    let places = Places::of(path);
    let single = Single::new(&places.run_dir);
    let ended = single.end();
    // No other agent starts meanwhile. If that cannot be prevented, the result is seen below.
    let claim = service::make_directory(&places.run_dir).and_then(|()| single.claim()).ok();
    // The agent saves when it ends, and what comes after that counts.
    let remembered = remember_off(&places);
    let unmarked = enabled::unmark(path);
    let mut keeper = Keeper::new(&places.run_dir);
    keeper.release();
    keeper.end_holder();
    if ended.is_ok() {
        // It may be there: an agent that ends leaves it for onlookers.
        let _ = fs::remove_file(places.status_socket_path());
    }
    let swept = xfrm::sweep(&mut kernel)?;
    let removed = format!("removed {} policies and {} SAs", swept.policies, swept.sas);
    let left = look_again(&mut kernel);
    drop(claim);
    let words = |error: &anyhow::Error| causes::words(error.as_ref());
    match (ended.as_ref().map_err(words), left.as_ref().map_err(words)) {
        (Ok(()), Ok(())) => {}
        (Err(agent), Ok(())) => bail!("{removed}, but {agent}: it may put them back"),
        (Ok(()), Err(left)) => bail!("{removed}, but {left}"),
        (Err(agent), Err(left)) => bail!("{removed}, but {left}: {agent}"),
    }
    let unwritten = remembered.err().map(|error| {
        format!("; an agent that starts will protect this host again, as that is not written: {error}")
    });
    let marked = unmarked.err().map(|error| {
        format!(
            "; the mark of an enabled host stays, so this host boots blocked if its state is lost: {error}"
        )
    });
    Ok(removed + &unwritten.unwrap_or_default() + &marked.unwrap_or_default())
}

/// Watches for a second that the kernel stays without anything of ours.
fn look_again(kernel: &mut xfrm::Tables) -> anyhow::Result<()> {
    for _ in 0..LOOKS {
        sleep(LOOK_INTERVAL);
        let left = xfrm::count_ours(kernel)?;
        if left != xfrm::Swept::default() {
            bail!(
                "{} policies and {} SAs were put back by an agent that still runs (`pgrep -a hostseal`; it may be in a \
                 container)",
                left.policies,
                left.sas
            );
        }
    }
    Ok(())
}

fn remember_off(places: &Places) -> Result<(), SavedError> {
    let mut saved = Saved::load(&places.state_path()).unwrap_or_default();
    saved.turn_off();
    // Whatever the cluster is to do now, this host's operator wants otherwise.
    let roster = ClusterFiles::of(&places.state_dir).load_roster().ok().flatten();
    let desired = roster.as_ref().and_then(|roster| roster.view().desired.as_ref());
    saved.followed = desired.map(|desired| desired.id).or(saved.followed);
    saved.save(&places.state_path()).map(drop)
}
