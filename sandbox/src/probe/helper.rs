//! Children of the probe that use something up: this program, executed anew.

use std::process::{Command, ExitStatus, Stdio};

use nix::sched::{CloneFlags, unshare};

/// The exit code of a child that was given no more memory.
pub(super) const EXIT_NO_MEMORY: u8 = 3;

/// How much memory is allocated at a time.
const CHUNK: usize = 128 << 10;

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum Helper {
    /// Allocates so many bytes and writes to each page.
    Allocate {
        /// How many.
        bytes: usize,
    },
    /// Makes a user namespace; the exit code is the errno, or 0.
    Unshare,
}

/// Does it. Gives the exit code.
pub fn help(helper: Helper) -> u8 {
    match helper {
        Helper::Allocate { bytes } => {
            // A little at a time: where memory must not be promised beyond what there is (vm.overcommit_memory=2),
            // all at once might be refused before the limit of the cgroup is met.
            let mut memory = Vec::new();
            for _ in 0..bytes.div_ceil(CHUNK) {
                let mut chunk: Vec<u8> = Vec::new();
                if chunk.try_reserve_exact(CHUNK).is_err() {
                    return EXIT_NO_MEMORY;
                }
                // Not zeros: those the allocator might leave untouched.
                chunk.resize(CHUNK, 1);
                memory.push(std::hint::black_box(chunk));
            }
            0
        }
        Helper::Unshare => match unshare(CloneFlags::CLONE_NEWUSER) {
            Ok(()) => 0,
            Err(errno) => u8::try_from(errno as i32).unwrap_or(u8::MAX),
        },
    }
}

pub(super) fn allocate_in_child(bytes: u64) -> Result<ExitStatus, String> {
    run(command().args(["allocate", &bytes.to_string()]))
}

/// The errno of `unshare`, or 0: in a child, for if it succeeded, this process would be another one afterwards.
pub(super) fn unshare_in_child() -> Result<i32, String> {
    let status = run(command().arg("unshare"))?;
    status.code().ok_or_else(|| format!("the child that calls unshare ended with {status}"))
}

fn run(command: &mut Command) -> Result<ExitStatus, String> {
    command.stdin(Stdio::null()).status().map_err(|e| format!("cannot start a child: {e}"))
}

fn command() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("helper").stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SBX-12, `memory-limit`: a child that meets no limit uses it all.
    #[test]
    fn allocating_ends() {
        assert_eq!(help(Helper::Allocate { bytes: 3 * CHUNK + 1 }), 0);
    }
}
