//! Real servers, most of them bad ones (HLT-26).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use serde_json::json;

use super::*;
use crate::config::{Expectation, Server};

/// A server that does this with one connection after the other; it hands over what it was asked.
fn serve(answer: impl Fn(&mut dyn Write) + Send + 'static) -> (Server, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, asked) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 4096];
            let got = stream.read(&mut buffer).unwrap_or(0);
            let _ = sender.send(String::from_utf8_lossy(&buffer[..got]).into_owned());
            answer(&mut stream);
        }
    });
    (Server::Tcp(address), asked)
}

fn saying(text: impl Into<Vec<u8>>) -> Server {
    let text = text.into();
    serve(move |stream| drop(stream.write_all(&text))).0
}

fn http(server: Server) -> Http {
    let expectation = Expectation { pointer: "/state".into(), one_of: vec![json!("ready"), json!("degraded")] };
    let (host, path) = ("127.0.0.1:1".into(), "/v1/health".into());
    Http { server, host, path, status: 200, json: vec![expectation], record: None }
}

const LONG: Limit = Limit { within: Duration::from_secs(60), reason: Reason::Deadline };

fn of(server: Server) -> Finding {
    run(&http(server), LONG)
}

fn fails(text: impl Into<Vec<u8>>, reason: Reason, said: &str) {
    let finding = of(saying(text));
    assert_eq!(finding.failed, Some(reason), "{finding:?}");
    assert!(finding.detail.contains(said), "{finding:?}");
}

const READY: &str = r#"{"contract":1,"state":"ready"}"#;

#[test]
fn what_is_sent_and_what_passes() {
    let body = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{READY} and more", READY.len());
    let (server, asked) = serve(move |stream| drop(stream.write_all(body.as_bytes())));
    let finding = of(server);
    assert_eq!((finding.failed, finding.output.as_str()), (None, READY));
    let expected =
        "GET /v1/health HTTP/1.0\r\nHost: 127.0.0.1:1\r\nConnection: close\r\nAccept: application/json\r\n\r\n";
    assert_eq!(asked.recv().unwrap(), expected);
    // Without a length the body ends with the connection; a server may say HTTP/1.1, and end lines as it likes.
    for text in [format!("HTTP/1.1 200\r\n\r\n{READY}"), format!("HTTP/1.0 200 OK\nServer: x\n\n{READY}")] {
        assert_eq!(of(saying(text.clone())).failed, None, "{text}");
    }
}

#[test]
fn a_head_in_pieces_is_one_head() {
    let (server, _) = serve(|stream| {
        for byte in format!("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{READY}").bytes() {
            let _ = stream.write_all(&[byte]).and_then(|()| stream.flush());
        }
    });
    assert_eq!(of(server).failed, None);
}

#[test]
fn another_status_fails_and_no_redirect_is_followed() {
    fails(format!("HTTP/1.0 503 Busy\r\n\r\n{READY}"), Reason::HttpStatus, "status 503, expected 200");
    let moved = "HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n";
    fails(moved, Reason::HttpStatus, "status 302, expected 200");
    let mut wants = http(saying("HTTP/1.0 204 No Content\r\n\r\n"));
    (wants.status, wants.json) = (204, Vec::new());
    assert_eq!(run(&wants, LONG).failed, None);
}

