//! Fetching from real (if small) HTTP servers, good and bad ones. Bad ones one by one are in `bad_server_tests.rs`.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use image_format::{Again, Chunk, ChunkSource, Digest, Passage};

use super::server::{After, Request, Server, answer, good_answer, proxy, send, serve};
use super::*;

pub(super) const HEAD: usize = 50_000;
const CHUNK: usize = 40_000;
const CHUNKS: usize = 30;

pub(super) fn quick() -> Settings {
    let retry = Retry {
        first: Duration::from_millis(10),
        longest: Duration::from_millis(40),
        rounds: 4,
        dry: Duration::from_secs(20),
    };
    Settings {
        patience: Patience { stall: Duration::from_millis(500), least: 4000 },
        opening: retry,
        fetching: retry,
        proxy: Proxying::Direct,
        limit: Limit::default(),
        connections: 3,
        piece: 64 * 1024,
        window: 4,
    }
}

/// A file that looks like an image as far as the network goes: a head, and chunks behind it.
pub(super) fn file(version: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..HEAD + CHUNK * CHUNKS).map(|at| (at / 7 + at / 4096) as u8 ^ version).collect();
    // Three small frames and a long one.
    let mut at = 0;
    for len in [100, 100, 100, HEAD - 4 * 8 - 300] {
        bytes[at + 4..at + 8].copy_from_slice(&(len as u32).to_le_bytes());
        at += 8 + len;
    }
    assert_eq!(at, HEAD);
    bytes
}

pub(super) fn chunks(file: &[u8]) -> Vec<Chunk> {
    let data = &file[HEAD..];
    let chunk = |(at, bytes): (usize, &[u8])| Chunk {
        payload: 0,
        encoding: image_format::Encoding::Zstd,
        plain_len: 1 << 20,
        plain_offset: (at as u64) << 20,
        encoded_offset: (at * CHUNK) as u64,
        encoded_len: bytes.len() as u32,
        plain_sha256: Digest::of(b""),
        encoded_sha256: Digest::of(bytes),
    };
    data.chunks(CHUNK).enumerate().map(chunk).collect()
}

/// Reads the head, and gives the rest.
pub(super) fn open(urls: Vec<String>, settings: Settings, file: &[u8]) -> io::Result<(HttpChunks, Told)> {
    let mut http = Http::new(urls, settings).unwrap();
    let told = http.told();
    let mut head = vec![0; HEAD];
    http.read_exact(&mut head)?;
    assert!(head == file[..HEAD], "the head is another");
    Ok((HttpChunks::new(http, HEAD as u64, file.len() as u64)?, told))
}

/// Takes the wanted chunks as the pipeline does: each is checked, and a damaged one is asked for again.
pub(super) fn take(source: &mut HttpChunks, file: &[u8], wanted: &[usize]) -> io::Result<()> {
    let table = chunks(file);
    let passage = source.plan(&table, wanted)?;
    let all: Vec<usize> = (0..table.len()).collect();
    for number in if passage == Passage::Everything { &all } else { wanted } {
        let chunk = &table[*number];
        let mut bytes = vec![0; chunk.encoded_len as usize];
        source.next(*number, chunk, &mut bytes)?;
        let mut tries = 0;
        while Digest::of(&bytes) != chunk.encoded_sha256 {
            source.again(*number, chunk, &mut bytes, Again::Damaged)?;
            tries += 1;
            assert!(tries < 8);
        }
    }
    assert!(source.at_end()?);
    Ok(())
}

/// All of it, from these servers.
pub(super) fn fetch(servers: &[&Server], file: &[u8]) -> io::Result<Told> {
    let urls = servers.iter().map(|server| server.url.clone()).collect();
    let (mut source, told) = open(urls, quick(), file)?;
    take(&mut source, file, &(0..CHUNKS).collect::<Vec<_>>())?;
    Ok(told)
}

/// The stable word of what ended it.
pub(super) fn cause(error: &io::Error) -> &'static str {
    error.get_ref().and_then(|inside| inside.downcast_ref::<FetchError>()).map_or("none", FetchError::cause)
}

pub(super) fn good(file: &[u8]) -> Server {
    let file = file.to_vec();
    serve(move |request, stream| answer(request, stream, &file, Some("\"v1\"")))
}

