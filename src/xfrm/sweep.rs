//! Removes everything of ours, and nothing else: what `disable --force` does.

use std::collections::BTreeMap;

use super::tables::{ReadError, Tables};
use crate::types::{Op, OpError, PolicyDirection};

/// How often the tables are looked at: once to empty them, once to see that they are, and twice more in
/// case an agent is still adding.
const ROUNDS: usize = 4;

/// How much of ours there is, or was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// SAs.
    pub sas: usize,
    /// Policies.
    pub policies: usize,
}

/// Why something of ours may be left.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The tables could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The kernel refused an op.
    #[error(transparent)]
    Op(#[from] OpError),
    /// Objects of ours appear as fast as they are removed.
    #[error("something keeps adding objects of ours to the kernel: is an agent still running?")]
    Contended,
}

/// How much of ours there is now.
///
/// # Errors
/// The tables could not be read.
pub fn count_ours(kernel: &mut Tables) -> Result<Swept, ReadError> {
    let (policies, sas) = kernel.ours()?;
    Ok(Swept { policies: policies.len(), sas: sas.len() })
}

/// Removes all policies of ours, outbound ones first, then all SAs of ours. Packets that are under way at
/// that moment can get lost: it is for when no agent can do it in stages.
pub fn sweep(kernel: &mut Tables) -> Result<Swept, SweepError> {
    let mut swept = Swept::default();
    for _ in 0..ROUNDS {
        let (mut policies, sas) = kernel.ours()?;
        if policies.is_empty() && sas.is_empty() {
            return Ok(swept);
        }
        policies.sort_by_key(|policy| (policy.id.direction != PolicyDirection::Out, policy.id));
        let policies: Vec<_> =
            policies.iter().map(|policy| Op::DeletePolicy { id: policy.id, index: policy.index }).collect();
        let sas: Vec<_> = sas.iter().map(|sa| Op::DeleteSa(sa.id)).collect();
        swept.policies += delete(kernel, &policies)?;
        swept.sas += delete(kernel, &sas)?;
    }
    Err(SweepError::Contended)
}

/// How many of `ops` were done. An object that is gone already is no failure; the first failure is reported when all
/// have been tried.
fn delete(kernel: &mut Tables, ops: &[Op]) -> Result<usize, OpError> {
    let mut done = 0;
    let mut failure = None;
    for result in kernel.apply(ops, &BTreeMap::new()) {
        match result {
            Ok(()) => done += 1,
            Err(OpError::Missing { .. }) => {}
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    failure.map_or(Ok(done), Err)
}
