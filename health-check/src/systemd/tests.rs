//! What `systemctl show` prints, as captured from systemd 252 and 257.

use super::*;
use proptest::prelude::*;

#[test]
fn a_running_service() {
    let text = "Result=success\nNRestarts=2\nLoadState=loaded\nActiveState=active\nSubState=running\nActiveEnterTimestampMonotonic=12345678\n";
    assert_eq!(
        parse_show(text).unwrap(),
        UnitShow {
            load: "loaded".into(),
            active: "active".into(),
            sub: "running".into(),
            restarts: Some(2),
            active_since: Some(Duration::from_micros(12_345_678)),
            result: Some("success".into()),
        }
    );
}

#[test]
fn a_unit_that_does_not_exist() {
    let text = "Result=success\nNRestarts=0\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nActiveEnterTimestampMonotonic=0\n";
    let show = parse_show(text).unwrap();
    assert_eq!((show.load.as_str(), show.active_since), ("not-found", None));
}

#[test]
fn a_target_has_neither_result_nor_restarts() {
    let show =
        parse_show("LoadState=loaded\nActiveState=active\nSubState=active\nActiveEnterTimestampMonotonic=5\n").unwrap();
    assert_eq!((show.restarts, show.result), (None, None));
}

#[test]
fn output_that_is_not_that_of_systemctl_is_an_error() {
    assert!(matches!(parse_show(""), Err(SystemdError::Missing("LoadState"))));
    assert!(matches!(
        parse_show("LoadState=loaded\nActiveState=\nSubState=dead"),
        Err(SystemdError::Missing("ActiveState"))
    ));
    let wrong = "LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=many\n";
    assert!(matches!(parse_show(wrong), Err(SystemdError::Number { key: "NRestarts", .. })));
    // A key is a whole key.
    assert!(matches!(parse_show("XLoadState=loaded\nLoadStateX=loaded"), Err(SystemdError::Missing("LoadState"))));
}

proptest! {
    #[test]
    fn no_text_breaks_the_parser(text in any::<String>(), states in "((LoadState|ActiveState|SubState|NRestarts|Result)=?[a-z0-9=]{0,5}\n?){0,8}") {
        let _ = parse_show(&text);
        if let Ok(show) = parse_show(&states) {
            prop_assert!(!show.load.is_empty() && !show.active.is_empty() && !show.sub.is_empty());
        }
    }
}
