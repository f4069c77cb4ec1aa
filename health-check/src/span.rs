//! Lengths of time as the configuration writes them: `500ms`, `60s`, `5min` (HLT-11).

use std::fmt;
use std::time::Duration;

/// A length of time in whole milliseconds. Its text is a decimal number and a unit, `ms`, `s` or `min`, with nothing between or around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u64);

/// Why a text is not a [`Span`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpanError {
    /// There is no unit we know behind the number.
    #[error("{0:?} is not a length of time: write a whole number and ms, s or min, like \"60s\"")]
    Form(String),
    /// The number has more than nine digits.
    #[error("{0:?} is longer than any deadline: write at most nine digits")]
    TooLong(String),
}

impl Span {
    /// A span of whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds * 1000)
    }

    /// A span of milliseconds.
    pub const fn milliseconds(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    /// Reads the text of the configuration.
    pub fn parse(text: &str) -> Result<Self, SpanError> {
        let form = || SpanError::Form(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(form)?;
        let (number, unit) = text.split_at(digits);
        let scale = match unit {
            "ms" => 1,
            "s" => 1000,
            "min" => 60_000,
            _ => return Err(form()),
        };
        if number.is_empty() {
            return Err(form());
        }
        // Nine digits of minutes still fit in the milliseconds of a u64.
        if number.len() > 9 {
            return Err(SpanError::TooLong(text.to_owned()));
        }
        let number: u64 = number.parse().map_err(|_| form())?;
        Ok(Self(number * scale))
    }

    /// The same length for the standard library.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "0s"),
            ms if ms % 60_000 == 0 => write!(f, "{}min", ms / 60_000),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_specification_hlt_11() {
        assert_eq!(Span::parse("500ms").unwrap().duration(), Duration::from_millis(500));
        assert_eq!(Span::parse("60s").unwrap(), Span::seconds(60));
        assert_eq!(Span::parse("5min").unwrap(), Span::seconds(300));
        assert_eq!(Span::parse("0s").unwrap(), Span::seconds(0));
    }

    #[test]
    fn anything_else_is_refused_hlt_11() {
        for text in [
            "", "s", "60", "1.5s", "-1s", "+1s", " 1s", "1s ", "1 s", "1S", "1m", "1h", "1sec", "1s1ms", "٣s",
            "60\u{0}s",
        ] {
            assert_eq!(Span::parse(text), Err(SpanError::Form(text.to_owned())), "{text:?}");
        }
        assert!(matches!(Span::parse("1234567890s"), Err(SpanError::TooLong(_))));
        assert!(matches!(Span::parse("99999999999999999999999min"), Err(SpanError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(number in 0u64..1_000_000_000, unit in 0usize..3) {
            let text = format!("{number}{}", ["ms", "s", "min"][unit]);
            let span = Span::parse(&text).unwrap();
            prop_assert_eq!(span.duration().as_millis(), u128::from(number) * [1, 1000, 60_000][unit]);
            // The shortest text names the same span, unless it needs more digits than we take.
            match Span::parse(&span.to_string()) {
                Ok(again) => prop_assert_eq!(again, span),
                Err(error) => prop_assert!(matches!(error, SpanError::TooLong(_))),
            }
        }

        #[test]
        fn no_text_breaks_the_parser(text in any::<String>()) {
            if let Ok(span) = Span::parse(&text) {
                let digits = text.bytes().take_while(u8::is_ascii_digit).count();
                prop_assert!((1..=9).contains(&digits));
                prop_assert!(["ms", "s", "min"].contains(&&text[digits..]));
                prop_assert_eq!(Span::parse(&text), Ok(span));
            }
        }

        #[test]
        fn nearly_right_texts_do_not_break_it(text in "[ +-]?[0-9]{0,24}[.]?[0-9]{0,2} ?(ms|s|min|m|h|S|)") {
            let right = regex_like(&text);
            prop_assert_eq!(Span::parse(&text).is_ok(), right, "{:?}", text);
        }
    }

    /// `[0-9]{1,9}(ms|s|min)`, spelled without the parser's own way of splitting.
    fn regex_like(text: &str) -> bool {
        ["ms", "min", "s"].iter().any(|unit| {
            text.strip_suffix(unit).is_some_and(|n| (1..=9).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()))
        })
    }
}
