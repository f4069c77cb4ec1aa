//! As much HTTP/1 as the contract needs: one request a connection, one answer, and the end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Head and body of a request are cut off here.
const REQUEST_MAX: u64 = 64 << 10;

/// A request without what nobody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET` or `POST`.
    pub method: String,
    /// The path.
    pub path: String,
    /// The body; empty without a `Content-Length`.
    pub body: Vec<u8>,
}

/// A status and a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200, 404, 500.
    pub status: u16,
    /// One JSON object.
    pub body: String,
}

/// Answers requests.
pub trait Handler: Clone + Send + 'static {
    /// None: never (the connection stays open).
    fn answer(&self, request: &Request) -> Option<Response>;
}

/// Serves what `accept` gives, for good, in threads of its own: one request that hangs holds up no other.
pub fn serve<S>(accept: impl Fn() -> io::Result<S> + Send + 'static, handler: impl Handler)
where
    S: Read + Write + Send + 'static,
{
    thread::spawn(move || {
        loop {
            match accept() {
                Ok(stream) => {
                    let handler = handler.clone();
                    thread::spawn(move || {
                        if let Err(error) = talk(stream, &handler) {
                            eprintln!("ralphd: {error:#}");
                        }
                    });
                }
                Err(error) => {
                    eprintln!("ralphd: cannot accept a connection: {error}");
                    // Out of descriptors, most likely: some are given back.
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    });
}

fn talk(stream: impl Read + Write, handler: &impl Handler) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let request = read(&mut reader)?;
    let Some(response) = handler.answer(&request) else {
        loop {
            thread::park();
        }
    };
    let mut stream = reader.into_inner();
    write(&mut stream, &response).context("cannot answer")
}

fn read(stream: &mut impl BufRead) -> Result<Request> {
    let mut input = stream.take(REQUEST_MAX);
    let mut line = String::new();
    input.read_line(&mut line)?;
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let [method, path, protocol] = words.try_into().ok().with_context(|| format!("not a request: {line:?}"))?;
    if !protocol.starts_with("HTTP/1.") {
        bail!("not HTTP/1: {line:?}");
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            bail!("a request was cut");
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().with_context(|| format!("not a length: {value:?}"))?;
        }
    }
    let mut body = Vec::new();
    input.take(length).read_to_end(&mut body)?;
    if body.len() as u64 != length {
        bail!("a request's body was cut");
    }
    Ok(Request { method, path, body })
}

fn write(stream: &mut impl Write, response: &Response) -> io::Result<()> {
    let reason = match response.status {
        200 => "OK",
        404 => "Not Found",
        _ => "Internal Server Error",
    };
    let head = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        response.status,
        response.body.len()
    );
    // In one piece: the client waits for nothing between them.
    stream.write_all((head + &response.body).as_bytes())?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_with_its_body() {
        let request = read(&mut &b"POST /v1/x HTTP/1.1\r\nHost: x\r\ncontent-length: 2\r\n\r\n{}rest"[..]);
        let expected = Request { method: "POST".into(), path: "/v1/x".into(), body: b"{}".into() };
        assert_eq!(request.expect("whole"), expected);
    }

    #[test]
    fn what_is_cut_or_no_http_is_refused() {
        for bytes in ["", "GET /\r\n\r\n", "GET / SPDY/1\r\n\r\n", "GET / HTTP/1.0\r\nHost: x\r\n"] {
            assert!(read(&mut bytes.as_bytes()).is_err(), "{bytes:?}");
        }
        assert!(read(&mut &b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n{}"[..]).is_err());
    }
}
