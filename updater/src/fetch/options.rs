//! From the command line and the configuration to addresses and settings (FET-28, FET-29, FET-50).

use crate::config::{ConfigError, Network};

use super::client::{Proxying, Settings};
use super::mirrors::mirror_address;
use super::rate::{Limit, NotARate, Rate};

/// A mirror that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an http or https address, or a folder for an image without a file name")]
struct NotAMirror(String);

/// The rate: what is asked for now, else the setting.
///
/// # Errors
/// The setting is none.
pub fn rate(network: &Network, asked: Option<Rate>) -> Result<Option<Rate>, ConfigError> {
    let set = network.limit_rate.as_deref().map(str::parse).transpose();
    let set = set.map_err(|source: NotARate| ConfigError::Setting { name: "limit-rate", source: source.into() })?;
    Ok(asked.or(set))
}

/// How to fetch.
///
/// # Errors
/// A setting that cannot be used.
pub fn settings(network: &Network, rate: Option<Rate>) -> Result<Settings, ConfigError> {
    let proxy = network.proxy.as_deref().map(Proxying::from_config).transpose();
    let proxy = proxy.map_err(|source| ConfigError::Setting { name: "proxy", source: source.into() })?;
    Ok(Settings { proxy: proxy.unwrap_or_default(), limit: Limit::new(rate), ..Settings::default() })
}

/// The image's addresses at the mirrors that were named now, then at those of the setting; each once, and not the image's own.
///
/// # Errors
/// One is no address.
pub fn mirrors(image: &str, named: &[String], network: &Network) -> Result<Vec<String>, ConfigError> {
    let mut all = Vec::new();
    let named = named.iter().map(|mirror| ("--mirror", mirror));
    for (name, mirror) in named.chain(network.mirrors.iter().map(|mirror| ("mirrors", mirror))) {
        let lower = mirror.to_ascii_lowercase();
        let http = lower.starts_with("http://") || lower.starts_with("https://");
        let address = mirror_address(image, mirror).filter(|_| http);
        let address =
            address.ok_or_else(|| ConfigError::Setting { name, source: NotAMirror(mirror.clone()).into() })?;
        if address != image && !all.contains(&address) {
            all.push(address);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fet_28_addresses_stand_in_the_order_in_which_they_are_asked() {
        let network = Network { mirrors: vec!["http://c/y/".into(), "http://b/v2.zst".into()], ..Network::default() };
        let named = ["http://b/v2.zst".to_owned()];
        let all = mirrors("https://a/x/v2.zst", &named, &network).unwrap();
        assert_eq!(all, ["http://b/v2.zst", "http://c/y/v2.zst"]);
        for bad in ["ftp://b/", "b/v2.zst", "", "/srv/"] {
            let error = mirrors("https://a/x", &[bad.to_owned()], &network).unwrap_err();
            assert!(error.to_string().contains("--mirror"), "{bad}: {error}");
        }
        assert!(mirrors("https://a", &[], &network).unwrap_err().to_string().contains("`mirrors`"));
    }

    #[test]
    fn fet_50_what_is_asked_for_now_stands_before_the_setting() {
        let network = Network { limit_rate: Some("1M".into()), proxy: Some("none".into()), ..Network::default() };
        let bytes = |asked| rate(&network, asked).unwrap().map(Rate::bytes_a_second);
        assert_eq!(bytes(None), Some(1 << 20));
        assert_eq!(bytes("5M".parse().ok()), Some(5 << 20));
        assert_eq!(rate(&Network::default(), None).unwrap(), None);
        assert_eq!(settings(&network, None).unwrap().proxy, Proxying::Direct);
        for (name, network) in [
            ("limit-rate", Network { limit_rate: Some("fast".into()), ..Network::default() }),
            ("proxy", Network { proxy: Some("socks5://p".into()), ..Network::default() }),
        ] {
            let error = rate(&network, None).and_then(|rate| settings(&network, rate)).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
