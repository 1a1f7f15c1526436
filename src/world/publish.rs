//! Ports of a container that the host answers on, written as docker has them:
//! `[IP:]HOST:CONTAINER[/tcp]`, several separated by commas.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// One published TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedPort {
    /// Where the host listens.
    pub host: SocketAddr,
    /// The port on the container's loopback interface.
    pub container: u16,
}

impl PublishedPort {
    /// Reads a list.
    pub fn list(text: &str) -> Result<Vec<PublishedPort>, Error> {
        text.split(',').map(str::parse).collect()
    }
}

impl FromStr for PublishedPort {
    type Err = Error;

    fn from_str(text: &str) -> Result<PublishedPort, Error> {
        parse(text).ok_or_else(|| {
            let text = format!("{text:?} is no port to publish: write [IP:]HOST:CONTAINER (TCP)");
            Error::new(ErrorKind::InvalidInput, text)
        })
    }
}

fn parse(text: &str) -> Option<PublishedPort> {
    let ports = text.strip_suffix("/tcp").unwrap_or(text);
    let (host, container) = ports.rsplit_once(':')?;
    let (address, host) = match host.rsplit_once(':') {
        Some((address, host)) => (address, host),
        None => ("", host),
    };
    let bare = (address.strip_prefix('[')).and_then(|rest| rest.strip_suffix(']'));
    let address = match (bare, address) {
        (Some(bare), _) => IpAddr::V6(bare.parse().ok()?),
        (None, "") => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (None, address) => IpAddr::V4(address.parse().ok()?),
    };
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let port = text.parse::<u16>().ok().filter(|port| *port > 0);
        port.filter(|_| digits)
    };
    Some(PublishedPort {
        host: SocketAddr::new(address, port(host)?),
        container: port(container)?,
    })
}

impl Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_docker_has_them() {
        for (text, shown) in [
            ("8080:80", "0.0.0.0:8080:80"),
            ("127.0.0.1:8080:80/tcp", "127.0.0.1:8080:80"),
            ("[::1]:8080:80", "[::1]:8080:80"),
        ] {
            let port: PublishedPort = text.parse().expect(text);
            assert_eq!(port.to_string(), shown);
            assert_eq!(shown.parse::<PublishedPort>().expect(shown), port);
        }
        assert_eq!(PublishedPort::list("1:2,3:4").expect("two").len(), 2);
        for text in [
            "", "80", "a:80", "0:80", "80:0", "80:+1", "1:2/udp", "x:1:2", "1:2,", "::1:8:8",
        ] {
            assert!(PublishedPort::list(text).is_err(), "{text}");
        }
    }
}
