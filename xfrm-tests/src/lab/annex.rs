//! Annexes: roots below the root, for programs whose packages do not go together with those of the root.
//!
//! An annex holds a program and its libraries, unpacked and not configured. A host enters it by chroot, with its own
//! /run, /proc, /dev and /sys, so that what it writes there is its own.

use anyhow::Result;

use super::host::Host;

/// A root below the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annex {
    /// Where it lies in the root.
    pub path: &'static str,
    /// The suite of Debian that it is made of.
    pub(super) suite: &'static str,
    /// The packages that were asked for; what they depend on comes with them.
    pub(super) packages: &'static str,
    /// What it is there for, as it is called inside.
    pub(super) program: &'static str,
}

/// The newest strongSwan.
pub const STRONGSWAN: Annex = Annex {
    path: "/opt/strongswan-testing",
    suite: "testing",
    packages: "base-files,charon-systemd,strongswan-swanctl",
    program: "/usr/sbin/charon-systemd",
};

/// Libreswan, which conflicts with strongSwan. Its programs are partly scripts.
pub const LIBRESWAN: Annex = Annex {
    path: "/opt/libreswan",
    suite: "trixie",
    packages: "base-files,libreswan,dash,coreutils,grep,sed",
    program: "/usr/libexec/ipsec/pluto",
};

/// All of them.
pub(super) const ANNEXES: [Annex; 2] = [STRONGSWAN, LIBRESWAN];

impl Annex {
    /// Gives the annex the file systems of a host, if it has not got them. After that `chroot PATH PROGRAM` on the
    /// host runs what is in it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(&self, host: &Host) -> Result<()> {
        let Self { path, .. } = self;
        host.run(&format!(
            "mountpoint -q {path}/run || for each in dev proc run sys tmp; do mount --rbind /$each {path}/$each || exit; done"
        ))?;
        Ok(())
    }
}
