//! Stock peers that insist on a separate key exchange for the keys of the data ("perfect forward secrecy").

use anyhow::{Result, ensure};

use super::course::Course;
use super::event::Event;
use crate::lab::agent::status;
use crate::lab::{Implementation, Lab};
use crate::scenarios::strongswan::Role;

/// hostseal has its default: the peer's first keys are those of the IKE SA, and those that follow have the exchange,
/// whoever replaces them.
pub(super) fn insists(lab: &mut Lab, implementation: Implementation, group: &str) -> Result<()> {
    let course = Course::plain(implementation, Role::Initiator, "aes256gcm16-prfsha384-x25519");
    let mut ends = course.prepare(lab)?;
    ends.connection = ends.connection.clone().esp_proposals(&format!("aes256gcm16-{group}-esn"));
    ends.peer.load(std::slice::from_ref(&ends.connection))?;
    for (event, own) in
        [(Event::Connect, None), (Event::WeRekeyChild, Some(group)), (Event::PeerRekeysChild, Some(group))]
    {
        println!("{event}: {:?}", ends.undergo(lab, event)?);
        let said = status(&ends.ours)?.at("/peers/0/esp_group").clone();
        ensure!(said == serde_json::json!(own), "{said} after {event}");
    }
    Ok(())
}
