//! Files that change while hosts are at work, host by host.

use std::net::{IpAddr, Ipv4Addr};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};

use super::ours::{await_all_sealed, cluster, sealed, until_sealed, while_sealed_by};
use super::{AFTER, RATE, Scene};
use crate::campaign::measure::{Figures, Measurement, Sealed};
use crate::lab::agent::{SECRETS, hostseal, status_until};
use crate::lab::{Cluster, Direction, End, Family, Host, Kind, Lab, until};
use crate::scenarios::reload::{give, give_all, rotate_secret};
use crate::scenarios::seal_all;

/// How long a pair may take to leave, or to get other keys.
const DONE: Duration = Duration::from_secs(30);

/// The first two hosts.
fn few(lab: &Lab) -> Cluster {
    Cluster::of_v4(&lab.hosts()[..2])
}

/// From two hosts to three, c being enabled first.
fn add_c(lab: &Lab) -> Result<()> {
    let [a, b, c] = lab.all();
    let all = cluster(lab);
    all.install(&c, SECRETS[0])?;
    hostseal(&c, "enable --no-wait")?.expect_code(0)?;
    give_all(&all, &[b, a])
}

pub(super) fn comes_beside(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    let [a, b, _] = lab.all();
    seal_all(&few(lab), &[a.clone(), b.clone()])?;
    let measurement = Measurement::start(lab, [&a, &b], RATE)?;
    add_c(lab)?;
    sleep(AFTER);
    measurement.stop(Sealed::default())
}

pub(super) fn comes(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    let [a, b, c] = lab.all();
    seal_all(&few(lab), &[a.clone(), b])?;
    let measurement = Measurement::start(lab, [&a, &c], RATE)?;
    add_c(lab)?;
    until_sealed(lab, measurement)
}

/// From three hosts to two; c is told by the others.
fn remove_c(lab: &Lab) -> Result<()> {
    let [a, b, c] = lab.all();
    give_all(&few(lab), &[a.clone(), b.clone()])?;
    [a, b].iter().try_for_each(|host| await_none_with(host, c.v4()))
}

fn await_none_with(host: &Host, address: Ipv4Addr) -> Result<()> {
    until("nothing is left of the pair", DONE, || {
        let left = host.run("ip xfrm state; ip xfrm policy")?;
        ensure!(
            !left.contains(&format!("{address}/32 ")) && !left.contains(&format!("{address} ")),
            "{left}"
        );
        Ok::<_, anyhow::Error>(())
    })
}

pub(super) fn goes_beside(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    while_sealed_by(lab, &cluster(lab), |_, _| remove_c(lab))
}

pub(super) fn goes(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    let [a, _, c] = lab.all();
    seal_all(&cluster(lab), lab.hosts())?;
    let measurement = Measurement::start(lab, [&a, &c], RATE)?;
    let begun = SystemTime::now();
    remove_c(lab)?;
    sleep(AFTER);
    measurement.stop(Sealed { from: None, until: Some(begun) })
}

/// The cluster with other addresses of b.
fn with_b_at(lab: &Lab, addresses: &[Ipv4Addr]) -> Cluster {
    let [a, b, c] = lab.all();
    let of_b = addresses.iter().map(Ipv4Addr::to_string).collect();
    Cluster::new([(&a, vec![a.v4().to_string()]), (&b, of_b), (&c, vec![c.v4().to_string()])])
}

/// All are sealed, and b has got a second address that no file names. Returns the first and the second.
fn with_second_address(lab: &Lab) -> Result<[Ipv4Addr; 2]> {
    let [_, b, _] = lab.all();
    let first = b.v4();
    let second = Ipv4Addr::from(u32::from(first) + 0x100);
    seal_all(&cluster(lab), lab.hosts())?;
    b.run(&format!("ip address add {second}/16 dev eth0"))?;
    Ok([first, second])
}

/// Between a and an address of b.
fn with_b_by(lab: &Lab, address: Ipv4Addr) -> Result<Measurement> {
    let [a, b, _] = lab.all();
    Measurement::between(lab, [a.end(Family::V4), End { host: b, address: IpAddr::from(address) }], RATE)
}

pub(super) fn second_address(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    let [first, second] = with_second_address(lab)?;
    let measurement = with_b_by(lab, first)?;
    give_all(&with_b_at(lab, &[first, second]), lab.hosts())?;
    sleep(AFTER);
    measurement.stop(Sealed::default())
}

