//! System calls that a helper does without, by seccomp (seccomp(2)).
//!
//! A helper is any program of the operator's, so there is no list of what it may do. What is forbidden is what asks no KMS
//! anything, and what whoever has taken a helper over would begin with: to trace other processes, to make namespaces
//! and mounts, and the parts of the kernel that programs seldom use. It fails with EPERM, as where one lacks the right.
//! Programs can be started: they are under the same filter.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{MaskedEq, Ne};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

use super::calls::{FAMILIES, rule, without_clone3};

/// What no call of may pass.
const NEVER: &[&[libc::c_long]] = &[PROCESSES, PLACES, KERNEL, MACHINE, OF_OLD];

/// Other processes, and their memory.
const PROCESSES: &[libc::c_long] = &[
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
];

/// Namespaces, and file systems.
const PLACES: &[libc::c_long] = &[
    libc::SYS_chroot,
    libc::SYS_fanotify_init,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
];

/// Ways into the kernel that are seldom used.
const KERNEL: &[libc::c_long] = &[
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
];

/// What the whole machine goes by.
const MACHINE: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

/// What this processor alone has.
#[cfg(target_arch = "x86_64")]
const OF_OLD: &[libc::c_long] =
    &[libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_kexec_file_load, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const OF_OLD: &[libc::c_long] = &[];

/// By these a kernel that runs programs of the x32 ABI has all calls once more, and some under other numbers: kexec_load,
/// process_vm_readv, process_vm_writev and ptrace. clone3(2) is among them, as it is not among the other rules.
#[cfg(target_arch = "x86_64")]
const X32: (libc::c_long, [libc::c_long; 5]) = (0x4000_0000, [528, 539, 540, 521, libc::SYS_clone3]);

/// What makes a process in other namespaces.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// Has the kernel refuse all of it to this thread, and to what it starts or becomes.
///
/// # Errors
/// The kernel does not know how, or a list is wrong for this processor.
pub(super) fn keep_from() -> Result<(), seccompiler::Error> {
    apply_filter(&without_clone3()?)?;
    apply_filter(&program()?)
}

fn program() -> Result<BpfProgram, BackendError> {
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let target = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules()?, SeccompAction::Allow, refused, target)?.try_into()
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    rules.extend(NEVER.iter().copied().flatten().map(|call| (*call, Vec::new())));
    let namespaces = NAMESPACES.map(|it| u64::from(it.cast_unsigned()));
    let in_others: Result<_, _> = namespaces.into_iter().map(|it| rule(0, MaskedEq(it), it)).collect();
    rules.insert(libc::SYS_clone, in_others?);
    let other = |family: libc::c_int| SeccompCondition::new(0, Dword, Ne, u64::from(family.cast_unsigned()));
    let others: Result<_, _> = FAMILIES.into_iter().map(other).collect();
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(others?)?]);
    #[cfg(target_arch = "x86_64")]
    {
        let (bit, numbers) = X32;
        let once_more: Vec<_> = rules.iter().map(|(call, rules)| (call | bit, rules.clone())).collect();
        rules.extend(once_more);
        rules.extend(numbers.map(|call| (call | bit, Vec::new())));
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::errno::Errno;
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn no_process_is_made_in_other_namespaces_under_any_number() {
        let rules = rules().unwrap();
        assert_eq!(rules[&libc::SYS_clone].len(), NAMESPACES.len(), "one for each flag");
        #[cfg(target_arch = "x86_64")]
        {
            let (bit, _) = X32;
            assert_eq!(rules[&(libc::SYS_clone | bit)].len(), NAMESPACES.len());
            assert!([libc::SYS_clone3, libc::SYS_unshare].iter().all(|call| rules[&(call | bit)].is_empty()));
        }
    }

    #[test]
    fn a_program_starts_and_is_kept_from_the_same() {
        let confined = std::thread::spawn(|| {
            keep_from().unwrap();
            assert_eq!(unshare(CloneFlags::empty()), Err(Errno::EPERM));
            let packets = nix::sys::socket::socket(
                nix::sys::socket::AddressFamily::Packet,
                nix::sys::socket::SockType::Raw,
                nix::sys::socket::SockFlag::empty(),
                None,
            );
            assert_eq!(packets.err(), Some(Errno::EPERM));
            let looks = "grep Seccomp: /proc/self/status; unshare -U true";
            let ran = Command::new("/bin/sh").args(["-c", looks]).output().unwrap();
            let said = String::from_utf8(ran.stdout).unwrap();
            assert!(said.contains("Seccomp:\t2") && !ran.status.success(), "{said}");
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        });
        confined.join().unwrap();
    }
}
