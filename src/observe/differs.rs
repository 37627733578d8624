//! Where a peer, as it says of itself, and this host do not fit together.

use std::collections::BTreeSet;

use super::About;
use crate::types::{NodeName, Problem, ProblemCode, RowState};

/// What to do about files that differ.
const COPY: &str = "Copy the same file to both hosts, then run `hostseal reload`";

/// What is wrong between this host, which is `own`, and its peer `node`, which is `theirs`, where the pair stands so.
pub fn problems(own: &About, node: &NodeName, state: RowState, theirs: &About) -> BTreeSet<Problem> {
    let node = || Some(node.clone());
    let mut problems = BTreeSet::new();
    if own.config_id != theirs.config_id {
        let code = ProblemCode::ConfigDiffers;
        let cut = Some(cut(own, theirs)).filter(|cut| !cut.is_empty() && state == RowState::Protected);
        problems.insert(match cut {
            Some(cut) => Problem::critical(code, node(), cut.join("; ")).mended_by(COPY),
            None => {
                let words = format!(
                    "has another configuration: config id {} there, {} here{}",
                    theirs.config_id,
                    own.config_id,
                    versions(own, theirs)
                );
                Problem::warning(code, node(), words).mended_by(COPY)
            }
        });
    }
    if let (Some(ours), Some(other)) = (&own.secret_id, &theirs.secret_id)
        && ours != other
    {
        let code = ProblemCode::SecretDiffers;
        let ids = format!("secret id {other} there, {ours} here");
        problems.insert(match own.shares_secret(theirs) {
            Some(false) => {
                let words = format!(
                    "shares no secret with this host any more ({ids}): new keys cannot be agreed, and traffic \
                     stops when the present ones end"
                );
                Problem::critical(code, node(), words).mended_by("Copy the same secret to both hosts")
            }
            _ => Problem::warning(code, node(), format!("has another secret: {ids}"))
                .mended_by("Complete the rotation"),
        });
    }
    problems
}

/// What one end sends in the clear and the other drops.
fn cut(own: &About, theirs: &About) -> Vec<String> {
    let there = own.cut_by(theirs);
    let here = theirs.cut_by(own);
    let words =
        |what: Vec<String>, words: &str| (!what.is_empty()).then(|| format!("{words} {}", what.join(", ")));
    let there = words(there, "drops what this host sends in the clear: it does not exempt");
    let here = words(here, "sends in the clear what this host drops: only there the file exempts");
    there.into_iter().chain(here).collect()
}

/// Other versions know other settings: the same file may have another id there.
fn versions(own: &About, theirs: &About) -> String {
    let differ = own.version != theirs.version;
    let words = || format!(" (it runs hostseal {}, this host {})", theirs.version, own.version);
    differ.then(words).unwrap_or_default()
}
