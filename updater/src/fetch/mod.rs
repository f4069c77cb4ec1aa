//! Where the bytes of an image come from: a file, a pipe, or HTTP with ranges, mirrors and patience (specs/fetch.md).
//!
//! Nothing here trusts anything: what comes is authenticated by whoever asked for it, chunk by chunk (IMG-53). What this module sees to is
//! that each wanted byte is fetched once, in bounded memory, from whoever has it, and that a server can neither hold the update up nor
//! end it while another could go on.

mod answer;
mod backoff;
mod client;
mod engine;
mod fault;
mod file;
mod head;
mod http;
mod mirrors;
mod queue;
mod ranges;
mod rate;
mod stream;
mod wire;

use std::io;

pub use backoff::{FETCHING, OPENING, Retry};
pub use client::{BadProxy, PATIENCE, Patience, Proxying, Settings, client};
pub use fault::{Failure, Fault, FetchError, without_credentials};
pub use file::FileBytes;
pub use http::Http;
pub use mirrors::mirror_address;
pub use ranges::{GAP_SHARE, LONGEST_GAP, Span, coalesce};
pub use rate::{Bucket, Limit, NotARate, Rate};
pub use stream::StreamBytes;

/// The data of an image whose head has been read.
pub trait Fetch: Send {
    /// From now on these spans are wanted, ascending and without overlap, and nothing else. May be called again: then the old plan is dropped.
    fn plan(&mut self, wanted: &[Span]);

    /// Every byte comes past whatever is wanted, and comes once: nothing is saved by wanting less, and [`Fetch::again`] brings nothing.
    fn wants_all(&self) -> bool;

    /// Fills `into` with the bytes from `at`, which lie within what is planned and behind what was read before.
    ///
    /// # Errors
    /// `UnexpectedEof` where the image ends; else with a [`FetchError`] inside where servers failed.
    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()>;

    /// Fills `into` with a span, planned or not, read before or not.
    ///
    /// # Errors
    /// As [`Fetch::read`], or the source cannot go back.
    fn again(&mut self, span: Span, into: &mut [u8]) -> io::Result<()>;

    /// What was read of a chunk are not the signed bytes. Fills `into` with bytes that hold, from somewhere else (FET-28).
    ///
    /// # Errors
    /// Nobody has them: `InvalidData` where there is no other place to ask.
    fn wrong(&mut self, chunk: usize, span: Span, into: &mut [u8], holds: &dyn Fn(&[u8]) -> bool) -> io::Result<()>;

    /// Behind the last chunk: does the image end there (IMG-3)?
    ///
    /// # Errors
    /// It cannot be told.
    fn ends(&mut self) -> io::Result<bool>;

    /// Bytes that came, the head's included; over a network those of bodies, whether they were wanted or not.
    fn received(&self) -> u64;

    /// What went wrong with whom, and stopped nothing, for a person.
    fn notes(&self) -> Vec<String>;
}

/// There is no second place to ask.
pub(crate) fn nowhere_else(chunk: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("chunk {chunk} is not as signed, and there is no other copy of it"))
}

#[cfg(test)]
#[path = "server.rs"]
pub(crate) mod server;
#[cfg(test)]
#[path = "http_tests.rs"]
mod http_tests;
