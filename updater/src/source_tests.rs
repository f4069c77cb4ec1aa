//! Sources against a real (if small) HTTP server on the loopback interface.

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

const IMPATIENT: Patience = Patience { stall: Duration::from_secs(1), least: 1000 };

/// Answers every connection with `answer(path)` and closes it, without having said so: servers do. Returns the server's base address.
fn serve(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = request.next().unwrap().unwrap();
            for line in request {
                if line.unwrap().is_empty() {
                    break;
                }
            }
            let path = first.split(' ').nth(1).unwrap().to_owned();
            let _ = stream.write_all(&answer(&path));
            if path == "/stall" {
                std::thread::sleep(Duration::from_secs(5));
            }
        }
    });
    base
}

fn ok(length: usize, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").as_bytes(), body].concat()
}

fn read_all(url: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fetch(url, IMPATIENT).unwrap().reader.read_to_end(&mut bytes).map(|_| bytes)
}

#[test]
fn a_whole_body_arrives_with_its_length() {
    let base = serve(|_| ok(5, b"hello"));
    assert_eq!(fetch(&base, PATIENCE).unwrap().length, Some(5));
    assert_eq!(read_all(&base).unwrap(), b"hello");
}

#[test]
fn a_body_that_ends_early_is_an_error_that_names_the_address() {
    let base = serve(|_| ok(100, b"hello"));
    let error = read_all(&format!("{base}/image.zst")).unwrap_err().to_string();
    assert!(error.contains("/image.zst") && error.contains("5 of 100"), "{error}");
}

#[test]
fn a_body_that_stalls_is_given_up() {
    let base = serve(|_| ok(100, b"hello"));
    let error = read_all(&format!("{base}/stall")).unwrap_err().to_string();
    assert!(error.contains("sent nothing for 1 s"), "{error}");
}

/// Brings some bytes each time it is asked, after a pause.
struct Dripping {
    pause: Duration,
    bytes: usize,
    times: u32,
}

impl Read for Dripping {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.times == 0 {
            return Ok(0);
        }
        self.times -= 1;
        std::thread::sleep(self.pause);
        Ok(self.bytes.min(buf.len()))
    }
}

#[test]
fn thr_9_a_body_that_drips_is_given_up_and_a_slow_one_is_not() {
    let patience = Patience { stall: Duration::from_millis(200), least: 1000 };
    let read = |bytes| {
        let body = Dripping { pause: Duration::from_millis(20), bytes, times: 30 };
        Watched::start(body, "url".to_owned(), None, patience).read_to_end(&mut Vec::new())
    };
    let error = read(10).unwrap_err();
    let body = error.get_ref().and_then(|inside| inside.downcast_ref());
    assert!(matches!(body, Some(BodyError::Trickle { least: 1000, .. })), "{error}");
    assert_eq!(read(400).unwrap(), 30 * 400);
}

#[test]
fn thr_9_our_own_slowness_is_not_the_servers() {
    let patience = Patience { stall: Duration::from_millis(50), least: 1000 };
    let body = Dripping { pause: Duration::ZERO, bytes: 10, times: 12 };
    let mut watched = Watched::start(body, "url".to_owned(), Some(120), patience);
    for _ in 0..12 {
        // As when a slot is flushed or read back.
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(watched.read(&mut [0; 10]).unwrap(), 10);
    }
}

#[test]
fn a_404_is_an_error_that_says_so() {
    let base = serve(|_| b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec());
    let error = fetch(&base, PATIENCE).unwrap_err();
    assert!(matches!(error, SourceError::Status { status: 404, .. }), "{error}");
}

#[test]
fn a_partial_answer_is_not_an_image() {
    let base = serve(|_| b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx".to_vec());
    assert!(matches!(fetch(&base, PATIENCE).unwrap_err(), SourceError::Status { status: 206, .. }));
}

#[test]
fn a_redirect_is_followed_and_a_loop_is_not() {
    let base = serve(|path| match path {
        "/moved" => b"HTTP/1.1 302 Found\r\nLocation: /here\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/here" => ok(2, b"ok"),
        _ => b"HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n".to_vec(),
    });
    assert_eq!(read_all(&format!("{base}/moved")).unwrap(), b"ok");
    let error = fetch(&format!("{base}/loop"), PATIENCE).unwrap_err();
    assert!(matches!(error, SourceError::Redirects { .. }), "{error:?}");
}

#[test]
fn a_server_that_is_not_there_is_an_error_with_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    drop(listener);
    let error = fetch(&url, PATIENCE).unwrap_err();
    assert!(matches!(&error, SourceError::Fetch { .. }) && error.to_string().contains(&url), "{error}");
}

#[test]
fn sources_are_told_apart() {
    let parse = |text: &str| text.parse::<Source>().unwrap();
    assert_eq!(parse("-"), Source::Stdin);
    assert_eq!(parse("HTTPS://x/y"), Source::Url("HTTPS://x/y".into()));
    assert_eq!(parse("http.zst"), Source::File("http.zst".into()));
}

#[test]
fn passwords_do_not_reach_messages() {
    assert_eq!(without_credentials("https://me:secret@host:8/p@th?q"), "https://host:8/p@th?q");
    assert_eq!(without_credentials("http://host/a@b"), "http://host/a@b");
}

#[test]
fn a_missing_file_and_a_folder_are_named() {
    for path in ["/nonexistent/image.zst", "/"] {
        let error = Source::File(path.into()).open().unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
    }
}
