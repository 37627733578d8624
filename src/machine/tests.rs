//! What this machine says of its network, beside what else says it.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::{Network, Route};
use crate::types::{Source, Sources};

const HERE: [u8; 4] = [127, 0, 0, 1];

/// By the C library.
fn listed() -> BTreeMap<IpAddr, bool> {
    let mut listed = BTreeMap::new();
    for interface in getifaddrs().unwrap() {
        let Some(address) = interface.address else { continue };
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())));
        let is_up = interface.flags.contains(InterfaceFlags::IFF_UP);
        ip.into_iter().for_each(|ip| *listed.entry(ip).or_default() |= is_up);
    }
    listed
}

#[test]
fn addresses_and_whether_they_are_up_are_those_of_the_c_library() {
    let mut network = Network::open().unwrap();
    let all = listed();
    assert!(all.contains_key(&HERE.into()));
    let links = network.links().unwrap();
    let mut ours = BTreeMap::new();
    for it in network.addresses().unwrap() {
        *ours.entry(it.address).or_default() |= links[&it.link].is_up;
    }
    assert_eq!(ours, all);
    let is_named = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let named: BTreeMap<IpAddr, bool> = all.into_iter().filter(|(ip, _)| is_named(ip)).collect();
    assert_eq!(network.own_addresses().unwrap(), named);
}

#[test]
fn links_are_those_of_sysfs() {
    let links = Network::open().unwrap().links().unwrap();
    let mut names: Vec<String> = links.values().map(|link| link.name.clone()).collect();
    names.sort();
    let entries = fs::read_dir("/sys/class/net").unwrap().flatten();
    // `bonding_masters` is a file there.
    let entries = entries.filter(|entry| entry.path().is_dir());
    let mut there: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    there.sort();
    assert_eq!(names, there);
    for link in links.values() {
        let number = |what: &str| -> u64 {
            let path = format!("/sys/class/net/{}/{what}", link.name);
            fs::read_to_string(path).unwrap().trim().parse().unwrap()
        };
        assert_eq!((u64::from(link.index), u64::from(link.mtu)), (number("ifindex"), number("mtu")));
        // It goes on counting.
        for (one_way, counters) in [("rx", link.received), ("tx", link.sent)] {
            assert!(counters.traffic.bytes <= number(&format!("statistics/{one_way}_bytes")));
            assert!(counters.traffic.packets <= number(&format!("statistics/{one_way}_packets")));
        }
        assert_eq!(link.is_loopback, link.name == "lo");
    }
}

#[test]
fn the_way_home_leads_by_the_loopback() {
    let mut network = Network::open().unwrap();
    let home = IpAddr::from(HERE);
    let link = network.links().unwrap().into_values().find(|link| link.is_loopback).unwrap();
    let route = Route { source: Some(home), link: Some(link.index) };
    assert_eq!(network.route(home, None), Some(route));
    assert_eq!(network.route(home, Some(home)).and_then(|route| route.link), Some(link.index));
    let source = Source { address: home, device: link.name };
    assert_eq!(network.sources(&[home]), Sources::from([(home, source)]));
}

/// Nobody has the first address (RFC 5737), and nothing goes from one family to the other.
#[test]
fn a_refusal_is_no_way_and_the_next_question_is_answered() {
    let mut network = Network::open().unwrap();
    let (home, nobody) = (IpAddr::from(HERE), IpAddr::from([192, 0, 2, 1]));
    for _ in 0..3 {
        assert_eq!(network.route(home, Some(nobody)), None);
        assert_eq!(network.route(home, Some([0; 16].into())), None);
        assert!(network.route(home, None).is_some());
    }
}

/// A command has no runtime, and the agent must not start a second one.
#[test]
fn it_answers_inside_a_runtime_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(!runtime.block_on(async { Network::open().unwrap().addresses().unwrap() }).is_empty());
}
