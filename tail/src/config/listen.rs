//! The address that a server listens on.

use std::{fmt, net::SocketAddr, str::FromStr};

/// An address to listen on, `HOST:PORT`: the host is an address, an IPv6 one in brackets and with a scope if it needs one, or
/// a name, which is resolved when the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// A name or an address, an IPv6 one without brackets.
    pub host: String,
    /// The UDP port; with 0 the system chooses one.
    pub port: u16,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "give HOST:PORT, for example 0.0.0.0:7461, [::]:7461 or tail.local:7461";
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("no port; {example}"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(address) if address.contains(':') => address,
            Some(_) => return Err(format!("only an IPv6 address stands in brackets; {example}")),
            None if host.contains([':', '[', ']']) => {
                return Err(format!("an IPv6 address stands in brackets; {example}"));
            }
            None => host,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            return Err(format!("no host; {example}"));
        }
        let port = port.parse().map_err(|_| format!("no port from 0 to 65535; {example}"))?;
        Ok(Listen { host: host.to_owned(), port })
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Listen { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_read_and_written_alike() {
        for text in ["0.0.0.0:7461", "[::]:0", "[fe80::1%eth0]:7461", "tail.local:65535", "localhost:1"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for (text, word) in [
            ("7461", "no port"),
            ("tail.local", "no port"),
            ("tail.local:", "no port"),
            ("tail.local:70000", "65535"),
            (":7461", "no host"),
            ("a b:7461", "no host"),
            ("::1:7461", "brackets"),
            ("[tail]:7461", "brackets"),
            ("https://tail:7461", "brackets"),
        ] {
            let error = text.parse::<Listen>().unwrap_err();
            assert!(error.contains(word) && error.contains("tail.local:7461"), "{text}: {error}");
        }
    }
}
