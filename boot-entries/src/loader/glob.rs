//! The loader's own pattern matching.

/// True when `pattern` matches the whole of `text`.
///
/// `*` is any text, `?` one character, `[a-c]` one of a set (a `]` in front is an ordinary character, `!` and `^` negate
/// nothing), a backslash takes the next character as it is. A set or a backslash without an end matches nothing.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the text behind the last `*` does not match: that `*` takes one character more.
    let mut star = None;
    loop {
        if pattern.get(p) == Some(&'*') {
            p += 1;
            star = Some((p, t));
            continue;
        }
        match text.get(t) {
            None if p == pattern.len() => return true,
            None => return false,
            Some(&c) => match one(&pattern[p..], c) {
                Some(length) => {
                    p += length;
                    t += 1;
                }
                None => match star {
                    Some((after, from)) => {
                        (p, t) = (after, from + 1);
                        star = Some((after, from + 1));
                    }
                    None => return false,
                },
            },
        }
    }
}

/// Length of the pattern's first element when it matches `c`; the element is not `*`.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['\\', escaped, ..] => (*escaped == c).then_some(2),
        ['\\'] | [] => None,
        ['[', ..] => set(pattern, c),
        [plain, ..] => (*plain == c).then_some(1),
    }
}

fn set(pattern: &[char], c: char) -> Option<usize> {
    let (mut at, mut found, mut can_range) = (1, false, true);
    loop {
        let first = at == 1;
        match *pattern.get(at)? {
            '\\' => {
                at += 1;
                found |= *pattern.get(at)? == c;
                can_range = true;
            }
            ']' if !first => return found.then_some(at + 1),
            // Ranges are not chained: [a-c-f] is a to c, -, f.
            '-' if can_range && !first && pattern.get(at + 1).is_some_and(|next| *next != ']') => {
                let low = pattern[at - 1];
                at += 1;
                if pattern[at] == '\\' {
                    at += 1;
                }
                found |= (low..=*pattern.get(at)?).contains(&c);
                can_range = false;
            }
            plain => {
                found |= plain == c;
                can_range = true;
            }
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldr4_patterns_match_as_the_loaders_do() {
        for (pattern, text) in [
            ("", ""),
            ("a.conf", "a.conf"),
            ("*", ""),
            ("*", "abc"),
            ("ralphos-*", "ralphos-b-g7+3-0.conf"),
            ("*b*.conf", "ralphos-b-g7.conf"),
            ("**a", "bba"),
            ("*ab", "aab"),
            ("a?c", "abc"),
            ("[a-c]x", "bx"),
            ("[]]", "]"),
            ("[-a]", "-"),
            ("[a-]", "-"),
            ("[!a]", "!"),
            ("[!a]", "a"),
            ("[a-c-f]", "-"),
            ("[a-c-f]", "f"),
            ("[\\]]", "]"),
            ("\\*", "*"),
            ("ralphos-b-g7+3-0.conf", "ralphos-b-g7+3-0.conf"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", ""),
            ("a", "ab"),
            ("ralphos-b-g7.conf", "ralphos-b-g7+3-0.conf"),
            ("A", "a"),
            ("?", ""),
            ("[a-c]", "d"),
            ("[a-c-f]", "d"),
            ("[!a]", "b"),
            ("[a", "a"),
            ("[", "["),
            ("a\\", "a"),
            ("\\*", "a"),
            ("*a*b*c", "abxbx"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
