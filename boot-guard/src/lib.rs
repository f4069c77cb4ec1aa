//! `ralph-boot-guard`: counts boots in the initrd, and ends trials that hang (`specs/boot-guard.md`, `GRD-n`).
//!
//! For other programs: [`client`] speaks to the process that watches a trial's deadline, [`trial`] reads what the guard
//! wrote about the trial. The rest is the program: [`start`] decides, [`machine`] is what it decides about, [`mark`] gives an
//! entry up, [`selected`] finds the entry of a unified kernel image, [`resident`]
//! waits for the deadline, [`wait`](mod@wait) is the process that does so, [`launch`] puts all together.

mod cgroup;
pub mod client;
pub mod launch;
pub mod machine;
pub mod mark;
pub mod resident;
pub mod selected;
pub mod start;
pub mod trial;
pub mod wait;

pub use client::{ClientError, Disarmed, GuardClient, Status};
pub use trial::{DROP_IN, NotATrial, TRIAL_FILE, Trial};
