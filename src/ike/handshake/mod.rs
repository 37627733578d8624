//! From the first message to a peer that has proven itself, at either end.
//!
//! `first_request` is the initiator's, until it is answered, and `cookie` what a responder asks for before it keeps
//! anything. `initiate` and `respond` are IKE_SA_INIT and IKE_AUTH, `resume` and `ticket` what takes the place of the
//! first (RFC 5723), `intermediate` what may come between (RFC 9242). `half_open` is where both ways meet: keys, and a
//! peer that has proven nothing; `ppk` is what both mix into them (RFC 8784), and `early_ppk` how
//! they do that in IKE_INTERMEDIATE (RFC 9867). `initiation` holds an attempt of ours, and `session` a session in any of its states.

pub(super) mod cookie;
mod early_ppk;
pub(super) mod first_request;
pub(super) mod half_open;
pub(super) mod initiate;
pub(super) mod initiation;
pub(super) mod intermediate;
pub(super) mod member;
pub(super) mod ppk;
pub(super) mod respond;
pub(super) mod resume;
pub(super) mod session;
pub(super) mod ticket;
