//! A small HTTP server for files, on the host's loopback: a guest reaches it at 10.0.2.2. It can lie in the ways
//! that servers and networks do.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};

/// What a path answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The whole file.
    File(PathBuf),
    /// The length of the whole file, but only its first bytes, and then the connection ends.
    Truncated(PathBuf, u64),
    /// The whole file under a length that is too small by one.
    TooShortLength(PathBuf),
    /// A redirect to this path (its own: a loop).
    Redirect(String),
    /// 404, as for every path that is not known.
    NotFound,
}

/// A server that runs as long as this value lives.
#[derive(Debug)]
pub struct Server {
    port: u16,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
}

impl Server {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on 127.0.0.1")?;
        let port = listener.local_addr().context("no local address")?.port();
        let answers: Arc<Mutex<HashMap<String, Answer>>> = Arc::default();
        let shared = Arc::clone(&answers);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A client that goes away is its own affair.
                std::thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        Ok(Self { port, answers })
    }

    /// Answers `path` (without the leading slash) with `answer` from now on, and gives the URL for a guest.
    pub fn serve(&self, path: &str, answer: Answer) -> String {
        self.lock().insert(path.to_owned(), answer);
        format!("http://10.0.2.2:{}/{path}", self.port)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Answer>> {
        self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn serve(mut stream: TcpStream, answers: &Mutex<HashMap<String, Answer>>) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 0 && !header.trim().is_empty() {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let answer =
        answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(path.trim_start_matches('/')).cloned();
    match answer.unwrap_or(Answer::NotFound) {
        Answer::File(file) => send(&mut stream, &file, 0, u64::MAX),
        Answer::Truncated(file, bytes) => send(&mut stream, &file, 0, bytes),
        Answer::TooShortLength(file) => send(&mut stream, &file, 1, u64::MAX),
        Answer::Redirect(to) => {
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: /{to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
            Ok(())
        }
        Answer::NotFound => {
            write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
            Ok(())
        }
    }
}

/// Sends the first `bytes` of `file` under a length that is `short` too small.
fn send(stream: &mut TcpStream, file: &Path, short: u64, bytes: u64) -> Result<()> {
    let mut file = File::open(file)?;
    let length = file.metadata()?.len() - short;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    std::io::copy(&mut (&mut file).take(bytes), stream)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(server: &Server, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("it listens");
        write!(stream, "GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        text
    }

    #[test]
    fn it_serves_files_and_lies_when_told() {
        let file = crate::workspace::cache_dir().expect("a target folder").join("http-test.txt");
        std::fs::write(&file, "0123456789").expect("writable");
        let server = Server::start().expect("a free port");
        server.serve("whole", Answer::File(file.clone()));
        server.serve("cut", Answer::Truncated(file.clone(), 4));
        server.serve("short", Answer::TooShortLength(file));
        server.serve("loop", Answer::Redirect("loop".into()));

        let whole = get(&server, "whole");
        assert!(whole.contains("Content-Length: 10\r\n") && whole.ends_with("\r\n\r\n0123456789"));
        let cut = get(&server, "cut");
        assert!(cut.contains("Content-Length: 10\r\n") && cut.ends_with("\r\n\r\n0123"));
        assert!(get(&server, "short").contains("Content-Length: 9\r\n"));
        assert!(get(&server, "loop").contains("Location: /loop\r\n"));
        assert!(get(&server, "nothing").starts_with("HTTP/1.1 404"));
    }
}
