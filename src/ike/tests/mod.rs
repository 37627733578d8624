//! Exchanges as message arrows, in virtual time, over a network that may be bad.

mod about;
mod abuse;
mod adjust;
mod algorithms;
mod bounds;
mod certified;
mod chaos;
mod collide;
mod compat;
mod control;
mod establish;
mod foreign;
mod forged;
mod fragments;
mod hostile;
mod hybrid;
mod join;
mod nat;
mod net;
mod own_exchange;
mod proof;
mod resume;
mod suite;
mod tell;
mod vectors;
mod wire;
