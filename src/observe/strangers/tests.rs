use proptest::prelude::*;

use super::*;
use crate::types::{Block, Ports, SaId, Severity, Spi};

fn pair(remote: u8) -> (NodeName, Pair) {
    let name: NodeName = serde_json::from_str(&format!("\"n{remote}\"")).unwrap();
    let address = |last: u8| IpAddr::from([10, 99, 0, last]);
    (name, Pair::new(address(1), address(remote)).unwrap())
}

fn block(text: &str) -> Block {
    let (address, prefix) = text.split_once('/').unwrap();
    Block::new(address.parse().unwrap(), prefix.parse().unwrap()).unwrap()
}

/// What `ip xfrm policy add src .. dst .. dir .. priority .. action allow` makes.
fn policy(direction: PolicyDirection, source: &str, destination: &str, priority: u32) -> StrangerPolicy {
    StrangerPolicy {
        id: PolicyId { direction, selector: Selector::between(block(source), block(destination)) },
        index: 9,
        priority,
        verdict: Verdict::Allow,
        mark: (0, 0),
        interface: 0,
    }
}

fn to_port(policy: StrangerPolicy, protocol: u8, port: u16) -> StrangerPolicy {
    let selector = Selector { protocol, destination_ports: Ports::one(port), ..policy.id.selector };
    StrangerPolicy { id: PolicyId { selector, ..policy.id }, ..policy }
}

/// Docker Swarm's, for the VXLAN packets that its firewall rules mark.
fn swarm() -> StrangerPolicy {
    let outbound = policy(PolicyDirection::Out, "10.99.0.1/32", "10.99.0.2/32", 0);
    let verdict = Verdict::Transform { reqid: SWARM };
    StrangerPolicy { verdict, mark: (SWARM, u32::MAX), ..to_port(outbound, 17, 4789) }
}

fn swarm_sa(reqid: u32) -> StrangerSa {
    let [source, destination] = [2, 1].map(|last| IpAddr::from([10, 99, 0, last]));
    StrangerSa { source, id: SaId { destination, spi: Spi(0x1234) }, reqid }
}

fn problems(policies: &[StrangerPolicy], exempt: &[&str]) -> Vec<Problem> {
    problems_with(policies, &[], exempt)
}

fn problems_with(policies: &[StrangerPolicy], sas: &[StrangerSa], exempt: &[&str]) -> Vec<Problem> {
    let exempt = Exemptions::of_all(exempt.iter().map(|entry| entry.parse().unwrap()));
    let pairs = [pair(2), pair(3)];
    let strangers = Strangers { policies: policies.to_vec(), sas: sas.to_vec() };
    super::problems(&strangers, Ground { pairs: &pairs, exempt: &exempt })
}

/// The severities and messages.
fn told(policies: &[StrangerPolicy], exempt: &[&str]) -> Vec<(Severity, String)> {
    problems(policies, exempt).into_iter().map(|problem| (problem.severity, problem.message)).collect()
}

#[test]
fn a_policy_in_front_of_ours_is_critical_and_says_what_it_does() {
    use PolicyDirection::{Forward, In, Out};
    let all = policy(Out, "0.0.0.0/0", "0.0.0.0/0", 1);
    assert_eq!(
        told(&[all], &[]),
        [(
            Severity::Critical,
            "policy out 0.0.0.0/0 -> 0.0.0.0/0 of other IPsec software (priority 1, index 9) comes before \
             hostseal's: what it matches of the traffic with n2, n3 leaves in the clear. Remove it: `ip xfrm \
             policy delete dir out index 9`"
                .to_owned()
        )]
    );
    let of_one = to_port(policy(In, "10.99.0.3/32", "10.99.0.0/24", 1), 6, 5999);
    let found = problems(&[of_one], &[]);
    assert_eq!(found[0].node, Some(pair(3).0));
    assert!(found[0].message.contains("n3 is accepted in the clear"), "{found:?}");
    let block = StrangerPolicy { verdict: Verdict::Block, ..all };
    assert!(told(&[block], &[])[0].1.contains("n2, n3 is dropped"));
    let forward = StrangerPolicy { mark: (3, 0xff), ..policy(Forward, "0.0.0.0/0", "10.99.0.1/32", 1) };
    let (severity, words) = told(&[forward], &[]).remove(0);
    assert!(severity == Severity::Critical && words.contains(", mark 0x3/0xff, index 9)"), "{words}");
    assert!(words.contains("`ip xfrm policy delete dir fwd index 9 mark 0x3 mask 0xff`"), "{words}");
}

