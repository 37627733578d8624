//! A session with a proven peer: its IKE SAs, its children, and what both ends do with them.
//!
//! `established` is the session itself. Its parts alone change what they know: `ike_sas`, `children` (what it has
//! agreed), `agenda` (what it means to do) and `telling` (what its user tells the peer). `pending` is what it remembers
//! between messages, `lifetime` its end, `adjust` its change to other settings, `control` what is particular about one
//! without children. `create_child`, `rekey_ike`, `follow_up` (RFC 9370) and `inform` are its exchanges. An IKE SA is in
//! `ike_sa`, with its message identifiers and retransmission (`exchange`) and with messages in several datagrams
//! (`fragment`); `nat` is what stands between the two, and `life` tells earlier sessions from those of now.

pub(super) mod adjust;
pub(super) mod agenda;
pub(super) mod child;
pub(super) mod children;
pub(super) mod control;
pub(super) mod create_child;
pub(super) mod established;
pub(super) mod exchange;
pub(super) mod follow_up;
pub(super) mod fragment;
pub(super) mod ike_sa;
pub(super) mod ike_sas;
pub(super) mod inform;
pub(super) mod life;
pub(super) mod lifetime;
pub(super) mod nat;
pub(super) mod pending;
pub(super) mod rekey_ike;
pub(super) mod telling;
