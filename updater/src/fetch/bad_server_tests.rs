//! Servers that lie, stall or serve another file: each is left for the next one, and told by its word when it is the only one.

use std::io::{self, Read};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use image_format::{Again, ChunkSource, Digest};

use super::http_tests::{HEAD, cause, chunks, fetch, file, good, open, quick};
use super::server::{After, Request, Server, answer, good_answer, send, serve};
use super::*;

/// Serves the head well, and the data as `script` does.
pub(super) fn bad_data(script: impl Fn(&Request, &mut TcpStream, &[u8]) -> After + Send + Sync + 'static) -> Server {
    let file = file(1);
    serve(move |request, stream| match request.range {
        Some((start, _)) if start < HEAD as u64 => answer(request, stream, &file, Some("\"v1\"")),
        _ => script(request, stream, &file),
    })
}

/// A good answer with another head in place of its own.
fn with_head(request: &Request, stream: &mut TcpStream, file: &[u8], head: &str) -> After {
    let (start, end) = request.range.unwrap();
    let end = end.min(file.len() as u64);
    let head = head.replace("FIRST", &start.to_string()).replace("LAST", &(end - 1).to_string());
    let head = head.replace("NEXT", &(start + 1).to_string()).replace("LENGTH", &(end - start).to_string());
    send(stream, format!("HTTP/1.1 206 Partial Content\r\n{head}\r\n\r\n").as_bytes());
    send(stream, &file[start as usize..end as usize]);
    After::Keep
}

fn drip(stream: &mut TcpStream, bytes: &[u8]) {
    let began = Instant::now();
    for piece in bytes.chunks(10) {
        if io::Write::write_all(stream, piece).is_err() || began.elapsed() > Duration::from_secs(8) {
            return;
        }
        sleep(Duration::from_millis(50));
    }
}

type Script = Box<dyn Fn(&Request, &mut TcpStream, &[u8]) -> After + Send + Sync>;

/// The word for it, and what the server does.
fn liars() -> Vec<(&'static str, &'static str, Script)> {
    let (same_length, shorter) = (file(2), file(2)[..1_000_000].to_vec());
    let head = |text: &'static str| -> Script {
        Box::new(move |request, stream, file| with_head(request, stream, file, text))
    };
    vec![
        ("http-range", "another range", head("Content-Range: bytes NEXT-LAST/1250000\r\nContent-Length: LENGTH")),
        ("http-range", "no range", head("Content-Length: LENGTH")),
        (
            "http-range",
            "several ranges",
            head("Content-Type: multipart/byteranges; boundary=x\r\nContent-Length: LENGTH"),
        ),
        (
            "http-encoding",
            "packed once more",
            head("Content-Encoding: gzip\r\nContent-Range: bytes FIRST-LAST/1250000\r\nContent-Length: LENGTH"),
        ),
        (
            "http-other-file",
            "another length",
            head("Content-Range: bytes FIRST-LAST/1250001\r\nContent-Length: LENGTH"),
        ),
        (
            "http-status",
            "out of range",
            Box::new(|_, stream, _| {
                send(stream, b"HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n");
                After::Keep
            }),
        ),
        (
            "http-status",
            "gone",
            Box::new(|_, stream, _| {
                send(stream, b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n");
                After::Keep
            }),
        ),
        (
            "http-other-bytes",
            "another version of the same length",
            Box::new(move |request, stream, _| answer(request, stream, &same_length, Some("\"v1\""))),
        ),
        (
            "http-other-file",
            "another version now",
            Box::new(move |request, stream, _| answer(request, stream, &shorter, Some("\"v2\""))),
        ),
        (
            "http-ended-early",
            "ends early",
            Box::new(|request, stream, file| {
                let (head, _) = good_answer(request, file, Some("\"v1\""));
                send(stream, head.as_bytes());
                After::Close
            }),
        ),
        (
            "http-silent",
            "stalls",
            Box::new(|request, stream, file| {
                let (head, body) = good_answer(request, file, Some("\"v1\""));
                send(stream, head.as_bytes());
                send(stream, &body[..body.len().min(9000)]);
                sleep(Duration::from_secs(4));
                After::Close
            }),
        ),
        (
            "http-trickle",
            "drips",
            Box::new(|request, stream, file| {
                let (head, body) = good_answer(request, file, Some("\"v1\""));
                send(stream, head.as_bytes());
                drip(stream, &body);
                After::Close
            }),
        ),
        ("http-fetch", "hangs up", Box::new(|_, _, _| After::Close)),
        (
            "http-fetch",
            "does not answer",
            Box::new(|_, _, _| {
                sleep(Duration::from_secs(4));
                After::Close
            }),
        ),
    ]
}

