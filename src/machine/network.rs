//! The interfaces, addresses and routes of a network namespace, by rtnetlink, as values.
//!
//! Nothing here lists routes: a router has a million of them. The kernel is asked for the way to each address.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::pin::pin;
use std::task::{Context, Waker};

use futures_util::{FutureExt as _, StreamExt as _};
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, Stats64,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::proto::Connection;
use rtnetlink::{Handle, RouteMessageBuilder};

use super::at_once::AtOnce;
use crate::types::{Link, LinkAddress, LinkCounters, Source, Sources, Traffic};

/// How often a list that changed while it was made is asked for again. The last one is taken as it is: news of the
/// change comes, too.
const TRIES: u32 = 3;

/// What answers, and how it is asked.
pub struct Network {
    connection: Connection<RouteNetlinkMessage, AtOnce>,
    handle: Handle,
}

/// How packets go somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Route {
    /// The address that they leave from, where routing chooses one.
    pub source: Option<IpAddr>,
    /// The number of the interface that they leave by.
    pub link: Option<u32>,
}

impl Network {
    /// Opens the network of this thread's namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open() -> io::Result<Self> {
        // Nobody subscribes to anything here.
        let (mut connection, handle, _) = rtnetlink::new_connection_with_socket()?;
        connection.set_forward_done(true);
        Ok(Self { connection, handle })
    }

    /// All interfaces, by their numbers.
    ///
    /// # Errors
    /// The kernel does not list them.
    pub fn links(&mut self) -> io::Result<BTreeMap<u32, Link>> {
        let links = self.list(RouteNetlinkMessage::GetLink(question_for_links()))?;
        Ok(links.into_iter().filter_map(link).map(|link| (link.index, link)).collect())
    }

    /// All addresses.
    ///
    /// # Errors
    /// The kernel does not list them.
    pub fn addresses(&mut self) -> io::Result<Vec<LinkAddress>> {
        let addresses = self.list(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        Ok(addresses.into_iter().filter_map(address).collect())
    }

    /// How packets to `remote` go, where they are sent from `local` or from whatever address routing chooses; `None`
    /// where there is no way, or no such address here.
    pub fn route(&mut self, remote: IpAddr, local: Option<IpAddr>) -> Option<Route> {
        let bits = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let question = RouteMessageBuilder::<IpAddr>::new();
        let question = question.destination_prefix(remote, bits(remote)).ok()?;
        let question = match local {
            Some(local) => question.source_prefix(local, bits(local)).ok()?,
            None => question,
        };
        let answers = self.ask(RouteNetlinkMessage::GetRoute(question.build()), 0).ok()?;
        answers.messages.into_iter().find_map(route)
    }

    /// The sources that routing chooses towards each of `remotes`.
    pub fn sources(&mut self, remotes: &[IpAddr]) -> Sources {
        let (mut sources, mut names) = (Sources::new(), BTreeMap::new());
        for remote in remotes {
            let Some(Route { source: Some(address), link }) = self.route(*remote, None) else { continue };
            let device = link.map(|link| names.entry(link).or_insert_with(|| self.name(link)).clone());
            sources.insert(*remote, Source { address, device: device.unwrap_or_default() });
        }
        sources
    }

    /// What the interface with this number is called; empty where there is none any more.
    fn name(&mut self, index: u32) -> String {
        let mut question = question_for_links();
        question.header.index = index;
        let answers = self.ask(RouteNetlinkMessage::GetLink(question), 0);
        let links = answers.into_iter().flat_map(|answers| answers.messages).filter_map(link);
        links.map(|link| link.name).next().unwrap_or_default()
    }

    fn list(&mut self, question: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut answers = self.ask(question.clone(), NLM_F_DUMP)?;
        for _ in 1..TRIES {
            if !answers.is_interrupted {
                break;
            }
            answers = self.ask(question.clone(), NLM_F_DUMP)?;
        }
        Ok(answers.messages)
    }

    /// Asks, and takes all that is answered.
    fn ask(&mut self, question: RouteNetlinkMessage, flags: u16) -> io::Result<Answers> {
        let answers = self.exchange(question, flags);
        if answers.as_ref().is_err_and(|error| error.kind() == ErrorKind::InvalidData) {
            // What is left of this question must not be in the way of the next.
            *self = Self::open()?;
        }
        answers
    }

    fn exchange(&mut self, question: RouteNetlinkMessage, flags: u16) -> io::Result<Answers> {
        let mut question = NetlinkMessage::from(question);
        question.header.flags = NLM_F_REQUEST | flags;
        let mut incoming = pin!(self.handle.request(question).map_err(io::Error::other)?);
        let context = &mut Context::from_waker(Waker::noop());
        self.connection.poll_requests(context);
        self.connection.poll_send_messages(context);
        self.connection.poll_read_messages(context);
        self.connection.forward_responses();
        // What nobody asked for.
        self.connection.forward_unsolicited_messages();
        let mut answers = Answers::default();
        loop {
            let Some(next) = incoming.next().now_or_never() else {
                let words = "the kernel's answer about its network is cut short";
                return Err(io::Error::new(ErrorKind::InvalidData, words));
            };
            let Some(message) = next else { return Ok(answers) };
            answers.is_interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(message) => answers.messages.push(message),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                // The end of a list, or why it ends before.
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
                }
                NetlinkPayload::Done(_) => {}
                _ => answers.is_interrupted = true,
            }
        }
    }
}

