//! What the kernel is to show of the packets of a pair: a program for its packet filter (socket(7), SO_ATTACH_FILTER).
//! Packets begin with the IP header.

use std::net::IpAddr;

use nix::libc::sock_filter;
use socket2::SockFilter;

use crate::types::Pair;

/// Octets of a packet that are shown: all headers, and a datagram of a proof.
pub(super) const SNAP: usize = 160;
/// Where the filter finds the protocol of the link layer (linux/filter.h, SKF_AD_OFF and SKF_AD_PROTOCOL).
const LINK_PROTOCOL: u32 = 0xffff_f000;
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
const ESP: u32 = 50;
const UDP: u32 = 17;

/// Load a byte, a half word or a word at `k`; the same behind the IPv4 header; the length of that header.
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF_BEHIND: u16 = 0x48;
const LOAD_WORD_BEHIND: u16 = 0x40;
const HEADER_LENGTH: u16 = 0xb1;
/// Set the offset of what is behind.
const BEHIND_IS: u16 = 0x01;
/// Jump if equal, or if bits are set; jump in any case.
const IF_EQUAL: u16 = 0x15;
const IF_SET: u16 = 0x45;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// A place in a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FilterPlace {
    /// It goes from this host to the other.
    Leaves,
    /// The other order of addresses is to be tried.
    Reverse,
    Show,
    Hide,
}

/// One step of a program. Jumps in a condition reach 255 steps: those of ours go over one step each, and that one jumps.
enum FilterStep {
    Do(u16, u32),
    /// Goes to a place.
    Go(FilterPlace),
    /// Goes to a place if what was loaded fulfils the condition.
    GoIf(u16, u32, FilterPlace),
    /// Goes to a place unless it does.
    GoUnless(u16, u32, FilterPlace),
    /// Here is a place.
    Here(FilterPlace),
}

/// What of the packets of a pair is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShownPackets {
    /// What is not ESP, both ways.
    ButEsp,
    /// ESP that this host sends.
    EspOut,
    /// ESP that comes to it.
    EspIn,
}

impl ShownPackets {
    /// Where ESP goes and where all else does, for what leaves this host or what comes to it.
    fn places(self, leaves: bool) -> (FilterPlace, FilterPlace) {
        match (self, leaves) {
            (Self::ButEsp, _) => (FilterPlace::Hide, FilterPlace::Show),
            (Self::EspOut, true) | (Self::EspIn, false) => (FilterPlace::Show, FilterPlace::Hide),
            _ => (FilterPlace::Hide, FilterPlace::Hide),
        }
    }
}

/// Shows that of what passes between both addresses of `pair`. It is ESP by itself, or in UDP by the port of this host
/// that is `nat_port`: to another host's, any program here may send.
pub(super) fn of(pair: Pair, nat_port: u16, shown: ShownPackets) -> Vec<SockFilter> {
    program(pair, nat_port, shown).iter().map(|it| SockFilter::new(it.code, it.jt, it.jf, it.k)).collect()
}

/// Shows nothing any more.
pub(super) fn nothing() -> [SockFilter; 1] {
    [SockFilter::new(RETURN, 0, 0, 0)]
}

fn program(pair: Pair, nat_port: u16, shown: ShownPackets) -> Vec<sock_filter> {
    use FilterStep::{Do, Go, GoUnless, Here};
    let v4 = pair.remote.is_ipv4();
    let link = if v4 { IPV4 } else { IPV6 };
    let [local, remote] = [pair.local, pair.remote].map(words);
    let (source, destination) = if v4 { (12, 16) } else { (8, 24) };
    let between = |from: &[u32], to: &[u32], otherwise| -> Vec<FilterStep> {
        let words = [(source, from), (destination, to)].into_iter();
        let words = words.flat_map(|(at, words)| (at..).step_by(4).zip(words.to_vec()));
        words.flat_map(|(at, word)| [Do(LOAD_WORD, at), GoUnless(IF_EQUAL, word, otherwise)]).collect()
    };
    let mut steps = vec![Do(LOAD_HALF, LINK_PROTOCOL), GoUnless(IF_EQUAL, link, FilterPlace::Hide)];
    steps.extend(between(&local, &remote, FilterPlace::Reverse));
    steps.extend([Go(FilterPlace::Leaves), Here(FilterPlace::Reverse)]);
    steps.extend(between(&remote, &local, FilterPlace::Hide));
    steps.extend(sorting(v4, (2, nat_port), shown.places(false)));
    steps.push(Here(FilterPlace::Leaves));
    steps.extend(sorting(v4, (0, nat_port), shown.places(true)));
    steps.extend([Here(FilterPlace::Show), Do(RETURN, SNAP as u32), Here(FilterPlace::Hide), Do(RETURN, 0)]);
    assemble(&steps)
}

