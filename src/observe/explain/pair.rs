//! Why a pair is not protected, in words.

use std::net::{IpAddr, SocketAddr};

use crate::protect::reason::{BlockedWay, DetourTried, PairReason, Unwritten};
use crate::types::{Pair, PolicyReading};

/// What `reason` means to the operator of the local end of `pair`; `None` where the key exchange has to say it.
pub fn of_pair(pair: Pair, reason: &PairReason) -> Option<String> {
    let Pair { local, remote } = pair;
    let words = match reason {
        PairReason::Leaving => "on the way back to the clear".to_owned(),
        PairReason::Sealing => "sending ESP, still accepting clear packets".to_owned(),
        PairReason::Proving => "agreed keys, proving that ESP gets through".to_owned(),
        PairReason::Agreeing => "agreeing keys".to_owned(),
        PairReason::Encapsulating => "ESP (IP protocol 50) does not get through: trying it in UDP".to_owned(),
        PairReason::NoAddress => {
            format!("this host does not have {local} now: no interface that is up carries it")
        }
        PairReason::PeerDisabled => format!("{remote} went back to the clear: its operator disabled it"),
        PairReason::PeerRemoved => format!(
            "{remote} took the pair back to the clear: its file does not list this host any more. Remove {remote} here \
             too, or add this host there"
        ),
        PairReason::TrialEnded => format!("{remote} was enabled on trial, and nobody confirmed it in time"),
        PairReason::Unwritten(Unwritten::Refused(error)) | PairReason::NotInstalled(error) => {
            error.to_string()
        }
        PairReason::Unwritten(Unwritten::InTheWay(stranger)) => in_the_way(stranger),
        PairReason::EspBlocked { way, detour } => blocked(remote, *way, *detour),
        PairReason::NoKeys(_) => return None,
    };
    Some(words)
}

/// A stranger's policy is where ours has to be.
pub fn in_the_way(stranger: &PolicyReading) -> String {
    format!(
        "{} of other IPsec software (index {}) is in the way: remove it there",
        stranger.id, stranger.index
    )
}

/// This host lets nothing out from `local` to `remote`.
pub fn unsent(local: IpAddr, remote: SocketAddr, why: &str) -> String {
    format!("this host cannot send to {remote} from {local}: {why}")
}

/// `local`, an address of this host, is in a VRF.
pub fn in_vrf(local: IpAddr, vrf: &str) -> String {
    format!("{local} is in the VRF {vrf}, where the agent neither sends nor receives")
}

/// What does not get through, which way, and what was tried.
fn blocked(remote: IpAddr, way: BlockedWay, detour: DetourTried) -> String {
    let way = match way {
        BlockedWay::Both => " in either direction",
        BlockedWay::Out => " from this host to the other",
        BlockedWay::In => " from the other host to this one",
        BlockedWay::Unknown => "",
    };
    let (what, open) = match detour {
        DetourTried::Port(port) => {
            let what = format!("neither ESP (IP protocol 50) nor ESP in UDP (port {port}) gets through");
            (what, "one of them")
        }
        DetourTried::Failed => {
            let what = "ESP (IP protocol 50) does not get through, and an attempt with ESP in UDP failed";
            (what.to_owned(), "protocol 50, or the UDP port of `keying.nat_port` (4500),")
        }
        DetourTried::Nothing => ("ESP (IP protocol 50) does not get through".to_owned(), "it"),
    };
    format!("{remote} agrees on keys, but {what}{way}: open {open} in the firewalls in between")
}