/// What was answered to one question.
#[derive(Default)]
struct Answers {
    messages: Vec<RouteNetlinkMessage>,
    /// Something changed meanwhile, or a part was lost.
    is_interrupted: bool,
}

/// Asks for no more than is looked at: with the statistics of IPv6 an interface takes twice as long.
fn question_for_links() -> LinkMessage {
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    question
}

fn link(answer: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = answer else { return None };
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        is_up: flags.contains(LinkFlags::Up),
        is_loopback: flags.contains(LinkFlags::Loopback),
        is_vrf: false,
        part_of: None,
        received: LinkCounters::default(),
        sent: LinkCounters::default(),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(of) => link.part_of = Some(of),
            LinkAttribute::LinkInfo(info) => link.is_vrf = info.contains(&LinkInfo::Kind(InfoKind::Vrf)),
            LinkAttribute::Stats64(counted) => (link.received, link.sent) = counters(&counted),
            _ => {}
        }
    }
    Some(link)
}

fn counters(counted: &Stats64) -> (LinkCounters, LinkCounters) {
    let received = LinkCounters {
        traffic: Traffic { bytes: counted.rx_bytes, packets: counted.rx_packets },
        errors: counted.rx_errors,
        dropped: counted.rx_dropped,
    };
    let sent = LinkCounters {
        traffic: Traffic { bytes: counted.tx_bytes, packets: counted.tx_packets },
        errors: counted.tx_errors,
        dropped: counted.tx_dropped,
    };
    (received, sent)
}

fn address(answer: RouteNetlinkMessage) -> Option<LinkAddress> {
    let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let (mut local, mut at_link) = (None, None);
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(address),
            AddressAttribute::Address(address) => at_link = Some(address),
            // All of them, where the header has room for eight.
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    // On a link of two ends, the other one is the other end's (linux/if_addr.h).
    let address = local.or(at_link)?;
    Some(LinkAddress {
        address,
        link: message.header.index,
        is_tentative: flags.contains(AddressFlags::Tentative),
        is_duplicate: flags.contains(AddressFlags::Dadfailed),
        // The same bit means something else for IPv4.
        is_temporary: address.is_ipv6() && flags.contains(AddressFlags::Secondary),
        is_deprecated: flags.contains(AddressFlags::Deprecated),
    })
}

