//! New keys for all nodes: an admin asks for them, and each node says which ones are its own.
//!
//! ```text
//! Rotation   by an admin: whoever has older keys is to make new ones
//! Keys       by each node: these follow mine; all accept both
//! Retired    by each node: I have changed over; all accept the new ones alone
//! ```

use super::draft::NotEntitled;
use super::nodes::Member;
use super::octets::Signer;
use super::roster::Roster;
use super::tally::{KEYS_MAX, KeyHolder};

/// How far a node is with its new keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyStage {
    /// It has not said which ones they are.
    Due,
    /// It has, and all accept the ones before as well.
    Offered,
    /// It has them, and no others count.
    Current,
}

impl Roster {
    /// How far a node is; `None` where it has no keys that it could replace.
    pub fn key_stage(&self, member: &Member) -> Option<KeyStage> {
        member.keys.as_ref()?;
        let wanted = self.view().rotation.as_ref().map(|rotation| rotation.id);
        Some(if wanted.is_some() && member.rotation != wanted {
            KeyStage::Due
        } else if member.previous_ike.is_some() {
            KeyStage::Offered
        } else {
            KeyStage::Current
        })
    }

    /// Whether a node is to make new keys, and can: those before must have come to their end.
    pub fn wants_new_keys(&self, member: &Member) -> bool {
        let replaces = |keys: &super::Keys| self.can_replace(keys.signing);
        self.key_stage(member) == Some(KeyStage::Due)
            && member.previous_ike.is_none()
            && member.keys.as_ref().is_some_and(replaces)
    }

    /// Whether other keys can follow those with this signing key.
    fn can_replace(&self, signing: Signer) -> bool {
        matches!(self.tally().holder(&signing), Some(KeyHolder::Node(_, after)) if after < KEYS_MAX)
    }

    /// That an admin may ask for new keys now.
    pub(super) fn ensure_rotates(&self) -> Result<(), NotEntitled> {
        let named = |is_it: &dyn Fn(&Member) -> bool| -> Vec<String> {
            let members = self.view().members.iter().filter(|member| is_it(member));
            members.map(|member| member.site.name.to_string()).collect()
        };
        let out: Vec<String> = self.view().held_out.iter().map(|out| out.site.name.to_string()).collect();
        if !out.is_empty() {
            return Err(NotEntitled::NodesHeldOut(out));
        }
        let fixed = named(&|member| member.keys.is_none());
        if !fixed.is_empty() {
            return Err(NotEntitled::FixedKeys(fixed));
        }
        let busy = named(&|member| self.key_stage(member) != Some(KeyStage::Current));
        if !busy.is_empty() {
            return Err(NotEntitled::KeysBusy(busy));
        }
        let spent = named(&|member| !member.keys.as_ref().is_some_and(|keys| self.can_replace(keys.signing)));
        if spent.is_empty() { Ok(()) } else { Err(NotEntitled::KeysSpent(spent)) }
    }
}
