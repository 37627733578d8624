//! Descriptors: how many this process may have, and whether they are enough for what it has to open.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use super::control::Door;

/// For IKE, for ESP in UDP, and for probes.
const OF_AN_ADDRESS: rlim_t = 3;
/// For everything else, most of it open for a moment: files that are read and written, questions to the kernel,
/// everybody who may ask over the control socket.
const OTHERS: rlim_t = 32 + (Door::Root.connections() + Door::Onlookers(None).connections()) as rlim_t;

/// What one write opens at most at a time: files, what takes their place, and their directories.
const SET_ASIDE: usize = 4;

/// Descriptors that stand for nothing but the room that they take: what matters finds room even where this process has
/// used up all others.
pub(super) struct Reserve(Vec<OwnedFd>);

impl Reserve {
    /// Takes them, or as many as there are.
    pub(super) fn new() -> Self {
        let mut reserve = Self(Vec::with_capacity(SET_ASIDE));
        reserve.fill();
        reserve
    }

    /// Does what matters with the room that they take, and takes them again.
    pub(super) fn lend<T>(&mut self, work: impl FnOnce() -> T) -> T {
        self.0.clear();
        let done = work();
        self.fill();
        done
    }

    fn fill(&mut self) {
        while self.0.len() < SET_ASIDE {
            let Ok(descriptor) = io::stderr().as_fd().try_clone_to_owned() else { return };
            self.0.push(descriptor);
        }
    }
}

/// Takes as many as the system lets this process have.
///
/// # Errors
/// It refuses.
pub(super) fn raise_limit() -> nix::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}

/// Checks that there are enough for the sockets of so many addresses, and for all that an agent does beside them: it
/// must not find out later, when it has no descriptor to write down what it did.
///
/// # Errors
/// There are too few.
pub(super) fn ensure_enough(addresses: usize) -> anyhow::Result<()> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    enough(limit, addresses)
}

fn enough(limit: rlim_t, addresses: usize) -> anyhow::Result<()> {
    let needed = OF_AN_ADDRESS * addresses as rlim_t + OTHERS;
    anyhow::ensure!(
        limit >= needed,
        "descriptor limit {limit} is too small for {addresses} addresses, which need {needed}: raise LimitNOFILE in the \
         unit, or `ulimit -n`"
    );
    Ok(())
}

/// What an error means that says that there is none: of this process, or of the system.
pub(super) fn explain(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error().map(Errno::from_raw)? {
        Errno::EMFILE => {
            Some("this process has too many descriptors open: raise LimitNOFILE in the unit, or `ulimit -n`")
        }
        Errno::ENFILE => Some("all descriptors of this system are in use: raise the sysctl fs.file-max"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_are_named_with_what_to_do() {
        let words = enough(32, 2).unwrap_err().to_string();
        assert!(
            words.starts_with("descriptor limit 32 is too small for 2 addresses, which need 86"),
            "{words}"
        );
        assert!(words.contains("LimitNOFILE"), "{words}");
        assert!(enough(86, 2).is_ok() && enough(1024, 300).is_ok() && enough(1024, 330).is_err());
        assert!(enough(rlim_t::MAX, 10_000).is_ok());
    }

    #[test]
    fn an_error_that_is_about_descriptors_says_so() {
        let of = |errno: Errno| explain(&io::Error::from(errno));
        assert!(of(Errno::EMFILE).unwrap().contains("LimitNOFILE"));
        assert!(of(Errno::ENFILE).unwrap().contains("fs.file-max"));
        assert_eq!(of(Errno::EADDRINUSE), None);
    }

    #[test]
    fn the_limit_is_raised_to_the_most() {
        raise_limit().unwrap();
        let (now, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(now, most);
    }
}
