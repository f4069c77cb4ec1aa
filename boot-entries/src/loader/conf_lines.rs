//! The lines of `loader.conf` that choose an entry, and where they stand: one byte makes a line a comment.

use super::Release;
use super::lines::{key_values, text};

/// A line that chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfLine {
    /// `default` or `preferred`.
    pub key: String,
    /// The pattern.
    pub value: String,
    /// Where the key begins, in bytes from the start of the file.
    pub offset: u64,
    /// The byte there; overwritten with `#`, the line is a comment.
    pub byte: u8,
}

/// The `default` and `preferred` lines that the loader reads (`LDR-1`, `LDR-4`), in the order of the file, as its newest
/// release reads them.
pub fn choosing_lines(content: &[u8]) -> Vec<ConfLine> {
    let end = content.iter().position(|b| *b == 0).unwrap_or(content.len());
    let mut found = Vec::new();
    let mut start = 0;
    for line in content[..end].split(|b| matches!(b, b'\n' | b'\r')) {
        let indent = line.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let ignored = |value: &[u8]| value.starts_with(b"@") && !value.eq_ignore_ascii_case(b"@saved");
        for (key, value) in key_values(line, Release::V257Stripped.quotes()) {
            let key = match key {
                b"default" => "default",
                b"preferred" => "preferred",
                _ => continue,
            };
            if let Some(value) = text(value).filter(|_| !ignored(value)) {
                let (key, offset) = (key.to_owned(), (start + indent) as u64);
                found.push(ConfLine { key, value, offset, byte: line[indent] });
            }
        }
        start += line.len() + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::LoaderConf;

    #[test]
    fn ent_60_one_byte_makes_a_line_that_chooses_a_comment() {
        let text = b"timeout 0\r\n  default ralphos-b*\n#default x\ndefaults y\ndefault @saved\ndefault @odd\npreferred z\n\0default q\n";
        let lines = choosing_lines(text);
        let seen: Vec<_> = lines.iter().map(|line| (line.key.as_str(), line.value.as_str(), line.offset)).collect();
        assert_eq!(seen, [("default", "ralphos-b*", 13), ("default", "@saved", 54), ("preferred", "z", 82)]);
        let mut text = text.to_vec();
        for line in &lines {
            assert_eq!(text[line.offset as usize], line.byte);
            text[line.offset as usize] = b'#';
        }
        assert_eq!(choosing_lines(&text), []);
        let conf = LoaderConf::parse(&text);
        assert!(Release::ALL.into_iter().all(|release| conf.default_in(release).is_none()));
    }
}
