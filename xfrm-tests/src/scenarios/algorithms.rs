//! What hosts agree on: proposals other than the default, by stock strongSwan's account.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::strongswan::{exchange, outbound_spi};
use super::{await_one_pair, await_protected};
use crate::lab::agent::{SECRETS, hostseal, status_until};
use crate::lab::{Cluster, Connection, Family, Host, Lab, Peer as _, Report, Swan, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("algorithms::strongswan_answers_with_ecp256", 2, |lab| answers(lab, &ECP256)),
    Test::new("algorithms::strongswan_initiates_with_ecp256", 2, |lab| initiates(lab, &ECP256)),
    Test::new("algorithms::strongswan_answers_with_cbc_and_ecp384", 2, |lab| answers(lab, &CBC_ECP384)),
    Test::new("algorithms::strongswan_initiates_with_cbc_and_ecp384", 2, |lab| initiates(lab, &CBC_ECP384)),
    Test::new("algorithms::strongswan_is_asked_for_another_group", 2, |lab| initiates(lab, &OTHER_GROUP)),
    Test::new("algorithms::strongswan_sends_and_takes_fragments", 2, strongswan_sends_and_takes_fragments),
    Test::new("algorithms::hosts_agree_with_ml_kem", 2, hosts_agree_with_ml_kem),
    Test::new("algorithms::hosts_agree_without_ml_kem_where_one_has_it_not", 2, hosts_agree_without_ml_kem),
    Test::new("algorithms::ml_kem_can_be_required", 2, ml_kem_can_be_required),
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
    Connection::between(foreigner, ours, Family::V4, SECRETS[0]).proposals(wanted.proposals)
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

/// Its IKE_AUTH comes in pieces. When another file takes effect, hostseal asks for another IKE SA and offers
/// more than a packet holds.
fn strongswan_sends_and_takes_fragments(lab: &mut Lab) -> Result<()> {
    const LONG: &str = "aes128gcm16-aes256gcm16-prfsha384-prfsha512-prfsha256-x25519-ecp384-ecp256";
    let [ours, foreigner] = lab.all();
    let swan = Swan::start(&foreigner, &["fragment_size = 200"])?;
    swan.load(&[Connection::between(&foreigner, &ours, Family::V4, SECRETS[0])])?;
    let cluster = Cluster::of_v4(lab.hosts());
    cluster.install(&ours, SECRETS[0])?;
    hostseal(&ours, "enable")?.expect_code(0)?;
    ensure!(swan.log().contains("splitting IKE message"), "{}", swan.log());
    let first = swan.list()?.first().map(|sa| sa.number);
    let longer = cluster.with("keying", &format!("proposals = {:?}", [LONG; 16]));
    super::reload::give(&longer, &ours)?;
    until("another IKE SA alone is left", Duration::from_secs(10), || {
        let sas = swan.list()?;
        ensure!(sas.len() == 1 && sas.first().map(|sa| sa.number) != first, "{sas:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    ensure!(swan.log().contains("parsed CREATE_CHILD_SA request 2 [ EF(2/2) ]"), "{}", swan.log());
    ensure!(ours.ping(&foreigner, Family::V4, 3)? == 3);
    Ok(())
}

/// The exchanges of RFC 9242 and RFC 9370.
const IKE_INTERMEDIATE: u8 = 43;
const IKE_FOLLOWUP_KE: u8 = 44;
/// What knows no ML-KEM.
const CLASSICAL: &str = "proposals = [\"aes256gcm16-prfsha384-x25519\"]";

/// How many messages of an exchange passed.
fn count(report: &Report, wanted: u8) -> usize {
    report.packets.iter().filter(|packet| exchange(packet) == Some(wanted)).count()
}

fn hosts_agree_with_ml_kem(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let capture = lab.capture(&a)?;
    let cluster = Cluster::of_v4(lab.hosts()).with("keying", "rekey_after = \"1s\"");
    super::enable_all(&cluster, lab.hosts())?;
    until("the IKE SA is rekeyed with ML-KEM", Duration::from_secs(10), || {
        let report = capture.so_far()?;
        ensure!(count(&report, IKE_FOLLOWUP_KE) >= 2, "{report}");
        Ok::<_, anyhow::Error>(())
    })?;
    ensure!(a.ping(&b, Family::V4, 3)? == 3);
    let report = capture.stop()?;
    // Each is larger than the packets that IKE sends, so it goes in two.
    ensure!(count(&report, IKE_INTERMEDIATE) >= 2, "{report}");
    let largest =
        report.packets.iter().filter(|packet| exchange(packet).is_some()).map(|packet| packet.length);
    ensure!(largest.max() <= Some(14 + 1280), "{report}");
    Ok(())
}

fn hosts_agree_without_ml_kem(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let cluster = Cluster::of_v4(lab.hosts());
    let capture = lab.capture(&a)?;
    cluster.install(&a, SECRETS[0])?;
    cluster.with("keying", CLASSICAL).install(&b, SECRETS[0])?;
    for host in [&a, &b] {
        hostseal(host, "enable --no-wait")?.expect_code(0)?;
    }
    await_protected(&a)?;
    await_one_pair(&a, &b, Family::V4, Duration::from_secs(10))?;
    ensure!(a.ping(&b, Family::V4, 3)? == 3);
    let report = capture.stop()?;
    ensure!(count(&report, IKE_INTERMEDIATE) == 0, "{report}");
    Ok(())
}

/// A host that takes nothing without it stays in the clear with strongSwan, and says why.
fn ml_kem_can_be_required(lab: &mut Lab) -> Result<()> {
    let [ours, foreigner] = lab.all();
    let swan = Swan::start(&foreigner, &[])?;
    swan.load(&[Connection::between(&foreigner, &ours, Family::V4, SECRETS[0])])?;
    Cluster::of_v4(lab.hosts())
        .with("keying", "proposals = [\"aes256gcm16-prfsha384-x25519-ke1_mlkem768\"]")
        .install(&ours, SECRETS[0])?;
    hostseal(&ours, "enable --no-wait")?.expect_code(0)?;
    let refused = |status: &crate::lab::agent::Status| {
        status.peers().iter().all(|row| row["state"] == "clear" && row["reason_code"] == "no_proposal")
    };
    status_until(&ours, "refused", Duration::from_secs(10), refused)?;
    ensure!(swan.list()?.is_empty(), "{:?}", swan.list()?);
    Ok(())
}