#[test]
fn what_is_not_expected_is_told() {
    let text = "HTTP/1.0 200 OK\r\n\r\n{\"state\":\"starting\"}";
    fails(text, Reason::Json, r#"/state is "starting", expected "ready" or "degraded""#);
    fails("HTTP/1.0 200 OK\r\n\r\n<html>", Reason::Json, "not JSON");
    let mut recorded = http(saying(format!("HTTP/1.0 200 OK\r\n\r\n{READY}")));
    recorded.record = Some("/state".into());
    assert_eq!(run(&recorded, LONG).recorded.as_deref(), Some("ready"));
}

#[test]
fn what_is_printed_is_short_and_has_no_control_characters() {
    let body = format!("HTTP/1.0 500 No\r\n\r\n\x1b[2J\r\n\u{9b}31m{}", "x".repeat(50_000));
    let finding = of(saying(body));
    assert_eq!(finding.failed, Some(Reason::HttpStatus));
    assert!(finding.output.len() <= KEPT && finding.output.len() > KEPT - 10, "{}", finding.output.len());
    assert!(!finding.output.contains(char::is_control));
}

#[test]
fn answers_that_are_none() {
    fails("", Reason::HttpAnswer, "ends after 0 bytes, before its head");
    fails("HTTP/1.0 200 OK\r\nContent-", Reason::HttpAnswer, "before its head is whole");
    fails("HTTP/1.0 200 OK\r\nContent-Length: 50\r\n\r\n{}", Reason::HttpAnswer, "before its body is whole");
    fails("SSH-2.0-OpenSSH_9.9\r\n", Reason::HttpAnswer, "not HTTP/1");
    fails("HTTP/2 200\r\n\r\n", Reason::HttpAnswer, "not HTTP/1");
    fails("HTTP/1.0 abc OK\r\n\r\n", Reason::HttpAnswer, "head of the answer cannot be read");
    fails("HTTP/1.0 200 OK\r\na b\r\n\r\n", Reason::HttpAnswer, "head of the answer cannot be read");
    let many = format!("HTTP/1.0 200 OK\r\n{}\r\n", "A: b\r\n".repeat(100));
    fails(many, Reason::HttpAnswer, "head of the answer cannot be read");
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    fails(chunked, Reason::HttpAnswer, "Transfer-Encoding");
}

#[test]
fn a_length_that_cannot_be_believed() {
    for length in ["-1", "+2", "", "2, 2", "0x2", "2\r\nContent-Length: 2"] {
        fails(format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{{}}"), Reason::HttpAnswer, "not one number");
    }
    for length in ["65536", "99999999999999999999999999"] {
        fails(format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{{}}"), Reason::HttpAnswer, "larger than");
    }
}

#[test]
fn an_answer_without_end_is_refused() {
    let endless = |begin: &'static str, part: &'static [u8]| {
        let (server, _) = serve(move |stream| {
            let _ = stream.write_all(begin.as_bytes());
            while stream.write_all(&part.repeat(1000)).is_ok() {}
        });
        let finding = of(server);
        assert_eq!(finding.failed, Some(Reason::HttpAnswer));
        assert!(finding.detail.contains("larger than 65536 bytes"), "{finding:?}");
    };
    endless("HTTP/1.0 200 OK\r\n\r\n", b"x");
    endless("HTTP/1.0 200 OK\r\n", b"A: b\r\n");
    endless("HTTP/1.0 200 OK\r\nA: ", b"x");
}

/// A server that says this, then nothing, and holds the connection; it is asked with a second to go.
fn hangs(after: &'static [u8], pause: Duration) -> Finding {
    let (server, _) = serve(move |stream| {
        for _ in 0..600 {
            let _ = stream.write_all(after);
            thread::sleep(pause);
        }
    });
    let begin = Instant::now();
    let finding = run(&http(server), Limit { within: Duration::from_secs(1), reason: Reason::OverallDeadline });
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    finding
}

#[test]
fn a_server_that_hangs_is_waited_for_no_longer_than_the_deadline() {
    let long = Duration::from_secs(60);
    for after in [&b""[..], b"HTTP/1.0 200 OK\r\nCont", b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n{"] {
        let finding = hangs(after, long);
        assert_eq!(finding.failed, Some(Reason::OverallDeadline), "{finding:?}");
        assert!(finding.detail.contains("no whole answer within"), "{finding:?}");
    }
}

#[test]
fn a_server_that_trickles_gets_no_more_time() {
    // Each byte comes long before any timeout of a single read.
    for byte in [&b"H"[..], b"HTTP/1.0 200 OK\r\nA: b\r\n"] {
        let begin = Instant::now();
        let (server, _) = serve(move |stream| {
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nA: b");
            while stream.write_all(&byte[..1]).is_ok() {
                thread::sleep(Duration::from_millis(50));
            }
        });
        let finding = run(&http(server), Limit { within: Duration::from_secs(1), reason: Reason::Deadline });
        assert_eq!(finding.failed, Some(Reason::Deadline), "{finding:?}");
        assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    }
}

#[test]
fn one_try_takes_ten_seconds_and_is_then_too_slow() {
    let begin = Instant::now();
    let (server, _) = serve(|_| thread::sleep(Duration::from_secs(60)));
    let finding = of(server);
    assert_eq!(finding.failed, Some(Reason::HttpAnswer), "{finding:?}");
    assert!((10..20).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[test]
fn nobody_listens() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let finding = of(Server::Tcp(address));
    assert_eq!(finding.failed, Some(Reason::CannotConnect), "{finding:?}");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("status.sock");
    let finding = of(Server::Unix(socket.clone()));
    assert_eq!(finding.failed, Some(Reason::CannotConnect));
    assert!(finding.detail.contains("status.sock: No such file"), "{finding:?}");
    // One that nobody listens at any more.
    drop(UnixListener::bind(&socket).unwrap());
    assert_eq!(of(Server::Unix(socket)).failed, Some(Reason::CannotConnect));
    std::fs::write(folder.path().join("file"), "").unwrap();
    assert_eq!(of(Server::Unix(folder.path().join("file"))).failed, Some(Reason::CannotConnect));
}

#[test]
fn a_unix_socket_is_asked_in_the_same_way_hlt_4() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("status.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let got = stream.read(&mut buffer).unwrap();
        stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{READY}").as_bytes()).unwrap();
        String::from_utf8_lossy(&buffer[..got]).into_owned()
    });
    assert_eq!(of(Server::Unix(socket)).failed, None);
    assert!(server.join().unwrap().starts_with("GET /v1/health HTTP/1.0\r\n"));
}

#[test]
fn a_unix_socket_whose_queue_is_full_is_not_waited_for_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("status.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    // Nobody accepts: connections fill the queue, and the next connect would block.
    let begin = Instant::now();
    let limit = Limit { within: Duration::from_secs(1), reason: Reason::Deadline };
    let queue: Vec<_> = (0..6000).map_while(|_| super::client::connect_unix(&socket, Instant::now()).ok()).collect();
    assert!(!queue.is_empty() && queue.len() < 6000, "{}", queue.len());
    let finding = run(&http(Server::Unix(socket)), limit);
    assert_eq!(finding.failed, Some(Reason::Deadline), "{finding:?}");
    assert!(begin.elapsed() < Duration::from_secs(20));
}
