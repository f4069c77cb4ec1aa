//! Hostile HTTP servers (THR-9): each is given up in bounded time, and what it sent counts for no more than any file's bytes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use updater::apply::Outcome;
use updater::config::Policy;
use updater::fetch::{Patience, Proxying, Retry, Settings};
use updater::progress::Silent;
use updater::source::Source;
use updater::stop::Stop;

use crate::lab::{Lab, good_spec, specification};
use crate::parts::{Parts, Plain, key, trust};

/// With servers that let us wait: each of these waits is one of the test's.
const HURRIED: Patience = Patience { stall: Duration::from_millis(1500), least: 4000 };
/// With those that stop: as long as anything has come they are not slow, so that there is one thing to say of them.
const STOPPED: Patience = Patience { stall: Duration::from_millis(1500), least: 1 };
/// With those that do something else wrong: a busy machine must not look like one of the others.
const CALM: Patience = Patience { stall: Duration::from_secs(15), least: 4000 };
const RETRY: Retry = Retry {
    first: Duration::from_millis(10),
    longest: Duration::from_millis(20),
    rounds: 2,
    dry: Duration::from_secs(10),
};
/// A server is given up when it was silent twice, or slow for a few stretches; the rest is this machine being busy.
const GIVEN_UP: Duration = Duration::from_secs(20);

/// What a server does with a connection: its number from 0, the head of the request, and the stream.
type Script = dyn Fn(usize, &str, &mut TcpStream) + Send + Sync;

struct Server {
    url: String,
    /// The heads of the requests that came.
    asked: Arc<Mutex<Vec<String>>>,
}

fn serve(script: impl Fn(usize, &str, &mut TcpStream) + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/image.zst", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let heads = Arc::clone(&asked);
    let script: Arc<Script> = Arc::new(script);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (mut stream, heads, script) = (stream.unwrap(), Arc::clone(&heads), Arc::clone(&script));
            thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let head = head.join("\n").to_ascii_lowercase();
                heads.lock().unwrap().push(head.clone());
                script(number, &head, &mut stream);
                let _ = stream.shutdown(Shutdown::Both);
            });
        }
    });
    Server { url, asked }
}

