//! The numbers of a host as a table: with thousands of pairs, their names and times as words would take most of the time
//! that it takes to tell them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::ControlError;
use crate::observe::Figures;
use crate::observe::figures::PairFigures;
use crate::observe::member_pairs::known;
use crate::observe::status::Encapsulation;
use crate::types::{NodeName, ReasonCode, RowState, SaErrors, Traffic, UnixTime};

/// The numbers of a host, with those of its pairs in lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiguresTable {
    /// All others.
    figures: Figures,
    /// The nodes that lines name by their place here.
    nodes: Vec<NodeName>,
    /// Likewise addresses.
    addresses: Vec<IpAddr>,
    /// A line a pair, where those are wanted.
    pairs: Option<Vec<FiguresLine>>,
}

/// A pair: the places of its node and of its addresses (local, remote), its state, why and since when, what ESP is wrapped
/// in, bytes and packets sent, the same received, packets refused (replays, older than the window, not authentic), and
/// when its peer was heard (by ESP, by IKE), when its keys are to be replaced, and when they end. Times are seconds since
/// 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FiguresLine(
    [u32; 3],
    RowState,
    #[serde(deserialize_with = "known")] Option<ReasonCode>,
    Option<u64>,
    Encapsulation,
    [u64; 2],
    [u64; 2],
    [u64; 3],
    [Option<u64>; 4],
);

/// Things by the order in which they came first.
struct PlaceList<T>(BTreeMap<T, u32>);

impl<T: Ord + Clone> PlaceList<T> {
    fn of(&mut self, thing: &T) -> u32 {
        if let Some(place) = self.0.get(thing) {
            return *place;
        }
        // No host has so many pairs.
        let place = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.insert(thing.clone(), place);
        place
    }

    fn into_list(self) -> Vec<T> {
        let mut list: Vec<(u32, T)> = self.0.into_iter().map(|(thing, place)| (place, thing)).collect();
        list.sort_by_key(|(place, _)| *place);
        list.into_iter().map(|(_, thing)| thing).collect()
    }
}

impl FiguresTable {
    /// These numbers.
    pub fn of(mut figures: Figures) -> Self {
        let (mut nodes, mut addresses) = (PlaceList(BTreeMap::new()), PlaceList(BTreeMap::new()));
        let pairs = figures.pairs.take().map(|pairs| {
            let line = |pair: &PairFigures| {
                let ends = [nodes.of(&pair.node), addresses.of(&pair.local), addresses.of(&pair.remote)];
                FiguresLine::of(ends, pair)
            };
            pairs.iter().map(line).collect()
        });
        Self { figures, nodes: nodes.into_list(), addresses: addresses.into_list(), pairs }
    }

    /// The numbers beside those of the pairs.
    pub fn figures_mut(&mut self) -> &mut Figures {
        &mut self.figures
    }

    /// All numbers.
    ///
    /// # Errors
    /// A line names something that is not there.
    pub fn into_figures(self) -> Result<Figures, ControlError> {
        let Self { figures, nodes, addresses, pairs } = self;
        let pair = |line: FiguresLine| line.figures(&nodes, &addresses);
        let pairs = pairs.map(|lines| lines.into_iter().map(pair).collect::<Option<Vec<_>>>());
        match pairs {
            Some(None) => {
                Err(ControlError::Malformed("a line of a table names what is not there".to_owned()))
            }
            pairs => Ok(Figures { pairs: pairs.flatten(), ..figures }),
        }
    }
}

impl FiguresLine {
    fn of(ends: [u32; 3], pair: &PairFigures) -> Self {
        let PairFigures { state, reason, encapsulation, tx, rx, errors, .. } = pair;
        let seconds = |time: Option<UnixTime>| time.map(|time| time.0);
        Self(
            ends,
            *state,
            *reason,
            seconds(pair.since),
            *encapsulation,
            [tx.bytes, tx.packets],
            [rx.bytes, rx.packets],
            [errors.replay, errors.replay_window, errors.integrity],
            [pair.heard_esp, pair.heard_ike, pair.rekey_due, pair.expiry].map(seconds),
        )
    }

    fn figures(self, nodes: &[NodeName], addresses: &[IpAddr]) -> Option<PairFigures> {
        let Self(ends, state, reason, since, encapsulation, tx, rx, errors, times) = self;
        let [node, local, remote] = ends.map(|place| place as usize);
        let traffic = |[bytes, packets]: [u64; 2]| Traffic { bytes, packets };
        let [replay, replay_window, integrity] = errors;
        let [heard_esp, heard_ike, rekey_due, expiry] = times.map(|time| time.map(UnixTime));
        Some(PairFigures {
            node: nodes.get(node)?.clone(),
            local: *addresses.get(local)?,
            remote: *addresses.get(remote)?,
            state,
            reason,
            since: since.map(UnixTime),
            encapsulation,
            tx: traffic(tx),
            rx: traffic(rx),
            errors: SaErrors { replay, replay_window, integrity },
            heard_esp,
            heard_ike,
            rekey_due,
            expiry,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Reply, decode_reply, encode_reply};
    use crate::observe::metrics::tests::figures;

    fn table(figures: Figures) -> FiguresTable {
        let line = encode_reply(Reply::Table(Box::new(FiguresTable::of(figures))));
        match decode_reply(line.as_bytes()) {
            Ok(Reply::Table(table)) => *table,
            other => panic!("{other:?}"),
        }
    }

    /// Of every field, in lines that share what they name, without pairs, and with none.
    #[test]
    fn all_numbers_come_over() {
        let mut pairs = figures().pairs.unwrap();
        pairs[0].errors = SaErrors { replay: 1, replay_window: 2, integrity: u64::MAX };
        (pairs[0].heard_esp, pairs[0].rekey_due) = (Some(UnixTime(7)), Some(UnixTime(8)));
        let other = PairFigures { remote: "10.99.0.3".parse().unwrap(), reason: None, ..pairs[0].clone() };
        pairs.push(PairFigures { node: "c".parse().unwrap(), since: None, expiry: None, ..other.clone() });
        pairs.push(other);
        for pairs in [Some(pairs), Some(Vec::new()), None] {
            let figures = Figures { pairs, ..figures() };
            assert_eq!(table(figures.clone()).into_figures(), Ok(figures));
        }
        assert_eq!(table(figures()).addresses.len(), 2);
    }

    #[test]
    fn what_a_line_names_has_to_be_there() {
        let mut without = table(figures());
        without.addresses.pop();
        assert!(matches!(without.into_figures(), Err(ControlError::Malformed(_))));
    }
}
