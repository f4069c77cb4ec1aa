//! The last bytes of a stream.

/// Keeps the last bytes pushed into it; its memory does not grow with the stream.
#[derive(Debug)]
pub struct Tail {
    kept: Vec<u8>,
    most: usize,
}

impl Tail {
    /// Keeps `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { kept: Vec::new(), most }
    }

    /// The stream goes on with these bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(self.most)..];
        let surplus = (self.kept.len() + new.len()).saturating_sub(self.most);
        self.kept.drain(..surplus);
        self.kept.extend_from_slice(new);
    }

    /// As they are.
    pub fn into_bytes(self) -> Vec<u8> {
        self.kept
    }

    /// As text of no more bytes than are kept. A character that was cut at the front is dropped; what is not UTF-8 is replaced, by more
    /// bytes than it had.
    pub fn text(&self) -> String {
        let continued = if self.kept.len() == self.most {
            self.kept.iter().take(3).take_while(|&&byte| byte & 0xc0 == 0x80).count()
        } else {
            0
        };
        let text = String::from_utf8_lossy(&self.kept[continued..]);
        let surplus = text.len().saturating_sub(self.most);
        let begin = (surplus..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
        text[begin..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_end_of_the_stream(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20), most in 1usize..30) {
            let mut tail = Tail::new(most);
            for part in &parts {
                tail.push(part);
            }
            let whole = parts.concat();
            prop_assert_eq!(&tail.kept[..], &whole[whole.len().saturating_sub(most)..]);
            prop_assert!(tail.text().len() <= most);
        }
    }

    #[test]
    fn a_character_cut_in_two_is_dropped() {
        let mut tail = Tail::new(4);
        tail.push("xäöü".as_bytes());
        assert_eq!(tail.text(), "öü");
        tail.push("!".as_bytes());
        assert_eq!(tail.text(), "ü!");
        tail.push(b"\xff");
        assert_eq!(tail.text(), "!\u{fffd}");
        tail.push(b"\xff\xff\xff\xff");
        assert_eq!(tail.text(), "\u{fffd}");
    }
}
