//! How servers are asked: time limits, connections, proxies (FET-26, FET-29).

use std::net::ToSocketAddrs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Proxy, ProxyProtocol};

use super::backoff::{FETCHING, OPENING, Retry};
use super::rate::Limit;

/// Redirects that are followed.
pub const MAX_REDIRECTS: u32 = 5;

/// How long a server may keep an apply waiting (THR-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A connection that brings nothing for so long is given up.
    pub stall: Duration,
    /// A server from which fewer bytes than this come while we wait for `stall` in all is given up, too: it would hold the update
    /// lock for days.
    pub least: u64,
}

/// Of a real run.
pub const PATIENCE: Patience = Patience { stall: Duration::from_secs(60), least: 256 * 1024 };

/// All that decides how an image is fetched.
#[derive(Debug, Clone)]
pub struct Settings {
    /// With one server.
    pub patience: Patience,
    /// Until the head is there.
    pub opening: Retry,
    /// Afterwards.
    pub fetching: Retry,
    /// Through whom.
    pub proxy: Proxying,
    /// How fast at most.
    pub limit: Limit,
    /// Requests at a time.
    pub connections: usize,
    /// Bytes asked for in one request.
    pub piece: u64,
    /// Pieces held or on their way at a time: with `piece` the bound of memory.
    pub window: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            patience: PATIENCE,
            opening: OPENING,
            fetching: FETCHING,
            proxy: Proxying::Environment,
            limit: Limit::default(),
            connections: 4,
            piece: 512 << 10,
            window: 6,
        }
    }
}

impl Settings {
    /// Connections that are worth having at this rate.
    pub(super) fn workers(&self) -> usize {
        if self.limit.is_slow() { 1 } else { self.connections.max(1) }
    }
}

/// Through whom servers are asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Proxying {
    /// Through the proxy that the environment names, if it does: `https_proxy` or `http_proxy`, by the address's scheme, else
    /// `all_proxy`; not to the hosts of `no_proxy`. Each also in upper case.
    #[default]
    Environment,
    /// Directly.
    Direct,
    /// Through this one.
    Through(String),
}

/// A proxy that cannot be used. Going around it would be wrong: whoever set it may have reasons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the proxy {from} names cannot be used: it must look like http://host:port, or http://name:password@host:port")]
pub struct BadProxy {
    /// Who names it.
    pub from: String,
}

impl Proxying {
    /// As a configuration names it: `none`, or an address.
    ///
    /// # Errors
    /// Not an address of a proxy that we can speak with.
    pub fn from_config(text: &str) -> Result<Self, BadProxy> {
        if text == "none" {
            return Ok(Proxying::Direct);
        }
        parse(text, "", "the setting `proxy`").map(|_| Proxying::Through(text.to_owned()))
    }

