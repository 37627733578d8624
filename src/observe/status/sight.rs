//! How a pair stands, before it is put into words: its row, its numbers and what is wrong with it are made of this.

use super::evidence::Evidence;
use super::{Encapsulation, PpkInKeys, SaState, fate, standing};
use crate::identity::PpkUse;
use crate::observe::snapshot::{PairSnapshot, RowReason};
use crate::observe::strangers::Overruled;
use crate::observe::totals::PairTotals;
use crate::types::{
    Direction, NodeName, Pair, Protection, ReasonCode, RowState, SaId, SaReading, SasByEnds, UnixTime, Volume,
};

/// How a pair stands.
#[derive(Debug)]
pub struct PairSight<'a> {
    /// The name of the other host.
    pub node: NodeName,
    /// The pair.
    pub pair: Pair,
    /// How it stands.
    pub state: RowState,
    /// Why, where it is neither protected nor off, or silent.
    pub reason: Option<RowReason>,
    /// Since when it stands so.
    pub since: Option<UnixTime>,
    /// What the agent knows of it.
    pub known: Option<&'a PairSnapshot<'a>>,
    /// Its SAs in the kernel.
    pub sas: Vec<&'a SaReading>,
    /// The one of them that its packets leave by.
    pub used: Option<&'a SaReading>,
    /// What went through all its SAs.
    pub volume: Volume,
    /// When counting began.
    pub totals_since: Option<UnixTime>,
    /// When a packet came through an SA last, or a message inside IKE.
    pub last_heard: Option<UnixTime>,
    /// When a packet came through an SA last.
    pub last_heard_esp: Option<UnixTime>,
    /// The newest SA that packets come by.
    newest_in: Option<SaId>,
    now: UnixTime,
}

impl<'a> PairSight<'a> {
    /// How `pair` stands, whose other host is `node`; `sas` are those of the kernel.
    pub(super) fn of(
        evidence: &Evidence<'a>,
        node: NodeName,
        pair: Pair,
        sas: &SasByEnds<'a>,
        overruled: &Overruled,
    ) -> Self {
        let known = evidence.known(pair);
        let heard = known.and_then(|known| known.heard);
        let used = fate::used(evidence.kernel, pair);
        let kernel = match evidence.saved.protection {
            Protection::Off => RowState::Off,
            _ => fate::state(evidence.kernel, (sas, used), overruled, pair),
        };
        let sas: Vec<&SaReading> = sas.of(pair).collect();
        let inbound = || sas.iter().filter(|sa| sa.direction(pair) == Direction::In);
        // When one of them took a packet last, where the kernel says it.
        let last_used = inbound().filter_map(|sa| sa.last_used).max().map(UnixTime);
        let last_heard_esp = heard.and_then(|heard| heard.esp).or(last_used);
        let last_heard = heard.and_then(|heard| heard.ike).max(last_heard_esp);
        let PairTotals { since, volume, totals_since } = evidence.totals.totals(pair, &sas);
        let (state, reason) = standing::of(evidence, pair, kernel, last_heard);
        Self {
            node,
            pair,
            state,
            reason,
            since,
            known,
            used,
            volume,
            totals_since,
            last_heard,
            last_heard_esp,
            // Nothing says which inbound SA the other end uses: the newest counts as active.
            newest_in: inbound().max_by_key(|sa| sa.added).map(|sa| sa.id),
            now: evidence.now,
            sas,
        }
    }

    /// Why it is neither protected nor off, or silent, for programs.
    pub fn reason_code(&self) -> Option<ReasonCode> {
        self.reason.as_ref().map(|(code, _)| *code)
    }

    /// Whether it is protected and its peer shows no sign of life.
    pub fn is_silent(&self) -> bool {
        self.reason_code() == Some(ReasonCode::Silent)
    }

    /// What ESP is wrapped in.
    pub fn encapsulation(&self) -> Encapsulation {
        match self.used {
            Some(sa) if sa.encapsulated => Encapsulation::Udp,
            _ => Encapsulation::None,
        }
    }

    /// Whether its keys have a PPK in them, where an agent has agreed them.
    pub fn ppk(&self) -> Option<PpkInKeys> {
        Some(match self.known?.keys.ppk.as_ref()? {
            PpkUse::Used(_) => PpkInKeys::Used,
            PpkUse::None => PpkInKeys::None,
        })
    }

    /// What one of its SAs is there for.
    pub fn state_of(&self, sa: &SaReading) -> SaState {
        let active = [self.used.map(|used| used.id), self.newest_in].contains(&Some(sa.id));
        if active { SaState::Active } else { SaState::Retiring }
    }

    /// Those that are in use.
    pub fn active(&self) -> impl Iterator<Item = &'a SaReading> {
        self.sas.iter().copied().filter(|sa| self.state_of(sa) == SaState::Active)
    }

    /// Seconds since one of them was made.
    pub fn age_of(&self, sa: &SaReading) -> u64 {
        self.now.0.saturating_sub(sa.added)
    }

    /// Seconds until the kernel deletes one of them; `None` for never.
    pub fn left_of(&self, sa: &SaReading) -> Option<u64> {
        sa.hard_seconds.map(|limit| limit.saturating_sub(self.age_of(sa)))
    }

    /// Seconds until one of them is replaced; `None` where nobody is going to.
    pub fn rekey_in(&self, sa: &SaReading) -> Option<u64> {
        self.known.and_then(|known| known.rekey_in(sa.id)).map(|left| left.as_secs())
    }
}
