//! What the probe is: namespaces, ids, privileges, and whom it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Found, read};
use crate::question::{Question, own_namespaces};
use crate::status::status_field;
use crate::wall::Wall;

pub(super) fn namespace(wall: Wall, question: &Question) -> Found {
    let name = wall.namespace().ok_or("no namespace")?;
    let own = own_namespaces().map_err(|e| format!("cannot read /proc/self/ns: {e}"))?;
    match (own.get(name), question.host_namespaces.get(name)) {
        (Some(own), Some(host)) if own != host => Ok(format!("{name}:[{own}], the host's is [{host}]")),
        (Some(own), Some(_)) => Err(format!("{name}:[{own}] is the host's, expected another one")),
        _ => Err(format!("the question does not name the host's {name} namespace")),
    }
}

pub(super) fn user_mapping() -> Found {
    let status = read("/proc/self/status")?;
    for (map, ids) in [("uid_map", "Uid"), ("gid_map", "Gid")] {
        one_mapping(&read(&format!("/proc/self/{map}"))?).map_err(|why| format!("{map}: {why}"))?;
        let ids = status_field(&status, ids).ok_or("no ids in /proc/self/status")?;
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if ids.is_empty() || ids.contains(&"0") {
            return Err(format!("real, effective, saved and file system ids are {ids:?}, expected none to be 0"));
        }
    }
    match status_field(&status, "Groups") {
        Some("") => Ok("one user and one group, neither is root, no further groups".to_owned()),
        groups => Err(format!("supplementary groups {}, expected none", groups.unwrap_or("unknown"))),
    }
}

/// One line, one id, not the host's root.
fn one_mapping(map: &str) -> Result<(), String> {
    let words: Vec<&str> = map.split_whitespace().collect();
    match words.as_slice() {
        [_, outside, "1"] if *outside != "0" => Ok(()),
        _ => Err(format!("{words:?}, expected one id that is not 0 outside")),
    }
}

pub(super) fn processes() -> Found {
    let mut parents = BTreeMap::new();
    let entries = std::fs::read_dir("/proc").map_err(|e| format!("cannot list /proc: {e}"))?;
    for pid in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        parents.insert(pid, status_field(&status, "PPid").and_then(|parent| parent.parse().ok()).unwrap_or(0));
    }
    let own = std::process::id();
    if !parents.contains_key(&own) {
        return Err(format!("/proc does not show this process as {own}: it belongs to another pid namespace"));
    }
    match strangers(&parents, own).as_slice() {
        [] => Ok(format!("{} processes, all of the sandbox", parents.len())),
        some => {
            Err(format!("/proc shows {} processes of others, among them pid {}; expected none", some.len(), some[0]))
        }
    }
}

/// Who is neither the init (1), nor the probe, nor descends from the probe.
fn strangers(parents: &BTreeMap<u32, u32>, own: u32) -> Vec<u32> {
    let mut known = BTreeSet::from([1, own]);
    // As often as the tree can be deep.
    for _ in 0..parents.len() {
        let descends = |parent: &u32| known.contains(parent) && (*parent != 1 || own == 1);
        let next: Vec<u32> = parents.iter().filter(|(_, parent)| descends(parent)).map(|(pid, _)| *pid).collect();
        known.extend(next);
    }
    parents.keys().filter(|pid| !known.contains(pid)).copied().collect()
}

pub(super) fn no_new_privileges() -> Found {
    field_is("NoNewPrivs", "1")
}

pub(super) fn capabilities() -> Found {
    let status = read("/proc/self/status")?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        match status_field(&status, set) {
            Some(value) if !value.is_empty() && value.bytes().all(|digit| digit == b'0') => {}
            value => return Err(format!("{set} is {}, expected 0", value.unwrap_or("missing"))),
        }
    }
    Ok("none in any set".to_owned())
}

pub(super) fn open_files() -> Found {
    let entries = std::fs::read_dir("/proc/self/fd").map_err(|e| format!("cannot list /proc/self/fd: {e}"))?;
    let listed: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // The descriptor that listed them was among them and is closed now.
    let target = |number: &u32| std::fs::read_link(Path::new("/proc/self/fd").join(number.to_string())).ok();
    let open: Vec<_> = listed.iter().filter(|n| **n > 2).filter_map(|n| Some((*n, target(n)?))).collect();
    if open.is_empty() { Ok("0, 1 and 2".to_owned()) } else { Err(format!("{open:?} open too, expected 0, 1 and 2")) }
}

pub(super) fn field_is(name: &str, expected: &str) -> Found {
    let status = read("/proc/self/status")?;
    match status_field(&status, name) {
        Some(value) if value == expected => Ok(format!("{name} is {value}")),
        value => Err(format!("{name} is {}, expected {expected}", value.unwrap_or("missing"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SBX-12, `user-mapping`.
    #[test]
    fn mappings() {
        assert!(one_mapping("      1000      61000          1\n").is_ok());
        for map in ["", "0 0 4294967295", "1000 0 1", "1000 61000 2", "1000 61000 1\n1001 61001 1\n"] {
            assert!(one_mapping(map).is_err(), "{map}");
        }
    }

    /// SBX-12, `processes`.
    #[test]
    fn strangers_are_found() {
        let inside = BTreeMap::from([(1, 0), (2, 1), (7, 2), (9, 7)]);
        assert!(strangers(&inside, 2).is_empty());
        assert!(strangers(&BTreeMap::from([(1, 0), (2, 1)]), 1).is_empty(), "the probe may be init itself");
        let host = BTreeMap::from([(1, 0), (2, 0), (50, 1), (60, 50)]);
        assert_eq!(strangers(&host, 60), [2, 50]);
    }
}
