//! Members behind a NAT that gives them other addresses and ports.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};

use super::encapsulation::{await_carried, ensure_only_udp, is_carried};
use super::{await_one_pair_as_seen, await_sealed, enable_all};
use crate::lab::agent::{SECRETS, hostseal, hostseal_all, kill_agent, status};
use crate::lab::stream::Shape;
use crate::lab::{Cluster, Connection, Family, Host, Lab, Peer as _, Stream, Swan, Toward, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("nat::before_the_host_that_begins", 2, |lab| behind(lab, &[0], "ike", whole_life)),
    Test::new("nat::before_both", 2, |lab| behind(lab, &[0, 1], "derived", |_| Ok(()))),
    Test::new("nat::a_forgetful_nat_is_followed", 2, a_forgetful_nat_is_followed),
    Test::new("nat::strongswan_answers", 2, |lab| with_strongswan(lab, 0, 1)),
    Test::new("nat::before_strongswan_that_initiates", 2, |lab| with_strongswan(lab, 0, 0)),
];

/// The ports that a NAT gives other ones for.
const PORTS: &[u16] = &[500, 4500];
/// How much higher those are.
const OFFSET: u16 = 10_000;
/// The addresses of the NATs before the first and the second host.
const NATS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 98, 0, 1), Ipv4Addr::new(10, 100, 0, 2)];

/// Two hosts, some of them behind NATs.
pub(super) struct Sites {
    pub hosts: [Host; 2],
    /// What the others send to.
    pub outside: [IpAddr; 2],
    family: Family,
}

impl Sites {
    /// Puts a NAT, which is one of IPv4, before each of the hosts that are `behind` one. The first host begins.
    pub fn of(lab: &Lab, family: Family, behind: &[usize]) -> Result<Self> {
        let hosts: [Host; 2] = lab.all();
        let mut outside = hosts.each_ref().map(|host| host.address(family));
        for at in behind {
            lab.wire().disguise(&hosts[*at], &hosts, NATS[*at], (PORTS, OFFSET))?;
            outside[*at] = NATS[*at].into();
        }
        Ok(Self { hosts, outside, family })
    }

    /// The cluster: the file says of both what the others send to, and what stands behind that.
    pub fn cluster(&self) -> Cluster {
        let listed = self.outside.map(|outside| vec![outside.to_string()]);
        let mut cluster = Cluster::new(self.hosts.iter().zip(listed));
        for (host, outside) in self.hosts.iter().zip(self.outside) {
            let own = host.address(self.family);
            if own != outside {
                cluster = cluster.with_node(host, &format!("inside = {{ \"{outside}\" = \"{own}\" }}"));
            }
        }
        cluster
    }

    /// Waits until the pair is down to one SA in each direction on both hosts.
    pub fn await_one_pair(&self, limit: Duration) -> Result<()> {
        let seen = |at: usize| [self.hosts[at].address(self.family), self.outside[1 - at]];
        await_one_pair_as_seen([0, 1].map(|at| (&self.hosts[at], seen(at))), limit)
    }

    /// Three pings each way, all answered.
    pub fn ensure_pings(&self) -> Result<()> {
        for (from, to) in [(0, 1), (1, 0)] {
            let answered = self.hosts[from].ping_at(self.outside[to], 3)?;
            ensure!(answered == 3, "{answered} of 3 from {}", self.hosts[from].name());
        }
        Ok(())
    }

    /// Streams both ways, `rate` packets a second each.
    fn traffic(&self, rate: u32) -> Result<[Stream; 2]> {
        let [a, b] = [(0, 1), (1, 0)].map(|(from, to)| {
            let ends = [from, to].map(|at: usize| self.hosts[at].end(self.family));
            let shape = Shape { rate, family: self.family, ..Shape::default() };
            Stream::sent_to(self.outside[to], ends.each_ref(), shape)
        });
        Ok([a?, b?])
    }

    /// Pings both ways, and TCP both ways: what ESP hides has checksums of other addresses.
    fn ensure_reached(&self) -> Result<()> {
        self.ensure_pings()?;
        for (from, to) in [(0, 1), (1, 0)] {
            let (from, to, address) = (&self.hosts[from], &self.hosts[to], self.outside[to]);
            let mut server = Command::new("iperf3");
            let server = server.args(["-s", "-1", "-p", "5300"]).stdout(Stdio::null()).stderr(Stdio::null());
            let mut server = to.spawn(server)?;
            until("TCP gets through", Duration::from_secs(5), || {
                from.run(&format!("iperf3 -c {address} -p 5300 -n 1M --connect-timeout 1000"))
            })?;
            server.wait(Duration::from_secs(5))?;
        }
        Ok(())
    }
}

