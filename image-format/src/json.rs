//! Strict JSON (IMG-11): what the grammar allows but two readers could understand differently is refused.
//!
//! A document is read twice. The first pass walks *everything*, unknown fields included, and keeps nothing; the second fills the typed
//! structures and may then ignore unknown fields safely.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// The largest integer that every JSON reader holds exactly.
const MAX_INTEGER: u64 = 1 << 53;

/// The deepest nesting, the outermost object being 1.
const MAX_DEPTH: u32 = 16;

/// Why bytes are not the strict JSON that this format allows (IMG-11).
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// A byte order mark in front.
    #[error("it begins with a byte order mark")]
    ByteOrderMark,
    /// Not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8(#[source] std::str::Utf8Error),
    /// Something behind the object, other than one newline.
    #[error("it has bytes behind the object, other than one final newline")]
    Trailing,
    /// A key stands twice in one object, which two readers could understand differently; which key, and where.
    #[error(transparent)]
    DuplicateKey(serde_json::Error),
    /// Syntax, a number out of range, nesting too deep, a missing field or one of the wrong type, and where.
    #[error(transparent)]
    Syntax(serde_json::Error),
}

/// Reads one object into `T` under the rules of IMG-11.
pub(crate) fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(JsonError::ByteOrderMark);
    }
    let text = std::str::from_utf8(bytes).map_err(JsonError::NotUtf8)?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    // The JSON library skips white space at the end, which is as much "trailing bytes" as anything else.
    if text.ends_with([' ', '\t', '\r', '\n']) {
        return Err(JsonError::Trailing);
    }
    let mut walker = serde_json::Deserializer::from_str(text);
    let twice = Cell::new(false);
    let walked = Strict { depth: 0, twice: &twice }.deserialize(&mut walker).and_then(|()| walker.end());
    walked.map_err(|error| if twice.get() { JsonError::DuplicateKey(error) } else { JsonError::Syntax(error) })?;
    serde_json::from_str::<Object<T>>(text).map(|object| object.0).map_err(JsonError::Syntax)
}

/// Walks a value and accepts it or not; `depth` is how many arrays and objects are open around it.
#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: u32,
    /// Set when the walk ends because of a duplicate key.
    twice: &'a Cell<bool>,
}

impl Strict<'_> {
    fn inside<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH}")));
        }
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON whose numbers are integers from 0 to 2^53")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    // Negative numbers, floats, exponents and integers above 2^64 arrive at the visitor's other methods, which refuse.
    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        if number > MAX_INTEGER {
            return Err(E::custom(format_args!("number {number} is above 2^53")));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while items.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            entries.next_value_seed(inside)?;
            if let Some(key) = seen.replace(key) {
                self.twice.set(true);
                return Err(A::Error::custom(format_args!("duplicate key {key:?}")));
            }
        }
        Ok(())
    }
}

/// A `T` that must be written as an object: serde by itself would fill a structure from an array, too.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: serde::Deserialize<'de>> serde::Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OnlyMap<T>(PhantomData<T>);

        impl<'de, T: serde::Deserialize<'de>> Visitor<'de> for OnlyMap<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(entries))
            }
        }

        from.deserialize_map(OnlyMap(PhantomData)).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Small {
        n: u64,
    }

    fn parse(text: impl AsRef<[u8]>) -> Result<Small, String> {
        parse_object(text.as_ref()).map_err(|error| error.to_string())
    }

    fn nested(depth: usize) -> String {
        format!("{{\"n\":1,\"x\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1))
    }

    #[test]
    fn img_11_accepts() {
        for text in [
            "{\"n\":0}",
            "{\"n\":0}\n",
            " { \"n\" : 0 }",
            "{\"n\":0,\"x\":[null,true,\"\\u00e9\",{\"n\":9007199254740992}]}",
            // The same key in different objects is no duplicate.
            "{\"x\":{\"a\":1,\"b\":{\"a\":1}},\"y\":{\"a\":1},\"n\":0}",
        ] {
            assert_eq!(parse(text), Ok(Small { n: 0 }), "{text}");
        }
        assert_eq!(parse("{\"n\":9007199254740992}"), Ok(Small { n: 1 << 53 }));
        assert!(parse(nested(16)).is_ok());
    }

    #[test]
    fn img_11_refuses() {
        let table: &[(&str, &[u8], &str)] = &[
            ("nothing", b"", "EOF"),
            ("byte order mark", b"\xEF\xBB\xBF{\"n\":1}", "byte order mark"),
            ("not utf-8 in a string", b"{\"n\":1,\"x\":\"\xff\"}", "not UTF-8"),
            ("utf-16", b"{\0\"\0n\0", "key must be a string"),
            ("lone surrogate", b"{\"n\":1,\"x\":\"\\ud800\"}", "hex escape"),
            ("raw control character", b"{\"n\":1,\"x\":\"a\nb\"}", "control character"),
            ("duplicate key", b"{\"n\":1,\"n\":1}", "duplicate key \"n\""),
            ("duplicate key by escape", b"{\"n\":1,\"\\u006e\":1}", "duplicate key \"n\""),
            ("duplicate key in an unknown field", b"{\"n\":1,\"x\":[{\"a\":1,\"a\":2}]}", "duplicate key \"a\""),
            ("float", b"{\"n\":1.0}", "floating point"),
            ("float in an unknown field", b"{\"n\":1,\"x\":0.5}", "floating point"),
            ("exponent", b"{\"n\":1e3}", "floating point"),
            ("negative", b"{\"n\":1,\"x\":-1}", "integer `-1`"),
            ("minus zero", b"{\"n\":1,\"x\":-0}", "floating point"),
            ("2^53+1", b"{\"n\":9007199254740993}", "above 2^53"),
            ("2^53+1 in an unknown field", b"{\"n\":1,\"x\":9007199254740993}", "above 2^53"),
            ("2^64", b"{\"n\":1,\"x\":18446744073709551616}", "floating point"),
            ("leading zero", b"{\"n\":01}", "invalid number"),
            ("two newlines", b"{\"n\":1}\n\n", "behind the object"),
            ("space at the end", b"{\"n\":1} ", "behind the object"),
            ("crlf", b"{\"n\":1}\r\n", "behind the object"),
            ("second value", b"{\"n\":1}{}", "trailing characters"),
            ("nul at the end", b"{\"n\":1}\0", "trailing characters"),
            ("trailing comma", b"{\"n\":1,}", "trailing comma"),
            ("comment", b"{\"n\":1/**/}", "expected"),
            ("missing field", b"{}", "missing field `n`"),
            ("wrong type", b"{\"n\":\"1\"}", "invalid type: string"),
            ("null", b"{\"n\":null}", "invalid type: null"),
            ("array for an object", b"[1]", "expected an object"),
            ("string for an object", b"\"n\"", "expected an object"),
        ];
        for (attack, bytes, expected) in table {
            let message = parse(bytes).expect_err(attack);
            assert!(message.contains(expected), "{attack}: {message}");
        }
        let message = parse(nested(17)).expect_err("nested 17 deep");
        assert!(message.contains("nested deeper than 16"), "{message}");
        // Far deeper must not overflow the stack either.
        assert!(parse("[".repeat(1 << 20)).is_err());
    }
}