/// Sends ESP, by itself or in UDP with that port at that place, to the first place, and all else to the second.
fn sorting(v4: bool, (at, port): (u32, u16), (esp, clear): (FilterPlace, FilterPlace)) -> Vec<FilterStep> {
    use FilterStep::{Do, Go, GoIf, GoUnless};
    let protocol = if v4 { 9 } else { 6 };
    let mut steps = vec![Do(LOAD_BYTE, protocol), GoIf(IF_EQUAL, ESP, esp), GoUnless(IF_EQUAL, UDP, clear)];
    if v4 {
        // What is not the first part of a packet has no ports.
        steps.extend([Do(LOAD_HALF, 6), GoIf(IF_SET, 0x1fff, clear), Do(HEADER_LENGTH, 0)]);
    } else {
        steps.push(Do(BEHIND_IS, 40));
    }
    steps.extend([Do(LOAD_HALF_BEHIND, at), GoUnless(IF_EQUAL, port.into(), clear)]);
    // RFC 3948 section 2.2: four zeros stand before IKE. What is shorter is a reminder for a NAT, which is not shown.
    steps.extend([Do(LOAD_WORD_BEHIND, 8), GoIf(IF_EQUAL, 0, clear), Go(esp)]);
    steps
}

/// The parts of an address as the filter compares them.
fn words(address: IpAddr) -> Vec<u32> {
    match address {
        IpAddr::V4(v4) => vec![v4.to_bits()],
        IpAddr::V6(v6) => v6.octets().as_chunks().0.iter().map(|word| u32::from_be_bytes(*word)).collect(),
    }
}

