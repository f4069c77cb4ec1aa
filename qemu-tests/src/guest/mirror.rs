//! Where Debian packages come from: the host's own mirror where it has one.

use std::path::Path;

/// The public mirror network.
const DEFAULT: &str = "http://deb.debian.org/debian";

/// The mirror's URI: `RALPH_DEBIAN_MIRROR`, else the first Debian archive of the host's apt sources, else the default.
pub fn mirror() -> String {
    if let Ok(uri) = std::env::var("RALPH_DEBIAN_MIRROR") {
        return uri;
    }
    let mut texts = Vec::new();
    let listed = std::fs::read_dir("/etc/apt/sources.list.d");
    let mut paths: Vec<_> = listed.into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    paths.insert(0, Path::new("/etc/apt/sources.list").to_owned());
    for path in paths {
        texts.extend(std::fs::read_to_string(path));
    }
    texts.iter().find_map(|text| debian_uri(text)).unwrap_or_else(|| DEFAULT.to_owned())
}

/// The archive of security updates: `RALPH_DEBIAN_SECURITY_MIRROR`, else the one beside the [`mirror`].
pub fn security_mirror() -> String {
    std::env::var("RALPH_DEBIAN_SECURITY_MIRROR").unwrap_or_else(|_| security(&mirror()))
}

/// The security archive beside `mirror`, as most mirrors have it; the public one where the name tells nothing.
fn security(mirror: &str) -> String {
    match mirror.trim_end_matches('/').strip_suffix("/debian") {
        Some(base) => format!("{base}/debian-security"),
        None => "http://deb.debian.org/debian-security".to_owned(),
    }
}

/// The first archive in `text` (one-line or deb822) that looks like Debian's main one.
fn debian_uri(text: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| {
            let words = line.split_whitespace();
            if line.starts_with("deb ") || line.starts_with("URIs:") {
                // `deb [options] URI suite ...` and `URIs: URI ...`: in both the first word that looks like one.
                words.into_iter().find(|w| w.contains("://"))
            } else {
                None
            }
        })
        .map(|uri| uri.trim_end_matches('/'))
        .find(|uri| uri.starts_with("http") && uri.ends_with("/debian"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_sources_are_read() {
        let one_line = "# deb http://no/debian x main\ndeb [signed-by=/x.gpg] http://m.example/debian/ bookworm main\n";
        assert_eq!(debian_uri(one_line).as_deref(), Some("http://m.example/debian"));
        let deb822 = "Types: deb\nURIs: https://deb.example/debian\nSuites: trixie\nComponents: main\n";
        assert_eq!(debian_uri(deb822).as_deref(), Some("https://deb.example/debian"));
    }

    #[test]
    fn the_security_archive_is_looked_for_beside_the_mirror() {
        assert_eq!(security("http://m.example/debian"), "http://m.example/debian-security");
        assert_eq!(security("https://m.example/debian/"), "https://m.example/debian-security");
        assert_eq!(security("http://m.example/snapshot"), "http://deb.debian.org/debian-security");
    }

    #[test]
    fn security_and_foreign_archives_are_not_taken() {
        let text = "deb http://m.example/debian-security bookworm-security main\ndeb https://packages.example/apt x main\ndeb file:/mnt/debian x main\n";
        assert_eq!(debian_uri(text), None);
    }
}
