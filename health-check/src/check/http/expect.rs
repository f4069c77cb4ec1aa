//! What an answer must hold (HLT-26). The answer is hostile until shown otherwise: nothing of it is printed uncleaned.

use serde_json::Value;

use super::Reason;
use crate::config::{Expectation, Http};

/// Where the number of the contract stands (HLT-4).
const CONTRACT: &str = "/contract";
/// The contract we speak.
const OURS: i64 = 1;
/// What may be recorded, in characters.
const RECORDED: std::ops::RangeInclusive<usize> = 1..=128;
/// What is told of a value that is not the expected one, in bytes.
const TOLD: usize = 200;

/// Does the body hold what it must? What is recorded of it, or why not.
pub fn judge(http: &Http, body: &[u8]) -> Result<Option<String>, (Reason, String)> {
    if http.json.is_empty() && http.record.is_none() {
        return Ok(None);
    }
    let document: Value =
        serde_json::from_slice(body).map_err(|error| (Reason::Json, format!("the answer is not JSON: {error}")))?;
    // The contract first: nothing is concluded from an answer of another one.
    let (contract, others): (Vec<&Expectation>, Vec<_>) = http.json.iter().partition(|one| one.pointer == CONTRACT);
    for (expectations, reason) in [(contract, Reason::Contract), (others, Reason::Json)] {
        let unmet: Vec<String> = expectations.iter().filter_map(|one| unmet(one, &document)).collect();
        if !unmet.is_empty() {
            // An answer without a number is none of another contract.
            let other = reason != Reason::Contract || document.pointer(CONTRACT).is_some();
            return Err((if other { reason } else { Reason::Json }, unmet.join("; ")));
        }
    }
    http.record.as_deref().map(|pointer| recorded(pointer, &document)).transpose()
}

/// Is this an answer of the contract we speak (HLT-4)?
pub fn speaks_our_contract(document: &Value) -> bool {
    document.pointer(CONTRACT).and_then(Value::as_i64) == Some(OURS)
}

/// What is wrong, if something is.
fn unmet(expectation: &Expectation, document: &Value) -> Option<String> {
    let there = document.pointer(&expectation.pointer);
    if there.is_some_and(|there| expectation.one_of.contains(there)) {
        return None;
    }
    let expected: Vec<String> = expectation.one_of.iter().map(Value::to_string).collect();
    Some(format!("{} is {}, expected {}", expectation.pointer, told(there), expected.join(" or ")))
}

fn recorded(pointer: &str, document: &Value) -> Result<String, (Reason, String)> {
    let there = document.pointer(pointer);
    let fits = |text: &&str| {
        RECORDED.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
    };
    match there.and_then(Value::as_str).filter(fits) {
        Some(text) => Ok(text.to_owned()),
        None => Err((
            Reason::Json,
            format!("{pointer} is {}, expected a string of 1 to 128 printable ASCII characters", told(there)),
        )),
    }
}

fn told(value: Option<&Value>) -> String {
    value.map_or_else(|| "not there".to_owned(), |value| clean(value.to_string().as_bytes(), TOLD))
}

