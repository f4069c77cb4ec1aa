//! Comparing versions (UAPI.10, Version Format Specification), as the loader does.
//!
//! Written here because the crate `uapi-version` 0.4 does not read numbers with leading zeros as the loader does (it holds
//! `2024.01` for newer than `2024.2`, and `09` for newer than `9`) and sees `~` behind another mark otherwise.

use std::cmp::Ordering;

/// Older is less. Characters that no version has only separate its parts.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        (a, b) = (behind_invalid(a), behind_invalid(b));
        // Before the end is looked for: a pre-release is older than the release, which ends here.
        let tilde = marked_is_older(&mut a, &mut b, b'~');
        if tilde != Ordering::Equal {
            return tilde;
        }
        if a.is_empty() || b.is_empty() {
            return b.is_empty().cmp(&a.is_empty());
        }
        for mark in [b'-', b'^', b'.'] {
            let order = marked_is_older(&mut a, &mut b, mark);
            if order != Ordering::Equal {
                return order;
            }
        }
        let numeric = starts_with_digit(a) || starts_with_digit(b);
        let order = if numeric {
            let (left, right) = (part(&mut a, u8::is_ascii_digit), part(&mut b, u8::is_ascii_digit));
            // A number is newer than no number, even 0.
            left.is_empty().cmp(&right.is_empty()).reverse().then_with(|| number(left).cmp(&number(right)))
        } else {
            part(&mut a, u8::is_ascii_alphabetic).cmp(part(&mut b, u8::is_ascii_alphabetic))
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn behind_invalid(text: &[u8]) -> &[u8] {
    let valid = |c: &u8| c.is_ascii_alphanumeric() || b"~-^.".contains(c);
    let at = text.iter().position(valid).unwrap_or(text.len());
    &text[at..]
}

/// Takes the mark off both. When only one has it, that one is older.
fn marked_is_older(a: &mut &[u8], b: &mut &[u8], mark: u8) -> Ordering {
    let strip = |text: &mut &[u8]| match text.split_first() {
        Some((first, rest)) if *first == mark => {
            *text = rest;
            true
        }
        _ => false,
    };
    let (left, right) = (strip(a), strip(b));
    right.cmp(&left)
}

fn starts_with_digit(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_digit)
}

/// Splits off the leading characters of one kind.
fn part<'a>(text: &mut &'a [u8], kind: fn(&u8) -> bool) -> &'a [u8] {
    let end = text.iter().position(|c| !kind(c)).unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

/// Digits of any length, so that they compare as the numbers they are.
fn number(digits: &[u8]) -> (usize, &[u8]) {
    let start = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    (digits.len() - start, &digits[start..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_specifications_order() {
        let ascending = [
            "122.1",
            "123~rc1-1",
            "123",
            "123-a",
            "123-a.1",
            "123-1",
            "123-1.1",
            "123^post1",
            "123.a-1",
            "123.1-1",
            "123a-1",
            "124-1",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare_versions(a, b), i.cmp(&j), "{a} {b}");
            }
        }
    }

    #[test]
    fn numbers_are_numbers() {
        for (a, b, expected) in [
            ("9", "10", Ordering::Less),
            ("2024.01", "2024.2", Ordering::Less),
            ("2026.09.1", "2026.10.0", Ordering::Less),
            ("1.0", "1.00", Ordering::Equal),
            ("007", "7", Ordering::Equal),
            ("1.0", "1", Ordering::Greater),
            ("0", "a", Ordering::Greater),
            ("99999999999999999999998", "99999999999999999999999", Ordering::Less),
            ("", "", Ordering::Equal),
            ("", "~", Ordering::Greater),
            ("", "0", Ordering::Less),
            ("1_2", "1+2", Ordering::Equal),
        ] {
            assert_eq!(compare_versions(a, b), expected, "{a} {b}");
            assert_eq!(compare_versions(b, a), expected.reverse(), "{b} {a}");
        }
    }

    proptest! {
        #[test]
        fn it_is_an_order(texts in proptest::collection::vec("[01290ab~^._+-]{0,8}|\\PC{0,4}", 3)) {
            let (a, b, c) = (&texts[0], &texts[1], &texts[2]);
            prop_assert_eq!(compare_versions(a, a), Ordering::Equal);
            prop_assert_eq!(compare_versions(a, b), compare_versions(b, a).reverse());
            // Not everything is transitive in the specification's order, but versions as people write them are.
            let plain = |text: &str| text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
            if texts.iter().all(|text| plain(text)) && compare_versions(a, b).is_le() && compare_versions(b, c).is_le() {
                prop_assert!(compare_versions(a, c).is_le());
            }
        }
    }
}