    /// The proxy for an address. `variable` reads the environment.
    pub(super) fn choose(
        &self,
        url: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Proxy>, BadProxy> {
        let set = |name: &str| {
            let upper = name.to_ascii_uppercase();
            [name, &upper].into_iter().find_map(|name| variable(name).filter(|value| !value.is_empty()))
        };
        let exempt = || set("no_proxy").unwrap_or_default();
        match self {
            Proxying::Direct => Ok(None),
            Proxying::Through(text) => parse(text, &exempt(), "the setting `proxy`").map(Some),
            Proxying::Environment => {
                let scheme = if url.to_ascii_lowercase().starts_with("https:") { "https_proxy" } else { "http_proxy" };
                let found = [scheme, "all_proxy"].into_iter().find_map(|name| Some((name, set(name)?)));
                found.map(|(name, text)| parse(&text, &exempt(), name)).transpose()
            }
        }
    }
}

fn parse(text: &str, exempt: &str, from: &str) -> Result<Proxy, BadProxy> {
    let bad = |_| BadProxy { from: from.to_owned() };
    let named = Proxy::new(text).map_err(bad)?;
    // Anything else would need a crate more, on every machine.
    if !matches!(named.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) {
        return Err(BadProxy { from: from.to_owned() });
    }
    let mut proxy = Proxy::builder(named.protocol()).host(named.host()).port(named.port());
    if let Some(name) = named.username() {
        proxy = proxy.username(name);
    }
    if let Some(password) = named.password() {
        proxy = proxy.password(password);
    }
    for host in exempt.split(',').map(str::trim).filter(|host| !host.is_empty()) {
        proxy = proxy.no_proxy(host);
    }
    proxy.build().map_err(bad)
}

/// How an image's servers are asked, over so many connections.
pub(super) fn agent(settings: &Settings, proxy: Option<Proxy>) -> ureq::Agent {
    let config = client(settings.patience, proxy, settings.connections);
    ureq::Agent::with_parts(config, DefaultConnector::default(), Lookup(connecting(settings.patience)))
}

/// For a name to be looked up, and once more for a connection to be there.
fn connecting(patience: Patience) -> Duration {
    Duration::from_secs(30).min(patience.stall.max(Duration::from_secs(1)))
}

/// How servers are asked, with so many connections kept for the next question. Redirects are answers as all others are: `wire` follows them.
pub fn client(patience: Patience, proxy: Option<Proxy>, idle: usize) -> Config {
    ureq::Agent::config_builder()
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections_per_host(idle)
        // What a status means is ours to judge.
        .http_status_as_error(false)
        .timeout_connect(Some(connecting(patience)))
        .timeout_recv_response(Some(patience.stall))
        .timeout_per_read(Some(patience.stall))
        .timeout_per_write(Some(patience.stall))
        .input_buffer_size(64 * 1024)
        .output_buffer_size(16 * 1024)
        .proxy(proxy)
        .user_agent(concat!("ralph-update/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Looks names up, within this time. The library's own lookup knows a time limit, too, but ends the process where a thread cannot be had.
#[derive(Debug)]
struct Lookup(Duration);

impl Resolver for Lookup {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let name = uri.scheme().zip(uri.authority());
        let name = name.and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority));
        let name = name.ok_or(ureq::Error::HostNotFound)?;
        let (tell, told) = mpsc::sync_channel(1);
        thread::Builder::new().spawn(move || tell.send(name.to_socket_addrs()))?;
        let found = told.recv_timeout(self.0).map_err(|_| ureq::Error::Timeout(ureq::Timeout::Resolve))??;
        let mut all = self.empty();
        found.take(16).for_each(|address| all.push(address));
        if all.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(all) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    fn chosen(url: &str, pairs: &'static [(&str, &str)]) -> Option<String> {
        let proxy = Proxying::Environment.choose(url, environment(pairs)).unwrap()?;
        Some(format!("{}:{}", proxy.host(), proxy.port()))
    }

    #[test]
    fn fet_29_the_environment_names_a_proxy_for_each_scheme() {
        const BOTH: &[(&str, &str)] =
            &[("http_proxy", "http://p:1"), ("HTTPS_PROXY", "http://q:2"), ("all_proxy", "http://r:3")];
        assert_eq!(chosen("http://x/", BOTH).as_deref(), Some("p:1"));
        assert_eq!(chosen("HTTPS://x/", BOTH).as_deref(), Some("q:2"));
        assert_eq!(chosen("https://x/", &[("http_proxy", "http://p:1")]), None);
        assert_eq!(chosen("https://x/", &[("ALL_PROXY", "r:3")]).as_deref(), Some("r:3"));
        assert_eq!(chosen("http://x/", &[("http_proxy", "")]), None);
        assert_eq!(chosen("http://x/", &[]), None);
    }

    #[test]
    fn fet_29_some_hosts_are_asked_directly() {
        let pairs = environment(&[("http_proxy", "http://p:1"), ("no_proxy", "a.example, .b.example")]);
        let proxy = Proxying::Environment.choose("http://x/", pairs).unwrap().unwrap();
        let direct = |host: &str| proxy.is_no_proxy(&format!("http://{host}/").parse().unwrap());
        assert!(direct("a.example") && direct("x.b.example") && !direct("c.example"));
    }

    #[test]
    fn fet_29_a_proxy_that_cannot_be_used_is_an_error_and_not_gone_around() {
        for bad in ["socks5://p:1", "http://", "::", "ftp://p"] {
            let error = Proxying::from_config(bad).unwrap_err();
            assert!(error.to_string().contains("`proxy`"), "{bad}: {error}");
        }
        let pairs = environment(&[("http_proxy", "socks5://p:1")]);
        assert!(Proxying::Environment.choose("http://x/", pairs).unwrap_err().to_string().contains("http_proxy"));
        assert_eq!(Proxying::from_config("none"), Ok(Proxying::Direct));
        let through = Proxying::from_config("http://me:secret@p:1").unwrap();
        let proxy = through.choose("http://x/", environment(&[])).unwrap().unwrap();
        assert_eq!((proxy.username(), proxy.password()), (Some("me"), Some("secret")));
    }
}