/// Text for people of bytes that came from outside: the first ones, no control characters, what is not UTF-8 replaced.
pub fn clean(bytes: &[u8], most: usize) -> String {
    const CUT: char = '…';
    let mut text = String::new();
    for c in String::from_utf8_lossy(bytes).chars() {
        let c = if c.is_control() { ' ' } else { c };
        if text.len() + c.len_utf8() + CUT.len_utf8() > most {
            text.push(CUT);
            break;
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Server;
    use proptest::prelude::*;
    use serde_json::json;

    fn http(json: &[(&str, &[Value])], record: Option<&str>) -> Http {
        Http {
            server: Server::Unix("/x".into()),
            host: "localhost".into(),
            path: "/".into(),
            status: 200,
            json: json
                .iter()
                .map(|(pointer, one_of)| Expectation { pointer: (*pointer).into(), one_of: one_of.to_vec() })
                .collect(),
            record: record.map(str::to_owned),
        }
    }

    fn reason(http: &Http, body: &str) -> Option<Reason> {
        judge(http, body.as_bytes()).err().map(|(reason, _)| reason)
    }

    #[test]
    fn strings_integers_and_booleans_are_compared_as_what_they_are_hlt_26() {
        let one = http(&[("/a/0/b~1c", &[json!(1), json!("x"), json!(true)])], None);
        for value in ["1", "\"x\"", "true"] {
            assert_eq!(reason(&one, &format!(r#"{{"a":[{{"b/c":{value}}}]}}"#)), None, "{value}");
        }
        for value in ["2", "1.0", "\"1\"", "\"true\"", "false", "null", "[1]", "{}", "18446744073709551617"] {
            assert_eq!(reason(&one, &format!(r#"{{"a":[{{"b/c":{value}}}]}}"#)), Some(Reason::Json), "{value}");
        }
        assert_eq!(reason(&one, "{}"), Some(Reason::Json));
    }

    #[test]
    fn it_is_told_what_was_expected_where_and_what_is_there_hlt_26() {
        let one = http(&[("/state", &[json!("ready"), json!("degraded")])], None);
        let (_, told) = judge(&one, br#"{"state":"starting"}"#).unwrap_err();
        assert_eq!(told, r#"/state is "starting", expected "ready" or "degraded""#);
        let (_, told) = judge(&one, b"{}").unwrap_err();
        assert!(told.starts_with("/state is not there, expected"), "{told}");
        let huge = format!(r#"{{"state":"\u001b[31m\u009b{}"}}"#, "x".repeat(60_000));
        let (_, told) = judge(&one, huge.as_bytes()).unwrap_err();
        assert!(told.len() < 300 && !told.contains(char::is_control), "{told}");
    }

    #[test]
    fn another_contract_has_a_reason_of_its_own_and_comes_first_hlt_4() {
        let one = http(&[("/a", &[json!(1)]), (CONTRACT, &[json!(1)])], None);
        assert_eq!(reason(&one, r#"{"contract":1,"a":1}"#), None);
        assert_eq!(reason(&one, r#"{"contract":2,"a":2}"#), Some(Reason::Contract));
        assert_eq!(reason(&one, r#"{"contract":"1","a":1}"#), Some(Reason::Contract));
        assert_eq!(reason(&one, r#"{"a":1}"#), Some(Reason::Json), "absent is not another one");
        assert_eq!(reason(&one, r#"{"contract":1,"a":2}"#), Some(Reason::Json));
        assert!(speaks_our_contract(&json!({"contract": 1})));
        assert!(!speaks_our_contract(&json!({"contract": 1.0})) && !speaks_our_contract(&json!([])));
    }

    #[test]
    fn what_is_not_json_fails_only_if_json_is_asked_for_hlt_26() {
        let one = http(&[("/a", &[json!(1)])], None);
        for body in ["", "<html>", r#"{"a":1"#, r#"{"a":1}}"#, &"[".repeat(60_000), "\u{0}"] {
            assert_eq!(reason(&one, body), Some(Reason::Json), "{body:.10}");
            assert_eq!(reason(&http(&[], None), body), None);
            assert_eq!(reason(&http(&[], Some("/a")), body), Some(Reason::Json));
        }
    }

    #[test]
    fn what_is_recorded_is_one_short_printable_string_hlt_26() {
        let one = http(&[], Some("/digest"));
        let of = |value: &Value| judge(&one, json!({ "digest": value }).to_string().as_bytes());
        assert_eq!(of(&json!("sha256:00")).unwrap(), Some("sha256:00".to_owned()));
        assert_eq!(of(&json!("x".repeat(128))).unwrap(), Some("x".repeat(128)));
        for wrong in [json!(""), json!("x".repeat(129)), json!("a\nb"), json!("ä"), json!(7), json!(null), json!(["x"])]
        {
            assert!(matches!(of(&wrong), Err((Reason::Json, _))), "{wrong}");
        }
        assert_eq!(reason(&one, "{}"), Some(Reason::Json), "missing it fails");
    }

    proptest! {
        #[test]
        fn no_answer_breaks_it(body in prop::collection::vec(any::<u8>(), 0..200), most in 4usize..100) {
            let _ = judge(&http(&[("/a", &[json!(1)])], Some("/b")), &body);
            let text = clean(&body, most);
            prop_assert!(text.len() <= most && !text.contains(char::is_control));
        }
    }
}
