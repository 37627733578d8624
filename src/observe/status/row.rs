//! One row of a status.

use super::evidence::{Evidence, seconds_until};
use super::{CIPHER, Encapsulation, IkeRow, PeerInfo, PeerRow, PpkInKeys, SaRow, SaState, fate, standing};
use crate::identity::PpkUse;
use crate::observe::snapshot::PairSnapshot;
use crate::observe::strangers::Overruled;
use crate::store::PairRecord;
use crate::types::{
    Action, Direction, Family, KernelState, NodeName, Pair, PolicyDirection, PolicyId, Proposals, Protection,
    RowState, SaId, SaReading, SasByEnds, Spi, UnixTime, ours,
};

/// The version of IKE that is spoken.
const IKE_VERSION: u8 = 2;

impl Evidence<'_> {
    /// The row of `pair`, whose other host is `node`; `sas` are those of the kernel.
    pub(super) fn row(
        &self,
        node: NodeName,
        pair: Pair,
        sas: &SasByEnds<'_>,
        overruled: &Overruled,
    ) -> PeerRow {
        let (default, known) = (PairRecord::default(), self.known(pair));
        let record = self.saved.pairs.get(&pair).unwrap_or(&default);
        let keys = known.map(|known| &known.keys);
        let ppk = keys.and_then(|keys| keys.ppk.as_ref());
        let heard = known.and_then(|known| known.heard);
        let seen = self.seen(pair, sas, overruled);
        let sas: Vec<&SaReading> = sas.of(pair).collect();
        let used = self.outbound_in_use(pair);
        let key_bits = used.map(|sa| sa.key_bits);
        let last_heard_esp = heard.and_then(|heard| heard.esp).or(last_used(&sas, pair));
        let last_heard = heard.and_then(|heard| heard.ike).max(last_heard_esp);
        let (state, reason) = standing::of(self, pair, seen, last_heard);
        let (reason_code, reason) = reason.unzip();
        PeerRow {
            node,
            local: pair.local,
            listed: Some(self.node.inside.listed(pair.local)).filter(|listed| *listed != pair.local),
            remote: pair.remote,
            family: Family::of(pair.local),
            state,
            since: record.since,
            reason_code,
            reason,
            keying: keys.and_then(|keys| keys.method).unwrap_or(self.config.keying.method),
            authentication: keys.and_then(|keys| keys.authentication),
            ppk: ppk.map(|ppk| match ppk {
                PpkUse::Used(_) => PpkInKeys::Used,
                PpkUse::None => PpkInKeys::None,
            }),
            ppk_id: ppk.and_then(PpkUse::id).map(str::to_owned),
            ike: keys.and_then(|keys| keys.ike.as_ref()).map(|(proposal, age)| IkeRow {
                version: IKE_VERSION,
                proposal: proposal.to_string(),
                group: proposal.key_exchange(),
                age_s: age.as_secs(),
            }),
            esp: used.map(|sa| Proposals::of_suite(sa.suite()).to_string()),
            esp_group: keys.and_then(|keys| keys.exchange.as_ref()).map(ToString::to_string),
            cipher: key_bits.map(|_| CIPHER.to_owned()),
            key_bits,
            encapsulation: match used {
                Some(sa) if sa.encapsulated => Encapsulation::Udp,
                _ => Encapsulation::None,
            },
            tx: record.total(Direction::Out, &sas, pair),
            rx: record.total(Direction::In, &sas, pair),
            totals_since: record.totals_since.filter(|_| record.is_whole(&sas, pair)),
            errors: record.refused(&sas, pair),
            secret_id: keys.and_then(|keys| keys.secret).map(|id| id.to_string()),
            last_heard,
            last_heard_esp,
            peer: known.and_then(|known| known.peer).map(|about| PeerInfo {
                config_id: about.config_id.clone(),
                secret_id: about.secret_id.clone(),
                version: about.version.clone(),
            }),
            sas: self.sa_rows(pair, known, &sas, used),
            waiting: known.is_some_and(|known| known.waiting),
            try_ends_in_s: known.and_then(|known| known.trial_left).map(seconds_until),
        }
    }

    /// How a pair stands by what the kernel holds, on a host that is to be protected.
    fn seen(&self, pair: Pair, sas: &SasByEnds<'_>, overruled: &Overruled) -> RowState {
        match self.saved.protection {
            Protection::Off => RowState::Off,
            _ => fate::state(self.kernel, sas, overruled, pair),
        }
    }

    /// The SA that the outbound policy of `pair` sends through, where the kernel has it.
    fn outbound_in_use(&self, pair: Pair) -> Option<&SaReading> {
        let reading = self.kernel.policies.get(&PolicyId::of(pair, PolicyDirection::Out))?;
        match reading.action.filter(|_| ours::is_our_policy(reading))? {
            Action::Seal { through } => self.kernel.sends(pair, through),
            _ => None,
        }
    }

    /// The rows of `sas`, outbound first. Nothing says which inbound SA the other end uses: the newest
    /// counts as active.
    fn sa_rows(
        &self,
        pair: Pair,
        known: Option<&PairSnapshot<'_>>,
        sas: &[&SaReading],
        used: Option<&SaReading>,
    ) -> Vec<SaRow> {
        let inbound = sas.iter().filter(|sa| sa.direction(pair) == Direction::In);
        let newest_in = inbound.max_by_key(|sa| sa.added).map(|sa| sa.id);
        let used = used.map(|sa| sa.id);
        let row = |sa: &&SaReading| {
            let active = [used, newest_in].contains(&Some(sa.id));
            let age_s = self.now.0.saturating_sub(sa.added);
            SaRow {
                direction: sa.direction(pair),
                spi: sa.id.spi,
                state: if active { SaState::Active } else { SaState::Retiring },
                bytes: sa.bytes,
                packets: sa.packets,
                age_s,
                rekey_in_s: known.and_then(|known| known.rekey_in(sa.id)).map(|left| left.as_secs()),
                expires_in_s: sa.hard_seconds.map(|limit| limit.saturating_sub(age_s)),
            }
        };
        let mut rows: Vec<SaRow> = sas.iter().map(row).collect();
        rows.sort_by_key(|row| (row.direction == Direction::In, row.age_s, row.spi));
        rows
    }
}

/// The SAs of ours between the addresses of `pair`.
pub fn live_sas(kernel: &KernelState, pair: Pair) -> impl Iterator<Item = &SaReading> {
    let to = |destination| {
        let first = SaId { destination, spi: Spi(0) };
        let last = SaId { destination, spi: Spi(u32::MAX) };
        kernel.sas.range(first..=last).map(|(_, sa)| sa)
    };
    let outbound = to(pair.remote).filter(move |sa| sa.source == pair.local);
    let inbound = to(pair.local).filter(move |sa| sa.source == pair.remote);
    outbound.chain(inbound)
}

/// When an inbound one among `sas` took a packet last, where the kernel says it.
fn last_used(sas: &[&SaReading], pair: Pair) -> Option<UnixTime> {
    let inbound = sas.iter().filter(|sa| sa.direction(pair) == Direction::In);
    inbound.filter_map(|sa| sa.last_used).max().map(UnixTime)
}
