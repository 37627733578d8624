//! The commands about a cluster. A member carries them out: the agent of this host.

mod begin;
mod course;
mod doctor;
mod drive;
mod floating;
mod member;
mod members;
mod prove;
mod ready;
mod rotate;
mod settings;
mod sheet;
mod status;
#[cfg(test)]
mod tests;
mod token;
mod view;
mod wrap;
mod wrap_step;

pub use begin::{RunningAgent, founded, joined, left, step, token as join_token};
pub(super) use doctor::doctor;
pub(super) use drive::{confirm, disable, enable};
pub(super) use floating::floating;
pub(super) use members::{add, admin, leave, relocate, remove};
pub(super) use prove::provers;
pub(super) use rotate::rotate;
pub(super) use settings::settings;
pub(super) use status::status;
pub(super) use token::token;
pub(super) use wrap::{rewrap, wrap, wraps};
