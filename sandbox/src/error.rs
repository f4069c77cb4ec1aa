//! What can go wrong while a sandbox is made: which step, which path, what to do (SBX-21).

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// The way to run it by hand (SBX-23).
pub(crate) const BY_HAND: &str = "run it with `systemd-run --pipe --wait -p Delegate=yes …`";

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Making a sandbox is root's business.
    #[error("making a sandbox needs root (CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, CAP_MKNOD); run it as root")]
    NotRoot,
    /// A step that needs no more explanation.
    #[error("cannot {step}")]
    Step {
        /// What was to be done.
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A step on a path.
    #[error("cannot {step} {}", path.display())]
    Path {
        /// What was to be done.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// `unshare` of one kind of namespace.
    #[error("cannot make a new {kind} namespace{}", hint(kind, source))]
    Namespace {
        /// Which kind.
        kind: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The cgroup cannot have children of ours (SBX-23).
    #[error("cannot make a cgroup below {}: {why}; {BY_HAND}", path.display())]
    NotDelegated {
        /// The cgroup of the caller.
        path: PathBuf,
        /// What stands in the way.
        why: String,
    },
    /// The kernel, or the cgroup above, does not offer a controller (SBX-23).
    #[error(
        "the cgroup controller {controller} is not offered in {}: enable it in the kernel (not by cgroup v1) and in \
         cgroup.subtree_control of the cgroups above",
        path.display()
    )]
    NoController {
        /// Which one.
        controller: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// No cgroup v2 at all.
    #[error("this process is in no cgroup of version 2: {0}; boot without systemd.unified_cgroup_hierarchy=0")]
    NoCgroup(String),
    /// What the first process of the sandbox said before it gave up.
    #[error("{0}")]
    Stage(String),
    /// The first process of the sandbox broke the conversation off.
    #[error("the first process of the sandbox ended while it was being made: {0}")]
    StageEnded(String),
    /// A `--bind` that is not allowed.
    #[error("--bind {0}: INSIDE must be an absolute path below / without `.` and `..`")]
    Bind(String),
    /// Capabilities could not be dropped.
    #[error("cannot drop the {set} capabilities")]
    Capabilities {
        /// Which set.
        set: &'static str,
        /// What the library said.
        #[source]
        source: caps::errors::CapsError,
    },
    /// The filter could not be built or loaded.
    #[error("cannot load the seccomp filter (the kernel needs CONFIG_SECCOMP_FILTER)")]
    Seccomp(#[source] seccompiler::Error),
    /// The filter does not compile for this architecture.
    #[error("cannot compile the seccomp filter for this architecture")]
    Filter(#[source] seccompiler::BackendError),
}

fn hint(kind: &str, source: &io::Error) -> String {
    let limit = std::fs::read_to_string(format!("/proc/sys/user/max_{kind}_namespaces")).unwrap_or_default();
    match source.raw_os_error() {
        Some(code) if code == Errno::ENOSPC as i32 && limit.trim() == "0" => {
            format!(": user.max_{kind}_namespaces is 0; set it with sysctl")
        }
        Some(code) if code == Errno::ENOSPC as i32 => {
            format!(": user.max_{kind}_namespaces is {}, and so many are in use or nested", limit.trim())
        }
        Some(code) if code == Errno::EINVAL as i32 => {
            let option = if kind == "cgroup" { "CGROUPS".to_owned() } else { format!("{}_NS", kind.to_uppercase()) };
            format!(": the kernel was built without it (CONFIG_{option})")
        }
        _ => String::new(),
    }
}

/// Says which step failed.
pub(crate) trait Explain<T> {
    /// A step without a path.
    fn step(self, step: impl Into<String>) -> Result<T, Error>;
    /// A step on a path.
    fn at(self, step: &'static str, path: impl AsRef<Path>) -> Result<T, Error>;
    /// `unshare`.
    fn namespace(self, kind: &'static str) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Explain<T> for Result<T, E> {
    fn step(self, step: impl Into<String>) -> Result<T, Error> {
        self.map_err(|e| Error::Step { step: step.into(), source: e.into() })
    }

    fn at(self, step: &'static str, path: impl AsRef<Path>) -> Result<T, Error> {
        self.map_err(|e| Error::Path { step, path: path.as_ref().to_owned(), source: e.into() })
    }

    fn namespace(self, kind: &'static str) -> Result<T, Error> {
        self.map_err(|e| Error::Namespace { kind, source: e.into() })
    }
}

/// An error with all its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SBX-21: step, path and what to do, once each.
    #[test]
    fn errors_say_what_to_do() {
        let error = Err::<(), _>(Errno::EINVAL).namespace("cgroup").unwrap_err();
        assert!(chain(&error).contains("(CONFIG_CGROUPS): Invalid argument"), "{}", chain(&error));
        let error = Err::<(), _>(Errno::ENOENT).at("mount", "/usr").unwrap_err();
        assert_eq!(chain(&error), "cannot mount /usr: No such file or directory (os error 2)");
        let error = Error::NotDelegated { path: "/sys/fs/cgroup/x".into(), why: "pid 7".to_owned() };
        assert!(error.to_string().contains("systemd-run --pipe --wait -p Delegate=yes"));
    }
}
