//! What RalphOS calls a sandbox, and the proof that a machine can make one: see `specs/sandbox.md`.
//!
//! For the smoke test (SBX-15): [`HostSockets::listen`], [`Question::new`], run [`Question::first_command`] in a
//! sandbox, read its output with [`Report::parse`]; then [`Question::second_command`] in another one.

mod cgroup;
mod error;
mod host;
mod plan;
pub mod probe;
mod question;
mod report;
pub mod run;
pub mod self_test;
pub mod stage;
mod status;
mod wall;

pub use error::Error;
pub use host::HostSockets;
pub use plan::{Bind, Options};
pub use question::{Limits, Question, own_namespaces};
pub use report::{Assertion, MAX_REPORT, Report, ReportError};
pub use wall::{NoSuchWall, Wall};
