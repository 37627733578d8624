//! What `hostseal secret wrap` does next in a cluster, from how far that is. The settings and the members say it all, so
//! whoever goes on after an interruption, here or on another admin node, does the same.

use crate::config::{ClusterKey, SharedSecret};
use crate::observe::wrapping::{WrapStage, WrapWaits};

/// Which key is to wrap the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedKey {
    /// Who keeps it.
    pub(super) provider: String,
    /// What he calls it.
    pub(super) key: String,
    /// The secret is to be wrapped, also where that key has wrapped it before.
    pub(super) anew: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WrapStep {
    /// The secret is to be wrapped, and offered to all.
    Offer,
    /// What is offered is to be in force.
    PutInForce,
    /// The PPK that comes from it is to be required.
    Require,
    /// Somebody is waited for.
    Wait(WrapWaits),
    /// Nothing.
    Done,
}

impl WantedKey {
    fn is_of(&self, secret: Option<&SharedSecret>) -> bool {
        secret.is_some_and(|it| (&it.provider, &it.wrapped.key) == (&self.provider, &self.key))
    }

    /// The next step of a cluster whose settings say `key`, and which is at `stage`. `partial`: it goes on without members
    /// that do not answer.
    pub(super) fn step(&self, key: &ClusterKey, stage: WrapStage, partial: bool) -> WrapStep {
        match stage {
            // Nothing rests on what is offered, so another key may take its place.
            WrapStage::Offered(_) if !self.is_of(key.next.as_ref()) => WrapStep::Offer,
            WrapStage::Offered(waits) if waits.are_over(partial) => WrapStep::PutInForce,
            WrapStage::TakenUp { waits, required: false } if waits.are_over(partial) => WrapStep::Require,
            WrapStage::Offered(waits) | WrapStage::TakenUp { waits, required: false } => {
                WrapStep::Wait(waits)
            }
            WrapStage::None => WrapStep::Offer,
            WrapStage::TakenUp { .. } | WrapStage::InForce if !self.is_of(key.in_force.as_ref()) => {
                WrapStep::Offer
            }
            WrapStage::InForce if self.anew => WrapStep::Offer,
            // It may be what was wrapped anew by somebody who did not wait long enough.
            WrapStage::TakenUp { waits, .. } => WrapStep::Wait(waits),
            WrapStage::InForce => WrapStep::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WrappedSecret;
    use crate::identity::Secret;

    fn secret(key: &str) -> SharedSecret {
        let digest = Secret::new([1; 32]).digest();
        let wrapped = WrappedSecret { key: key.to_owned(), digest, blob: "AAAA".to_owned() };
        SharedSecret { provider: "exec".to_owned(), wrapped }
    }

    fn wanted(key: &str) -> WantedKey {
        WantedKey { provider: "exec".to_owned(), key: key.to_owned(), anew: false }
    }

    fn behind() -> WrapWaits {
        WrapWaits { behind: vec![("b".parse().unwrap(), "no".to_owned())], ..WrapWaits::default() }
    }

    fn silent() -> WrapWaits {
        WrapWaits { silent: vec!["b".parse().unwrap()], ..WrapWaits::default() }
    }

    #[test]
    fn a_secret_goes_from_stage_to_stage_once_nobody_is_waited_for() {
        let (none, done) = (ClusterKey::default(), WrapWaits::default());
        let offered = ClusterKey { next: Some(secret("k")), ..ClusterKey::default() };
        let in_force = ClusterKey { in_force: Some(secret("k")), ..ClusterKey::default() };
        let used = |waits, required| WrapStage::TakenUp { waits, required };
        for (key, stage, step) in [
            (&none, WrapStage::None, WrapStep::Offer),
            (&offered, WrapStage::Offered(behind()), WrapStep::Wait(behind())),
            (&offered, WrapStage::Offered(silent()), WrapStep::Wait(silent())),
            (&offered, WrapStage::Offered(done.clone()), WrapStep::PutInForce),
            (&in_force, used(behind(), false), WrapStep::Wait(behind())),
            (&in_force, used(done, false), WrapStep::Require),
            (&in_force, used(behind(), true), WrapStep::Wait(behind())),
            (&in_force, WrapStage::InForce, WrapStep::Done),
        ] {
            assert_eq!(wanted("k").step(key, stage.clone(), false), step, "{stage:?}");
        }
        // Who is silent is left behind by those who say so; who says no is not.
        assert_eq!(wanted("k").step(&offered, WrapStage::Offered(silent()), true), WrapStep::PutInForce);
        assert_eq!(wanted("k").step(&offered, WrapStage::Offered(behind()), true), WrapStep::Wait(behind()));
        assert_eq!(wanted("k").step(&in_force, used(silent(), false), true), WrapStep::Require);
    }

    #[test]
    fn another_key_is_offered_beside_the_one_in_force() {
        let in_force = ClusterKey { in_force: Some(secret("k")), ..ClusterKey::default() };
        assert_eq!(wanted("k2").step(&in_force, WrapStage::InForce, false), WrapStep::Offer);
        let cut = WrapStage::TakenUp { waits: behind(), required: true };
        assert_eq!(wanted("k2").step(&in_force, cut, false), WrapStep::Offer);
        // First things first.
        let begun = WrapStage::TakenUp { waits: behind(), required: false };
        assert_eq!(wanted("k2").step(&in_force, begun, false), WrapStep::Wait(behind()));
        let both = ClusterKey { next: Some(secret("k3")), ..in_force.clone() };
        let offered = || WrapStage::Offered(WrapWaits::default());
        assert_eq!(
            wanted("k2").step(&both, offered(), false),
            WrapStep::Offer,
            "somebody wanted another one"
        );
        assert_eq!(wanted("k3").step(&both, offered(), false), WrapStep::PutInForce);
        let anew = WantedKey { anew: true, ..wanted("k") };
        assert_eq!(anew.step(&in_force, WrapStage::InForce, false), WrapStep::Offer);
        let under_way = WrapStage::TakenUp { waits: behind(), required: true };
        assert_eq!(anew.step(&in_force, under_way, false), WrapStep::Wait(behind()), "it goes on from there");
    }
}
