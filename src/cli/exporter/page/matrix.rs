//! All pairs of a cluster: each stands as the worse of what its two ends say.

use std::collections::BTreeMap;

use crate::cli::layout::middle;
use crate::observe::member_pairs::{ClusterPairs, NodePairs, PairStanding, PairWord};
use crate::types::NodeName;

/// The most characters of a name beside the square.
const SHORT: usize = 22;

/// The nodes of a cluster, each with what it says of its pairs.
pub(super) struct PairMatrix<'a> {
    nodes: Vec<(&'a NodePairs, BTreeMap<&'a NodeName, &'a PairWord>)>,
}

/// A pair of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PairCell<'a> {
    /// The nodes.
    pub(super) ends: [&'a NodeName; 2],
    /// What each says of the pair; `None` where it was not reached, or does not know the other.
    pub(super) words: [Option<&'a PairWord>; 2],
}

/// How many pairs stand how; those that nothing is known of are under `None`.
pub(super) type MatrixTally = BTreeMap<Option<PairStanding>, usize>;

impl<'a> PairMatrix<'a> {
    pub(super) fn new(pairs: &'a ClusterPairs) -> Self {
        let words = |node: &'a NodePairs| {
            let said = node.said.iter().flatten();
            (node, said.map(|word| (&word.node, word)).collect())
        };
        Self { nodes: pairs.nodes.iter().map(words).collect() }
    }

    /// The nodes, in the order of rows and columns.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &'a NodePairs> {
        self.nodes.iter().map(|(node, _)| *node)
    }

    /// Their names as they fit beside a square: without the domain that all have in common, and without their middle.
    pub(super) fn short_names(&self) -> Vec<String> {
        let mut names: Vec<&str> = self.nodes().map(|node| node.node.as_str()).collect();
        while let Some(bare) = without_domain(&names) {
            names = bare;
        }
        names.into_iter().map(|name| middle(name, SHORT)).collect()
    }

    /// Those that have said a part only.
    pub(super) fn partial(&self) -> impl Iterator<Item = &'a NodePairs> {
        self.nodes().filter(|node| node.is_partial)
    }

    /// How many pairs are called protected by one end, while the other says nothing.
    pub(super) fn half_protected(&self) -> usize {
        let is_half =
            |pair: &PairCell<'_>| !pair.is_whole() && pair.standing() == Some(PairStanding::Protected);
        self.pairs().filter(is_half).count()
    }

    /// Those that say nothing.
    pub(super) fn silent(&self) -> impl Iterator<Item = &'a NodePairs> {
        self.nodes().filter(|node| node.said.is_none())
    }

    /// The row of a node, with `None` for itself.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = Option<PairCell<'a>>> {
        (0..self.nodes.len()).map(move |column| self.cell(row, column))
    }

    /// Each pair once.
    pub(super) fn pairs(&self) -> impl Iterator<Item = PairCell<'a>> {
        let count = self.nodes.len();
        (0..count).flat_map(move |row| (row + 1..count).filter_map(move |column| self.cell(row, column)))
    }

    pub(super) fn tally(&self) -> MatrixTally {
        let mut tally = MatrixTally::new();
        self.pairs().for_each(|pair| *tally.entry(pair.standing()).or_default() += 1);
        tally
    }

    fn cell(&self, row: usize, column: usize) -> Option<PairCell<'a>> {
        let ((one, said), (other, answered)) = (self.nodes.get(row)?, self.nodes.get(column)?);
        let ends = [&one.node, &other.node];
        let words = [said.get(&other.node).copied(), answered.get(&one.node).copied()];
        (row != column).then_some(PairCell { ends, words })
    }
}

/// Names without the last label that several have in common, where each has others.
fn without_domain<'n>(names: &[&'n str]) -> Option<Vec<&'n str>> {
    let (_, last) = names.first()?.rsplit_once('.')?;
    let bare =
        |name: &&'n str| name.rsplit_once('.').filter(|(rest, label)| *label == last && !rest.is_empty());
    let bare: Option<Vec<&str>> = names.iter().map(|name| bare(name).map(|(rest, _)| rest)).collect();
    bare.filter(|bare| bare.len() > 1)
}

