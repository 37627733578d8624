//! Rosters under all that can be said to them: by members, by those who are none, in any order.

mod attack;
mod bounds;
mod carriage;
mod chaos;
mod fleet;
mod harm;
mod later;
mod life;
mod oracle;
pub(super) mod people;
mod rotation;
mod stolen;
mod withdraw;