fn assemble(steps: &[FilterStep]) -> Vec<sock_filter> {
    let length = |step: &FilterStep| match step {
        FilterStep::Do(..) | FilterStep::Go(_) => 1,
        FilterStep::GoIf(..) | FilterStep::GoUnless(..) => 2,
        FilterStep::Here(_) => 0,
    };
    let mut places = Vec::new();
    let mut at = 0u32;
    for step in steps {
        if let FilterStep::Here(place) = step {
            places.push((*place, at));
        }
        at += length(step);
    }
    let position =
        |place: FilterPlace| places.iter().find(|(name, _)| *name == place).map_or(at, |(_, at)| *at);
    let mut program = Vec::new();
    for step in steps {
        let here = program.len() as u32;
        let one = |code, jt, jf, k| sock_filter { code, jt, jf, k };
        let jump = |place, from: u32| one(JUMP, 0, 0, position(place) - from - 1);
        match step {
            FilterStep::Do(code, k) => program.push(one(*code, 0, 0, *k)),
            FilterStep::Go(place) => program.push(jump(*place, here)),
            FilterStep::GoIf(code, k, place) => {
                program.extend([one(*code, 0, 1, *k), jump(*place, here + 1)]);
            }
            FilterStep::GoUnless(code, k, place) => {
                program.extend([one(*code, 1, 0, *k), jump(*place, here + 1)]);
            }
            FilterStep::Here(_) => {}
        }
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program over a packet as the kernel does: how much of it is shown.
    fn run(program: &[sock_filter], link: u32, packet: &[u8]) -> Option<u32> {
        let load = |at: u32, length: usize| {
            let at = usize::try_from(at).ok()?;
            let octets = packet.get(at..at + length)?;
            Some(octets.iter().fold(0, |value, octet| value << 8 | u32::from(*octet)))
        };
        let (mut at, mut value, mut behind) = (0, 0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = *program.get(at)?;
            let mut jump = |holds: bool| at += usize::from(if holds { jt } else { jf });
            match code {
                LOAD_HALF if k == LINK_PROTOCOL => value = link,
                LOAD_BYTE => value = load(k, 1)?,
                LOAD_HALF => value = load(k, 2)?,
                LOAD_WORD => value = load(k, 4)?,
                LOAD_HALF_BEHIND => value = load(behind + k, 2)?,
                LOAD_WORD_BEHIND => value = load(behind + k, 4)?,
                HEADER_LENGTH => behind = 4 * (load(k, 1)? & 0xf),
                BEHIND_IS => behind = k,
                IF_EQUAL => jump(value == k),
                IF_SET => jump(value & k != 0),
                JUMP => at += k as usize,
                RETURN => return Some(k),
                other => panic!("{other:#x} is not among what programs of this page do"),
            }
            at += 1;
        }
    }

    /// Which of the programs show a packet of the pair that goes that way: all but ESP, ESP out, ESP in.
    fn shown(v4: bool, leaves: bool, protocol: u8, payload: &[u8]) -> [bool; 3] {
        let [local, remote] = if v4 { ["10.0.0.1", "10.0.0.2"] } else { ["fd00::1", "fd00::2"] };
        let pair = Pair::new(local.parse().unwrap(), remote.parse().unwrap()).unwrap();
        let octets = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let [from, to] = if leaves { [pair.local, pair.remote] } else { [pair.remote, pair.local] };
        let head: &[u8] = if v4 {
            &[0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0]
        } else {
            &[0x60, 0, 0, 0, 0, 0, protocol, 64]
        };
        let packet = [head, &octets(from), &octets(to), payload].concat();
        let link = if v4 { IPV4 } else { IPV6 };
        [ShownPackets::ButEsp, ShownPackets::EspOut, ShownPackets::EspIn].map(|what| {
            let program = program(pair, 4500, what);
            assert_eq!(run(&program, if v4 { IPV6 } else { IPV4 }, &packet).unwrap_or(0), 0);
            run(&program, link, &packet).is_some_and(|length| length > 0)
        })
    }

    fn udp(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
        [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 4], data].concat()
    }

    #[test]
    fn each_program_shows_its_own_and_the_far_port_hides_nothing() {
        for v4 in [true, false] {
            for leaves in [true, false] {
                let esp = [false, leaves, !leaves];
                let clear = [true, false, false];
                // The port of this host first.
                let between = |own, far, data: &[u8]| {
                    let payload = if leaves { udp(own, far, data) } else { udp(far, own, data) };
                    shown(v4, leaves, 17, &payload)
                };
                assert_eq!(shown(v4, leaves, 50, &[1; 40]), esp);
                assert_eq!(shown(v4, leaves, 6, &[1; 40]), clear);
                assert_eq!(between(4500, 4500, &[1; 40]), esp);
                assert_eq!(between(4500, 31_000, &[1; 40]), esp, "a NAT has another one");
                assert_eq!(between(4500, 4500, &[0; 40]), clear, "IKE");
                assert_eq!(between(4500, 4500, &[0xff]), [false; 3], "a reminder for a NAT");
                assert_eq!(between(31_000, 4500, &[1; 40]), clear, "any program here may send there");
                assert_eq!(between(500, 500, &[1; 40]), clear);
            }
        }
    }

    #[test]
    fn what_is_between_others_is_not_shown() {
        let pair = Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 3].into()).unwrap();
        let packet =
            [&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2][..], &[1; 20]].concat();
        assert_eq!(run(&program(pair, 4500, ShownPackets::ButEsp), IPV4, &packet), Some(0));
    }
}