impl PairCell<'_> {
    /// The worse of what both say; `None` where neither says anything.
    pub(super) fn standing(&self) -> Option<PairStanding> {
        self.standings().into_iter().flatten().max()
    }

    /// Both ends have said how it stands.
    pub(super) fn is_whole(&self) -> bool {
        self.standings().iter().all(Option::is_some)
    }

    fn standings(&self) -> [Option<PairStanding>; 2] {
        self.words.map(|word| word.and_then(PairWord::standing))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, word};
    use super::*;
    use crate::types::{ReasonCode, RowState};

    /// How each pair of a, b, c stands, of which a and b say something, and c may have been reached.
    fn standings(a_of_b: RowState, b_of_a: RowState) -> Vec<Option<PairStanding>> {
        let of_c = word("c", RowState::Protected);
        let pairs = cluster(&[
            ("a", Some(vec![word("b", a_of_b), of_c.clone()])),
            ("b", Some(vec![word("a", b_of_a)])),
            ("c", None),
        ]);
        PairMatrix::new(&pairs).pairs().map(|pair| pair.standing()).collect()
    }

    #[test]
    fn a_pair_stands_as_the_worse_of_what_both_ends_say() {
        use PairStanding as Is;
        for (one, other, both) in [
            (RowState::Protected, RowState::Protected, Is::Protected),
            (RowState::Protected, RowState::Off, Is::Off),
            (RowState::Protected, RowState::Negotiating, Is::Negotiating),
            (RowState::Clear, RowState::Negotiating, Is::Clear),
            (RowState::Clear, RowState::Blocked, Is::Blocked),
            (RowState::Off, RowState::Blocked, Is::Blocked),
            // One end sends plaintext: it is not to be called negotiating.
            (RowState::Off, RowState::Negotiating, Is::Off),
            (RowState::Off, RowState::Clear, Is::Clear),
        ] {
            // c was not reached, and b does not know it.
            let expected = vec![Some(both), Some(Is::Protected), None];
            assert_eq!(standings(one, other), expected, "{one} and {other}");
            assert_eq!(standings(other, one), expected, "{other} and {one}");
        }
    }

    #[test]
    fn a_silent_end_is_worse_than_a_protected_one_and_the_matrix_is_the_same_from_both_sides() {
        let silent = PairWord { reason: Some(ReasonCode::Silent), ..word("b", RowState::Protected) };
        let pairs = cluster(&[
            ("a", Some(vec![silent])),
            ("b", Some(vec![word("a", RowState::Protected)])),
            ("c", None),
        ]);
        let matrix = PairMatrix::new(&pairs);
        let rows: Vec<Vec<_>> =
            (0..3).map(|row| matrix.row(row).map(|cell| cell.map(|it| it.standing())).collect()).collect();
        let (silent, unknown) = (Some(Some(PairStanding::Silent)), Some(None));
        assert_eq!(rows, [[None, silent, unknown], [silent, None, unknown], [unknown, unknown, None]]);
        assert_eq!(matrix.tally(), [(Some(PairStanding::Silent), 1), (None, 2)].into());
        assert_eq!(matrix.silent().map(|node| node.node.as_str()).collect::<Vec<_>>(), ["c"]);
        let whole: Vec<bool> = matrix.pairs().map(|pair| pair.is_whole()).collect();
        assert_eq!(whole, [true, false, false]);
        assert_eq!(matrix.half_protected(), 0);
        let half = cluster(&[("a", Some(vec![word("b", RowState::Protected)])), ("b", None)]);
        assert_eq!(PairMatrix::new(&half).half_protected(), 1);
    }

    #[test]
    fn an_end_that_is_off_counts_before_one_that_hears_nothing() {
        let silent = PairWord { reason: Some(ReasonCode::Silent), ..word("b", RowState::Protected) };
        let pairs = cluster(&[("a", Some(vec![silent])), ("b", Some(vec![word("a", RowState::Off)]))]);
        let said: Vec<_> = PairMatrix::new(&pairs).pairs().map(|pair| pair.standing()).collect();
        assert_eq!(said, [Some(PairStanding::Off)]);
    }

    #[test]
    fn names_beside_the_square_are_without_what_all_have_in_common() {
        let short = |names: &[&str]| {
            let nodes: Vec<_> = names.iter().map(|name| (*name, None)).collect();
            PairMatrix::new(&cluster(&nodes)).short_names()
        };
        assert_eq!(short(&["a.x.example", "b.x.example"]), ["a", "b"]);
        assert_eq!(short(&["a.x.example", "b.y.example"]), ["a.x", "b.y"]);
        assert_eq!(short(&["a.example", "b"]), ["a.example", "b"]);
        assert_eq!(short(&["a.example"]), ["a.example"]);
        assert_eq!(short(&[".example", "a.example"]), [".example", "a.example"]);
        assert_eq!(short(&["analytics-worker-number-17"]), ["analytics-w…-number-17"]);
    }

    /// Whoever has gone bad can lie about the pairs that it has, and about no others.
    #[test]
    fn what_a_node_says_of_strangers_and_of_itself_is_not_heard() {
        let lies = ["a", "b", "stranger"].map(|name| word(name, RowState::Blocked)).to_vec();
        let pairs = cluster(&[("a", Some(lies)), ("b", Some(vec![])), ("c", Some(vec![]))]);
        let said: Vec<_> = PairMatrix::new(&pairs).pairs().map(|pair| pair.standing()).collect();
        assert_eq!(said, [Some(PairStanding::Blocked), None, None]);
    }
}
