//! The loader's reading of `key value` lines, in entries and in loader.conf.

/// Key and value of every line that has both and is no comment.
///
/// As the loader does it: lines end at LF or CR, the text ends at a NUL, white space (space, tab) around a line is
/// dropped, `#` as the first character behind it begins a comment, any white space separates key and value, and a value
/// in double quotes loses them.
pub(super) fn key_values(content: &[u8]) -> impl Iterator<Item = (String, String)> {
    let end = content.iter().position(|b| *b == 0).unwrap_or(content.len());
    content[..end].split(|b| matches!(b, b'\n' | b'\r')).filter_map(key_value)
}

fn key_value(line: &[u8]) -> Option<(String, String)> {
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
    let mut value = &line[value_start..];
    if let [b'"', rest @ ..] = value
        && value.ends_with(b"\"")
    {
        value = rest.strip_suffix(b"\"").unwrap_or(rest);
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((text(&line[..key_end]), text(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<(String, String)> {
        key_values(text.as_bytes()).collect()
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
            assert_eq!(all(text), expected, "{text:?}");
        }
    }
}
