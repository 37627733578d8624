//! Where the lab runs: on this machine's kernel when it has ESP, else on user-mode Linux.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use super::root::{Root, say};

/// A place that has been prepared.
#[derive(Debug, Clone)]
pub enum Place {
    /// The kernel of this machine, in separate namespaces.
    Here(Root),
    /// User-mode Linux.
    Uml(Root),
}

impl Place {
    /// Chooses the place (`HOSTSEAL_LAB_PLACE` is `here` or `uml` to insist) and makes it ready.
    ///
    /// # Errors
    /// The reason why there can be no lab on this machine now.
    pub fn find() -> Result<Self> {
        let here = match env::var("HOSTSEAL_LAB_PLACE").as_deref() {
            Ok("here") => true,
            Ok("uml") => false,
            Ok(other) => bail!("HOSTSEAL_LAB_PLACE is `{other}`; it can be `here` or `uml`"),
            Err(_) => kernel_has_esp(),
        };
        let root = Root::prepare()?;
        if here {
            say("using this machine's kernel, in network namespaces");
            Ok(Self::Here(root))
        } else {
            say("using user-mode Linux");
            Ok(Self::Uml(root))
        }
    }

    /// `here` or `uml`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Here(_) => "here",
            Self::Uml(_) => "uml",
        }
    }

    /// The file system of the place.
    pub fn root(&self) -> &Root {
        match self {
            Self::Here(root) | Self::Uml(root) => root,
        }
    }
}

/// Whether we are root and a new network namespace of this kernel takes an SA of the kind hostseal makes.
fn kernel_has_esp() -> bool {
    const SA: &str = "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0xc0000001 mode transport \
        aead 'rfc4106(gcm(aes))' 0x000102030405060708090a0b0c0d0e0f10111213 128";
    geteuid().is_root()
        && Command::new("unshare")
            .args(["--net", "sh", "-c", SA])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}
