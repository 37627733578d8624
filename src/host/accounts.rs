//! The totals of each pair over all its SAs, which never go backwards (invariant 8).
//!
//! An SA's last figures come from the notification of its end. They are added once, because an SA that
//! was added is no longer live. Probes are ours, not traffic, and are taken out.
//!
//! Figures are written down now and then, and so is which SAs were counting. Where one of those ends while nobody
//! listens, its last figures are lost, and its pair's totals begin anew: they never fall behind what was told.
//!
//! The totals of the host have what pairs had that are no more. Where figures are lost, they go on where they were, if
//! what was told of them last was written down; else they begin anew too.

use std::collections::BTreeMap;
use std::time::Instant;

use super::beside::beside;
use crate::store::{HostRecord, PairRecord};
use crate::types::{Direction, Pair, SaErrors, SaId, SaReading, Traffic, UnixTime, Volume};

/// An SA that is still counting.
#[derive(Debug, Clone, Copy)]
pub struct LiveSa {
    /// The pair that it serves.
    pub pair: Pair,
    /// Which way.
    pub direction: Direction,
    /// When it was made.
    born: Instant,
    /// Probes among what it counts.
    pub probes: Traffic,
    /// What was read last, without the probes that were known of then.
    told: Traffic,
    /// What it had refused then.
    refused: SaErrors,
    /// What it had counted at the last [`Accounts::moved`]: outbound without probes.
    checked: u64,
}

/// What went through the SAs of a pair since that was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Packets of traffic have left.
    pub sent: bool,
    /// Packets have come, probes or others.
    pub received: bool,
    /// Seconds since 1970 at which the last one came, where the kernel says it.
    pub last_used: Option<u64>,
}

impl LiveSa {
    /// What went through it, if it has `counted` that.
    fn traffic(&self, counted: Traffic) -> Traffic {
        counted.minus(self.probes)
    }

    /// What it has counted, as it was read by now.
    fn volume(&self, reading: &SaReading) -> Volume {
        Volume::of(self.direction, self.traffic(reading.into()), reading.into())
    }

    /// The same, as far as it was read. A probe since then is not among that.
    fn noted(&self) -> Volume {
        Volume::of(self.direction, self.told, self.refused)
    }

