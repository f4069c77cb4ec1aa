//! Which checks come after which (HLT-12, HLT-25).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Check, ConfigError, Level};

/// Everything that is wrong with the `after` of these checks; `owners` tells the file of each.
pub fn problems(checks: &[Check], owners: &BTreeMap<String, &Path>) -> Vec<ConfigError> {
    let named: BTreeMap<&str, &Check> = checks.iter().map(|check| (check.name.as_str(), check)).collect();
    let path = |check: &Check| owners.get(&check.name).map_or_else(PathBuf::new, |path| path.to_path_buf());
    let mut errors = Vec::new();
    for check in checks {
        for after in &check.after {
            let name = check.name.clone();
            match named.get(after.as_str()) {
                None => {
                    errors.push(ConfigError::AfterUnknown { check: name, path: path(check), after: after.clone() });
                }
                Some(first) if first.level == Level::Wanted && check.level == Level::Required => {
                    errors.push(ConfigError::AfterWanted { check: name, path: path(check), after: after.clone() });
                }
                Some(_) => {}
            }
        }
        if let Some(circle) = circle(check, &named) {
            errors.push(ConfigError::AfterCircle { check: check.name.clone(), path: path(check), circle });
        }
    }
    errors
}

/// The way from this check back to itself, if there is one. Told of the check whose name comes first in the circle alone.
fn circle(start: &Check, named: &BTreeMap<&str, &Check>) -> Option<String> {
    // Breadth first, so that the shortest way is told; each check is entered once.
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = vec![start];
    let mut next = 0;
    while let Some(&check) = queue.get(next) {
        next += 1;
        for after in &check.after {
            if *after == start.name {
                let mut way = vec![check.name.as_str()];
                while let Some(&earlier) = way.last().and_then(|last| came_from.get(last)) {
                    way.push(earlier);
                }
                way.reverse();
                let smallest = way.iter().min() == Some(&start.name.as_str());
                way.push(&start.name);
                return smallest.then(|| way.join(" after "));
            }
            if let Some(&found) = named.get(after.as_str())
                && found.name != start.name
                && !came_from.contains_key(found.name.as_str())
            {
                came_from.insert(&found.name, &check.name);
                queue.push(found);
            }
        }
    }
    None
}
