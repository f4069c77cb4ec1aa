//! However servers keep us waiting, it ends (THR-9, FET-26); and so it does when somebody wants it to.

use std::io::Write;
use std::net::TcpStream;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use image_format::{Again, ChunkSource, Digest};

use super::bad_server_tests::bad_data;
use super::http_tests::{HEAD, cause, chunks, fetch, file, good, open, quick, take};
use super::server::{After, answer, good_answer, send, serve};
use super::*;

/// For longer than anybody waits here.
fn drip_for_ever(stream: &mut TcpStream, byte: &[u8]) {
    let began = Instant::now();
    while stream.write_all(byte).is_ok() && began.elapsed() < Duration::from_secs(40) {
        sleep(Duration::from_millis(50));
    }
}

/// A chunk's length that never ends: whoever reads the body gets no byte, and no silence.
const DRIPS: &[u8] = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes FIRST-LAST/1250000\r\n\
    Transfer-Encoding: chunked\r\n\r\n8000;";

fn drips(range: Option<(u64, u64)>, stream: &mut TcpStream) -> After {
    let (start, end) = range.unwrap();
    let head = String::from_utf8_lossy(DRIPS).replace("FIRST", &start.to_string());
    send(stream, head.replace("LAST", &(end - 1).to_string()).as_bytes());
    drip_for_ever(stream, b"x");
    After::Close
}

#[test]
fn fet_26_a_read_that_never_returns_is_ended() {
    let file = file(1);
    let in_head = serve(|request, stream| drips(request.range, stream));
    let in_data = bad_data(|request, stream, _| drips(request.range, stream));
    for bad in [in_head, in_data] {
        let began = Instant::now();
        let error = fetch(&[&bad], &file).map(|_| ()).unwrap_err();
        assert!(["http-silent", "http-trickle"].contains(&cause(&error)), "{error}");
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        fetch(&[&bad, &good(&file)], &file).unwrap();
    }
}

