//! The seccomp filter (SBX-5).

use std::collections::BTreeMap;

use nix::errno::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use crate::error::Error;

/// Answered with `EPERM`. The second block is the newer way to mount, which must not be a way around the first.
const REFUSED: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_ptrace,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_open_by_handle_at,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
];

/// The flags of `clone` that make a namespace. `CLONE_NEWTIME` is none of them: `clone` takes its bit for a part of
/// the signal number.
const NAMESPACES: &[i32] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Loads it. It cannot be taken away again.
pub(super) fn load() -> Result<(), Error> {
    for program in programs()? {
        apply_filter(&program).map_err(Error::Seccomp)?;
    }
    Ok(())
}

/// Two filters, since one has but one answer; the kernel takes the stricter.
fn programs() -> Result<[BpfProgram; 2], Error> {
    let refused = REFUSED.iter().map(|number| (*number, Vec::new()));
    let clone = NAMESPACES.iter().map(|flag| clone_with(*flag)).collect::<Result<_, _>>().map_err(Error::Filter)?;
    let refused: Vec<_> = refused.chain([(libc::SYS_clone, clone)]).collect();
    // The arguments of `clone3` lie in memory, where no filter sees them. Libraries fall back to `clone`.
    let unknown = vec![(libc::SYS_clone3, Vec::new())];
    Ok([program(&refused, Errno::EPERM)?, program(&unknown, Errno::ENOSYS)?])
}

fn clone_with(flag: i32) -> Result<SeccompRule, seccompiler::BackendError> {
    let flag = u64::from(flag.unsigned_abs());
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag)?;
    SeccompRule::new(vec![condition])
}

fn program(rules: &[(i64, Vec<SeccompRule>)], answer: Errno) -> Result<BpfProgram, Error> {
    let mut map = BTreeMap::new();
    for (number, rule) in rules {
        for number in aliases(*number) {
            map.insert(number, rule.clone());
        }
    }
    let arch = std::env::consts::ARCH.try_into().map_err(Error::Filter)?;
    let code = SeccompAction::Errno(answer as u32);
    SeccompFilter::new(map, SeccompAction::Allow, code, arch).and_then(TryInto::try_into).map_err(Error::Filter)
}

/// What tells a call of the x32 ABI, which has the same architecture as x86_64 to a filter.
const X32: i64 = 0x4000_0000;

/// Calls that have a number of their own in the x32 ABI (the kernel's `syscall_64.tbl`).
const X32_OWN: [(i64, i64); 4] = [
    (libc::SYS_ptrace, 521),
    (libc::SYS_kexec_load, 528),
    (libc::SYS_process_vm_readv, 539),
    (libc::SYS_process_vm_writev, 540),
];

/// The numbers of one call, those of the x32 ABI among them. Kernels before 5.5 knew the x32 ABI's own numbers
/// without its bit, too.
fn aliases(number: i64) -> Vec<i64> {
    if !cfg!(target_arch = "x86_64") {
        return vec![number];
    }
    let own = X32_OWN.iter().filter(|(usual, _)| *usual == number).flat_map(|(_, own)| [*own, own | X32]);
    [number, number | X32].into_iter().chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SBX-5: every call of the list, by number, is compiled in.
    #[test]
    fn the_filters_compile() {
        let programs = programs().unwrap();
        assert!(programs[0].len() > REFUSED.len() && programs[1].len() > 3);
    }

    /// SBX-5: the list of the specification, and nothing twice.
    #[test]
    fn the_list_is_that_of_the_specification() {
        let mut once = REFUSED.to_vec();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), REFUSED.len());
        for number in [libc::SYS_mount, libc::SYS_setns, libc::SYS_bpf, libc::SYS_io_uring_setup, libc::SYS_unshare] {
            assert!(once.contains(&number));
        }
        assert_eq!(NAMESPACES.iter().fold(0, |all, flag| all | flag), 0x7e02_0000);
    }

    /// SBX-5: under their x32 numbers, too, also where those are others than the usual ones.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn x32_numbers_are_refused() {
        assert_eq!(aliases(libc::SYS_mount), [165, 0x4000_0000 + 165]);
        let own = [(101, 521), (246, 528), (310, 539), (311, 540)];
        for (usual, own) in own {
            assert!(REFUSED.contains(&usual));
            assert!(aliases(usual).contains(&(own + 0x4000_0000)), "{usual}");
            assert!(aliases(usual).contains(&(usual + 0x4000_0000)), "{usual}");
        }
    }
}