#[test]
fn the_smaller_priority_decides_and_one_that_is_equal_may() {
    let at = |priority| told(&[policy(PolicyDirection::Out, "0.0.0.0/0", "10.99.0.2/32", priority)], &[]);
    for priority in [0, 1, priority::EXEMPT, priority::PAIR] {
        assert_eq!(at(priority)[0].0, Severity::Critical, "{priority}");
    }
    // What lets pass behind ours is never asked.
    assert_eq!(at(priority::PAIR + 1), []);
    // One that has the very selector of ours takes its place, whatever its priority.
    let in_place = policy(PolicyDirection::Out, "10.99.0.1/32", "10.99.0.2/32", 5000);
    assert_eq!(told(&[in_place], &[])[0].0, Severity::Critical);
    assert_eq!(told(&[StrangerPolicy { mark: (1, 1), ..in_place }], &[]), []);
}

#[test]
fn ipsec_behind_ours_is_said_once_to_have_no_say() {
    let verdict = Verdict::Transform { reqid: 7 };
    let one =
        StrangerPolicy { verdict, ..policy(PolicyDirection::Out, "10.99.0.0/24", "10.99.0.0/24", 5000) };
    let two = StrangerPolicy { verdict, ..policy(PolicyDirection::In, "10.99.0.2/32", "0.0.0.0/0", 5000) };
    let found = told(&[one, two], &[]);
    assert_eq!(found.len(), 1);
    let (severity, words) = &found[0];
    assert_eq!(*severity, Severity::Info);
    assert!(words.contains("(priority 5000, index 9) and 1 more come after hostseal's"), "{words}");
    assert!(words.contains("n2, n3 go through hostseal's SAs"), "{words}");
}

#[test]
fn what_concerns_no_pair_is_not_named() {
    use PolicyDirection::{In, Out};
    for elsewhere in [
        policy(Out, "192.0.2.1/32", "10.99.0.2/32", 1),
        policy(Out, "10.99.0.1/32", "10.99.0.4/32", 1),
        policy(In, "10.99.0.1/32", "10.99.0.2/32", 1),
        policy(Out, "::/0", "::/0", 1),
    ] {
        assert_eq!(told(&[elsewhere], &[]), [], "{elsewhere}");
    }
}

#[test]
fn docker_swarm_is_named_until_its_port_is_exempt() {
    let (severity, words) = told(&[swarm()], &[]).remove(0);
    assert_eq!(severity, Severity::Critical);
    assert!(words.contains("Docker Swarm's encrypted overlay network"), "{words}");
    assert!(words.contains("--opt encrypted") && words.contains("[\"udp/4789\"]"), "{words}");
    // Left to it, and said. Its SAs are known by its policy.
    let left = problems_with(&[swarm()], &[swarm_sa(SWARM)], &["udp/4789"]);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].severity, Severity::Info);
    assert!(left[0].message.contains("for exempted ports alone"), "{left:?}");
    // Another exemption does not do, and neither does one for what comes in.
    for exempt in [["udp/4788"], ["tcp/4789"], ["in:udp/4789"]] {
        assert_eq!(told(&[swarm()], &exempt)[0].0, Severity::Critical, "{exempt:?}");
    }
}

#[test]
fn sas_that_no_policy_knows_are_named() {
    let found = problems_with(&[], &[swarm_sa(SWARM), swarm_sa(7)], &[]);
    assert_eq!(found.len(), 1);
    let Problem { severity, message, .. } = &found[0];
    assert_eq!(*severity, Severity::Info);
    assert!(message.starts_with("SA 0x00001234 to 10.99.0.1 of Docker Swarm's"), "{message}");
    assert!(message.contains("from n2 and 1 more: what comes through it is dropped"), "{message}");
    let elsewhere = StrangerSa { source: IpAddr::from([192, 0, 2, 1]), ..swarm_sa(7) };
    assert_eq!(problems_with(&[], &[elsewhere], &[]), []);
}

