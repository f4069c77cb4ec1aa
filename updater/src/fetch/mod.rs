//! An image over HTTP, with ranges, retries, mirrors and patience (specs/fetch.md).
//!
//! Nothing here trusts anything: what comes is authenticated by whoever asked for it, chunk by chunk (IMG-53). What this module sees to is
//! that each wanted byte is fetched once, in bounded memory, from whoever has it, and that a server can neither hold the update up nor
//! end it while another could go on.

mod answer;
mod backoff;
mod client;
mod deltas;
mod engine;
mod fault;
mod head;
mod http;
mod mirrors;
mod options;
mod queue;
mod ranges;
mod rate;
mod told;
mod watch;
mod whole;
mod wire;

pub use backoff::{FETCHING, OPENING, Retry};
pub use client::{BadProxy, PATIENCE, Patience, Proxying, Settings, client};
pub use deltas::{BadList, Delta, LONGEST_LIST, cheapest, fetch_list, list_address, parse_list};
pub use engine::MakeAgent;
pub use fault::{Failure, Fault, FetchError, without_credentials};
pub use http::{Http, HttpChunks};
pub use mirrors::mirror_address;
pub use options::{mirrors, rate, settings};
pub use ranges::{GAP_SHARE, LONGEST_GAP, Span, coalesce};
pub use rate::{Bucket, Limit, NotARate, Rate};
pub use told::Told;

#[cfg(test)]
#[path = "bad_server_tests.rs"]
mod bad_server_tests;
#[cfg(test)]
#[path = "http_tests.rs"]
mod http_tests;
#[cfg(test)]
#[path = "patience_tests.rs"]
mod patience_tests;
#[cfg(test)]
#[path = "server.rs"]
pub(crate) mod server;