#[test]
fn fet_23_answers_that_are_far_too_short_are_failures() {
    let file = file(1);
    let short = |request: &super::server::Request, stream: &mut TcpStream, file: &[u8]| {
        sleep(Duration::from_millis(300));
        let range = request.range.map(|(start, _)| (start, start + 16));
        answer(&super::server::Request { range, ..request.clone() }, stream, file, None)
    };
    let served = file.clone();
    let in_head = serve(move |request, stream| short(request, stream, &served));
    for bad in [in_head, bad_data(short)] {
        let began = Instant::now();
        let error = fetch(&[&bad], &file).map(|_| ()).unwrap_err();
        assert!(["http-ended-early", "http-trickle"].contains(&cause(&error)), "{error}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        fetch(&[&bad, &good(&file)], &file).unwrap();
    }
}

#[test]
fn fet_30_what_stands_in_a_redirect_is_not_read() {
    let file = file(1);
    let served = file.clone();
    let server = serve(move |request, stream| {
        if request.path == "/image.zst" {
            send(stream, b"HTTP/1.1 302 Found\r\nLocation: there\r\nTransfer-Encoding: chunked\r\n\r\n");
            drip_for_ever(stream, b"1\r\nx\r\n");
            return After::Close;
        }
        answer(request, stream, &served, None)
    });
    let began = Instant::now();
    let told = fetch(&[&server], &file).unwrap();
    assert!(told.notes().is_empty() && began.elapsed() < Duration::from_secs(5), "{:?}", told.notes());
}

#[test]
fn fet_61_a_redirect_of_the_list_may_break_off_or_never_end() {
    let list = format!("ralph-deltas 1\n{} 9 d.zst\n", "ab".repeat(32));
    for endless in [false, true] {
        let list = list.clone();
        let server = serve(move |request, stream| {
            if request.path.ends_with("there") {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", list.len());
                send(stream, [head.as_bytes(), list.as_bytes()].concat().as_slice());
                return After::Close;
            }
            assert_eq!(request.path, "/image.zst.deltas");
            send(stream, b"HTTP/1.1 302 Found\r\nLocation: there\r\nTransfer-Encoding: chunked\r\n\r\n");
            if endless {
                drip_for_ever(stream, b"1\r\nx\r\n")
            } else {
                send(stream, b"0\r\na")
            }
            After::Close
        });
        let began = Instant::now();
        let deltas = fetch_list(&server.url, &quick()).unwrap();
        assert!(deltas.len() == 1 && began.elapsed() < Duration::from_secs(3), "{deltas:?}");
    }
}

#[test]
fn fet_26_a_chunk_by_itself_is_not_waited_for_for_ever() {
    let file = file(1);
    let bad = bad_data(|request, stream, file| {
        let (head, body) = good_answer(request, file, None);
        send(stream, head.as_bytes());
        body.chunks(10).take_while(|_| stream.write_all(b"x").is_ok()).for_each(|_| sleep(Duration::from_millis(50)));
        After::Close
    });
    let good = good(&file);
    let (mut source, told) = open(vec![bad.url.clone(), good.url.clone()], quick(), &file).unwrap();
    let (table, mut bytes) = (chunks(&file), vec![0; 40_000]);
    source.plan(&table, &[]).unwrap();
    let began = Instant::now();
    source.again(3, &table[3], &mut bytes, Again::Missing).unwrap();
    assert!(Digest::of(&bytes) == table[3].encoded_sha256);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(told.notes()[0].contains("sent less than"), "{:?}", told.notes());
}

#[test]
fn fet_24_a_chunk_by_itself_goes_on_where_it_broke_and_under_another_mark() {
    let file = file(1);
    let served = file.clone();
    let server = serve(move |request, stream| {
        let (head, body) = good_answer(request, &served, Some(&format!("\"{}\"", request.number % 2)));
        send(stream, head.as_bytes());
        // The head, an answer of another server behind the same name, a cut, and the rest.
        if request.number == 3 {
            send(stream, &body[..10_000]);
            return After::Close;
        }
        send(stream, &body);
        After::Keep
    });
    let (mut source, told) = open(vec![server.url.clone()], quick(), &file).unwrap();
    let (table, mut bytes) = (chunks(&file), vec![0; 40_000]);
    source.plan(&table, &[]).unwrap();
    source.again(3, &table[3], &mut bytes, Again::Missing).unwrap();
    assert!(Digest::of(&bytes) == table[3].encoded_sha256);
    let most = (HEAD + 2 * 40_000) as u64;
    assert!(told.received().unwrap() <= most, "{:?} {:?}", told.received(), server.asked());
}

#[test]
fn fet_27_whoever_asks_is_told_why_it_is_over() {
    let file = file(1);
    let server = bad_data(|_, stream, _| {
        send(stream, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        After::Keep
    });
    let (mut source, _) = open(vec![server.url.clone()], quick(), &file).unwrap();
    let (table, mut bytes) = (chunks(&file), vec![0; 40_000]);
    source.plan(&table, &[3, 4, 20]).unwrap();
    let first = source.next(3, &table[3], &mut bytes).unwrap_err();
    let second = source.next(4, &table[4], &mut bytes).unwrap_err();
    let third = source.again(20, &table[20], &mut bytes, Again::Missing).unwrap_err();
    for error in [first, second, third] {
        assert_eq!(cause(&error), "http-status", "{error}");
    }
}

/// UPD-9: whatever is waited for, and however long.
#[test]
fn fet_26_it_ends_soon_when_somebody_wants_it_to() {
    let file = file(1);
    let long = Retry { first: Duration::from_secs(30), longest: Duration::from_secs(30), ..quick().fetching };
    let patient = Settings { patience: PATIENCE, opening: long, fetching: long, ..quick() };
    let slow = Settings { limit: Limit::new(Some("1024".parse().unwrap())), ..patient.clone() };
    let busy = || {
        serve(|_, stream| {
            send(stream, b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
            After::Keep
        })
    };
    let silent = || {
        bad_data(|_, _, _| {
            sleep(Duration::from_secs(20));
            After::Close
        })
    };
    for (server, settings) in [(busy(), &patient), (silent(), &patient), (good(&file), &slow)] {
        let http = Http::new(vec![server.url.clone()], settings.clone()).unwrap();
        let (told, served) = (http.told(), file.clone());
        let worker = thread::spawn(move || {
            let mut http = http;
            std::io::Read::read_exact(&mut http, &mut vec![0; HEAD])?;
            let mut source = HttpChunks::new(http, HEAD as u64, served.len() as u64)?;
            take(&mut source, &served, &[1, 2, 3])
        });
        sleep(Duration::from_millis(500));
        assert!(!worker.is_finished(), "it has something to wait for");
        let began = Instant::now();
        told.hang_up();
        let error = worker.join().unwrap().unwrap_err();
        assert!(error.to_string().contains("ended from outside"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let asked = server.asked().len();
        sleep(Duration::from_millis(100));
        assert_eq!(server.asked().len(), asked, "nobody is asked any more");
    }
}
