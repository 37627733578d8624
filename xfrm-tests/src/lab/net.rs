//! The wire: a bridge in a separate namespace, and the hosts' cables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::host::{Family, Host};

/// Where markers go: a link-local group that nobody joins, so that the bridge floods them to every cable.
const MARKER_GROUP: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x6873, 0x6d6b);
/// The discard port.
pub const MARKER_PORT: u16 = 9;
/// What a marker starts with.
pub const MARKER_LABEL: &[u8] = b"hostseal-lab-marker ";

/// A direction on a host's cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toward {
    /// What the host sends.
    Wire,
    /// What the host receives.
    Host,
}

/// The bridge's side of all cables. As a host it has number 0 and no address but link-local ones.
#[derive(Clone)]
pub struct Wire {
    host: Host,
}

impl Wire {
    /// A bridge without cables.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self> {
        let host = Host::new("wire", 0)?;
        // Snooping would hold multicast back until a querier speaks up, and neighbour discovery with it.
        host.run(
            "ip link add br0 address 02:00:00:ff:00:00 type bridge stp_state 0 forward_delay 0 mcast_snooping 0 \
             && ip link set br0 up",
        )?;
        Ok(Self { host })
    }

    /// The namespace of the bridge.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The name of the bridge's end of `host`'s cable.
    pub fn port(host: &Host) -> String {
        format!("port{}", host.number())
    }

    /// Lays `host`'s cable; its end there is down and has no addresses ([`Host::network_up`]).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lay(&self, host: &Host) -> Result<()> {
        let mac = host.mac().map(|byte| format!("{byte:02x}")).join(":");
        self.plug_in(host, &Self::port(host), &format!("eth0 address {mac}"))
    }

    /// Takes `host`'s cable away.
    ///
    /// # Errors
    /// When there is none.
    pub fn remove(&self, host: &Host) -> Result<()> {
        self.host.run(&format!("ip link delete {}", Self::port(host)))?;
        Ok(())
    }

    /// Lays a second cable to `host`: `eth1`, up and without addresses. Captures are of the first.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lay_second(&self, host: &Host) -> Result<()> {
        self.plug_in(host, &format!("second{}", host.number()), "eth1")?;
        host.run("ip link set eth1 up").map(drop)
    }

    fn plug_in(&self, host: &Host, port: &str, interface: &str) -> Result<()> {
        self.host.run(&format!(
            "ip link add {port} type veth peer name {interface} netns {} && ip link set {port} master br0 up",
            host.net_path()
        ))?;
        Ok(())
    }

    /// Makes what two hosts send each other go through a third one, behind which the wire takes packets of
    /// `mtu` bytes at most. Of larger ones that may not be cut the sender is told by ICMP.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn route_through(&self, router: &Host, [a, b]: [&Host; 2], mtu: u32) -> Result<()> {
        router.run(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
             net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0",
        )?;
        for (from, to) in [(a, b), (b, a)] {
            from.run(&format!(
                "sysctl -qw net.ipv6.conf.eth0.accept_redirects=0 \
                 && ip route add {}/32 via {} && ip route add {}/128 via {}",
                to.v4(),
                router.v4(),
                to.v6(),
                router.v6()
            ))?;
            router.run(&format!(
                "ip route add {}/32 dev eth0 mtu {mtu} && ip route add {}/128 dev eth0 mtu {mtu}",
                to.v4(),
                to.v6()
            ))?;
        }
        Ok(())
    }

    /// Sets the MTU at both ends of a host's cable, in bytes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn mtu(&self, host: &Host, bytes: u32) -> Result<()> {
        self.host.run(&format!("ip link set {} mtu {bytes}", Self::port(host)))?;
        host.run(&format!("ip link set eth0 mtu {bytes}"))?;
        Ok(())
    }

    /// Shapes what a host sends with `tc netem`, such as `loss 30% delay 5ms reorder 25%`. An empty
    /// shape takes it away.
    ///
    /// # Errors
    /// When tc refuses.
    pub fn netem(&self, host: &Host, shape: &str) -> Result<()> {
        host.run(&match shape {
            "" => "tc qdisc del dev eth0 root".to_owned(),
            shape => format!("tc qdisc replace dev eth0 root netem limit 100000 {shape}"),
        })?;
        Ok(())
    }

    /// Drops what a host sends or receives and `matching` describes in the words of tc's flower, such as
    /// `protocol ip flower ip_proto 0x32` for ESP (numbers of protocols are hexadecimal). Captures still
    /// see what the host sent.
    ///
    /// # Errors
    /// When tc refuses.
    pub fn drop_matching(&self, host: &Host, toward: Toward, matching: &str) -> Result<()> {
        self.filter(host, toward, &format!("{matching} action drop"))
    }

    /// Cuts the wire between these hosts and those. [`Wire::pass_all`] of each of the first mends it.
    ///
    /// # Errors
    /// When tc refuses.
    pub fn part(&self, these: &[&Host], those: &[&Host]) -> Result<()> {
        for (here, there) in these.iter().flat_map(|here| those.iter().map(move |there| (here, there))) {
            for (protocol, family) in [("ip", Family::V4), ("ipv6", Family::V6)] {
                let of = |end: &str| format!("protocol {protocol} flower {end}_ip {}", there.address(family));
                self.drop_matching(here, Toward::Wire, &of("dst"))?;
                self.drop_matching(here, Toward::Host, &of("src"))?;
            }
        }
        Ok(())
    }

    /// Puts a NAT before a host: over IPv4 the others see `outside` instead of its address, and send to that; and
    /// `offset` higher ports instead of its UDP `ports`. What comes to one of those ports of `outside` itself gets in
    /// too, and is answered from the higher one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn disguise(
        &self,
        host: &Host,
        others: &[Host],
        outside: Ipv4Addr,
        (ports, offset): (&[u16], u16),
    ) -> Result<()> {
        let own = host.v4();
        let (leave, arrive) = (format!("nat egress {own} {outside}"), format!("nat ingress {outside} {own}"));
        self.filter(host, Toward::Wire, &format!("protocol ip flower src_ip {own} action {leave}"))?;
        self.filter(host, Toward::Host, &format!("protocol ip flower dst_ip {outside} action {arrive}"))?;
        if offset != 0 {
            self.map_ports(host, outside, (ports, offset))?;
        }
        for other in others.iter().filter(|other| other.number() != host.number()) {
            other.run(&format!("ip route replace {outside}/32 via {own}"))?;
        }
        Ok(())
    }

    /// Has the NAT before a host that is disguised as `outside` give these UDP ports others, higher by `offset`, from
    /// now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn map_ports(&self, host: &Host, outside: Ipv4Addr, (ports, offset): (&[u16], u16)) -> Result<()> {
        let own = host.v4();
        let (leave, arrive) = (format!("nat egress {own} {outside}"), format!("nat ingress {outside} {own}"));
        for port in ports {
            let higher = port + offset;
            let udp = "protocol ip flower ip_proto udp";
            let set = |which: &str, port: u16| {
                format!("action pedit ex munge udp {which} set {port} pipe action csum udp pipe")
            };
            let (sport, dport) = (set("sport", higher), set("dport", *port));
            // What is added later is asked first.
            self.filter(host, Toward::Host, &format!("{udp} dst_port {higher} {dport} action {arrive}"))?;
            self.filter(host, Toward::Wire, &format!("{udp} src_port {port} {sport} action {leave}"))?;
        }
        Ok(())
    }

    /// Gives the ESP that a host sends from `own` to the first of two addresses the second one as its source, as
    /// somebody on the path can. [`Wire::pass_all`] ends it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn rename(&self, host: &Host, [to, other]: [IpAddr; 2], own: IpAddr) -> Result<()> {
        let (protocol, rewrite) = match other {
            IpAddr::V4(_) => ("ip", format!("action nat egress {own} {other}")),
            IpAddr::V6(_) => ("ipv6", format!("action pedit ex munge ip6 src set {other}")),
        };
        // The checksum of IPv4's UDP is mended with the address, or was none.
        let in_udp = if other.is_ipv6() { " pipe action csum udp" } else { "" };
        let flow = format!("protocol {protocol} flower src_ip {own} dst_ip {to}");
        self.filter(host, Toward::Wire, &format!("{flow} ip_proto 0x32 {rewrite}"))?;
        self.filter(host, Toward::Wire, &format!("{flow} ip_proto udp dst_port 4500 {rewrite}{in_udp}"))
    }

    /// Puts a stateful firewall before a host: its ESP passes only in answer to what has come to it, and the firewall
    /// forgets that when no packet has passed for so long, in whole seconds. [`Wire::pass_all`] ends it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn stateful_firewall(&self, host: &Host, forgets: Duration) -> Result<()> {
        let seconds = forgets.as_secs();
        self.host.run(&format!(
            "modprobe -a nf_conntrack act_ct && sysctl -qw net.netfilter.nf_conntrack_generic_timeout={seconds}"
        ))?;
        for protocol in ["ip", "ipv6"] {
            let esp = format!("protocol {protocol} flower ip_proto 0x32");
            self.filter(host, Toward::Host, &format!("{esp} action ct commit"))?;
            // What is added later is asked first.
            let known = format!("protocol {protocol} chain 1 flower");
            self.filter(host, Toward::Wire, &format!("{known} action drop"))?;
            self.filter(host, Toward::Wire, &format!("{known} ct_state +trk+est action pass"))?;
            let track = "ct_state -trk action ct pipe action goto chain 1";
            self.filter(host, Toward::Wire, &format!("{esp} {track}"))?;
        }
        Ok(())
    }

    /// Adds a filter to a host's cable.
    fn filter(&self, host: &Host, toward: Toward, filter: &str) -> Result<()> {
        let port = Self::port(host);
        let hook = match toward {
            Toward::Wire => "ingress",
            Toward::Host => "egress",
        };
        self.host.run(&format!(
            "{{ tc qdisc show dev {port} | grep -q clsact || tc qdisc add dev {port} clsact; }} \
             && tc filter add dev {port} {hook} {filter}"
        ))?;
        Ok(())
    }

    /// Takes away all that [`Wire::drop_matching`] and [`Wire::disguise`] did to a host's cable.
    ///
    /// # Errors
    /// When nothing was dropped.
    pub fn pass_all(&self, host: &Host) -> Result<()> {
        self.host.run(&format!("tc qdisc del dev {} clsact", Self::port(host)))?;
        Ok(())
    }

    /// Pulls a host's cable, or plugs it in again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn plug(&self, host: &Host, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        self.host.run(&format!("ip link set {} {state}", Self::port(host)))?;
        Ok(())
    }

    /// Sends a packet to every cable that captures can recognise by `token`.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn mark(&self, token: u64) -> Result<()> {
        self.host
            .within(|| -> Result<()> {
                let index = bridge_index()?;
                let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
                let payload = [MARKER_LABEL, &token.to_be_bytes()[..]].concat();
                socket.send_to(&payload, SocketAddrV6::new(MARKER_GROUP, MARKER_PORT, 0, index))?;
                Ok(())
            })?
            .context("cannot send a marker along the wire")
    }
}

/// The interface index of the bridge in the calling thread's namespace.
fn bridge_index() -> Result<u32> {
    let text = std::fs::read_to_string("/sys/class/net/br0/ifindex")?;
    match text.trim().parse() {
        Ok(index) => Ok(index),
        Err(_) => bail!("the bridge's index is `{text}`"),
    }
}
