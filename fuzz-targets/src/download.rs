//! Answers of the servers that images come from.

use std::error::Error;
use std::io::Read;
use std::iter;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use updater::fetch::{Http, PATIENCE, Proxying, Retry, Settings, client};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

use crate::Seed;

/// A server that sends the same answer to whatever it is asked, in pieces, and ends.
#[derive(Debug, Clone)]
struct Server {
    answer: Arc<[u8]>,
    step: usize,
}

impl Connector for Server {
    type Out = Connection;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Connection>, ureq::Error> {
        let (input, output) = (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Connection { server: self.clone(), sent: 0, buffers: LazyBuffers::new(input, output) }))
    }
}

#[derive(Debug)]
struct Connection {
    server: Server,
    sent: usize,
    buffers: LazyBuffers,
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, _: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let left = &self.server.answer[self.sent..];
        let room = self.buffers.input_append_buf();
        let len = left.len().min(room.len()).min(self.server.step);
        room[..len].copy_from_slice(&left[..len]);
        self.buffers.input_appended(len);
        self.sent += len;
        Ok(len > 0)
    }

    fn is_open(&mut self) -> bool {
        false
    }
}

/// Every name is that of the server.
#[derive(Debug)]
struct Anywhere;

impl Resolver for Anywhere {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
        Ok(addresses)
    }
}

/// THR-9: any bytes as the answer of a server, whatever it is asked; the first byte says in which pieces they come.
pub fn download_answer(data: &[u8]) {
    let Some((&step, answer)) = data.split_first() else { return };
    let whole = fetch(answer, answer.len().max(1));
    if let Some(body) = &whole {
        assert!(body.len() <= answer.len());
        assert!(answer.windows(7).any(|window| window == b"HTTP/1."));
    }
    // However it trickles in, it is the same answer.
    assert_eq!(whole, fetch(answer, usize::from(step).max(1)));
}

/// What comes of it, read to its end.
fn fetch(answer: &[u8], step: usize) -> Option<Vec<u8>> {
    let server = Server { answer: answer.into(), step };
    let agent =
        move |_: Option<ureq::Proxy>| ureq::Agent::with_parts(client(PATIENCE, None, 1), server.clone(), Anywhere);
    // Asked once: the server would say the same again.
    let once = Retry { first: Duration::ZERO, longest: Duration::ZERO, rounds: 1, dry: Duration::MAX };
    let settings = Settings { opening: once, fetching: once, proxy: Proxying::Direct, ..Settings::default() };
    let urls = vec!["http://user:secret@mirror/image".to_owned()];
    let mut http = Http::over(Box::new(agent), urls, settings).ok()?;
    let mut body = Vec::new();
    let read = http.read_to_end(&mut body);
    if let Err(error) = read {
        shown(&error);
        return None;
    }
    Some(body)
}

/// What a person reads of an error is fit for a terminal, and holds no password.
fn shown(error: &(dyn Error + 'static)) {
    for error in iter::successors(Some(error), |error| (*error).source()) {
        let text = error.to_string();
        // HTTP lets a tab stand in a header, and nothing else that moves a cursor.
        assert!(
            !text.chars().any(|c| c.is_control() && c != '\t'),
            "a control character reaches the terminal: {text:?}"
        );
        assert!(!text.contains("secret"), "a password reaches the terminal: {text}");
    }
}

pub fn download_seeds() -> Vec<Seed> {
    let answer = |step: u8, head: &str, body: &str| [&[step], head.as_bytes(), b"\r\n\r\n", body.as_bytes()].concat();
    vec![
        ("with-length", answer(7, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close", "an image")),
        ("too-short", answer(5, "HTTP/1.1 200 OK\r\nContent-Length: 80", "an image")),
        ("to-the-end", answer(1, "HTTP/1.0 200 OK\r\nServer: x", "an image")),
        ("chunked", answer(3, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "8\r\nan image\r\n0\r\n\r\n")),
        (
            "part",
            answer(6, "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-7/8\r\nContent-Length: 8", "an image"),
        ),
        ("redirect", answer(4, "HTTP/1.1 302 Found\r\nLocation: https://other/image\r\nContent-Length: 0", "")),
        ("missing", answer(9, "HTTP/1.1 404 Not Found\r\nContent-Length: 4", "none")),
        ("continue", answer(2, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8", "an image")),
    ]
}
