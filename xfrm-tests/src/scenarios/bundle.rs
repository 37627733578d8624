//! Several SAs that are switched at once, in a real kernel.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use hostseal::types::{
    Action, Block, Direction, EspSuite, KeySource, Limits, Op, Pair, Policy, PolicyDirection, PolicyId,
    Reqid, Sa, SaId, SaKey, Selector, Spi, Through, ours,
};
use hostseal::xfrm::Tables;

use crate::lab::{Host, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("bundle::a_policy_moves_from_one_set_to_another_at_once", 2, a_policy_moves)];

/// A set of two SAs from `pair.local`, with their keys.
fn set(pair: Pair, generation: u32) -> Option<(Through, [Sa; 2], BTreeMap<SaId, SaKey>)> {
    let reqid = Reqid::new(Reqid::COMMON.number() + generation)?;
    let sas = [0, 1].map(|number| Sa {
        pair,
        direction: Direction::Out,
        spi: Spi(Spi::FIRST | generation << 8 | number),
        reqid,
        suite: EspSuite { key_bits: 256, esn: true },
        encapsulation: None,
        replay_window: 64,
        limits: Limits::default(),
    });
    let keys = sas.iter().map(|sa| (sa.id(), SaKey::new(vec![sa.spi.0 as u8; 36]))).collect();
    Some((Through::Set(reqid), sas, keys))
}

fn a_policy_moves(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let pair = Pair { local: a.v4().into(), remote: b.v4().into() };
    let mut kernel = a.within(Tables::open)??;
    let (one, ones, keys) = set(pair, 1).context("a reqid of ours")?;
    let (two, twos, more_keys) = set(pair, 2).context("a reqid of ours")?;
    let policy = |through| Policy {
        direction: PolicyDirection::Out,
        selector: Selector::between(Block::host(pair.local), Block::host(pair.remote)),
        action: Action::Seal { through },
        priority: ours::priority::PAIR,
        until: None,
    };
    let index = ours::policy_index(PolicyDirection::Out, 0);
    let added = |sas: [Sa; 2]| sas.map(Op::AddSa);
    apply(&mut kernel, &added(ones), &keys)?;
    apply(&mut kernel, &[Op::AddPolicy { policy: policy(one), index }], &keys)?;
    ensure!(sent(&a, &b, &mut kernel, one)? == 3, "through the first set");
    apply(&mut kernel, &added(twos), &more_keys)?;
    apply(&mut kernel, &[Op::UpdatePolicy { policy: policy(two), index }], &more_keys)?;
    ensure!(sent(&a, &b, &mut kernel, two)? == 3, "through the second set");
    ensure!(counted(&mut kernel, one)? == 3, "no more through the first one");
    let id = PolicyId::of(pair, PolicyDirection::Out);
    let read = kernel.read()?.policies.get(&id).and_then(|policy| policy.action);
    ensure!(read == Some(Action::Seal { through: two }), "read as {read:?}");
    hostseal::xfrm::sweep(&mut kernel)?;
    super::ensure_nothing_of_ours(&a)
}

fn apply(kernel: &mut Tables, ops: &[Op], keys: &dyn KeySource) -> Result<()> {
    kernel.apply(ops, keys).into_iter().collect::<Result<(), _>>()?;
    Ok(())
}

/// What has left through these SAs after three packets.
fn sent(from: &Host, to: &Host, kernel: &mut Tables, through: Through) -> Result<u64> {
    // Nobody answers: the other end has no SA.
    let _ = from.output(&format!("ping -c 3 -i 0.2 -W 1 {}", to.v4()))?;
    counted(kernel, through)
}

fn counted(kernel: &mut Tables, through: Through) -> Result<u64> {
    let sas = kernel.read_sas()?;
    Ok(sas.values().filter(|sa| through.names(sa.id.spi, sa.reqid)).map(|sa| sa.packets).sum())
}
