//! The list of deltas beside an image, and which of them is the cheapest (FET-60 to FET-62). Lines and not JSON: nobody has signed them.

use std::io::Read;
use std::time::{Duration, Instant};

use super::client::{Settings, client};
use super::wire::{Request, follow};

/// The longest list that is read.
pub const LONGEST_LIST: usize = 64 * 1024;
/// For the whole list: without it everything goes on.
const PATIENCE: Duration = Duration::from_secs(5);
const FIRST_LINE: &str = "ralph-deltas 1";
const LONGEST_URL: usize = 2048;

/// One delta, as the list has it. Nothing of it is trusted: the delta is authenticated as any image is, and names its base itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The system id of the base.
    pub from: [u8; 32],
    /// How long the delta is said to be.
    pub bytes: u64,
    /// Its whole address.
    pub url: String,
}

/// Not a list of deltas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    /// It is longer than [`LONGEST_LIST`], or no text.
    #[error("it is no text of at most 64 KiB")]
    NoText,
    /// The first line is another.
    #[error("it does not begin with `{FIRST_LINE}`")]
    FirstLine,
    /// A line that is not `FROM BYTES URL`.
    #[error("line {0} is not a system id, a length and an address")]
    Line(usize),
}

/// The address of the list beside the image at this address.
pub fn list_address(image: &str) -> String {
    let end = image.find(['?', '#']).unwrap_or(image.len());
    format!("{}.deltas{}", &image[..end], &image[end..])
}

/// Reads a list. Addresses in it may be relative to the image's.
///
/// # Errors
/// Anything that is not exactly of the form. There is no list then, and the image itself is fetched.
pub fn parse_list(bytes: &[u8], image: &str) -> Result<Vec<Delta>, BadList> {
    if bytes.len() > LONGEST_LIST {
        return Err(BadList::NoText);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| BadList::NoText)?;
    let mut lines = text.lines().enumerate();
    if lines.next().map(|(_, line)| line) != Some(FIRST_LINE) {
        return Err(BadList::FirstLine);
    }
    lines.map(|(at, line)| delta(line, image).ok_or(BadList::Line(at + 1))).collect()
}

fn delta(line: &str, image: &str) -> Option<Delta> {
    let mut words = line.split(' ');
    let (from, bytes, url) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !bytes.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(Delta { from: digest(from)?, bytes: bytes.parse().ok()?, url: absolute(url, image)? })
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(out)
}

fn absolute(url: &str, image: &str) -> Option<String> {
    if url.is_empty() || url.len() > LONGEST_URL || !url.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    if let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) {
        // A file of some name, so that mirrors may have it, too.
        let path = rest.split(['?', '#']).next()?;
        return path.rsplit_once('/').filter(|(_, name)| !name.is_empty()).map(|_| url.to_owned());
    }
    // A plain name beside the image, or in a folder there.
    let odd =
        url.contains(['?', '#', ':', '\\']) || url.split('/').any(|part| part.is_empty() || part.starts_with('.'));
    let path = image.split(['?', '#']).next()?;
    let folder = path.split_once("://").filter(|(_, rest)| rest.contains('/')).and(path.rsplit_once('/'))?.0;
    (!odd).then(|| format!("{folder}/{url}"))
}

/// Asks for the list beside an image, once and in a few seconds. That there is none, or that nobody answers, is an empty list.
///
/// # Errors
/// There is something, and it is no list.
pub fn fetch_list(image: &str, settings: &Settings) -> Result<Vec<Delta>, BadList> {
    let Some(bytes) = ask(&list_address(image), settings) else { return Ok(Vec::new()) };
    parse_list(&bytes, image)
}

