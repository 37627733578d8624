//! What hosts agree on: proposals other than the default, by stock strongSwan's account.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::await_protected;
use super::strongswan::outbound_spi;
use crate::lab::agent::{SECRETS, hostseal};
use crate::lab::{Cluster, Connection, Family, Host, Lab, Swan, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("algorithms::strongswan_answers_with_ecp256", 2, |lab| answers(lab, &ECP256)),
    Test::new("algorithms::strongswan_initiates_with_ecp256", 2, |lab| initiates(lab, &ECP256)),
    Test::new("algorithms::strongswan_answers_with_cbc_and_ecp384", 2, |lab| answers(lab, &CBC_ECP384)),
    Test::new("algorithms::strongswan_initiates_with_cbc_and_ecp384", 2, |lab| initiates(lab, &CBC_ECP384)),
    Test::new("algorithms::strongswan_is_asked_for_another_group", 2, |lab| initiates(lab, &OTHER_GROUP)),
    Test::new("algorithms::strongswan_sends_fragments", 2, strongswan_sends_fragments),
];

/// What strongSwan takes, and how it lists an IKE SA of it.
struct Wanted {
    proposals: &'static str,
    listed: &'static str,
}

/// hostseal brings X25519 and is asked for another group (INVALID_KE_PAYLOAD).
const ECP256: Wanted =
    Wanted { proposals: "aes128gcm16-prfsha256-ecp256", listed: "AES_GCM_16-128/PRF_HMAC_SHA2_256/ECP_256" };
const CBC_ECP384: Wanted = Wanted {
    proposals: "aes256-sha256-ecp384",
    listed: "AES_CBC-256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/ECP_384",
};
/// strongSwan brings a group that hostseal does not know, and knows one that hostseal does.
const OTHER_GROUP: Wanted = Wanted {
    proposals: "aes256gcm16-prfsha512-ecp521-x25519",
    listed: "AES_GCM_16-256/PRF_HMAC_SHA2_512/CURVE_25519",
};

/// Who has the smaller address begins: hostseal.
fn answers(lab: &mut Lab, wanted: &Wanted) -> Result<()> {
    let [ours, foreigner] = lab.all();
    let swan = begin(lab, &ours, &foreigner, wanted)?;
    agree(&ours, &foreigner, &swan, wanted)
}

fn initiates(lab: &mut Lab, wanted: &Wanted) -> Result<()> {
    let [foreigner, ours] = lab.all();
    let swan = begin(lab, &ours, &foreigner, wanted)?;
    swan.initiate(&connection(&ours, &foreigner, wanted).name)?;
    agree(&ours, &foreigner, &swan, wanted)
}

fn connection(ours: &Host, foreigner: &Host, wanted: &Wanted) -> Connection {
    let proposals = format!("proposals = {}", wanted.proposals);
    Connection::between(foreigner, ours, Family::V4, SECRETS[0]).ike(&proposals)
}

/// hostseal, which takes everything, is enabled, and strongSwan takes one kind of IKE SA alone.
fn begin(lab: &Lab, ours: &Host, foreigner: &Host, wanted: &Wanted) -> Result<Swan> {
    let swan = Swan::start(foreigner, &[])?;
    swan.load(&[connection(ours, foreigner, wanted)])?;
    Cluster::of_v4(lab.hosts()).install(ours, SECRETS[0])?;
    hostseal(ours, "enable --no-wait")?.expect_code(0)?;
    Ok(swan)
}

/// They are protected, and are so after all keys were replaced.
fn agree(ours: &Host, foreigner: &Host, swan: &Swan, wanted: &Wanted) -> Result<()> {
    await_protected(ours)?;
    ensure!(ours.ping(foreigner, Family::V4, 3)? == 3);
    let name = connection(ours, foreigner, wanted).name;
    let first = ensure_listed(swan, wanted)?;
    swan.command(&format!("--rekey --ike {name}"))?;
    until("another IKE SA alone is left", Duration::from_secs(10), || {
        let number = ensure_listed(swan, wanted)?;
        ensure!(number != first, "it is still #{number}");
        Ok::<_, anyhow::Error>(())
    })?;
    let before = outbound_spi(ours, foreigner)?;
    swan.command(&format!("--rekey --child {name}"))?;
    until("another SA", Duration::from_secs(10), || {
        ensure!(outbound_spi(ours, foreigner)? != before);
        Ok::<_, anyhow::Error>(())
    })?;
    ensure!(ours.ping(foreigner, Family::V4, 3)? == 3);
    Ok(())
}

/// The number of the only IKE SA, which is of the kind that is wanted.
fn ensure_listed(swan: &Swan, Wanted { listed, .. }: &Wanted) -> Result<u32> {
    let sas = swan.list()?;
    let kinds = swan.command("--list-sas")?;
    ensure!(kinds.contains(listed), "{listed} is not in\n{kinds}");
    let [only] = &sas[..] else { anyhow::bail!("not one IKE SA: {sas:?}") };
    ensure!(only.state == "ESTABLISHED", "{only:?}");
    Ok(only.number)
}

/// Its IKE_AUTH comes in pieces.
fn strongswan_sends_fragments(lab: &mut Lab) -> Result<()> {
    let [ours, foreigner] = lab.all();
    let swan = Swan::start(&foreigner, &["fragment_size = 200"])?;
    swan.load(&[Connection::between(&foreigner, &ours, Family::V4, SECRETS[0])])?;
    Cluster::of_v4(lab.hosts()).install(&ours, SECRETS[0])?;
    hostseal(&ours, "enable")?.expect_code(0)?;
    ensure!(swan.log().contains("splitting IKE message"), "{}", swan.log());
    ensure!(ours.ping(&foreigner, Family::V4, 3)? == 3);
    Ok(())
}