    fn note(&mut self, reading: &SaReading) {
        (self.told, self.refused) = (self.traffic(reading.into()), reading.into());
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Past {
    volume: Volume,
    /// What of all that is not counted: SAs had it already when figures of others were lost.
    before: Volume,
    since: Option<UnixTime>,
}

/// All SAs and totals.
#[derive(Debug, Default)]
pub struct Accounts {
    live: BTreeMap<SaId, LiveSa>,
    /// What went through the SAs of a pair that are gone, and since when that is counted.
    past: BTreeMap<Pair, Past>,
    /// SAs that an agent before this one counted, and the probes among what they counted.
    remembered: BTreeMap<SaId, (Pair, Traffic)>,
    /// SAs that vanished without a last reading: what they counted since the one before is lost.
    unread: u64,
    /// What is counted for the host beside its pairs.
    host: HostRecord,
}

impl Accounts {
    /// What was remembered of a host. Its pairs come next, those with a record in `pairs` that come no more are counted for
    /// the host.
    pub fn resume(host: HostRecord, gone: impl IntoIterator<Item = PairRecord>) -> Self {
        let gone = gone.into_iter().map(|record| past(&record).volume).fold(host.gone, Volume::plus);
        Self { host: HostRecord { gone, ..host }, ..Self::default() }
    }

    /// What a pair had before this agent; counting begins `now` where it had nothing. A pair that has been
    /// counted already goes on where it was.
    pub fn restore(&mut self, pair: Pair, record: &PairRecord, now: UnixTime) {
        let since = record.totals_since.or(Some(now));
        self.past.entry(pair).or_insert(Past { since, ..past(record) });
        let probes = [(Direction::In, &record.probes_rx), (Direction::Out, &record.probes_tx)];
        for (direction, probes) in probes {
            let by_id = probes.iter().map(|(spi, probes)| (SaId::of(pair, direction, *spi), (pair, *probes)));
            self.remembered.extend(by_id);
        }
    }

    /// Begins to count an SA that was made at `born`.
    pub fn begin(&mut self, id: SaId, pair: Pair, direction: Direction, born: Instant) {
        let probes = self.remembered.remove(&id).map(|(_, probes)| probes).unwrap_or_default();
        self.live.entry(id).or_insert(LiveSa {
            pair,
            direction,
            born,
            probes,
            told: Traffic::default(),
            refused: SaErrors::default(),
            checked: 0,
        });
    }

    /// The SAs that are left of an agent before this one [count again](Accounts::begin). The others took their last
    /// figures with them: the totals of their pairs begin anew `now`. `sas` are those that there are.
    pub fn forget_remembered(&mut self, now: Option<UnixTime>, sas: &BTreeMap<SaId, SaReading>) {
        let lost = std::mem::take(&mut self.remembered);
        for (pair, _) in lost.values() {
            let before = self.live_volume(*pair, sas);
            self.past.insert(*pair, Past { since: now, before, ..Past::default() });
        }
        let closed = std::mem::take(&mut self.host.closed);
        if !lost.is_empty() {
            let left = self.volume(sas);
            // With SAs that are left, nobody knows which part of what was told is theirs.
            let goes_on = closed && self.live.is_empty();
            match goes_on {
                true => self.host.gone = self.host.gone.plus(self.host.told.minus(left)),
                false => self.host.before = self.host.before.plus(left),
            }
        }
    }

    /// All that went through the SAs of this host, of which there are `sas`.
    pub fn volume(&self, sas: &BTreeMap<SaId, SaReading>) -> Volume {
        let live = beside(&self.live, sas)
            .map(|(_, live, reading)| reading.map_or_else(|| live.noted(), |it| live.volume(it)));
        let past = self.past.values().map(|past| past.volume);
        past.chain(live).fold(self.host.gone, Volume::plus).minus(self.host.before)
    }

    /// What went through the SAs of a pair that are there.
    fn live_volume(&self, pair: Pair, sas: &BTreeMap<SaId, SaReading>) -> Volume {
        let live = self.live.iter().filter(|(_, live)| live.pair == pair);
        let counted = live.filter_map(|(id, live)| sas.get(id).map(|it| live.volume(it)));
        counted.fold(Volume::default(), Volume::plus)
    }

    /// What is to be remembered of the host beside the records of those pairs that are `kept`.
    pub fn host_record(&self, kept: impl Fn(Pair) -> bool) -> HostRecord {
        let past = self.past.iter().filter(|(pair, _)| !kept(**pair)).map(|(_, past)| past.volume);
        let live = self.live.values().filter(|live| !kept(live.pair)).map(LiveSa::noted);
        let gone = past.chain(live).fold(self.host.gone, Volume::plus);
        HostRecord { told: self.volume(&BTreeMap::new()), gone, ..self.host }
    }

    /// Those of `sas` that are counting, and when each was made.
    pub fn with_birth<'a>(
        &'a self,
        sas: &'a mut BTreeMap<SaId, SaReading>,
    ) -> impl Iterator<Item = (&'a mut SaReading, Instant)> {
        beside(sas, &self.live).filter_map(|(_, reading, live)| Some((reading, live?.born)))
    }

    /// A probe went through an SA.
    pub fn probe(&mut self, id: SaId, bytes: u64) {
        if let Some(live) = self.live.get_mut(&id) {
            live.probes = live.probes.plus(Traffic { bytes, packets: 1 });
        }
    }

    /// What an SA has counted up to now.
    pub fn note(&mut self, reading: &SaReading) {
        if let Some(live) = self.live.get_mut(&reading.id) {
            live.note(reading);
        }
    }

    /// The same of all that there are.
    pub fn note_all(&mut self, present: &BTreeMap<SaId, SaReading>) {
        for (_, live, reading) in beside(&mut self.live, present) {
            if let Some(reading) = reading {
                live.note(reading);
            }
        }
    }

    /// The last figures of an SA that is gone. A second call for the same SA adds nothing.
    pub fn end(&mut self, reading: &SaReading) {
        self.note(reading);
        self.add_to_past(reading.id);
    }

    /// The kernel does not hold an SA any more, and no last figures came.
    pub fn lose_missing(&mut self, present: &BTreeMap<SaId, SaReading>) {
        let missing: Vec<SaId> = self.live.keys().filter(|id| !present.contains_key(id)).copied().collect();
        for id in missing {
            self.unread += 1;
            self.add_to_past(id);
        }
    }

    fn add_to_past(&mut self, id: SaId) {
        if let Some(live) = self.live.remove(&id) {
            let past = self.past.entry(live.pair).or_default();
            past.volume = past.volume.plus(live.noted());
        }
    }

    /// The record of each pair: its totals over the SAs that are gone, the SAs that count, and how much of their
    /// figures are probes.
    pub fn records(&self) -> BTreeMap<Pair, PairRecord> {
        let record = |past: &Past| PairRecord {
            tx: past.volume.tx,
            rx: past.volume.rx,
            errors: past.volume.errors,
            totals_since: past.since,
            before: past.before,
            ..PairRecord::default()
        };
        let mut records: BTreeMap<Pair, PairRecord> =
            self.past.iter().map(|(pair, past)| (*pair, record(past))).collect();
        for (id, live) in &self.live {
            let record = records.entry(live.pair).or_default();
            let of_record = match live.direction {
                Direction::In => &mut record.probes_rx,
                Direction::Out => &mut record.probes_tx,
            };
            of_record.insert(id.spi, live.probes);
        }
        records
    }

    /// What each pair has counted by now, where the kernel holds `sas`.
    pub fn with<'a>(&'a self, sas: &BTreeMap<SaId, SaReading>) -> AccountsNow<'a> {
        let mut lost: BTreeMap<Pair, Volume> = BTreeMap::new();
        for (_, live, _) in beside(&self.live, sas).filter(|(.., reading)| reading.is_none()) {
            let lost = lost.entry(live.pair).or_default();
            *lost = lost.plus(live.noted());
        }
        AccountsNow { accounts: self, lost }
    }

    /// SAs that are counting.
    #[cfg(test)]
    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// SAs that vanished without a last reading.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// What each pair that was active has sent and received since this was asked last. Probes of ours do
    /// not count as sent; those of the peer are signs of life.
    pub fn moved(&mut self, present: &BTreeMap<SaId, SaReading>) -> BTreeMap<Pair, Moved> {
        let mut moved: BTreeMap<Pair, Moved> = BTreeMap::new();
        for (_, live, reading) in beside(&mut self.live, present) {
            let Some(reading) = reading else { continue };
            let packets = match live.direction {
                Direction::In => reading.packets,
                Direction::Out => reading.packets.saturating_sub(live.probes.packets),
            };
            if packets <= std::mem::replace(&mut live.checked, packets) {
                continue;
            }
            let moved = moved.entry(live.pair).or_default();
            match live.direction {
                Direction::In => {
                    moved.received = true;
                    moved.last_used = moved.last_used.max(reading.last_used);
                }
                Direction::Out => moved.sent = true,
            }
        }
        moved
    }
}

