//! Where a plane listens: an address or a host name, and a port.

use std::{
    borrow::Cow,
    fmt, io,
    net::{Ipv6Addr, SocketAddr, ToSocketAddrs},
    str::FromStr,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A host and a port: `0.0.0.0:8000`, `[::]:8000`, `localhost:8000`. A name is looked up when the gateway starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: Box<str>,
    port: u16,
}

impl Address {
    /// 0 stands for a free port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// All that the host is, IPv4 first, each once.
    ///
    /// # Errors
    /// When the name is unknown.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let mut found: Vec<SocketAddr> = (&*self.host, self.port).to_socket_addrs()?.collect();
        found.sort();
        found.dedup();
        Ok(found)
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string().into(), port: address.port() }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let all = |port: &str| {
            format!(
                "'{text}' names no host: write \"0.0.0.0:{port}\" to be reached from everywhere, or \"127.0.0.1:{port}\" from \
                 this machine alone"
            )
        };
        let is_port = |text: &str| !text.is_empty() && text.parse::<u16>().is_ok();
        match text.rsplit_once(':') {
            None if is_port(text) => Err(all(text)),
            Some(("" | "*", port)) if is_port(port) => Err(all(port)),
            Some((host, port)) if is_host(host) && is_port(port) => {
                Ok(Self { host: host.into(), port: port.parse().map_err(|_| not_an_address(text))? })
            }
            _ if is_host(text) && text.contains(|char: char| char.is_ascii_alphabetic() || char == '.') => {
                Err(format!("'{text}' has no port: write one behind it, such as \"{text}:8000\""))
            }
            _ if text.parse::<Ipv6Addr>().is_ok() => {
                Err(format!("'{text}' is an IPv6 address without a port: write \"[{text}]:8000\""))
            }
            _ => Err(not_an_address(text)),
        }
    }
}

fn not_an_address(text: &str) -> String {
    format!(
        "'{text}' is no address: write a host and a port, such as \"127.0.0.1:8000\", \"[::]:8000\" or \"localhost:8000\""
    )
}

/// Whether this may be a name of DNS, or an address of IPv4.
fn is_host(text: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(is_part)
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

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Address;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a host and a port such as \"127.0.0.1:8000\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Address, E> {
                text.parse().map_err(E::custom)
            }

            // A port alone, which gets the words for it.
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Address, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "a host and a port, such as \"0.0.0.0:8000\", \"[::]:8000\" or \"localhost:8000\"",
            "pattern": r"^(\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9._-]+):\d{1,5}$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_may_be_of_either_family_or_a_name() {
        for text in
            ["127.0.0.1:8000", "0.0.0.0:0", "[::]:8000", "[::1]:1", "localhost:8000", "gateway-1.prod.example:80"]
        {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(Address::deserialize(toml::Value::from(text)).unwrap(), address);
        }
        let found = "localhost:8000".parse::<Address>().unwrap().resolve().unwrap();
        assert!(!found.is_empty() && found.iter().all(|found| found.ip().is_loopback() && found.port() == 8000));
        assert!(found[0].is_ipv4() || found.iter().all(SocketAddr::is_ipv6), "IPv4 first");
        assert_eq!("[::]:8000".parse::<Address>().unwrap().resolve().unwrap(), ["[::]:8000".parse().unwrap()]);
    }

    #[test]
    fn what_is_no_address_is_refused_with_one_that_is() {
        for (text, words) in [
            (
                "8000",
                "write \"0.0.0.0:8000\" to be reached from everywhere, or \"127.0.0.1:8000\" from this machine alone",
            ),
            (":8000", "write \"0.0.0.0:8000\""),
            ("*:8000", "write \"0.0.0.0:8000\""),
            ("localhost", "'localhost' has no port: write one behind it, such as \"localhost:8000\""),
            ("127.0.0.1", "such as \"127.0.0.1:8000\""),
            ("::1", "write \"[::1]:8000\""),
            ("http://localhost:8000", "such as \"127.0.0.1:8000\", \"[::]:8000\" or \"localhost:8000\""),
            ("localhost:http", "is no address"),
            ("localhost:99999", "is no address"),
            ("", "is no address"),
            ("a b:1", "is no address"),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
            assert!(Address::deserialize(toml::Value::from(text)).unwrap_err().to_string().contains(words));
        }
        let error = Address::deserialize(toml::Value::from(8000)).unwrap_err().to_string();
        assert!(error.contains("\"127.0.0.1:8000\""), "{error}");
    }
}
