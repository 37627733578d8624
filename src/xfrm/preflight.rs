//! What the kernel can do, found out by requests that change nothing.

use std::io;
use std::net::IpAddr;

use netlink_packet_xfrm::XFRM_MSG_GETSA;
use nix::libc;
use rand::TryRng;
use rand::rngs::SysRng;

use super::connection::Connection;
use super::encode;
use super::tables::Tables;
use crate::types::{Direction, EspSuite, Family, Limits, Pair, Reqid, Sa, SaId, SaKey, Spi};

/// What this kernel can do and not every supported one can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// It wants to know which way an SA flows (`XFRMA_SA_DIR`, Linux 6.10).
    pub sa_dir: bool,
}

impl Features {
    /// Asks for an SA that is not there, with an attribute that only adding one may carry: a kernel that
    /// knows the attribute refuses the request, an older one ignores it and finds nothing.
    pub(super) fn probe(connection: &mut Connection) -> io::Result<Self> {
        let nobody = SaId { destination: documentation(Family::V4)[0], spi: Spi(Spi::FIRST) };
        let out = [encode::SA_DIR_OUT];
        connection.batch.push(XFRM_MSG_GETSA, 0, &encode::sa_id(nobody), &[(encode::XFRMA_SA_DIR, &out)]);
        let verdict = connection.transact(|_, _| {})?.into_iter().flatten().next();
        match verdict.as_ref().map(|verdict| verdict.errno) {
            None | Some(libc::ESRCH) => Ok(Self { sa_dir: false }),
            Some(libc::EPERM) => {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, "this needs CAP_NET_ADMIN"))
            }
            Some(_) => Ok(Self { sa_dir: true }),
        }
    }
}

/// Why this kernel cannot encrypt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PreflightError {
    /// This process may not change the kernel's tables.
    #[error("not permitted to change the kernel's IPsec tables: this needs CAP_NET_ADMIN")]
    NotPermitted,
    /// The kernel has no ESP for the family.
    #[error("the kernel has no ESP: module {module} is missing ({reason})")]
    NoEsp {
        /// The module that has it.
        module: &'static str,
        /// The system error and the kernel's own words.
        reason: String,
    },
    /// The kernel has ESP, but not the cipher.
    #[error("the kernel has no rfc4106(gcm(aes)): module gcm, seqiv or aes is missing ({reason})")]
    NoCipher {
        /// The system error and the kernel's own words.
        reason: String,
    },
    /// Anything else.
    #[error("the kernel refused a trial SA: {reason}")]
    Other {
        /// The system error and the kernel's own words.
        reason: String,
    },
}

impl Tables {
    /// Tries whether the kernel can do ESP as hostseal wants it, by replacing an SA that is not there: the kernel makes
    /// the new one, loads its modules for that, and finds nothing to replace. No SA comes of it.
    pub fn probe_esp(&mut self, family: Family) -> Result<(), PreflightError> {
        let sa = trial(family).map_err(|error| PreflightError::Other { reason: error.to_string() })?;
        let (sa, key) = sa;
        let features = self.features();
        let connection = self.connection();
        encode::try_sa(&mut connection.batch, &sa, &key, features)
            .map_err(|reason| PreflightError::Other { reason })?;
        let verdicts = connection
            .transact(|_, _| {})
            .map_err(|error| PreflightError::Other { reason: error.to_string() })?;
        let Some(verdict) = verdicts.into_iter().flatten().next() else { return Ok(()) };
        let reason = verdict.reason();
        Err(match verdict.errno {
            // Nothing to replace: it has come as far as that.
            libc::ESRCH => return Ok(()),
            libc::EPERM => PreflightError::NotPermitted,
            libc::EPROTONOSUPPORT => PreflightError::NoEsp {
                module: match family {
                    Family::V4 => "esp4",
                    Family::V6 => "esp6",
                },
                reason,
            },
            libc::ENOENT | libc::ENOSYS => PreflightError::NoCipher { reason },
            _ => PreflightError::Other { reason },
        })
    }
}

/// An inbound SA that nobody has, and that would be short-lived if somebody had one with its SPI.
fn trial(family: Family) -> io::Result<(Sa, SaKey)> {
    let mut random = vec![0; 40];
    SysRng.try_fill_bytes(&mut random).map_err(io::Error::other)?;
    let spi = random.split_off(36);
    let [local, remote] = documentation(family);
    let sa = Sa {
        pair: Pair { local, remote },
        direction: Direction::In,
        spi: Spi::from_random(super::wire::u32_at(&spi, 0).unwrap_or_default()),
        reqid: Reqid::COMMON,
        suite: EspSuite { key_bits: 256, esn: true },
        encapsulation: None,
        replay_window: 4096,
        limits: Limits { hard_seconds: Some(10), ..Limits::default() },
    };
    Ok((sa, SaKey::new(random)))
}

/// Two addresses that no host has (RFC 5737, RFC 3849).
fn documentation(family: Family) -> [IpAddr; 2] {
    match family {
        Family::V4 => [1, 2].map(|host| IpAddr::from([192, 0, 2, host])),
        Family::V6 => [1, 2].map(|host| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host])),
    }
}
