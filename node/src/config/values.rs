//! From text to typed values: addresses, ranges, words, files. A refusal says what is wrong and what would be right.

use std::fmt;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use super::Origins;
use super::layers::{Layers, Problem};

/// `host:port`, the host a name or an IP address; IPv6 in brackets.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    /// Name or IP address, IPv6 without brackets.
    pub host: String,
    /// Port; 0 lets the system choose one, which makes sense for binding only.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A text that is not an address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is not an address: expected <host>:<port>, such as 192.168.1.10:7001 or [::1]:7001")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (host, port) = text.rsplit_once(':')?;
            let port: u16 = port.parse().ok()?;
            let host = match host.strip_prefix('[') {
                Some(rest) => {
                    let host = rest.strip_suffix(']')?;
                    host.parse::<Ipv6Addr>().ok()?;
                    host
                }
                None => Some(host).filter(|host| is_host(host))?,
            };
            Some(Address {
                host: host.to_owned(),
                port,
            })
        };
        parse().ok_or_else(|| AddressError(text.chars().take(200).collect()))
    }
}

/// Whether this can be a host name or an IPv4 address.
pub(super) fn is_host(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(allowed);
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253 && text.split('.').all(label)
}

/// Takes typed values out of the layers and collects what is wrong with them.
pub(super) struct Reader<'a> {
    pub layers: &'a Layers,
    pub problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    pub(super) fn refuse(&mut self, path: &str, message: impl Into<String>) {
        let place = self
            .layers
            .get(path)
            .map_or_else(|| path.to_owned(), |setting| setting.place.clone());
        self.problems.push(Problem {
            place,
            key: path.to_owned(),
            message: message.into(),
        });
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.layers.get(path).is_some()
    }

    /// The value, parsed; a text that `parse` refuses is a problem, and the same as absent from then on.
    pub(super) fn value<T>(
        &mut self,
        path: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(&self.layers.get(path)?.text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.refuse(path, message);
                None
            }
        }
    }

    pub(super) fn number(&mut self, path: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.value(path, |text| {
            let (low, high) = (range.start(), range.end());
            text.parse()
                .ok()
                .filter(|number| range.contains(number))
                .ok_or_else(|| {
                    format!("`{text}` is not allowed: expected a whole number from {low} to {high}")
                })
        })
    }

    pub(super) fn truth(&mut self, path: &str) -> Option<bool> {
        self.word(path, &[("true", true), ("false", false)])
    }

    pub(super) fn word<T: Copy>(&mut self, path: &str, words: &[(&str, T)]) -> Option<T> {
        self.value(path, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, value)| *value).ok_or_else(|| {
                let allowed: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
                format!("`{text}` is not allowed: expected {}", allowed.join(" or "))
            })
        })
    }

    /// An address to listen on.
    pub(super) fn bind_address(&mut self, path: &str) -> Option<Address> {
        self.value(path, |text| {
            text.parse::<Address>().map_err(|error| error.to_string())
        })
    }

    /// An address to connect to.
    pub(super) fn peer_address(&mut self, path: &str) -> Option<Address> {
        self.value(path, |text| match text.parse::<Address>() {
            Ok(address) if address.port == 0 => Err(format!(
                "`{text}` has port 0: expected the port that the master listens on, such as 7001"
            )),
            Ok(address) => Ok(address),
            Err(error) => Err(error.to_string()),
        })
    }

    /// The URL of a node's REST API, without a slash at its end.
    pub(super) fn url(&mut self, path: &str) -> Option<String> {
        self.value(path, |text| {
            let address = text
                .strip_prefix("http://")
                .map(|rest| rest.strip_suffix('/').unwrap_or(rest));
            match address.and_then(|address| address.parse::<Address>().ok()) {
                Some(address) if address.port != 0 => Ok(format!("http://{address}")),
                Some(_) | None => Err(format!(
                    "`{text}` is not allowed: expected http://<host>:<port>, such as http://192.168.1.10:15002"
                )),
            }
        })
    }

    /// Origins of pages, separated by commas, or `*` for all.
    pub(super) fn origins(&mut self, path: &str) -> Option<Origins> {
        self.value(path, |text| {
            if text.trim() == "*" {
                return Ok(Origins::Any);
            }
            let origins = text.split(',').map(str::trim).map(|origin| {
                let address = ["http://", "https://"]
                    .iter()
                    .find_map(|scheme| origin.strip_prefix(scheme));
                let good = address.is_some_and(|address| {
                    is_host(address) || address.parse::<Address>().is_ok()
                });
                if good {
                    // As browsers write it.
                    return Ok(origin.to_ascii_lowercase());
                }
                Err(format!(
                    "`{origin}` is not an origin: expected http(s)://<host>, with :<port> where it is not the usual one and without a path, such as https://app.example.com; several are separated by commas, and `*` stands for all"
                ))
            });
            origins.collect::<Result<_, _>>().map(Origins::These)
        })
    }

    pub(super) fn host(&mut self, path: &str) -> Option<String> {
        self.value(path, |text| {
            if is_host(text) || text.parse::<Ipv6Addr>().is_ok() {
                Ok(text.to_owned())
            } else {
                Err(format!(
                    "`{text}` is not a host: expected a name or an IP address, without a port"
                ))
            }
        })
    }

    /// A name as Kubernetes allows it for its objects, capitals and underscores as well.
    pub(super) fn name(&mut self, path: &str) -> Option<String> {
        self.value(path, |text| {
            if is_host(text) {
                Ok(text.to_owned())
            } else {
                Err(format!(
                    "`{text}` is not a name: expected 1 to 253 of A-Z a-z 0-9 - _ and single dots between"
                ))
            }
        })
    }

    pub(super) fn path(&mut self, path: &str) -> Option<PathBuf> {
        self.value(path, |text| {
            if text.is_empty() {
                Err("is empty: expected a path".to_owned())
            } else {
                Ok(PathBuf::from(text))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_the_same() {
        for text in [
            "0.0.0.0:7001",
            "localhost:0",
            "[::]:15002",
            "vc-0.vc.ns.svc:7001",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_an_example() {
        for text in [
            "",
            "7001",
            ":7001",
            "host",
            "host:",
            "host:65536",
            "a b:1",
            "::1:7001",
            "[x]:1",
            "http://h:1",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("192.168.1.10:7001"), "{text}: {error}");
        }
    }
}