fn route(answer: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(RouteMessage { attributes, .. }) = answer else { return None };
    let mut route = Route::default();
    for attribute in attributes {
        match attribute {
            RouteAttribute::PrefSource(RouteAddress::Inet(v4)) => route.source = Some(v4.into()),
            RouteAttribute::PrefSource(RouteAddress::Inet6(v6)) => route.source = Some(v6.into()),
            RouteAttribute::Oif(index) => route.link = Some(index),
            _ => {}
        }
    }
    Some(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: u16, rest: &[&[u8]]) -> RouteNetlinkMessage {
        let rest = rest.concat();
        let length = u32::try_from(16 + rest.len()).unwrap();
        let bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &rest].concat();
        match NetlinkMessage::deserialize(&bytes).unwrap().payload {
            NetlinkPayload::InnerMessage(message) => message,
            other => panic!("{other:?}"),
        }
    }

    /// ip address add 10.0.0.1 peer 10.0.0.2/32: IFA_ADDRESS is the other end's.
    #[test]
    fn on_a_link_of_two_ends_the_address_is_the_near_one() {
        let both = [&[8, 0, 1, 0, 10, 0, 0, 2][..], &[8, 0, 2, 0, 10, 0, 0, 1]];
        let it = address(read(20, &[&[2, 32, 0x80, 0, 7, 0, 0, 0], both[0], both[1]])).unwrap();
        assert_eq!((it.address, it.link), ([10, 0, 0, 1].into(), 7));
        assert!(!it.is_tentative && !it.is_duplicate && !it.is_temporary && !it.is_deprecated);
    }

    #[test]
    fn flags_are_those_of_the_attribute_and_mean_what_the_family_says() {
        let v6 = [&[20, 0, 1, 0, 0xfd, 0x99][..], &[0; 13], &[7]].concat();
        let flags = |flags: u32| [&[8, 0, 8, 0][..], &flags.to_ne_bytes()].concat();
        // IFA_F_TEMPORARY, IFA_F_DADFAILED, IFA_F_DEPRECATED and IFA_F_TENTATIVE (linux/if_addr.h).
        for (bits, told) in [
            (0x101, [false, false, true, false]),
            (0x108, [false, true, false, false]),
            (0x120, [false, false, false, true]),
            (0x140, [true, false, false, false]),
        ] {
            let it = address(read(20, &[&[10, 64, 0, 0, 2, 0, 0, 0], &v6, &flags(bits)])).unwrap();
            let are = [it.is_tentative, it.is_duplicate, it.is_temporary, it.is_deprecated];
            assert_eq!((it.address, are), ("fd99::7".parse().unwrap(), told), "{bits:#x}");
        }
        let secondary = [&[2, 24, 1, 0, 2, 0, 0, 0][..], &[8, 0, 2, 0, 10, 0, 0, 1], &flags(1)];
        assert!(!address(read(20, &secondary)).unwrap().is_temporary);
    }

    /// Nothing that the kernel could say can panic: what it says now, cut short and with each octet changed.
    #[test]
    fn garbled_answers_are_read_without_a_panic() {
        let mut network = Network::open().unwrap();
        let home = RouteMessageBuilder::<IpAddr>::new().destination_prefix([127, 0, 0, 1].into(), 32);
        let question = RouteNetlinkMessage::GetRoute(home.unwrap().build());
        let mut answers = network.ask(question, 0).unwrap().messages;
        for list in [
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        ] {
            answers.extend(network.list(list).unwrap().into_iter().take(2));
        }
        let digest = |bytes: &[u8]| {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else { return 0 };
            let NetlinkPayload::InnerMessage(message) = message.payload else { return 0 };
            let read = (link(message.clone()), address(message.clone()), route(message));
            usize::from(read.0.is_some()) + usize::from(read.1.is_some()) + usize::from(read.2.is_some())
        };
        let mut read = 0;
        for answer in answers {
            let mut answer = NetlinkMessage::from(answer);
            answer.finalize();
            let mut bytes = vec![0; answer.buffer_len()];
            answer.serialize(&mut bytes);
            for at in 0..bytes.len() {
                read += digest(&bytes[..at]);
                for other in [0, 1, 0x7f, 0xff] {
                    let before = std::mem::replace(&mut bytes[at], other);
                    read += digest(&bytes);
                    bytes[at] = before;
                }
            }
        }
        assert!(read > 1000, "most of it is still an answer: {read}");
    }
}
