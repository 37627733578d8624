//! One row of a status.

use super::evidence::{Evidence, seconds_until};
use super::sight::PairSight;
use super::{CIPHER, IkeRow, PeerInfo, PeerRow, SaRow};
use crate::identity::PpkUse;
use crate::types::{Direction, Family, Proposals, SaReading};

/// The version of IKE that is spoken.
const IKE_VERSION: u8 = 2;

impl Evidence<'_> {
    /// How a pair stands, in words.
    pub(super) fn row(&self, sight: &PairSight<'_>) -> PeerRow {
        let PairSight { pair, known, used, .. } = *sight;
        let keys = known.map(|known| &known.keys);
        let key_bits = used.map(|sa| sa.key_bits);
        let (reason_code, reason) = sight.reason.clone().unzip();
        let other = self.config.node_named(sight.node.as_str());
        PeerRow {
            node: sight.node.clone(),
            local: pair.local,
            listed: Some(self.node.inside.listed(pair.local)).filter(|listed| *listed != pair.local),
            remote: pair.remote,
            family: Family::of(pair.local),
            state: sight.state,
            since: sight.since,
            reason_code,
            reason,
            keying: keys.and_then(|keys| keys.method).unwrap_or(self.config.keying.method),
            authentication: keys.and_then(|keys| keys.authentication),
            ppk: sight.ppk(),
            ppk_id: keys.and_then(|keys| keys.ppk.as_ref()).and_then(PpkUse::id).map(str::to_owned),
            outside_kms: other.is_some_and(|other| self.config.is_outside_kms(self.node, other)),
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
            encapsulation: sight.encapsulation(),
            tx: sight.volume.tx,
            rx: sight.volume.rx,
            totals_since: sight.totals_since,
            errors: sight.volume.errors,
            secret_id: keys.and_then(|keys| keys.secret).map(|id| id.to_string()),
            last_heard: sight.last_heard,
            last_heard_esp: sight.last_heard_esp,
            peer: known.and_then(|known| known.peer).map(|about| PeerInfo {
                config_id: about.config_id.clone(),
                secret_id: about.secret_id.clone(),
                version: about.version.clone(),
            }),
            sas: sa_rows(sight),
            waiting: known.is_some_and(|known| known.waiting),
            try_ends_in_s: known.and_then(|known| known.trial_left).map(seconds_until),
        }
    }
}

/// The rows of the SAs of a pair, outbound first.
fn sa_rows(sight: &PairSight<'_>) -> Vec<SaRow> {
    let row = |sa: &&SaReading| SaRow {
        direction: sa.direction(sight.pair),
        spi: sa.id.spi,
        state: sight.state_of(sa),
        bytes: sa.bytes,
        packets: sa.packets,
        age_s: sight.age_of(sa),
        rekey_in_s: sight.rekey_in(sa),
        expires_in_s: sight.left_of(sa),
    };
    let mut rows: Vec<SaRow> = sight.sas.iter().map(row).collect();
    rows.sort_by_key(|row| (row.direction == Direction::In, row.age_s, row.spi));
    rows
}