/// Whoever asked may be gone by now. Answers must say that the connection ends with them: a client that would ask again over it finds out
/// only when it does.
fn send(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

fn ok(length: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").into_bytes()
}

/// One piece after the other, for ten seconds at most.
fn drip(stream: &mut TcpStream, bytes: &[u8], piece: usize, pause: u64) {
    let began = Instant::now();
    for piece in bytes.chunks(piece) {
        if stream.write_all(piece).is_err() || began.elapsed() > Duration::from_secs(10) {
            return;
        }
        sleep(Duration::from_millis(pause));
    }
}

fn apply(lab: &Lab, url: &str, patience: Patience) -> anyhow::Result<Outcome> {
    apply_from(lab, url, Vec::new(), patience)
}

fn apply_from(lab: &Lab, url: &str, mirrors: Vec<String>, patience: Patience) -> anyhow::Result<Outcome> {
    let settings =
        Settings { patience, opening: RETRY, fetching: RETRY, proxy: Proxying::Direct, ..Settings::default() };
    let stream = Source::Url(url.to_owned()).open_with(mirrors, settings, &Stop::default())?;
    lab.apply_from(stream.reader, &trust(&[1], 1), &Policy::default(), &mut Silent)
}

/// What the server is called in the rule book, how the apply ends, how long we wait for it, and the server.
fn hostile(image: &[u8]) -> Vec<(&'static str, &'static str, Patience, Server)> {
    let head = image.len() - Parts::of(image).data.len();
    let with = |script: &dyn Fn(Vec<u8>) -> Server| script(image.to_vec());
    vec![
        (
            "promises more than it sends",
            "source/http-other-file",
            CALM,
            with(&|image| serve(move |_, _, stream| send(stream, &[ok(image.len() + 100), image.clone()].concat()))),
        ),
        (
            "promises less than the image",
            "source/http-other-file",
            CALM,
            with(&|image| serve(move |_, _, stream| send(stream, &[ok(image.len() - 100), image.clone()].concat()))),
        ),
        (
            "sends more than the image",
            "source/http-other-file",
            CALM,
            with(&|image| {
                serve(move |_, _, stream| send(stream, &[ok(image.len() + 1), image.clone(), vec![0]].concat()))
            }),
        ),
        (
            "never ends",
            "not-an-image/no-frame",
            CALM,
            with(&|_| {
                serve(|_, _, stream| {
                    send(stream, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
                    while stream.write_all(&[0; 65536]).is_ok() {}
                })
            }),
        ),
        (
            "never ends behind the image",
            "fenced/trailing-data",
            CALM,
            with(&|image| {
                serve(move |_, _, stream| {
                    send(stream, &[b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", &image[..]].concat());
                    while stream.write_all(&[0; 65536]).is_ok() {}
                })
            }),
        ),
        (
            "breaks off within the head",
            "source/http-ended-early",
            CALM,
            with(&|image| {
                serve(move |_, _, stream| send(stream, &[ok(image.len()), image[..head - 10].to_vec()].concat()))
            }),
        ),
        (
            "breaks off and would send another file then",
            "fenced/http-other-bytes",
            CALM,
            with(&|image| {
                serve(move |number, _, stream| match number {
                    0 => send(stream, &[ok(image.len()), image[..head + 5000].to_vec()].concat()),
                    _ => send(stream, &[ok(image.len()), vec![7; image.len()]].concat()),
                })
            }),
        ),
        ("does not answer", "source/http-fetch", HURRIED, with(&|_| serve(|_, _, _| sleep(Duration::from_secs(10))))),
        (
            "drips its answer's head",
            "source/http-fetch",
            HURRIED,
            with(&|_| {
                serve(|_, _, stream| drip(stream, &[b"HTTP/1.1 200 OK\r\nX: ", &[b'a'; 1000][..]].concat(), 1, 50))
            }),
        ),
        (
            "sends headers without end",
            "source/http-fetch",
            CALM,
            with(&|_| {
                serve(|_, _, stream| {
                    send(stream, b"HTTP/1.1 200 OK\r\n");
                    while stream.write_all(&b"X-Header: value\r\n".repeat(1000)).is_ok() {}
                })
            }),
        ),
        (
            "speaks something else",
            "source/http-fetch",
            CALM,
            with(&|_| serve(|_, _, stream| send(stream, b"220 smtp ready\r\n"))),
        ),
        (
            "stalls within the head",
            "source/http-silent",
            STOPPED,
            with(&|image| {
                serve(move |_, _, stream| {
                    send(stream, &[ok(image.len()), image[..100].to_vec()].concat());
                    sleep(Duration::from_secs(10));
                })
            }),
        ),
        (
            "stalls within the data",
            "fenced/http-silent",
            STOPPED,
            with(&|image| {
                serve(move |_, _, stream| {
                    send(stream, &[ok(image.len()), image[..head + 5000].to_vec()].concat());
                    sleep(Duration::from_secs(10));
                })
            }),
        ),
        (
            "drips the head",
            "source/http-trickle",
            HURRIED,
            with(&|image| {
                serve(move |_, _, stream| {
                    send(stream, &ok(image.len()));
                    drip(stream, &image, 10, 100);
                })
            }),
        ),
        (
            "drips the data",
            "fenced/http-trickle",
            HURRIED,
            with(&|image| {
                serve(move |_, _, stream| {
                    send(stream, &[ok(image.len()), image[..head + 5000].to_vec()].concat());
                    drip(stream, &image[head + 5000..], 10, 100);
                })
            }),
        ),
        (
            "has no such file",
            "source/http-status",
            CALM,
            with(&|_| {
                serve(|_, _, stream| {
                    send(stream, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                })
            }),
        ),
        (
            "answers with a part that nobody asked for",
            "source/http-range",
            CALM,
            with(&|image| {
                serve(move |_, _, stream| {
                    send(
                        stream,
                        format!(
                            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                            image.len()
                        )
                        .as_bytes(),
                    );
                    send(stream, &image);
                })
            }),
        ),
        (
            "redirects in a circle",
            "source/http-redirects",
            CALM,
            with(&|_| {
                serve(|_, _, stream| {
                    send(
                        stream,
                        b"HTTP/1.1 302 Found\r\nLocation: /image.zst\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                    )
                })
            }),
        ),
        (
            "redirects to a file of this machine",
            "source/http-redirects",
            CALM,
            with(&|_| {
                serve(|_, _, stream| {
                    send(stream, b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                })
            }),
        ),
    ]
}

fn image() -> Vec<u8> {
    // A root that fills some blocks of the network, so that a server can stop within it.
    Plain { root: crate::parts::program_like(40 * 4096, 5), ..Plain::small() }.build(&good_spec(), &[key(1)])
}

#[test]
fn thr_9_hostile_servers_are_given_up_and_change_nothing() {
    let lab = Lab::new();
    for (name, expected, patience, server) in hostile(&image()) {
        println!("a server that {name}");
        let began = Instant::now();
        let ending = lab.ending(name, apply(&lab, &server.url, patience));
        assert!(began.elapsed() < GIVEN_UP, "{name}: {:?}", began.elapsed());
        assert_eq!(ending.told(), expected, "{name}");
        assert_eq!(ending.exit, if ending.reason == "not-an-image" { 3 } else { 1 }, "{name}");
        let asked = server.asked.lock().unwrap().len();
        assert!(asked <= 16, "{name}: asked {asked} times");
    }
}

/// Nobody is left with a bad server who has a good one.
#[test]
fn fet_28_a_mirror_ends_what_another_server_began() {
    let lab = Lab::new();
    for (name, _, patience, server) in hostile(&image()) {
        // All of its chunks are the image's.
        if name == "never ends behind the image" {
            continue;
        }
        println!("a server that {name}, and a good one");
        let good = {
            let image = image();
            serve(move |_, _, stream| send(stream, &[ok(image.len()), image.clone()].concat()))
        };
        let applied = apply_from(&lab, &server.url, vec![good.url.clone()], patience);
        let applied = applied.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert!(matches!(applied, Outcome::Staged(_)), "{name}: {applied:?}");
        lab.put_back();
    }
}

/// A server that always sends this.
fn sends(file: Vec<u8>) -> Server {
    serve(move |_, _, stream| send(stream, &[ok(file.len()), file.clone()].concat()))
}

/// Whole files with a head of no use: what each is refused for is what is told when nobody has a better one.
#[test]
fn fet_28_a_head_of_no_use_keeps_nobody_from_the_mirrors() {
    let lab = Lab::new();
    let image = image();
    let untrusted = || sends(Plain::small().build(&good_spec(), &[key(9)]));
    let far = untrusted();
    let redirects = move |target: String| {
        serve(move |_, _, stream| {
            let answer =
                format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            send(stream, answer.as_bytes());
        })
    };
    let bad = [
        ("untrusted/unknown-key", untrusted()),
        ("not-an-image/no-frame", sends(vec![7; image.len()])),
        ("not-an-image/truncated", sends(image[..100].to_vec())),
        ("untrusted/unknown-key", redirects(far.url.clone())),
    ];
    for (expected, server) in &bad {
        let ending = lab.ending(expected, apply(&lab, &server.url, CALM));
        assert_eq!(ending.told(), *expected);
        let asked = server.asked.lock().unwrap().len();
        assert!(asked <= 2, "{expected}: asked {asked} times");
    }
    let good = sends(image);
    let mut mirrors: Vec<String> = bad.iter().skip(1).map(|(_, server)| server.url.clone()).collect();
    mirrors.push(good.url.clone());
    let applied = apply_from(&lab, &bad[0].1.url, mirrors.clone(), CALM).unwrap();
    assert!(matches!(applied, Outcome::Staged(_)), "{applied:?}");
    lab.put_back();
    // The first one's fault is told, and not the last one's; and what all others did.
    mirrors.pop();
    let result = apply_from(&lab, &bad[0].1.url, mirrors.clone(), CALM);
    let message = format!("{:#}", result.as_ref().unwrap_err());
    for url in mirrors.iter().chain([&bad[0].1.url]) {
        assert!(message.contains(url.as_str()), "{message}");
    }
    let ending = lab.ending("nobody has it", result);
    assert_eq!(ending.told(), bad[0].0);
    // Somebody who may have it later.
    let down =
        serve(|_, _, stream| send(stream, b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    let ending = lab.ending("one is down", apply_from(&lab, &bad[0].1.url, vec![down.url], CALM));
    assert_eq!((ending.exit, ending.told()), (1, "source/unknown-key".to_owned()));
}

/// A redirect may be tried again, but not for ever.
#[test]
fn thr_9_nobody_is_sent_round_in_circles_by_heads_of_no_use() {
    let lab = Lab::new();
    let image = image();
    let junk = vec![7; image.len()];
    let far = serve(move |number, _, stream| match number % 2 {
        0 => send(stream, &[ok(image.len()), image[..100].to_vec()].concat()),
        _ => send(stream, &[ok(junk.len()), junk.clone()].concat()),
    });
    let target = far.url.clone();
    let near = serve(move |_, _, stream| {
        let answer =
            format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        send(stream, answer.as_bytes());
    });
    let ending = lab.ending("sends us round", apply(&lab, &near.url, CALM));
    assert_eq!(ending.told(), "not-an-image/no-frame");
    assert!(near.asked.lock().unwrap().len() <= 4 && far.asked.lock().unwrap().len() <= 4);
}

/// The same servers, and the patience of a real machine.
#[test]
fn upd_9_a_signal_ends_every_wait_for_a_server() {
    let lab = Lab::new();
    let image = image();
    let head = image.len() - Parts::of(&image).data.len();
    for (waits, sent, expected) in [
        ("for an answer", None, "interrupted/interrupted"),
        ("within the head", Some(100), "interrupted/interrupted"),
        ("within the data", Some(head + 5000), "fenced/interrupted"),
    ] {
        let (image, stop) = (image.clone(), Stop::default());
        let asks = stop.clone();
        let server = serve(move |_, _, stream| {
            if let Some(sent) = sent {
                send(stream, &[ok(image.len()), image[..sent].to_vec()].concat());
            }
            sleep(Duration::from_millis(500));
            asks.ask();
            sleep(Duration::from_secs(30));
        });
        let settings = Settings { proxy: Proxying::Direct, ..Settings::default() };
        let began = Instant::now();
        let stream = Source::Url(server.url.clone()).open_with(Vec::new(), settings, &stop).unwrap();
        let applied = lab.apply_until(stream.reader, &trust(&[1], 1), &Policy::default(), &mut Silent, &stop);
        assert!(began.elapsed() < GIVEN_UP, "{waits}: {:?}", began.elapsed());
        assert_eq!(lab.ending(waits, applied).told(), expected, "{waits}");
        assert_eq!(server.asked.lock().unwrap().len(), 1, "{waits}: nobody is asked any more");
    }
}

/// Parts of two files are never taken for one: the second apply takes the other file from its beginning, or nothing.
#[test]
fn thr_9_a_second_try_mixes_no_two_files() {
    let lab = Lab::new();
    let first = image();
    let second =
        Plain::small().build(&image_format::ImageSpec { version: "5.0.0".to_owned(), ..good_spec() }, &[key(1)]);
    let server = serve(move |number, _, stream| match number {
        0 => send(stream, &[ok(first.len()), first[..first.len() / 2].to_vec()].concat()),
        _ => send(stream, &[ok(second.len()), second.clone()].concat()),
    });
    assert!(apply(&lab, &server.url, CALM).is_err());
    let Outcome::Staged(summary) = apply(&lab, &server.url, CALM).unwrap() else { panic!("not staged") };
    assert_eq!(summary.entry.os_version(), "5.0.0");
}

#[test]
fn thr_9_the_table_in_the_rule_book_is_this_one() {
    let text = specification("threat-model.md");
    let rows: BTreeMap<&str, String> = text
        .lines()
        .skip_while(|line| !line.starts_with("| a server that | reason/cause |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            (cells.next().unwrap(), cells.next().unwrap().replace('`', ""))
        })
        .collect();
    let ours: BTreeMap<&str, String> =
        hostile(&image()).into_iter().map(|(name, expected, ..)| (name, expected.to_owned())).collect();
    assert_eq!(rows, ours);
}