#[test]
fn fet_22_all_of_it_over_few_connections() {
    let file = file(1);
    let server = good(&file);
    let told = fetch(&[&server], &file).unwrap();
    let asked = server.asked();
    assert!(asked.iter().all(|request| request.range.is_some()), "{asked:?}");
    assert!(asked.iter().map(|request| request.connection).max().unwrap() <= 3, "connections are kept");
    // The first request asks for a little of what may not be wanted.
    assert!(
        (file.len() as u64..=file.len() as u64 + 32 * 1024).contains(&told.received().unwrap()),
        "{}",
        told.received().unwrap()
    );
    assert!(told.notes().is_empty());
    assert!(asked[2..].iter().all(|request| request.if_range.as_deref() == Some("\"v1\"")), "FET-24");
}

#[test]
fn fet_20_the_head_takes_two_requests() {
    let file = file(1);
    let server = good(&file);
    open(vec![server.url.clone()], quick(), &file).unwrap();
    let ranges: Vec<_> = server.asked().iter().map(|request| request.range.unwrap()).collect();
    assert_eq!(ranges, [(0, 32 * 1024), (32 * 1024, HEAD as u64)]);
}

#[test]
fn fet_21_only_what_is_wanted() {
    let file = file(1);
    let server = good(&file);
    let (mut source, told) = open(vec![server.url.clone()], quick(), &file).unwrap();
    take(&mut source, &file, &[3, 4, 5, 17, 29]).unwrap();
    assert_eq!(told.received().unwrap(), (HEAD + 5 * CHUNK) as u64);
    let asked: Vec<_> = server.asked()[2..].iter().map(|request| request.range.unwrap()).collect();
    assert!(asked.iter().all(|(start, end)| end - start <= 64 * 1024));
    assert_eq!(asked.len(), 4, "{asked:?}");
}

#[test]
fn fet_21_a_missing_chunk_comes_out_of_order() {
    let file = file(1);
    let server = good(&file);
    let (mut source, _) = open(vec![server.url.clone()], quick(), &file).unwrap();
    let table = chunks(&file);
    source.plan(&table, &[10, 20]).unwrap();
    let mut bytes = vec![0; CHUNK];
    for (number, planned) in [(10, true), (2, false), (29, false), (20, true)] {
        match planned {
            true => source.next(number, &table[number], &mut bytes).unwrap(),
            false => source.again(number, &table[number], &mut bytes, Again::Missing).unwrap(),
        }
        assert!(Digest::of(&bytes) == table[number].encoded_sha256, "{number}");
    }
}

#[test]
fn fet_22_no_more_is_asked_for_than_memory_allows() {
    let file = file(1);
    let server = good(&file);
    let (mut source, told) = open(vec![server.url.clone()], quick(), &file).unwrap();
    source.plan(&chunks(&file), &(0..CHUNKS).collect::<Vec<_>>()).unwrap();
    // A reader that is busy with something else.
    std::thread::sleep(Duration::from_millis(400));
    assert!(server.asked().len() <= 2 + 4, "{}", server.asked().len());
    assert!(told.received().unwrap() <= HEAD as u64 + 4 * 64 * 1024);
    let before = server.asked().len();
    let mut bytes = vec![0; CHUNK];
    for (number, chunk) in chunks(&file).iter().enumerate() {
        source.next(number, chunk, &mut bytes).unwrap();
    }
    assert!(server.asked().len() > before);
}