#[test]
fn what_passes_by_our_leave_is_not_named() {
    let ssh = to_port(policy(PolicyDirection::Out, "0.0.0.0/0", "0.0.0.0/0", 1), 6, 22);
    // It opens more than the exemption does: client ports below 32768.
    assert_eq!(told(&[ssh], &["tcp/22"])[0].0, Severity::Critical);
    let selector = Selector { source_ports: Ports { port: 0x8000, mask: 0x8000 }, ..ssh.id.selector };
    let narrow = StrangerPolicy { id: PolicyId { selector, ..ssh.id }, ..ssh };
    assert_eq!(told(&[narrow], &["tcp/22"]), []);
    assert_eq!(told(&[narrow], &[])[0].0, Severity::Critical);
    // A block takes away what was exempt.
    let block = StrangerPolicy { verdict: Verdict::Block, ..narrow };
    assert_eq!(told(&[block], &["tcp/22"])[0].0, Severity::Critical);
}

#[test]
fn libreswans_policies_for_neighbour_discovery_are_no_trouble() {
    let name = pair(2).0;
    let pairs = [(name, Pair::new("fd99::1".parse().unwrap(), "fd99::2".parse().unwrap()).unwrap())];
    let at = |direction, kind| {
        let all = policy(direction, "::/0", "::/0", 1);
        let selector = Selector { protocol: 58, source_ports: Ports::one(kind), ..all.id.selector };
        StrangerPolicy { id: PolicyId { selector, ..all.id }, ..all }
    };
    for direction in [PolicyDirection::In, PolicyDirection::Out, PolicyDirection::Forward] {
        let named = |kind| {
            let strangers = Strangers { policies: vec![at(direction, kind)], sas: Vec::new() };
            !super::problems(&strangers, Ground { pairs: &pairs, exempt: &Exemptions::default() }).is_empty()
        };
        assert!(!named(135) && !named(136) && named(128), "{direction}");
    }
}

#[test]
fn whole_pairs_are_overruled_by_the_first_of_those_that_match_everything() {
    let out = PolicyDirection::Out;
    let overruled = |policies: &[StrangerPolicy]| {
        let strangers = Strangers { policies: policies.to_vec(), sas: Vec::new() };
        super::overruled(&strangers, &[pair(2), pair(3)])
    };
    let all = policy(out, "0.0.0.0/0", "0.0.0.0/0", 2);
    let block = StrangerPolicy { verdict: Verdict::Block, ..policy(out, "0.0.0.0/0", "10.99.0.2/32", 1) };
    let expected = [((out, pair(2).1), Verdict::Block), ((out, pair(3).1), Verdict::Allow)];
    assert_eq!(overruled(&[all, block]), expected.into());
    assert_eq!(overruled(&[block, all]), expected.into());
    for partial in [
        to_port(all, 6, 22),
        StrangerPolicy { mark: (1, 1), ..all },
        StrangerPolicy { interface: 2, ..all },
        StrangerPolicy { priority: priority::PAIR + 1, ..all },
    ] {
        assert_eq!(overruled(&[partial]), Overruled::new(), "{partial}");
    }
}

#[test]
fn many_are_counted() {
    let all = policy(PolicyDirection::Out, "0.0.0.0/0", "0.0.0.0/0", 1);
    let many: Vec<_> = (0..100).map(|port| to_port(all, 6, 6000 + port)).collect();
    let found = told(&many, &[]);
    assert_eq!(found.len(), NAMED + 1);
    assert!(found.iter().all(|(severity, _)| *severity == Severity::Critical));
    assert!(found[NAMED].1.starts_with("92 more policies"), "{found:?}");
}

fn any_block() -> impl Strategy<Value = Block> {
    (0u8..6, 0u8..=32).prop_map(|(last, prefix)| Block::new([10, 99, 0, last].into(), prefix).unwrap())
}

proptest! {
    /// A pair is found exactly where the policy matches a packet of it.
    #[test]
    fn matches_are_those_of_the_kernel(source in any_block(), destination in any_block(), incoming: bool) {
        let direction = if incoming { PolicyDirection::In } else { PolicyDirection::Out };
        let id = PolicyId { direction, selector: Selector::between(source, destination) };
        let pairs = [pair(2), pair(3), pair(5)];
        let found = Peers::of(&pairs).matched_by(id).count();
        let expected = pairs.iter().filter(|(_, pair)| {
            let (from, to) = if incoming { (pair.remote, pair.local) } else { (pair.local, pair.remote) };
            source.contains(from) && destination.contains(to)
        });
        prop_assert_eq!(found, expected.count());
    }
}
