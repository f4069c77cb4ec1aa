//! The few URLs an `http` check takes (HLT-11): `http`, an IP address or `localhost`, perhaps a port and a path.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const DEFAULT_PORT: u16 = 80;

/// Whom to ask for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// The address.
    pub address: SocketAddr,
    /// Host and port as they were written: the value of `Host`.
    pub host: String,
    /// Begins with `/`; printable ASCII without spaces.
    pub path: String,
}

/// Reads a URL; says what is wrong with it.
pub fn parse(text: &str) -> Result<Url, String> {
    let rest = text.strip_prefix("http://").ok_or_else(|| format!("{text:?} does not begin with http://"))?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let address = address(host).map_err(|why| format!("{text:?}: {why}"))?;
    check_path(path).map_err(|why| format!("{text:?}: {why}"))?;
    Ok(Url { address, host: host.to_owned(), path: path.to_owned() })
}

/// Is this what may be asked for?
pub fn check_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("the path does not begin with /");
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the path holds a space, a control character or what is not ASCII: write it as %XX");
    }
    if path.contains('#') {
        return Err("a server is never told what stands behind #");
    }
    Ok(())
}

fn address(host: &str) -> Result<SocketAddr, &'static str> {
    const NO_HOST: &str = "the host is not an IP address or `localhost` (no name is looked up)";
    let (name, port) = match host.strip_prefix('[') {
        Some(six) => {
            let (name, port) = six.split_once(']').ok_or("the [ of an IPv6 address is not closed")?;
            (IpAddr::V6(name.parse().map_err(|_| NO_HOST)?), port)
        }
        None => {
            let (name, port) = host.find(':').map_or((host, ""), |at| host.split_at(at));
            let name = if name == "localhost" { Ipv4Addr::LOCALHOST } else { name.parse().map_err(|_| NO_HOST)? };
            (IpAddr::V4(name), port)
        }
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|&port| port != 0).ok_or("the port is not between 1 and 65535")?
        }
        None if port.is_empty() => DEFAULT_PORT,
        Some(_) | None => return Err("the host is not followed by `:` and a port, or by a path"),
    };
    Ok(SocketAddr::new(name, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> (String, String, String) {
        let url = parse(text).unwrap();
        (url.address.to_string(), url.host, url.path)
    }

    #[test]
    fn addresses_and_localhost_hlt_11() {
        let expect = |text, address: &str, host: &str, path: &str| {
            assert_eq!(of(text), (address.into(), host.into(), path.into()), "{text}");
        };
        expect("http://127.0.0.1:7340/v1/health", "127.0.0.1:7340", "127.0.0.1:7340", "/v1/health");
        expect("http://localhost", "127.0.0.1:80", "localhost", "/");
        expect("http://[::1]:8080/a?b=c/d", "[::1]:8080", "[::1]:8080", "/a?b=c/d");
        expect("http://[::1]", "[::1]:80", "[::1]", "/");
    }

    #[test]
    fn anything_else_is_refused_hlt_11() {
        for (text, why) in [
            ("https://127.0.0.1/", "does not begin with http://"),
            ("HTTP://127.0.0.1/", "does not begin with http://"),
            ("127.0.0.1", "does not begin with http://"),
            ("http://", "no name is looked up"),
            ("http:///x", "no name is looked up"),
            ("http://example.org/", "no name is looked up"),
            ("http://user@127.0.0.1/", "no name is looked up"),
            ("http://127.1/", "no name is looked up"),
            ("http://127.0.0.1?x", "no name is looked up"),
            ("http://::1/", "no name is looked up"),
            ("http://[::1/", "not closed"),
            ("http://[::1]x/", "followed by"),
            ("http://127.0.0.1:/", "followed by"),
            ("http://127.0.0.1:+80/", "followed by"),
            ("http://127.0.0.1:0/", "between 1 and 65535"),
            ("http://127.0.0.1:65536/", "between 1 and 65535"),
            ("http://127.0.0.1/a b", "a space"),
            ("http://127.0.0.1/\r\nX: y", "a control character"),
            ("http://127.0.0.1/ä", "not ASCII"),
            ("http://127.0.0.1/#x", "behind #"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in any::<String>(), near in "http://[a-z0-9.:\\[\\]@]{0,12}(/[ -~]{0,6})?") {
            for text in [text, near] {
                if let Ok(url) = parse(&text) {
                    prop_assert!(check_path(&url.path).is_ok());
                    prop_assert_eq!(text.strip_prefix("http://").map(|rest| rest.starts_with(&url.host)), Some(true));
                }
            }
        }

        #[test]
        fn an_address_is_read_back(ip in any::<std::net::Ipv6Addr>(), port in 1u16..) {
            let address = SocketAddr::new(ip.into(), port);
            prop_assert_eq!(parse(&format!("http://{address}/x")).unwrap().address, address);
        }
    }
}
