//! Protected pairs of addresses as kernel objects: once as our ops, once as lines for `ip -batch`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use hostseal::types::{
    Action, Block, Direction, EspSuite, KernelState, Limits, Op, Pair, Policy, PolicyDirection, Reqid, Sa,
    SaId, SaKey, Selector, Spi, Through, ours,
};
use hostseal::xfrm::{Features, Tables};

use crate::lab::Host;

/// An SA lives for a day, as by default.
const HARD_SECONDS: u64 = 24 * 60 * 60;
/// The replay window, as by default.
const WINDOW: u32 = 4096;
/// What a kernel that knows no directions of SAs wants of an outbound one with ESN.
const NARROW_WINDOW: u32 = 32;
/// Objects of a pair: two SAs, and policies in, fwd and out.
pub const OBJECTS: usize = 5;

/// Pairs, each with two SAs and three policies.
pub struct Pairs {
    /// All objects in the order in which they are added.
    pub ops: Vec<Op>,
    /// The keys of the SAs.
    pub keys: BTreeMap<SaId, SaKey>,
}

impl Pairs {
    /// `count` pairs of one own address with that many others.
    pub fn new(count: usize) -> Self {
        let local = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));
        let mut pairs = Self { ops: Vec::with_capacity(count * OBJECTS), keys: BTreeMap::new() };
        for number in (0u32..).take(count) {
            let remote = IpAddr::V4(Ipv4Addr::from_bits(0x0a80_0000 | number));
            pairs.add(Pair { local, remote }, number);
        }
        pairs
    }

    fn add(&mut self, pair: Pair, number: u32) {
        let [inbound, outbound] = [(Direction::In, 0), (Direction::Out, 1)].map(|(direction, low)| Sa {
            pair,
            direction,
            spi: Spi(Spi::FIRST | number << 1 | low),
            reqid: Reqid::COMMON,
            suite: EspSuite { key_bits: 256, esn: true },
            encapsulation: None,
            replay_window: WINDOW,
            limits: Limits { hard_seconds: Some(HARD_SECONDS), ..Limits::default() },
        });
        for sa in [inbound, outbound] {
            let mut key = vec![0xa5; 36];
            key[..4].copy_from_slice(&sa.spi.0.to_be_bytes());
            self.keys.insert(sa.id(), SaKey::new(key));
        }
        let [local, remote] = [pair.local, pair.remote].map(Block::host);
        let policy = |direction, source, destination, action| Op::AddPolicy {
            policy: Policy {
                direction,
                selector: Selector::between(source, destination),
                action,
                priority: ours::priority::PAIR,
                until: None,
            },
            index: ours::policy_index(direction, number),
        };
        self.ops.extend([
            policy(PolicyDirection::In, remote, local, Action::Require),
            policy(PolicyDirection::Forward, remote, local, Action::Require),
            Op::AddSa(inbound),
            Op::AddSa(outbound),
            policy(PolicyDirection::Out, local, remote, Action::Seal { through: Through::Sa(outbound.spi) }),
        ]);
    }

    /// The same as a file for `ip -batch`.
    pub fn batch(&self, features: Features) -> String {
        let mut text = String::new();
        for op in &self.ops {
            // Writing to a string has nothing to fail at.
            let _ = match op {
                Op::AddSa(sa) => writeln!(text, "{}", self.state_line(sa, features)),
                Op::AddPolicy { policy, index } => writeln!(text, "{}", policy_line(policy, *index)),
                _ => Ok(()),
            };
        }
        text
    }

    fn state_line(&self, sa: &Sa, features: Features) -> String {
        let Pair { local, remote } = sa.pair;
        let (source, destination, window) = match sa.direction {
            Direction::In => (remote, local, format!("replay-window {}", sa.replay_window)),
            Direction::Out if features.sa_dir => (local, remote, String::new()),
            Direction::Out => (local, remote, format!("replay-window {NARROW_WINDOW}")),
        };
        let direction = match sa.direction {
            _ if !features.sa_dir => "",
            Direction::In => "dir in",
            Direction::Out => "dir out",
        };
        let key: String = self
            .keys
            .get(&sa.id())
            .map(|key| key.expose().iter().map(|byte| format!("{byte:02x}")).collect())
            .unwrap_or_default();
        format!(
            "xfrm state add src {source} dst {destination} proto esp spi {} reqid {} mode transport {window} \
             flag esn aead rfc4106(gcm(aes)) 0x{key} 128 limit time-hard {HARD_SECONDS} {direction} \
             sel src {source} dst {destination}",
            sa.spi,
            Reqid::COMMON.number()
        )
    }
}

fn policy_line(policy: &Policy, index: u32) -> String {
    let Selector { source, destination, .. } = policy.selector;
    let direction = match policy.direction {
        PolicyDirection::In => "in",
        PolicyDirection::Out => "out",
        PolicyDirection::Forward => "fwd",
    };
    let template = match policy.action {
        Action::Seal { through: Through::Sa(spi) } => {
            format!("src {} dst {} proto esp spi {spi}", source.address, destination.address)
        }
        _ => "proto esp".to_owned(),
    };
    format!(
        "xfrm policy add src {source} dst {destination} dir {direction} index {index} priority {} \
         tmpl {template} reqid {} mode transport",
        policy.priority,
        Reqid::COMMON.number()
    )
}

/// Adds all of `pairs` to `kernel`.
///
/// # Errors
/// The kernel refused some of it; the first refusal.
pub fn program(kernel: &mut Tables, pairs: &Pairs) -> Result<()> {
    kernel.apply(&pairs.ops, &pairs.keys).into_iter().collect::<Result<(), _>>()?;
    Ok(())
}

/// What is in the kernel, without the times at which it came there.
///
/// # Errors
/// When it cannot be read, or does not have `count` pairs.
pub fn contents(kernel: &mut Tables, count: usize) -> Result<KernelState> {
    let mut state = kernel.read()?;
    state.sas.values_mut().for_each(|sa| sa.added = 0);
    let (sas, policies) = (state.sas.len(), state.policies.len());
    ensure!(sas == 2 * count && policies == 3 * count, "{sas} SAs and {policies} policies of {count} pairs");
    Ok(state)
}

/// Takes all SAs and policies away from a host.
///
/// # Errors
/// When `ip` fails.
pub fn flush(host: &Host) -> Result<()> {
    host.run("ip xfrm state flush && ip xfrm policy flush").map(drop)
}
