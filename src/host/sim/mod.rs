//! Clusters in virtual time: many cores, each with its own kernel that refuses what a kernel refuses,
//! on a network that loses, duplicates and reorders. Everything follows from one seed.

mod absent;
mod beside;
mod busy;
mod cluster;
mod detour;
mod disk;
mod doctor;
mod faults;
mod files;
mod firewall;
mod floating;
mod imposter;
mod kernel;
mod lasting;
mod lives;
mod log;
mod members;
mod nat;
mod net;
mod onlookers;
mod pace;
mod proofs;
mod proving;
mod reconfigure;
mod remembered;
mod rotation;
mod secret;
mod settings;
mod silence;
mod soak;
mod talk;
mod trial;
mod truth;
mod view;
mod world;
