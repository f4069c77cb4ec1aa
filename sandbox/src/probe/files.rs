//! The marker: what is written to `/usr`, and that another sandbox does not see it.

use std::fs;

use super::Found;
use crate::question::Question;

pub(super) fn marker_written(question: &Question) -> Found {
    let path = question.marker_on_host();
    let explain = |what: &str, e: std::io::Error| format!("cannot {what} {}: {e}", path.display());
    fs::write(&path, &question.marker).map_err(|e| explain("write", e))?;
    let content = fs::read_to_string(&path).map_err(|e| explain("read back", e))?;
    if content == question.marker {
        Ok(format!("{} written and read back", path.display()))
    } else {
        Err(format!("{} holds {content:?}, expected {:?}", path.display(), question.marker))
    }
}

pub(super) fn marker_absent(question: &Question) -> Found {
    let path = question.marker_on_host();
    match fs::symlink_metadata(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(format!("{} is not there", path.display())),
        Err(e) => Err(format!("cannot look for {}: {e}", path.display())),
        Ok(_) => Err(format!("{} is there, expected nothing to be left of another sandbox", path.display())),
    }
}
