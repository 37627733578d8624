//! ESP in UDP (RFC 3948): when, and between which ports.

use std::fmt;

/// When ESP goes in UDP rather than in IP itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncapsulationMode {
    /// Where an end is behind a NAT, and where ESP (IP protocol 50) does not get through.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

impl EncapsulationMode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Always, Self::Never];

    /// Its name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            EncapsulationMode::Auto => "auto",
            EncapsulationMode::Always => "always",
            EncapsulationMode::Never => "never",
        }
    }
}

impl fmt::Display for EncapsulationMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The UDP ports between which the ESP of a child travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpPorts {
    /// This host's.
    pub local: u16,
    /// The peer's, as it is seen from here.
    pub remote: u16,
}