#[test]
fn fet_23_each_lie_has_its_word_and_ends_in_bounded_time() {
    let file = file(1);
    for (word, name, script) in liars() {
        let server = bad_data(script);
        let began = Instant::now();
        let error = fetch(&[&server], &file).map(|_| ()).unwrap_err();
        let word_of =
            if name == "hangs up" && cause(&error) == "http-ended-early" { "http-fetch" } else { cause(&error) };
        assert_eq!(word_of, word, "{name}: {error}");
        assert!(began.elapsed() < Duration::from_secs(15), "{name}: {:?}", began.elapsed());
        assert!(error.to_string().contains(&server.url), "{name}: {error}");
    }
}

#[test]
fn fet_28_each_liar_is_left_for_the_next_mirror() {
    let file = file(1);
    for (_, name, script) in liars() {
        let (bad, good) = (bad_data(script), good(&file));
        let told = fetch(&[&bad, &good], &file).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(told.notes()[0].starts_with(&bad.url), "{name}: {:?}", told.notes());
        assert!(!good.asked().is_empty(), "{name}");
        // From the good one nothing is fetched twice, but for the chunk that was found out.
        let again: u64 = good.asked().iter().filter_map(|request| request.range).map(|(start, end)| end - start).sum();
        assert!(again <= (file.len() + 2 * 64 * 1024) as u64, "{name}: {again}");
    }
}

#[test]
fn fet_28_who_served_another_version_is_not_asked_again() {
    let file = file(1);
    let other = super::http_tests::file(2);
    let bad = bad_data(move |request, stream, _| answer(request, stream, &other, Some("\"v1\"")));
    fetch(&[&bad, &good(&file)], &file).unwrap();
    // The head, and what was on its way when the first chunk was looked at.
    assert!(bad.asked().len() <= 2 + 6, "{}", bad.asked().len());
}

/// A chunk is looked at when many others have been read.
#[test]
fn fet_28_who_sent_a_chunk_is_known_long_afterwards() {
    let file = file(1);
    let other = super::http_tests::file(2);
    let bad = bad_data(move |request, stream, _| answer(request, stream, &other, Some("\"v1\"")));
    let good = good(&file);
    let (mut source, _) = open(vec![bad.url.clone(), good.url.clone()], quick(), &file).unwrap();
    let (table, mut bytes) = (chunks(&file), vec![0; 40_000]);
    // Apart from each other: each is a span of its own.
    let wanted: Vec<usize> = (0..table.len()).step_by(2).collect();
    source.plan(&table, &wanted).unwrap();
    for number in &wanted {
        source.next(*number, &table[*number], &mut bytes[..table[*number].encoded_len as usize]).unwrap();
    }
    let asked = bad.asked().len();
    source.again(0, &table[0], &mut bytes, Again::Damaged).unwrap();
    assert!(Digest::of(&bytes) == table[0].encoded_sha256);
    assert_eq!(bad.asked().len(), asked, "it is not asked again");
}

#[test]
fn fet_28_one_damaged_answer_is_fetched_once_more() {
    let file = file(1);
    let server = bad_data(|request, stream, file| {
        let (head, mut body) = good_answer(request, file, Some("\"v1\""));
        if request.number == 4 {
            body[10] ^= 1;
        }
        send(stream, head.as_bytes());
        send(stream, &body);
        After::Keep
    });
    fetch(&[&server], &file).unwrap();
}

#[test]
fn fet_24_many_servers_behind_one_name_may_mark_the_file_differently() {
    let file = file(1);
    let served = file.clone();
    let server = serve(move |request, stream| {
        let mark = format!("\"{}\"", request.number % 3);
        answer(request, stream, &served, Some(&mark))
    });
    fetch(&[&server], &file).unwrap();
}

#[test]
fn fet_20_a_head_that_breaks_off_is_read_from_the_next_mirror() {
    let file = file(1);
    let served = file.clone();
    let bad = serve(move |request, stream| match request.number {
        0 => answer(request, stream, &served, None),
        _ => After::Close,
    });
    fetch(&[&bad, &good(&file)], &file).unwrap();
    // Alone it is asked a few times, and the head goes on where it broke.
    let served = file.clone();
    let shaky = serve(move |request, stream| {
        let (head, body) = good_answer(request, &served, None);
        send(stream, head.as_bytes());
        if request.number < 3 {
            send(stream, &body[..10_000]);
            return After::Close;
        }
        send(stream, &body);
        After::Keep
    });
    let told = fetch(&[&shaky], &file).unwrap();
    assert!(told.received().unwrap() <= (file.len() + 1000) as u64, "{}", told.received().unwrap());
}

