//! A real, small HTTP server on the loopback interface, whose behaviour is a function; and a proxy.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Counted from 0, over all connections.
    pub(crate) number: usize,
    pub(crate) connection: usize,
    pub(crate) path: String,
    /// First byte, and the one behind the last.
    pub(crate) range: Option<(u64, u64)>,
    pub(crate) if_range: Option<String>,
}

/// What to do with a connection when a request was answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    Keep,
    Close,
}

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

/// Starts a server that answers each request by `script`.
pub(crate) fn serve(script: impl Fn(&Request, &mut TcpStream) -> After + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/image.zst", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<Request>>> = Arc::default();
    let (log, script) = (Arc::clone(&asked), Arc::new(script));
    thread::spawn(move || {
        for (connection, stream) in listener.incoming().enumerate() {
            let (stream, log, script) = (stream.unwrap(), Arc::clone(&log), Arc::clone(&script));
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut stream = stream;
                while let Some(mut request) = read_request(&mut reader) {
                    {
                        let mut log = log.lock().unwrap();
                        request.number = log.len();
                        request.connection = connection;
                        log.push(request.clone());
                    }
                    if script(&request, &mut stream) == After::Close {
                        break;
                    }
                }
                let _ = stream.shutdown(Shutdown::Both);
            });
        }
    });
    Server { url, asked }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim_end().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let path = head.split(' ').nth(1)?.to_owned();
    let if_range = head.lines().find(|line| line.to_ascii_lowercase().starts_with("if-range:"));
    let if_range = if_range.map(|line| line[9..].trim().to_owned());
    let head = head.to_ascii_lowercase();
    let range = head.lines().find_map(|line| line.strip_prefix("range: bytes=")).map(|range| {
        let (first, last) = range.trim().split_once('-').unwrap();
        (first.parse().unwrap(), last.parse::<u64>().unwrap() + 1)
    });
    Some(Request { number: 0, connection: 0, path, range, if_range })
}

/// Whoever asked may be gone by now.
pub(crate) fn send(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

/// As a good server does: the range that was asked for, if the mark still holds; else the whole file.
pub(crate) fn answer(request: &Request, stream: &mut TcpStream, file: &[u8], etag: Option<&str>) -> After {
    let (head, body) = good_answer(request, file, etag);
    send(stream, head.as_bytes());
    send(stream, &body);
    After::Keep
}

/// Head and body of what a good server sends.
pub(crate) fn good_answer(request: &Request, file: &[u8], etag: Option<&str>) -> (String, Vec<u8>) {
    let mark = etag.map(|tag| format!("ETag: {tag}\r\n")).unwrap_or_default();
    let holds = request.if_range.is_none() || request.if_range.as_deref() == etag;
    let total = file.len() as u64;
    match request.range.filter(|_| holds) {
        Some((start, _)) if start >= total => (
            format!(
                "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{total}\r\nContent-Length: 0\r\n\r\n"
            ),
            Vec::new(),
        ),
        Some((start, end)) => {
            let end = end.min(total);
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{total}\r\n{mark}Content-Length: {}\r\n\r\n",
                end - 1,
                end - start
            );
            (head, file[start as usize..end as usize].to_vec())
        }
        None => (format!("HTTP/1.1 200 OK\r\n{mark}Content-Length: {total}\r\n\r\n"), file.to_vec()),
    }
}

/// A proxy that knows CONNECT, wants this name and password if one is given, and counts its tunnels.
pub(crate) struct ProxyServer {
    pub(crate) address: String,
    pub(crate) tunnels: Arc<Mutex<Vec<String>>>,
}

pub(crate) fn proxy(credentials: Option<&'static str>) -> ProxyServer {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tunnels: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&tunnels);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, log) = (stream.unwrap(), Arc::clone(&log));
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut lines = Vec::new();
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim_end().is_empty() {
                        break;
                    }
                    lines.push(line.trim_end().to_owned());
                }
                let target = lines[0].strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
                let Some(target) = target.map(str::to_owned) else { return };
                if credentials
                    .is_some_and(|wanted| !lines.iter().any(|l| l == &format!("Proxy-Authorization: Basic {wanted}")))
                {
                    send(&mut stream, b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
                    return;
                }
                log.lock().unwrap().push(target.clone());
                let Ok(mut server) = TcpStream::connect(&target) else { return };
                send(&mut stream, b"HTTP/1.1 200 Connection established\r\n\r\n");
                let (mut to, mut from) = (server.try_clone().unwrap(), stream.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut reader, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
                let mut block = [0; 16 * 1024];
                while let Ok(read @ 1..) = server.read(&mut block) {
                    if from.write_all(&block[..read]).is_err() {
                        break;
                    }
                }
                let _ = from.shutdown(Shutdown::Both);
            });
        }
    });
    ProxyServer { address, tunnels }
}
