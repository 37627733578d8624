//! DECIDES: who belongs to a cluster, and what all of it is to do. Touches nothing.
//!
//! A roster is a set of signed entries, and what it comes to follows from the set alone: any order of arrival, any
//! repetition gives the same. Nobody has to agree on anything; there is no leader and no vote.
//!
//! ```text
//! genesis ──> the first node, an admin ──> invite ──> join + admission ──> a node ──> …
//!                                     ──> node (other software, or not joined yet)
//! rights, gone: what is taken back, by seniority    keys: what follows a node's keys
//! settings, secret, desired, floating: the newest counts, (a, n) compared; admins alone raise a
//! ```
//! An entry counts where who signed it may say what it says ([`tally`]) and that was not taken back
//! ([`withdrawn`]). Entries that do not count stay in the set and bind nobody. Time plays no part: a member looks at
//! its clock when it admits who joins, and merging does not.
//!
//! ```text
//! octets, saying, entry  what entries say, how they are signed and stored
//! index                  which of them rest on which
//! tally, withdrawn       which of them count
//! nodes, view            what they come to
//! roster, surplus        the set: what it takes, and within which bounds
//! draft, redeem          what commands sign
//! page, carriage         what members tell each other, so that all have the same
//! ring                   which of them talk to each other
//! pace                   how much of it one of them may say
//! token, line            what whoever joins is given
//! join_page              what whoever joins and a member tell each other
//! found, recovery        the start of a cluster, and the key that outranks all
//! ```
//! What travels authorizes nothing: an entry is as good as its signatures, whoever brought it.

mod carriage;
mod draft;
mod entry;
mod found;
mod index;
mod join_page;
mod line;
mod nodes;
mod not_taken;
mod octets;
mod pace;
mod page;
mod recovery;
mod redeem;
mod ring;
#[expect(clippy::module_inception, reason = "the noun of this room")]
mod roster;
mod rotation;
mod saying;
mod surplus;
mod tally;
#[cfg(test)]
mod tests;
mod token;
mod view;
mod withdrawn;

pub use carriage::{Carriage, Carried, IgnoredBecause};
pub use draft::{INVITES_MAX, NotEntitled};
pub use entry::{ENTRY_MAX, NotSigned, SignedEntry};
pub use found::NotFounded;
pub use join_page::{
    HeardRoster, JOIN_VERSION, JoinPage, JoinRefusal, NotAJoinPage, NotARoster, RefusalCode,
};
pub use nodes::{HeldOut, HeldOutBecause, Member, Removed};
pub use not_taken::NotTaken;
pub use octets::{ClusterId, EntryId, NotOctets, RosterId, Signer};
pub use pace::PageCredit;
pub use page::{ASIDE_MAX, PAGE_MAX};
pub use recovery::{NotARecoveryKey, RecoveryKey};
pub use redeem::{NotRedeemed, Redeemed};
pub use ring::Ring;
pub use roster::{Merged, Roster};
pub use rotation::KeyStage;
pub use saying::{
    AddressBlock, Admission, ClusterSettings, ClusterTrial, DesiredProtection, FloatingPlace, Genesis, Gone,
    IkeKey, Invite, Join, Keys, LaterKind, Listed, Matter, Retired, Rights, Rotation, Saying, Seconds,
    SettingsTrial, Site, Statement, Version,
};
pub use surplus::ROSTER_MAX;
pub use tally::KEYS_MAX;
pub use token::{NotAToken, Token};
pub use view::{Conflict, Invited, Newest, RosterView};
