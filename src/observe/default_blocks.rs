//! Packets that this system drops because no IPsec policy matches them: hostseal neither sets that nor depends on it.

use crate::types::stranger::DefaultBlocks;
use crate::types::{Problem, ProblemCode};

/// A warning where some are dropped: what hostseal leaves in the clear may be among them.
pub fn problem(blocks: DefaultBlocks) -> Option<Problem> {
    let DefaultBlocks { incoming, forwarded, outgoing } = blocks;
    let named =
        [(incoming, "incoming", "in"), (forwarded, "forwarded", "fwd"), (outgoing, "outgoing", "out")];
    let named = named.into_iter().filter(|(dropped, ..)| *dropped);
    let (what, words): (Vec<&str>, Vec<String>) =
        named.map(|(_, what, word)| (what, format!("{word} accept"))).unzip();
    if what.is_empty() {
        return None;
    }
    let message = format!(
        "this system drops {} packets that no IPsec policy matches, such as those of hosts that the file does not \
         list. hostseal did not set that",
        what.join(" and ")
    );
    let fix = format!("`ip xfrm policy setdefault {}` lets them pass", words.join(" "));
    Some(Problem::warning(ProblemCode::OtherIpsec, None, message).mended_by(fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_by_default_is_named_with_the_way_back() {
        assert_eq!(problem(DefaultBlocks::default()), None);
        let told = problem(DefaultBlocks { incoming: true, forwarded: false, outgoing: true }).unwrap();
        assert!(told.message.contains("drops incoming and outgoing packets"), "{}", told.message);
        assert!(told.message.ends_with("`ip xfrm policy setdefault in accept out accept` lets them pass"));
        assert!(!told.is_critical(), "it opens nothing");
    }
}
