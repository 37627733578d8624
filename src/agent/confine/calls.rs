//! System calls, by seccomp (seccomp(2)).
//!
//! Whatever is not in the list fails with ENOSYS, as on a kernel that does not know it: libraries then go another way,
//! and nothing that was overlooked here ends an agent that protects a host. In builds with `fault-injection` it does,
//! so that the tests in the lab find what is missing. No program can be started, no other process be traced or read,
//! no file system mounted, no module loaded, no namespace entered, and no memory that was written be run.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

/// What every call of may pass.
const ALWAYS: &[&[libc::c_long]] = &[MEMORY, FILES, SOCKETS, WAITING, PROCESS, OF_OLD];

const MEMORY: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mremap,
    libc::SYS_munlock,
    libc::SYS_munmap,
];

const FILES: &[libc::c_long] = &[
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_linkat,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_sync_file_range,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
];

const SOCKETS: &[libc::c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

const WAITING: &[libc::c_long] = &[
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
];

const PROCESS: &[libc::c_long] = &[
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_get_robust_list,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    // To itself: an abort.
    libc::SYS_tgkill,
    libc::SYS_uname,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// What newer processors do without.
#[cfg(target_arch = "x86_64")]
const OF_OLD: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OF_OLD: &[libc::c_long] = &[];

/// Address families of sockets.
pub(super) const FAMILIES: [libc::c_int; 4] =
    [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// Requests to descriptors that are ioctl(2)s: not to block, whether it is a terminal.
const REQUESTS: [libc::Ioctl; 2] = [libc::FIONBIO, libc::TCGETS];
/// What a process asks of itself.
const OPTIONS: [libc::c_int; 3] = [libc::PR_GET_NAME, libc::PR_SET_NAME, libc::PR_SET_PDEATHSIG];

/// Has the kernel refuse everything else to this thread and those that it starts.
///
/// # Errors
/// The kernel does not know how, or the list is wrong for this processor.
pub(super) fn keep() -> Result<(), seccompiler::Error> {
    // A call that is not in the list ends the agent there.
    #[cfg(feature = "fault-injection")]
    apply_filter(&without_clone3()?)?;
    apply_filter(&program()?)
}

/// What clone3(2) is to make cannot be seen by a filter: the C library has to hear that there is none, and uses clone(2).
pub(super) fn without_clone3() -> Result<BpfProgram, BackendError> {
    let rules = [(libc::SYS_clone3, Vec::new())].into();
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    let target = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, unknown, target)?.try_into()
}

fn program() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    rules.extend(ALWAYS.iter().copied().flatten().map(|call| (*call, Vec::new())));
    rules.insert(libc::SYS_socket, one_of(0, FAMILIES.map(|family| family as u64))?);
    rules.insert(libc::SYS_socketpair, one_of(0, [libc::AF_UNIX as u64])?);
    rules.insert(libc::SYS_ioctl, one_of(1, REQUESTS)?);
    rules.insert(libc::SYS_prctl, one_of(0, OPTIONS.map(|option| option as u64))?);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![rule(2, MaskedEq(libc::PROT_EXEC as u64), 0)?]);
    }
    // A thread, not a process.
    let thread = (libc::CLONE_THREAD | libc::CLONE_VM) as u64;
    rules.insert(libc::SYS_clone, vec![rule(0, MaskedEq(thread), thread)?]);
    #[cfg(feature = "fault-injection")]
    rules.insert(libc::SYS_clone3, Vec::new());
    // Death by appointment (xfrm/fuse.rs).
    #[cfg(feature = "fault-injection")]
    rules.insert(libc::SYS_kill, Vec::new());
    // The limits of this process, not of others.
    rules.insert(libc::SYS_prlimit64, vec![rule(0, Eq, 0)?]);
    let refused = match cfg!(feature = "fault-injection") {
        true => SeccompAction::KillProcess,
        false => SeccompAction::Errno(libc::ENOSYS as u32),
    };
    let target = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, refused, SeccompAction::Allow, target)?.try_into()
}

fn one_of<const N: usize>(argument: u8, values: [u64; N]) -> Result<Vec<SeccompRule>, BackendError> {
    values.into_iter().map(|value| rule(argument, Eq, value)).collect()
}

pub(super) fn rule(
    argument: u8,
    is: seccompiler::SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, Dword, is, value)?])
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::UdpSocket;
    use std::process::Command;

    use super::*;

    /// With `fault-injection`, what is refused ends the process.
    #[test]
    #[cfg(not(feature = "fault-injection"))]
    fn no_program_starts_and_the_rest_goes_on() {
        let confined = std::thread::spawn(|| {
            keep().unwrap();
            let refused = Command::new("/bin/true").status().unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::ENOSYS));
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let directory = tempfile::tempdir().unwrap();
            let mut file = std::fs::File::create(directory.path().join("file")).unwrap();
            file.write_all(b"x").and_then(|()| file.sync_all()).unwrap();
            std::thread::spawn(|| 1).join().unwrap()
        });
        assert_eq!(confined.join().unwrap(), 1);
    }
}
