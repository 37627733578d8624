//! What the kernel is to show of the packets of a pair: a program for its packet filter (socket(7), SO_ATTACH_FILTER).
//! Packets begin with the IP header.

use std::net::IpAddr;

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
    /// Both addresses are those of the pair.
    Between,
    /// The other order of addresses is to be tried.
    Reverse,
    /// It may be ESP in UDP.
    InUdp,
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

/// Shows what passes between both addresses of `pair`, but not ESP, by itself or in UDP to or from `nat_port`.
pub(super) fn but_esp(pair: Pair, nat_port: u16) -> Vec<SockFilter> {
    program(pair, Some(nat_port))
}

/// Shows all that passes between both.
pub(super) fn everything(pair: Pair) -> Vec<SockFilter> {
    program(pair, None)
}

fn program(pair: Pair, hides_in: Option<u16>) -> Vec<SockFilter> {
    use FilterStep::{Do, Go, GoIf, GoUnless, Here};
    let v4 = pair.remote.is_ipv4();
    let (link, protocol) = if v4 { (IPV4, 9) } else { (IPV6, 6) };
    let [local, remote] = [pair.local, pair.remote].map(words);
    let (source, destination) = if v4 { (12, 16) } else { (8, 24) };
    let mut steps = vec![Do(LOAD_HALF, LINK_PROTOCOL), GoUnless(IF_EQUAL, link, FilterPlace::Hide)];
    if hides_in.is_some() {
        steps.extend([Do(LOAD_BYTE, protocol), GoIf(IF_EQUAL, ESP, FilterPlace::Hide)]);
    }
    for (from, to, otherwise) in
        [(&local, &remote, FilterPlace::Reverse), (&remote, &local, FilterPlace::Hide)]
    {
        for (at, words) in [(source, from), (destination, to)] {
            for (offset, word) in (at..).step_by(4).zip(words) {
                steps.extend([Do(LOAD_WORD, offset), GoUnless(IF_EQUAL, *word, otherwise)]);
            }
        }
        steps.push(Go(FilterPlace::Between));
        if otherwise == FilterPlace::Reverse {
            steps.push(Here(FilterPlace::Reverse));
        }
    }
    steps.push(Here(FilterPlace::Between));
    if let Some(port) = hides_in {
        steps.extend([Do(LOAD_BYTE, protocol), GoUnless(IF_EQUAL, UDP, FilterPlace::Show)]);
        if v4 {
            // What is not the first part of a packet has no ports.
            steps.extend([Do(LOAD_HALF, 6), GoIf(IF_SET, 0x1fff, FilterPlace::Show), Do(HEADER_LENGTH, 0)]);
        } else {
            steps.push(Do(BEHIND_IS, 40));
        }
        for at in [0, 2] {
            steps.extend([Do(LOAD_HALF_BEHIND, at), GoIf(IF_EQUAL, port.into(), FilterPlace::InUdp)]);
        }
        steps.extend([Go(FilterPlace::Show), Here(FilterPlace::InUdp)]);
        // RFC 3948 section 2.2: four zeros stand before IKE. What is shorter is a reminder for a NAT.
        steps.extend([Do(LOAD_WORD_BEHIND, 8), GoUnless(IF_EQUAL, 0, FilterPlace::Hide)]);
    }
    steps.extend([Here(FilterPlace::Show), Do(RETURN, SNAP as u32), Here(FilterPlace::Hide), Do(RETURN, 0)]);
    assemble(&steps)
}

/// The parts of an address as the filter compares them.
fn words(address: IpAddr) -> Vec<u32> {
    match address {
        IpAddr::V4(v4) => vec![v4.to_bits()],
        IpAddr::V6(v6) => v6.octets().as_chunks().0.iter().map(|word| u32::from_be_bytes(*word)).collect(),
    }
}

fn assemble(steps: &[FilterStep]) -> Vec<SockFilter> {
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
        let jump = |place, from: u32| SockFilter::new(JUMP, 0, 0, position(place) - from - 1);
        match step {
            FilterStep::Do(code, k) => program.push(SockFilter::new(*code, 0, 0, *k)),
            FilterStep::Go(place) => program.push(jump(*place, here)),
            FilterStep::GoIf(code, k, place) => {
                program.extend([SockFilter::new(*code, 0, 1, *k), jump(*place, here + 1)]);
            }
            FilterStep::GoUnless(code, k, place) => {
                program.extend([SockFilter::new(*code, 1, 0, *k), jump(*place, here + 1)]);
            }
            FilterStep::Here(_) => {}
        }
    }
    program
}