/// All SAs and totals, beside what a kernel holds.
pub struct AccountsNow<'a> {
    accounts: &'a Accounts,
    /// What SAs had counted that it does not hold any more, and whose last figures did not come.
    lost: BTreeMap<Pair, Volume>,
}

impl AccountsNow<'_> {
    /// What went through all SAs of `pair`, of which the kernel holds `sas`, and since when that is counted.
    pub fn of(&self, pair: Pair, sas: &[&SaReading]) -> (Volume, Option<UnixTime>) {
        let Past { volume, before, since } = self.accounts.past.get(&pair).copied().unwrap_or_default();
        let lost = self.lost.get(&pair).copied().unwrap_or_default();
        let live = sas.iter().map(|sa| match self.accounts.live.get(&sa.id) {
            Some(live) => live.volume(sa),
            None => Volume::of(sa.direction(pair), (*sa).into(), (*sa).into()),
        });
        (live.fold(volume.plus(lost), Volume::plus).minus(before), since)
    }
}

/// What went through the SAs of a pair that are gone.
fn past(record: &PairRecord) -> Past {
    let volume = Volume { tx: record.tx, rx: record.rx, errors: record.errors };
    Past { volume, before: record.before, since: record.totals_since }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{EspSuite, Limits, Reqid, Sa, Spi};

    fn pair() -> Pair {
        Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap()
    }

    fn reading(direction: Direction, spi: u32, packets: u64) -> SaReading {
        let suite = EspSuite { key_bits: 256, esn: true };
        let sa = Sa {
            pair: pair(),
            direction,
            spi: Spi(spi),
            reqid: Reqid::COMMON,
            suite,
            encapsulation: None,
            replay_window: 64,
            limits: Limits::default(),
        };
        SaReading { packets, bytes: packets * 100, ..SaReading::fresh(&sa) }
    }

    fn begin(accounts: &mut Accounts, sa: &SaReading) {
        accounts.begin(sa.id, pair(), sa.direction(pair()), Instant::now());
    }

    fn total(accounts: &Accounts, direction: Direction, live: &[&SaReading]) -> u64 {
        let (volume, _) = accounts.with(&readings(live)).of(pair(), live);
        match direction {
            Direction::Out => volume.tx.packets,
            Direction::In => volume.rx.packets,
        }
    }

    #[test]
    fn an_sa_that_ends_is_added_once_and_probes_are_left_out() {
        let mut accounts = Accounts::default();
        accounts.restore(pair(), &PairRecord::default(), UnixTime(5));
        let out = reading(Direction::Out, 1, 10);
        begin(&mut accounts, &out);
        accounts.probe(out.id, 100);
        assert_eq!(total(&accounts, Direction::Out, &[&out]), 9);
        accounts.end(&out);
        accounts.end(&out);
        assert_eq!(total(&accounts, Direction::Out, &[]), 9);
        assert_eq!(accounts.records()[&pair()].totals_since, Some(UnixTime(5)));
        assert_eq!(accounts.unread(), 0);
    }

    #[test]
    fn what_a_flush_took_is_lost_back_to_the_last_reading_and_counted() {
        let mut accounts = Accounts::default();
        let inbound = reading(Direction::In, 2, 7);
        begin(&mut accounts, &inbound);
        accounts.note(&inbound);
        assert_eq!(total(&accounts, Direction::In, &[]), 7, "before it is known to be gone, too");
        accounts.lose_missing(&BTreeMap::new());
        assert_eq!(total(&accounts, Direction::In, &[]), 7);
        assert_eq!(accounts.unread(), 1);
    }

    #[test]
    fn an_agent_after_this_one_goes_on_counting() {
        let mut before = Accounts::default();
        let out = reading(Direction::Out, 1, 10);
        begin(&mut before, &out);
        before.probe(out.id, 100);
        let ended = reading(Direction::Out, 3, 5);
        begin(&mut before, &ended);
        before.end(&ended);
        let mut after = Accounts::default();
        after.restore(pair(), &before.records()[&pair()], UnixTime(9));
        begin(&mut after, &out);
        assert_eq!(total(&after, Direction::Out, &[&out]), 14);
    }

    /// An agent died, and an SA that it had counted ended before the next one came: nobody knows its last figures.
    #[test]
    fn what_ended_while_nobody_listened_makes_counting_begin_anew() {
        let mut before = Accounts::default();
        before.restore(pair(), &PairRecord::default(), UnixTime(5));
        let (ended, out) = (reading(Direction::Out, 3, 5), reading(Direction::Out, 1, 10));
        begin(&mut before, &ended);
        before.end(&ended);
        begin(&mut before, &out);
        for (left, expected, without_agent) in [(true, (15, 5), 15), (false, (0, 9), 0)] {
            let mut after = Accounts::default();
            after.restore(pair(), &before.records()[&pair()], UnixTime(9));
            let live: &[&SaReading] = if left { &[&out] } else { &[] };
            live.iter().for_each(|sa| begin(&mut after, sa));
            after.forget_remembered(Some(UnixTime(9)), &readings(live));
            let since = after.records()[&pair()].totals_since.unwrap();
            assert_eq!((total(&after, Direction::Out, live), since.0), expected);
            // Without an agent it is told in the same way.
            let record = &before.records()[&pair()];
            assert_eq!(record.is_whole(live, pair()), left);
            assert_eq!(record.total(Direction::Out, live, pair()).packets, without_agent);
        }
    }

    /// One SA went without its last figures, and another one is there: what that one had is not counted again, also by the
    /// next agent.
    #[test]
    fn counting_begins_anew_at_nothing() {
        let mut before = Accounts::default();
        before.restore(pair(), &PairRecord::default(), UnixTime(5));
        let (gone, out) = (reading(Direction::Out, 1, 10), reading(Direction::Out, 2, 90));
        [&gone, &out].into_iter().for_each(|sa| begin(&mut before, sa));
        assert_eq!(total(&before, Direction::Out, &[&gone, &out]), 100);
        let mut after = Accounts::default();
        after.restore(pair(), &before.records()[&pair()], UnixTime(9));
        begin(&mut after, &out);
        after.forget_remembered(Some(UnixTime(9)), &readings(&[&out]));
        assert_eq!(total(&after, Direction::Out, &[&out]), 0);
        let more = reading(Direction::Out, 2, 95);
        assert_eq!(total(&after, Direction::Out, &[&more]), 5);
        let mut next = Accounts::default();
        next.restore(pair(), &after.records()[&pair()], UnixTime(12));
        begin(&mut next, &more);
        next.forget_remembered(Some(UnixTime(12)), &readings(&[&more]));
        assert_eq!(total(&next, Direction::Out, &[&more]), 5);
        next.end(&more);
        assert_eq!(total(&next, Direction::Out, &[]), 5);
    }

    /// A probe that left after the last reading is not among what that has counted.
    #[test]
    fn a_probe_takes_nothing_from_what_was_read_before_it() {
        let mut accounts = Accounts::resume(HostRecord::default(), []);
        accounts.restore(pair(), &PairRecord::default(), UnixTime(5));
        let out = reading(Direction::Out, 1, 10);
        begin(&mut accounts, &out);
        accounts.note(&out);
        accounts.probe(out.id, 100);
        assert_eq!(total(&accounts, Direction::Out, &[]), 10);
        assert_eq!(accounts.host_record(|_| true).told.tx.packets, 10);
        accounts.note(&reading(Direction::Out, 1, 11));
        assert_eq!(total(&accounts, Direction::Out, &[]), 10);
    }

    fn readings(live: &[&SaReading]) -> BTreeMap<SaId, SaReading> {
        live.iter().map(|sa| (sa.id, **sa)).collect()
    }

    fn sent(accounts: &Accounts, live: &[&SaReading]) -> u64 {
        accounts.volume(&readings(live)).tx.packets
    }

    /// The totals of the host go on: over the end of an SA, an agent that ends and another that comes, a pair that leaves
    /// the configuration and comes back, and a reboot.
    #[test]
    fn the_totals_of_the_host_go_on() {
        let mut accounts = Accounts::resume(HostRecord::default(), []);
        accounts.restore(pair(), &PairRecord::default(), UnixTime(5));
        let (first, second) = (reading(Direction::Out, 1, 10), reading(Direction::Out, 2, 3));
        begin(&mut accounts, &first);
        accounts.probe(first.id, 100);
        begin(&mut accounts, &second);
        assert_eq!(sent(&accounts, &[&first, &second]), 12);
        accounts.end(&first);
        accounts.note(&second);
        assert_eq!(sent(&accounts, &[&second]), 12);
        // The pair has left the configuration, and the state is written.
        let host = accounts.host_record(|_| false);
        assert_eq!((host.told.tx.packets, host.gone.tx.packets), (12, 12));
        let mut after = Accounts::resume(host, []);
        after.restore(pair(), &PairRecord::default(), UnixTime(6));
        assert_eq!(sent(&after, &[]), 12);
        // An agent that no longer knows a pair of the file.
        accounts.end(&second);
        let (records, host) = (accounts.records(), accounts.host_record(|_| true));
        let after = Accounts::resume(host, records.values().cloned());
        assert_eq!(sent(&after, &[]), 12);
    }

    /// SAs ended while no agent listened.
    #[test]
    fn the_totals_of_the_host_never_dip_where_figures_are_lost() {
        let mut before = Accounts::resume(HostRecord::default(), []);
        before.restore(pair(), &PairRecord::default(), UnixTime(5));
        let (ended, out, inbound) =
            (reading(Direction::Out, 3, 5), reading(Direction::Out, 1, 10), reading(Direction::In, 2, 7));
        begin(&mut before, &ended);
        before.end(&ended);
        begin(&mut before, &out);
        begin(&mut before, &inbound);
        let whole = readings(&[&out, &inbound]);
        before.note(&out);
        before.note(&inbound);
        assert_eq!(before.volume(&whole).tx.packets, 15);
        let (record, host) = (before.records()[&pair()].clone(), before.host_record(|_| true));
        // Nothing is lost; all is lost at a reboot, after all that was told had been written, or not; a part is lost.
        for (closed, live, expected) in [
            (false, vec![&out, &inbound], 15),
            (true, vec![], 15),
            (false, vec![], 0),
            (true, vec![&inbound], 0),
        ] {
            let mut after = Accounts::resume(HostRecord { closed, ..host }, []);
            after.restore(pair(), &record, UnixTime(9));
            live.iter().for_each(|sa| begin(&mut after, sa));
            after.forget_remembered(Some(UnixTime(9)), &readings(&live));
            assert_eq!(sent(&after, &live), expected, "closed {closed}, {} left", live.len());
            let next = reading(Direction::Out, 9, 2);
            begin(&mut after, &next);
            let live: Vec<&SaReading> = live.into_iter().chain([&next]).collect();
            assert_eq!(sent(&after, &live), expected + 2, "and go on from there");
            assert!(!after.host_record(|_| true).closed);
        }
    }

    #[test]
    fn what_was_sent_and_received_since_it_was_asked_last() {
        let mut accounts = Accounts::default();
        let (out, inbound) = (reading(Direction::Out, 1, 0), reading(Direction::In, 2, 0));
        begin(&mut accounts, &out);
        begin(&mut accounts, &inbound);
        let read =
            |out: &SaReading, inbound: &SaReading| BTreeMap::from([(out.id, *out), (inbound.id, *inbound)]);
        assert!(accounts.moved(&read(&out, &inbound)).is_empty());
        let sent = reading(Direction::Out, 1, 3);
        let only_sent = Moved { sent: true, ..Moved::default() };
        assert_eq!(accounts.moved(&read(&sent, &inbound)), [(pair(), only_sent)].into());
        assert!(accounts.moved(&read(&sent, &inbound)).is_empty(), "nothing new since");
        let more = reading(Direction::Out, 1, 4);
        let answered = SaReading { last_used: Some(7), ..reading(Direction::In, 2, 1) };
        let both = Moved { sent: true, received: true, last_used: Some(7) };
        assert_eq!(accounts.moved(&read(&more, &answered)), [(pair(), both)].into());
        accounts.probe(out.id, 100);
        let probed = reading(Direction::Out, 1, 5);
        assert!(accounts.moved(&read(&probed, &answered)).is_empty(), "a probe is no traffic");
        accounts.probe(inbound.id, 100);
        let heard = Moved { sent: false, received: true, last_used: None };
        let probe = reading(Direction::In, 2, 2);
        assert_eq!(accounts.moved(&read(&probed, &probe)), [(pair(), heard)].into(), "but a sign of life");
    }
}
