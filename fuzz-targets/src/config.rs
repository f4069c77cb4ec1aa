//! Configuration of the health check and of the updater, and answers of HTTP servers.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use health_check::parsers;
use updater::config::Policy;

use crate::Seed;

/// HLT-10 to HLT-13: any text as a configuration.
pub fn health_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parsers::configuration(text) {
        // What is wrong is said, and no control character of the file reaches a terminal but line ends.
        Err(told) => assert!(!told.is_empty()),
        Ok(summary) => assert!(!summary.is_empty()),
    }
}

/// IFC-10: any text as a policy.
pub fn update_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let base = Policy { os_id: Some("base".into()), max_epoch_step: 3, ..Policy::default() };
    let Ok(policy) = base.clone().overlaid(text) else { return };
    assert!(policy.threshold.get() >= 1);
    // A second time nothing changes, and an empty file changes nothing.
    assert_eq!(policy.clone().overlaid(text).ok(), Some(policy.clone()));
    assert_eq!(policy.clone().overlaid("").ok(), Some(policy));
}

/// A server that sends these pieces, whatever it is told.
struct Pieces {
    pieces: VecDeque<Vec<u8>>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.pieces.front_mut() else { return Ok(0) };
        let len = piece.len().min(buffer.len());
        buffer[..len].copy_from_slice(&piece[..len]);
        piece.drain(..len);
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        Ok(len)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// HLT-26, HLT-29: any bytes as an answer; the first byte says in which pieces they come.
pub fn http_answer(data: &[u8]) {
    let Some((&step, answer)) = data.split_first() else { return };
    let ask = |step: usize| {
        let pieces = answer.chunks(step.max(1)).map(<[u8]>::to_vec).collect();
        parsers::answer(Pieces { pieces })
    };
    let whole = ask(answer.len());
    if let Ok((status, body)) = &whole {
        assert!((100..1000).contains(status), "status {status}");
        assert!(body.len() <= 64 * 1024 && body.len() <= answer.len());
        assert!(answer.starts_with(b"HTTP/1."));
        assert!(answer.windows(body.len().max(1)).any(|window| window == body) || body.is_empty());
        let shown = parsers::judged(*status, body);
        assert!(!shown.chars().any(|c| c.is_control()), "a control character reaches the journal: {shown:?}");
    }
    // However it trickles in, it is the same answer.
    assert_eq!(whole.ok(), ask(usize::from(step)).ok());
}

pub fn health_seeds() -> Vec<Seed> {
    let shipped = include_bytes!("../../health-check/units/checks.d/50-ralphos.toml");
    let small = b"[check.c]\nkind = \"command\"\ncommand = [\"/bin/true\"]\nafter = []\ndeadline = \"5s\"\ntries = 3\n\
        [check.h]\nkind = \"http\"\nurl = \"http://127.0.0.1:80/x\"\njson = { \"/a\" = [1, \"b\"] }\nlevel = \"wanted\"\n\
        [check.p]\nkind = \"path\"\npath = \"/var\"\nfree = \"64M\"\n[policy]\nsoak = \"1min\"\non-failure = \"stay\"\n";
    vec![("shipped", shipped.to_vec()), ("small", small.to_vec())]
}

pub fn update_seeds() -> Vec<Seed> {
    let text = b"os-id = \"ralphos\"\nhardware = [\"qemu,q35\"]\nthreshold = 2\nmax-epoch-step = 8\n";
    vec![("all-keys", text.to_vec()), ("empty", Vec::new())]
}

pub fn http_seeds() -> Vec<Seed> {
    let answer = |step: u8, head: &str, body: &str| [&[step], head.as_bytes(), b"\r\n\r\n", body.as_bytes()].concat();
    let body = "{\"contract\":1,\"state\":\"ready\",\"version\":\"1.0\"}";
    let length = format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
    vec![
        ("with-length", answer(7, &length, body)),
        ("to-the-end", answer(1, "HTTP/1.1 503 Service Unavailable\r\nConnection: close", body)),
        ("chunked", answer(3, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")),
        ("bare-newlines", b"\x02HTTP/1.1 200\nServer: x\n\nbody".to_vec()),
    ]
}
