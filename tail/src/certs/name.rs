//! Names in certificates: host names and addresses of servers, names of devices.

use std::net::{IpAddr, Ipv6Addr};

use rustls_pki_types::ServerName;

use super::error::Error;

/// The name in a certificate by which devices know the server at `host`: a host name or an address, an IPv6 one also in
/// brackets or with a scope (`fe80::1%eth0`), which is a device's own and no part of a certificate.
pub(super) fn server(host: &str) -> Result<String, Error> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let name = match bare.split_once('%') {
        Some((address, scope)) if !scope.is_empty() && address.parse::<Ipv6Addr>().is_ok() => address,
        _ => bare,
    };
    match ServerName::try_from(name) {
        // The text of an address as certificates and dialling devices write it.
        Ok(ServerName::IpAddress(address)) => Ok(IpAddr::from(address).to_string()),
        Ok(_) => Ok(name.to_owned()),
        Err(_) => Err(Error::Name { name: host.to_owned(), reason: "is no host name or IP address".into() }),
    }
}

/// Checks that a device can be called this.
pub(crate) fn check_device(name: &str) -> Result<(), Error> {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    // A name in the form of an address would become an address in the certificate.
    let numeric = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if (1..=63).contains(&name.len()) && name.split('.').all(part) && !numeric {
        return Ok(());
    }
    let reason = "a device's name is 1 to 63 characters of a-z 0-9 -, with dots between parts, and no number";
    Err(Error::Name { name: name.to_owned(), reason: reason.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_of_an_address_is_not_part_of_the_certificate() {
        for (host, name) in [
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%3]", "fe80::1"),
            ("[::1]", "::1"),
            ("0:0::1", "::1"),
            ("10.0.0.7", "10.0.0.7"),
            ("tail.example", "tail.example"),
        ] {
            assert_eq!(server(host).unwrap(), name);
        }
        for host in ["fe80::1%", "tail%eth0", "10.0.0.7%1", "[tail", "not a host", ""] {
            assert!(server(host).is_err(), "{host}");
        }
    }
}