/// A head of two servers could be one of two versions: who takes over begins anew, and nothing that the first one said counts.
#[test]
fn fet_20_what_the_first_server_said_of_the_head_shuts_nobody_out() {
    let file = file(1);
    let mut other = file.clone();
    other[50] ^= 1;
    let longer = [&file[..], b"x"].concat();
    let breaks = |served: Vec<u8>, ranges: bool| {
        serve(move |request, stream| {
            let request = Request { range: request.range.filter(|_| ranges), ..request.clone() };
            let (head, body) = good_answer(&request, &served, None);
            send(stream, head.as_bytes());
            send(stream, &body[..20_000]);
            After::Close
        })
    };
    for (served, ranges) in [(other.clone(), true), (other, false), (longer.clone(), true), (longer, false)] {
        let (bad, good) = (breaks(served, ranges), good(&file));
        let told = fetch(&[&bad, &good], &file).unwrap_or_else(|error| panic!("ranges {ranges}: {error}"));
        assert_eq!(told.notes().len(), 1, "{:?}", told.notes());
        assert_eq!(good.asked()[0].range, Some((0, 32 * 1024)));
    }
}

/// What came before a server is given up counts, and none of it is lost.
#[test]
fn fet_20_a_head_that_drips_is_taken_over_whole() {
    let file = file(1);
    let served = file.clone();
    let slow = serve(move |_, stream| {
        send(stream, format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", served.len()).as_bytes());
        drip(stream, &served);
        After::Close
    });
    let told = fetch(&[&slow, &good(&file)], &file).unwrap();
    assert!(told.notes()[0].contains("sent less than"), "{:?}", told.notes());
}

#[test]
fn fet_24_a_file_of_another_length_than_its_head_says_is_refused_at_once() {
    let file = file(1);
    for len in [file.len() - 1, file.len() - 100_000] {
        let cut = file[..len].to_vec();
        let server = serve(move |request, stream| answer(request, stream, &cut, None));
        let error = open(vec![server.url.clone()], quick(), &file).map(|_| ()).unwrap_err();
        assert_eq!(cause(&error), "http-other-file", "{error}");
        assert_eq!(server.asked().len(), 2, "nothing of the data was asked for");
    }
}

/// What fails while the head is read.
#[test]
fn fet_27_an_address_that_brings_nothing_is_given_up_soon() {
    let file = file(1);
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/x", listener.local_addr().unwrap())
    };
    let one = |url: String| open(vec![url], quick(), &file).map(|_| ()).unwrap_err();
    let error = one(dead);
    assert!(cause(&error) == "http-fetch" && error.to_string().contains("(4 times)"), "{error}");
    type Raw = &'static [u8];
    let raw: [(&str, Raw); 4] = [
        ("http-status", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        ("http-redirects", b"HTTP/1.1 302 Found\r\nLocation: /image.zst\r\nContent-Length: 0\r\n\r\n"),
        ("http-redirects", b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"),
        ("http-fetch", b"220 smtp ready\r\n"),
    ];
    for (word, bytes) in raw {
        let server = serve(move |_, stream| {
            send(stream, bytes);
            if bytes.starts_with(b"HTTP") { After::Keep } else { After::Close }
        });
        let error = one(server.url.clone());
        assert_eq!(cause(&error), word, "{error}");
    }
    let endless = serve(|_, stream| {
        send(stream, b"HTTP/1.1 200 OK\r\n");
        while io::Write::write_all(stream, &b"X-Header: value\r\n".repeat(1000)).is_ok() {}
        After::Close
    });
    assert_eq!(cause(&one(endless.url.clone())), "http-fetch");
    let slow = serve(|_, stream| {
        send(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
        drip(stream, &super::http_tests::file(1)[..10_000]);
        After::Close
    });
    assert_eq!(cause(&one(slow.url.clone())), "http-trickle");
}

#[test]
fn fet_20_an_empty_file_has_no_head() {
    let server = serve(|request, stream| answer(request, stream, &[], None));
    let mut http = Http::new(vec![server.url.clone()], quick()).unwrap();
    let error = http.read_exact(&mut [0; 8]).unwrap_err();
    assert_eq!(cause(&error), "http-range", "{error}");
    let server = serve(|_, stream| {
        send(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        After::Keep
    });
    let mut http = Http::new(vec![server.url.clone()], quick()).unwrap();
    let error = http.read_exact(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
}
