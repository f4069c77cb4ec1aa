//! The parsers of what others wrote, as functions of bytes, for those who try to break them (THR-11).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::check::{http_client as client, judge_http as judge};
use crate::config::source::Text;
use crate::config::{self, Expectation, Http, Server};
use crate::report;

/// Reads a configuration of one file with this text: its summary, or everything that is wrong with it (HLT-10 to HLT-13).
///
/// # Errors
/// What is wrong, one line for each problem.
pub fn configuration(text: &str) -> Result<String, String> {
    let text = Text { path: PathBuf::from("checks.toml"), text: text.to_owned() };
    let config = config::of_texts(&[text]).map_err(|errors| errors.to_string())?;
    Ok(report::summary(&config))
}

/// Asks the server at the other end of a stream, and reads its answer: status and body (HLT-26, HLT-29).
///
/// # Errors
/// Why there is no whole answer.
pub fn answer(stream: impl Read + Write) -> Result<(u16, Vec<u8>), String> {
    let http = some_check();
    let request = client::Request { path: &http.path, host: &http.host, body: None };
    let answer = client::ask_over(stream, &http.server, &request, Duration::from_secs(60));
    answer.map(|answer| (answer.status, answer.body)).map_err(|error| crate::chain(&error))
}

/// What a check says of such an answer, for people: its detail, what it shows of the body, and what it records.
pub fn judged(status: u16, body: &[u8]) -> String {
    let finding = judge(&some_check(), &client::Answer { status, body: body.to_vec() });
    [finding.detail, finding.output, finding.recorded.unwrap_or_default()].join(" ")
}

fn some_check() -> Http {
    let expectation = Expectation { pointer: "/state".into(), one_of: vec![json!("ready")] };
    Http {
        server: Server::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 80))),
        host: "localhost".into(),
        path: "/v1/health".into(),
        status: 200,
        json: vec![expectation],
        record: Some("/version".into()),
    }
}