/// As soon as b's own file names the second address, packets pass by it. When every pair with it is sealed,
/// the first one goes out of the files.
pub(super) fn changed_address(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    let [a, b, c] = lab.all();
    let [first, second] = with_second_address(lab)?;
    let both = with_b_at(lab, &[first, second]);
    give(&both, &b)?;
    let measurement = with_b_by(lab, second)?;
    give_all(&both, &[a.clone(), c.clone()])?;
    let sealed = await_all_sealed(lab)?;
    give_all(&with_b_at(lab, &[second]), lab.hosts())?;
    [a, c].iter().try_for_each(|host| await_none_with(host, first))?;
    sleep(AFTER);
    measurement.stop(Sealed { from: Some(sealed), until: None })
}

pub(super) fn other_address(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    let [a, b, c] = lab.all();
    let [_, second] = with_second_address(lab)?;
    let other = with_b_at(lab, &[second]);
    give(&other, &b)?;
    let measurement = with_b_by(lab, second)?;
    give_all(&other, &[a, c])?;
    until_sealed(lab, measurement)
}

pub(super) fn key_bits(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    let changed = cluster(lab).with("esp", "key_bits = 128");
    while_sealed_by(lab, &cluster(lab), |a, b| {
        give_all(&changed, lab.hosts())?;
        for host in [a, b] {
            status_until(host, "all keys have 128 bits", DONE, |status| {
                status.all_protected() && status.peers().iter().all(|row| row["key_bits"] == 128)
            })?;
        }
        Ok(())
    })
}

pub(super) fn window(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    let changed = cluster(lab).with("esp", "replay_window = 1024").with("keying", "expire_after = \"2h\"");
    while_sealed_by(lab, &cluster(lab), |a, b| {
        give_all(&changed, lab.hosts())?;
        for host in [a, b] {
            status_until(host, "all keys end within two hours", DONE, |status| {
                let sas = status.peers().iter().filter_map(|row| row["sas"].as_array()).flatten();
                let mut ends = sas.map(|sa| sa["expires_in_s"].as_u64());
                status.all_protected() && ends.all(|end| end.is_some_and(|end| end <= 7200))
            })?;
        }
        Ok(())
    })
}

pub(super) fn secret(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    while_sealed_by(lab, &cluster(lab), |_, _| rotate_secret(&cluster(lab), lab.hosts(), SECRETS[1]))
}

pub(super) fn to_prefer(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    mode(lab, "require", "prefer")
}

pub(super) fn to_require(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    mode(lab, "prefer", "require")
}

fn mode(lab: &Lab, from: &str, to: &str) -> Result<[Figures; 2]> {
    let [from, to] = [from, to].map(|mode| cluster(lab).with("protection", &format!("mode = \"{mode}\"")));
    while_sealed_by(lab, &from, |_, _| give_all(&to, lab.hosts()))
}

/// The ports of the streams: accepted in the clear, or sent so too.
fn exempting(lab: &Lab, entry: &str) -> Cluster {
    cluster(lab).with("protection", &format!("exempt = [\"{entry}\"]"))
}

const ACCEPTED: &str = "in:udp/7000-7010";
const EXEMPTED: &str = "udp/7000-7010";

/// Nothing is clear before the second step.
pub(super) fn exempt(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    let measurement = sealed(lab, &cluster(lab))?;
    give_all(&exempting(lab, ACCEPTED), lab.hosts())?;
    let begun = SystemTime::now();
    give_all(&exempting(lab, EXEMPTED), lab.hosts())?;
    await_clear(&measurement, begun)?;
    sleep(AFTER);
    measurement.stop(Sealed { from: None, until: Some(begun) })
}

/// Nothing is clear after the first step.
pub(super) fn protect_again(lab: &Lab, _: &mut Scene) -> Result<[Figures; 2]> {
    let measurement = sealed(lab, &exempting(lab, EXEMPTED))?;
    give_all(&exempting(lab, ACCEPTED), lab.hosts())?;
    let begun = SystemTime::now();
    give_all(&cluster(lab), lab.hosts())?;
    sleep(AFTER);
    measurement.stop(Sealed { from: Some(begun), until: None })
}

/// Waits until the streams are in the clear, so that the exemption is not for nothing.
fn await_clear(measurement: &Measurement, since: SystemTime) -> Result<()> {
    until("the streams are in the clear", DONE, || {
        let report = measurement.capture().so_far()?.since(since);
        for direction in [Direction::In, Direction::Out] {
            ensure!(report.count_of(Kind::Clear, Family::V4, direction) > 100, "{direction:?}: {report}");
        }
        Ok::<_, anyhow::Error>(())
    })
}
