//! The check kind `http` (HLT-26).

pub mod client;
mod expect;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{Finding, Limit, Reason};
use crate::config::Http;
use client::{Answer, AskError, Request};
pub use expect::{clean, speaks_our_contract};

/// How long one try takes at most.
pub const TRY: Duration = Duration::from_secs(10);

/// What is kept of an answer, in bytes.
const KEPT: usize = 2048;

/// Asks once.
pub fn run(http: &Http, limit: Limit) -> Finding {
    let request = Request { path: &http.path, host: &http.host, body: None };
    let within = limit.within.min(TRY);
    match client::ask(&http.server, &request, within) {
        Ok(answer) => judge(http, &answer),
        Err(error) if error.is_timeout() && within < TRY => Finding::failed(limit.reason, crate::chain(&error)),
        Err(error @ AskError::Connect { .. }) => Finding::failed(Reason::CannotConnect, crate::chain(&error)),
        Err(error) => Finding::failed(Reason::HttpAnswer, crate::chain(&error)),
    }
}

/// Is this answer as it must be?
pub fn judge(http: &Http, answer: &Answer) -> Finding {
    let told = if answer.status == http.status {
        expect::judge(http, &answer.body)
    } else {
        Err((Reason::HttpStatus, format!("it answered with status {}, expected {}", answer.status, http.status)))
    };
    let output = clean(&answer.body, KEPT);
    let asked = format!("GET {} of {}", http.path, http.server);
    match told {
        Ok(recorded) => {
            let detail = format!("{asked} answered {}", answer.status);
            Finding { output, recorded, ..Finding::passed(detail) }
        }
        Err((reason, why)) => Finding { output, ..Finding::failed(reason, format!("{asked}: {why}")) },
    }
}