fn ask(url: &str, settings: &Settings) -> Option<Vec<u8>> {
    let proxy = settings.proxy.choose(url, |name| std::env::var(name).ok()).ok()?;
    let agent = ureq::Agent::new_with_config(client(settings.patience, proxy, 1));
    let end = Instant::now() + PATIENCE;
    let request = |request: Request| {
        let left = end.saturating_duration_since(Instant::now());
        request.config().timeout_global(Some(left)).build()
    };
    let (_, answer) = follow(&agent, url, request).ok().filter(|(_, answer)| answer.status().as_u16() == 200)?;
    let mut bytes = Vec::new();
    let mut body = answer.into_body().into_reader().take(LONGEST_LIST as u64 + 1);
    body.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The shortest delta from a system that is here, if it is shorter than what the image itself would cost.
pub fn cheapest<'l>(list: &'l [Delta], here: &[[u8; 32]], full: u64) -> Option<&'l Delta> {
    list.iter().filter(|delta| here.contains(&delta.from) && delta.bytes < full).min_by_key(|delta| delta.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IMAGE: &str = "https://me:pw@updates.example/x/v3.zst?token=1";

    fn line(what: u8, bytes: u64, url: &str) -> String {
        format!("{} {bytes} {url}\n", format!("{what:02x}").repeat(32))
    }

    fn list(lines: &[String]) -> Result<Vec<Delta>, BadList> {
        parse_list(format!("ralph-deltas 1\n{}", lines.concat()).as_bytes(), IMAGE)
    }

    #[test]
    fn fet_61_the_shortest_from_what_is_here_is_taken() {
        let deltas = list(&[
            line(1, 900, "v1-v3.zst"),
            line(2, 100, "http://cdn.example/v2-v3.zst"),
            line(2, 90, "d/v2-v3-new.zst"),
        ]);
        let deltas = deltas.unwrap();
        assert_eq!(deltas[0].url, "https://me:pw@updates.example/x/v1-v3.zst");
        let chosen = |here: &[u8], full| {
            let here: Vec<[u8; 32]> = here.iter().map(|what| [*what; 32]).collect();
            cheapest(&deltas, &here, full).map(|delta| delta.bytes)
        };
        assert_eq!(chosen(&[1], 5000), Some(900));
        assert_eq!(chosen(&[1, 2], 5000), Some(90));
        assert_eq!(chosen(&[1], 800), None, "the image itself is cheaper");
        assert_eq!(chosen(&[3], 5000), None);
        assert_eq!(deltas[2].url, "https://me:pw@updates.example/x/d/v2-v3-new.zst");
    }

    #[test]
    fn fet_60_the_list_stands_beside_the_image() {
        assert_eq!(list_address(IMAGE), "https://me:pw@updates.example/x/v3.zst.deltas?token=1");
        assert_eq!(list_address("http://a/v3.zst"), "http://a/v3.zst.deltas");
    }

    #[test]
    fn fet_60_what_is_not_of_the_form_is_no_list() {
        assert_eq!(list(&[]), Ok(vec![]));
        assert_eq!(parse_list(b"", IMAGE), Err(BadList::FirstLine));
        assert_eq!(parse_list(b"ralph-deltas 2\n", IMAGE), Err(BadList::FirstLine));
        assert_eq!(parse_list(&[0xFF; 10], IMAGE), Err(BadList::NoText));
        assert_eq!(parse_list(&vec![b'\n'; LONGEST_LIST + 1], IMAGE), Err(BadList::NoText));
        for url in ["/etc/x", "../x", "file:///x", "a//b", "x?y", ".x", "", "http://x", "https://x/", "http://x/a/?b"] {
            assert_eq!(list(&[line(1, 1, url)]), Err(BadList::Line(2)), "{url}");
        }
        assert_eq!(list(&[line(1, 1, "a b")]), Err(BadList::Line(2)));
        assert_eq!(list(&[line(1, 1, "a"), line(1, 1, "a").replace(" 1 ", " +1 ")]), Err(BadList::Line(3)));
        assert_eq!(list(&[line(1, 1, "a").replace("01", "0G")]), Err(BadList::Line(2)));
    }

    proptest! {
        #[test]
        fn fet_60_no_list_leads_out_of_http(text in "(ralph-deltas 1\n)?([0-9a-f]{64} [0-9]{1,5} [ -~]{0,20}\n){0,3}|\\PC*") {
            for delta in parse_list(text.as_bytes(), IMAGE).unwrap_or_default() {
                prop_assert!(delta.url.starts_with("http://") || delta.url.starts_with("https://"));
                prop_assert!(delta.url.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