fn no_ranges(file: Vec<u8>, chunked: bool) -> Server {
    serve(move |_, stream| {
        if chunked {
            send(stream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for part in file.chunks(10_000) {
                send(stream, &[format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
            }
            send(stream, b"0\r\n\r\n");
        } else {
            send(stream, format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.len()).as_bytes());
            send(stream, &file);
        }
        After::Keep
    })
}

#[test]
fn fet_25_a_server_without_ranges_is_a_stream_over_one_connection() {
    let file = file(1);
    for chunked in [false, true] {
        let server = no_ranges(file.clone(), chunked);
        let told = fetch(&[&server], &file).unwrap();
        assert_eq!(server.asked().len(), 1, "the head is the front of the same answer");
        assert_eq!(told.received().unwrap(), file.len() as u64);
    }
}

/// As `verify` takes them.
#[test]
fn fet_25_chunks_that_nobody_planned_come_all_the_same() {
    let file = file(1);
    for server in [good(&file), no_ranges(file.clone(), false), no_ranges(file.clone(), true)] {
        let (mut source, _) = open(vec![server.url.clone()], quick(), &file).unwrap();
        let mut bytes = vec![0; CHUNK];
        for (number, chunk) in chunks(&file).iter().enumerate() {
            source.next(number, chunk, &mut bytes).unwrap();
            assert!(Digest::of(&bytes) == chunk.encoded_sha256, "{number}");
        }
        assert!(source.at_end().unwrap());
        assert!(server.asked().len() == 1 || server.asked()[0].range.is_some());
    }
}

#[test]
fn fet_25_something_behind_a_stream_is_noticed() {
    let file = file(1);
    let server = no_ranges([&file[..], b"x"].concat(), true);
    let (mut source, _) = open(vec![server.url.clone()], quick(), &file).unwrap();
    let table = chunks(&file);
    assert_eq!(source.plan(&table, &[]).unwrap(), Passage::Everything);
    let mut bytes = vec![0; CHUNK];
    for (number, chunk) in table.iter().enumerate() {
        source.next(number, chunk, &mut bytes).unwrap();
    }
    assert!(!source.at_end().unwrap());
}

#[test]
fn fet_25_a_stream_that_breaks_off_is_read_again_from_its_beginning() {
    let file = file(1);
    let served = file.clone();
    let server = serve(move |request, stream| {
        send(stream, format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", served.len()).as_bytes());
        let most = if request.number == 0 { HEAD + 400_000 } else { served.len() };
        send(stream, &served[..most]);
        After::Close
    });
    let told = fetch(&[&server], &file).unwrap();
    assert_eq!(server.asked().len(), 2);
    assert!(told.notes()[0].contains("ended early"), "{:?}", told.notes());
}

#[test]
fn fet_25_a_server_that_stops_serving_ranges() {
    let file = file(1);
    let served = file.clone();
    let server = serve(move |request, stream| match request.number {
        0..6 => answer(request, stream, &served, None),
        _ => answer(&Request { range: None, ..request.clone() }, stream, &served, None),
    });
    fetch(&[&server], &file).unwrap();
}

#[test]
fn fet_27_a_connection_that_breaks_is_taken_up_where_it_broke() {
    let file = file(1);
    let served = file.clone();
    let server = serve(move |request, stream| {
        let (head, body) = good_answer(request, &served, Some("\"v1\""));
        send(stream, head.as_bytes());
        // Every other answer ends in its middle.
        if request.number % 2 == 1 {
            send(stream, &body[..body.len() / 2]);
            return After::Close;
        }
        send(stream, &body);
        After::Keep
    });
    let told = fetch(&[&server], &file).unwrap();
    assert!(told.received().unwrap() < (file.len() + 40_000) as u64, "{} of {}", told.received().unwrap(), file.len());
    assert!(told.notes()[0].contains("ended early"), "{:?}", told.notes());
}

#[test]
fn fet_27_a_busy_server_is_asked_again() {
    let file = file(1);
    let served = file.clone();
    let server = serve(move |request, stream| match request.number % 4 {
        2 | 3 => {
            send(stream, b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nbusy");
            After::Keep
        }
        _ => answer(request, stream, &served, None),
    });
    fetch(&[&server], &file).unwrap();
}

#[test]
fn fet_30_a_redirect_is_followed_once_and_again_when_it_went_stale() {
    let file = file(1);
    let served = file.clone();
    let server = serve(move |request, stream| {
        if request.path == "/image.zst" {
            let to = format!("HTTP/1.1 302 Found\r\nLocation: /signed/{}\r\nContent-Length: 0\r\n\r\n", request.number);
            send(stream, to.as_bytes());
            return After::Keep;
        }
        // What the redirect leads to is good for six requests.
        let since: usize = request.path.rsplit('/').next().unwrap().parse().unwrap();
        if request.number > since + 6 {
            send(stream, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
            return After::Keep;
        }
        answer(request, stream, &served, None)
    });
    fetch(&[&server], &file).unwrap();
    let asked = server.asked();
    let redirects = asked.iter().filter(|request| request.path == "/image.zst").count();
    assert!(redirects >= 2 && redirects < asked.len() / 2, "{redirects} of {}", asked.len());
}

/// FET-30: not only where it does not answer any more. One failure that counts would end this.
#[test]
fn fet_30_where_a_redirect_led_fails_before_the_address_does() {
    let file = file(1);
    let served = file.clone();
    let server = serve(move |request, stream| match (request.path.as_str(), request.number) {
        ("/image.zst", 0) => {
            send(stream, b"HTTP/1.1 302 Found\r\nLocation: /old\r\nContent-Length: 0\r\n\r\n");
            After::Keep
        }
        ("/old", 1..=2) | ("/image.zst", _) => answer(request, stream, &served, None),
        _ => {
            let (head, body) = good_answer(request, &served, None);
            send(stream, head.as_bytes());
            send(stream, &body[..100]);
            After::Close
        }
    });
    let once = Retry { rounds: 1, ..quick().fetching };
    let settings = Settings { fetching: once, ..quick() };
    let (mut source, told) = open(vec![server.url.clone()], settings, &file).unwrap();
    take(&mut source, &file, &[3, 4, 5, 20]).unwrap();
    assert!(told.notes().is_empty(), "{:?}", told.notes());
}

#[test]
fn fet_25_a_stream_that_breaks_off_behind_its_last_byte_has_ended() {
    let file = file(1);
    let served = file.clone();
    let server = serve(move |_, stream| {
        send(stream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        send(stream, &[format!("{:x}\r\n", served.len()).as_bytes(), &served, b"\r\n"].concat());
        After::Close
    });
    fetch(&[&server], &file).unwrap();
}

#[test]
fn fet_29_through_a_proxy() {
    let file = file(1);
    let server = good(&file);
    let through = proxy(Some("bWU6cHc="));
    let settings = |credentials: &str| Settings {
        proxy: Proxying::from_config(&format!("http://{credentials}{}", through.address)).unwrap(),
        ..quick()
    };
    // A name that only the proxy could look up is not resolved here: the address goes to the proxy as it stands.
    let (mut source, _) = open(vec![server.url.clone()], settings("me:pw@"), &file).unwrap();
    take(&mut source, &file, &[1, 20]).unwrap();
    let host = server.url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let tunnels = through.tunnels.lock().unwrap().clone();
    assert!(!tunnels.is_empty() && tunnels.iter().all(|target| target == host), "{tunnels:?}");
    let error = open(vec![server.url.clone()], settings("me:wrong@"), &file).err().unwrap();
    assert_eq!(cause(&error), "http-fetch", "{error}");
    assert!(error.to_string().contains("407") && !error.to_string().contains("wrong@"), "{error}");
}

#[test]
fn fet_50_no_faster_than_allowed() {
    let file = file(1);
    let server = good(&file);
    let settings = Settings { limit: Limit::new(Some("2M".parse().unwrap())), ..quick() };
    let began = Instant::now();
    let (mut source, _) = open(vec![server.url.clone()], settings, &file).unwrap();
    take(&mut source, &file, &(0..CHUNKS).collect::<Vec<_>>()).unwrap();
    // 1.25 MB at 2 MiB a second.
    assert!(began.elapsed() > Duration::from_millis(450), "{:?}", began.elapsed());
}

#[test]
fn dropping_a_source_ends_its_connections() {
    let file = file(1);
    let served = file.clone();
    let (told_end, ended) = std::sync::mpsc::channel();
    let server = serve(move |request, stream| {
        if request.number < 2 {
            return answer(request, stream, &served, None);
        }
        send(stream, b"HTTP/1.1 206 Partial Content\r\nContent-Length: 65536\r\n");
        let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
        let _ = told_end.send(matches!(stream.read(&mut [0]), Ok(0)));
        After::Close
    });
    let settings =
        Settings { patience: Patience { stall: Duration::from_secs(15), least: 1 }, connections: 1, ..quick() };
    let (mut source, _) = open(vec![server.url.clone()], settings, &file).unwrap();
    source.plan(&chunks(&file), &[0, 1]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    drop(source);
    assert!(ended.recv_timeout(Duration::from_secs(5)).unwrap(), "the server sees the end");
}