/// Enables hosts of which some are `behind` NATs, under a stream that loses nothing, and then does what is to be done.
fn behind(lab: &mut Lab, behind: &[usize], method: &str, then: impl Fn(&Sites) -> Result<()>) -> Result<()> {
    let sites = Sites::of(lab, Family::V4, behind)?;
    let traffic = sites.traffic(250)?;
    enable_all(&sites.cluster().by(method).with("keying", "rekey_after = \"2s\""), &sites.hosts)?;
    sites.hosts.iter().try_for_each(await_sealed)?;
    let (captures, sealed) = (lab.capture_all()?, SystemTime::now());
    for (host, outside) in sites.hosts.iter().zip(sites.outside) {
        await_carried(host, "udp", Duration::from_secs(5))?;
        let status = status(host)?;
        let row = &status.peers()[0];
        let local = IpAddr::from(host.v4());
        let listed = (local != outside).then(|| outside.to_string());
        ensure!(row["local"] == local.to_string() && row["listed"] == serde_json::json!(listed), "{row:#}");
        let group = (method == "ike").then_some("x25519-ke1_mlkem768");
        ensure!(
            row["ike"]["group"] == serde_json::json!(group) && row["esp"] == "aes256gcm16-esn",
            "{row:#}"
        );
        let peer = &row["node"].as_str().unwrap_or_default();
        let said = hostseal(host, &format!("status {peer}"))?.expect_code(0)?.stdout;
        ensure!(said.contains("IKEv2 aes256gcm16-") && said.contains("aes256gcm16-esn in UDP"), "{said}");
    }
    then(&sites)?;
    sites.ensure_reached()?;
    for stream in traffic {
        let count = stream.stop()?;
        println!("{count:?}");
        count.ensure_complete()?;
    }
    ensure_only_udp(captures, sealed)?;
    for outcome in hostseal_all(&sites.hosts, "disable")? {
        outcome.expect_code(0)?;
    }
    sites.hosts.iter().try_for_each(super::ensure_nothing_of_ours)
}

/// Rekeys, and agents that are killed one after the other.
fn whole_life(sites: &Sites) -> Result<()> {
    for host in &sites.hosts {
        let before = newest(host)?;
        until("there are other keys", Duration::from_secs(10), || {
            ensure!(newest(host)? != before, "{before} still");
            Ok::<_, anyhow::Error>(())
        })?;
        kill_agent(host)?;
        hostseal(host, "enable")?.expect_code(0)?;
        await_carried(host, "udp", Duration::from_secs(5))?;
    }
    Ok(())
}

/// The newest SA of a host that it sends through.
fn newest(host: &Host) -> Result<String> {
    Ok(status(host)?.at("/peers/0/sas/0/spi").to_string())
}

/// It forgets, and gives other ports: ESP that comes from there tells it, long before IKE has anything to say.
fn a_forgetful_nat_is_followed(lab: &mut Lab) -> Result<()> {
    let sites = Sites::of(lab, Family::V4, &[0])?;
    let [a, b] = &sites.hosts;
    enable_all(&sites.cluster(), &sites.hosts)?;
    sites.hosts.iter().try_for_each(await_sealed)?;
    await_ports(b, sites.outside[0], 4500 + OFFSET)?;
    let (captures, sealed) = (lab.capture_all()?, SystemTime::now());
    let traffic = sites.traffic(500)?;
    until("the streams flow", Duration::from_secs(5), || {
        ensure!(traffic.iter().all(|stream| stream.arrived() > 100));
        Ok::<_, anyhow::Error>(())
    })?;
    let forgotten = Instant::now();
    for port in PORTS {
        let old = format!("protocol ip flower ip_proto udp dst_port {}", port + OFFSET);
        lab.wire().drop_matching(a, Toward::Host, &old)?;
    }
    lab.wire().map_ports(a, NATS[0], (PORTS, 2 * OFFSET))?;
    await_ports(b, sites.outside[0], 4500 + 2 * OFFSET)?;
    let counts = traffic.map(Stream::stop);
    println!("followed after {:?}", forgotten.elapsed());
    for count in counts {
        println!("{:?}", count?);
    }
    sites.ensure_reached()?;
    ensure!(is_carried(&status(a)?, "udp") && is_carried(&status(b)?, "udp"));
    ensure_only_udp(captures, sealed)
}

/// Waits until a host sends ESP to this UDP port, and nothing else.
fn await_ports(host: &Host, to: IpAddr, port: u16) -> Result<()> {
    until(&format!("ESP to port {port}"), Duration::from_secs(15), || {
        let states = host.run(&format!("ip xfrm state list src {} dst {to} proto esp", host.v4()))?;
        let wanted = format!("encap type espinudp sport 4500 dport {port}");
        ensure!(states.contains(&wanted) && states.matches("encap").count() == 1, "{states}");
        Ok::<_, anyhow::Error>(())
    })
}

/// strongSwan on the host number `swan_at`, hostseal on the other, and the one with the number `translated` is behind a
/// NAT. The first begins.
fn with_strongswan(lab: &mut Lab, translated: usize, swan_at: usize) -> Result<()> {
    let sites = Sites::of(lab, Family::V4, &[translated])?;
    let (ours, foreigner) = (&sites.hosts[1 - swan_at], &sites.hosts[swan_at]);
    let swan = Swan::start(foreigner, &[])?;
    let connection = Connection::between(foreigner, ours, Family::V4, SECRETS[0]);
    let [known_as, remote] = [swan_at, 1 - swan_at].map(|at| sites.outside[at].to_string());
    let name = connection.name.clone();
    swan.load(&[connection.seen(known_as, remote)])?;
    sites.cluster().install(ours, SECRETS[0])?;
    hostseal(ours, "enable --no-wait")?.expect_code(0)?;
    if swan_at == 0 {
        swan.initiate(&name)?;
    }
    await_carried(ours, "udp", Duration::from_secs(10))?;
    let (captures, protected) = (lab.capture_all()?, SystemTime::now());
    sites.ensure_reached()?;
    for command in ["--rekey --child", "--rekey --ike"] {
        swan.command(&format!("{command} {name}"))?;
    }
    sites.await_one_pair(Duration::from_secs(20))?;
    sites.ensure_reached()?;
    ensure!(is_carried(&status(ours)?, "udp"), "{:#}", status(ours)?.0);
    let listed = swan.command("--list-sas")?;
    ensure!(listed.contains("TRANSPORT-in-UDP"), "{listed}");
    ensure_only_udp(captures, protected)
}
