//! Root's powers, one by one (capabilities(7)).

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// To write IPsec's tables, and to bind the port of IKE. Root without more reads what is root's.
pub(super) const AGENT: &[Capability] = &[Capability::CAP_NET_ADMIN, Capability::CAP_NET_BIND_SERVICE];
/// To hold what one was given takes none, and neither does looking.
pub(super) const NONE: &[Capability] = &[];

/// Gives up all but `kept`, and what a program that is started could bring back.
///
/// # Errors
/// The kernel refuses.
pub(super) fn keep(kept: &[Capability]) -> Result<(), CapsError> {
    prctl::set_no_new_privs().map_err(|error| CapsError::from(error.to_string()))?;
    let kept: CapsHashSet = kept.iter().copied().collect();
    // The bounding set first: it takes a power to change that. Whoever lacks it gets nothing back from there any more.
    let may_change = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)?;
    for one in caps::read(None, CapSet::Bounding)?.difference(&kept).filter(|_| may_change) {
        caps::drop(None, CapSet::Bounding, *one)?;
    }
    // Powers that a service manager has left out are not given up again: its filter may refuse the call.
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        if !caps::read(None, set)?.is_empty() {
            caps::clear(None, set)?;
        }
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        let has = caps::read(None, set)?;
        if !has.is_subset(&kept) {
            caps::set(None, set, &has.intersection(&kept).copied().collect())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_gone() {
        // Powers are a thread's.
        let given_up = std::thread::spawn(|| {
            let had = caps::read(None, CapSet::Permitted).unwrap();
            keep(AGENT).map(|()| {
                let has = caps::read(None, CapSet::Permitted).unwrap();
                let kept: CapsHashSet = AGENT.iter().copied().collect();
                assert_eq!(has, had.intersection(&kept).copied().collect());
                assert_eq!(caps::read(None, CapSet::Effective).unwrap(), has);
                assert!(caps::read(None, CapSet::Bounding).unwrap().is_subset(&kept));
                assert!(caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).is_err());
            })
        });
        // Whoever is not root may not change the bounding set.
        if nix::unistd::geteuid().is_root() {
            given_up.join().unwrap().unwrap();
        }
    }
    /// systemd counts the call among those of the privileged, all of which the unit refuses but for those that it names.
    #[test]
    fn the_unit_lets_the_agent_give_up_powers() {
        let unit = include_str!("../../../packaging/systemd/hostseal.service");
        let mut allowed = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter="));
        assert!(allowed.any(|calls| calls.split(' ').any(|call| call == "capset")));
    }
}
