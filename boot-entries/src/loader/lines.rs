//! The loader's reading of `key value` lines, in entries and in loader.conf.

/// Key and value of every line that has both and is no comment.
///
/// As the loader does it: lines end at LF or CR, the text ends at a NUL, white space (space, tab) around a line is
/// dropped, `#` as the first character behind it begins a comment, any white space separates key and value, and a value
/// in one of `quotes` loses them.
pub(super) fn key_values<'a>(content: &'a [u8], quotes: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let end = content.iter().position(|b| *b == 0).unwrap_or(content.len());
    content[..end].split(|b| matches!(b, b'\n' | b'\r')).filter_map(|line| key_value(line, quotes))
}

fn key_value<'a>(line: &'a [u8], quotes: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = line.iter().position(|b| !blank(b))?;
    let end = line.iter().rposition(|b| !blank(b))? + 1;
    let line = &line[start..end];
    if line[0] == b'#' {
        return None;
    }
    let key_end = line.iter().position(blank)?;
    // The line was trimmed, so something follows the white space.
    let value_start = key_end + line[key_end..].iter().position(|b| !blank(b))?;
    let value = match &line[value_start..] {
        // One quote alone is its own end: nothing is left.
        [quote, rest @ ..] if quotes.contains(quote) && line.ends_with(&[*quote]) => {
            rest.strip_suffix(&[*quote]).unwrap_or(rest)
        }
        value => value,
    };
    Some((&line[..key_end], value))
}

/// A value as the loader keeps it; None for an empty one, which is to it as if the line were not there.
///
/// It turns UTF-8 into UCS-2 and leaves out what does not fit: characters beyond U+FFFF, surrogates, and of bytes that are
/// no UTF-8 as many as the first one announces.
pub(super) fn text(mut bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return None;
    }
    let mut text = String::new();
    while let Some(&first) = bytes.first() {
        let (length, mut value) = match first {
            0x00..=0x7f => (1, u32::from(first)),
            0xc0..=0xdf => (2, u32::from(first & 0x1f)),
            0xe0..=0xef => (3, u32::from(first & 0x0f)),
            0xf0..=0xf7 => (4, u32::from(first & 0x07)),
            0xf8..=0xfb => (5, u32::from(first & 0x03)),
            0xfc..=0xfd => (6, u32::from(first & 0x01)),
            0x80..=0xbf | 0xfe..=0xff => (1, u32::MAX),
        };
        let (sequence, rest) = bytes.split_at(length.min(bytes.len()));
        bytes = rest;
        if sequence.len() < length || sequence[1..].iter().any(|b| b & 0xc0 != 0x80) {
            continue;
        }
        for b in &sequence[1..] {
            value = value.wrapping_shl(6) | u32::from(b & 0x3f);
        }
        match char::from_u32(value) {
            // Too long a form of NUL ends the string as the NUL itself does.
            Some('\0') => break,
            Some(c @ ..='\u{ffff}') => text.push(c),
            _ => {}
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(content: &str, quotes: &[u8]) -> Vec<(String, String)> {
        let own = |bytes| String::from_utf8_lossy(bytes).into_owned();
        key_values(content.as_bytes(), quotes).map(|(key, value)| (own(key), own(value))).collect()
    }

    #[test]
    fn ldr1_lines_are_read_as_the_loader_reads_them() {
        let one = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
        for (text, expected) in [
            ("linux /k", one("linux", "/k")),
            (" \tlinux \t /k \t", one("linux", "/k")),
            ("linux\t/k x", one("linux", "/k x")),
            ("#linux /k", vec![]),
            ("  # linux /k", vec![]),
            ("linux", vec![]),
            ("linux ", vec![]),
            ("", vec![]),
            ("\n\n", vec![]),
            ("title \"a b\"", one("title", "a b")),
            ("title \"", one("title", "")),
            ("title \"\"", one("title", "")),
            ("title \"a", one("title", "\"a")),
            ("a b\r\nc d", vec![("a".into(), "b".into()), ("c".into(), "d".into())]),
            ("a b\0c d", one("a", "b")),
            ("a b\n\0c d", one("a", "b")),
        ] {
            assert_eq!(all(text, b"\""), expected, "{text:?}");
        }
        assert_eq!(all("a 'b'", b"\""), one("a", "'b'"));
        assert_eq!(all("a 'b'", b"\"'"), one("a", "b"));
        assert_eq!(all("a 'b\"", b"\"'"), one("a", "'b\""));
    }

    #[test]
    fn ldr1_values_become_ucs2_as_the_loader_makes_it() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"abc", Some("abc")),
            ("\u{e4}\u{20ac}".as_bytes(), Some("\u{e4}\u{20ac}")),
            // Beyond UCS-2.
            ("a\u{1f600}b".as_bytes(), Some("ab")),
            // No first byte; a sequence that does not go on takes what it announced; one that ends early takes the rest.
            (b"a\x80\xffb", Some("ab")),
            (b"a\xc3bc", Some("ac")),
            (b"a\xe2\x82", Some("a")),
            (b"\xff", Some("")),
            // Overlong forms are taken, surrogates are not.
            (b"\xc1\x81", Some("A")),
            (b"a\xc0\x80b", Some("a")),
            (b"a\xed\xa0\x80b", Some("ab")),
            (b"a\xfd\xbf\xbf\xbf\xbf\xbfb", Some("ab")),
        ] {
            assert_eq!(text(bytes).as_deref(), expected, "{bytes:x?}");
        }
    }
}
