//! Connections that come through a load balancer, and who is at their other end (PROXY protocol, version 2).
//!
//! Invariant: a header is read from the addresses of the settings and from nobody else, and from these it is demanded: nobody can
//! choose the address that limits are counted against and records name.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ppp::v2::{Addresses, Command, Header, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::config::IpRange;

/// The part of a header that is always there: signature, version and command, family and protocol, length.
const FIXED: usize = 16;
/// Longest rest of a header that is read: the longest addresses, and room for what balancers add.
const MAX_REST: usize = 2_048;
/// A header that names nobody: the connection is the balancer's own (section 2.2, LOCAL).
pub const LOCAL_HEADER: [u8; FIXED] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Addresses of load balancers.
#[derive(Debug, Clone, Default)]
pub struct Balancers(Vec<IpRange>);

/// Why a connection of a balancer is closed.
#[derive(Debug, thiserror::Error)]
pub enum BalancerError {
    /// It broke before the header was whole.
    #[error("no PROXY header: {0}")]
    Io(#[from] io::Error),
    /// The balancer closed it without a word.
    #[error("no PROXY header: closed at once")]
    Closed,
    /// It was not whole in time.
    #[error("no PROXY header in time")]
    TooLate,
    /// Not a header of version 2, or one of something else than a TCP connection.
    #[error("not a usable PROXY header of version 2: {0}")]
    Malformed(&'static str),
}

impl Balancers {
    /// Those in `ranges`.
    #[must_use]
    pub const fn new(ranges: Vec<IpRange>) -> Self {
        Self(ranges)
    }

    /// Whether connections from `address` begin with a header.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }

    /// As [`other_end`](Self::other_end), for at most `limit`; a connection of a balancer that has no usable header is told in the log.
    ///
    /// # Errors
    /// [`BalancerError`]; the connection is to be closed.
    pub async fn other_end_within<S>(
        &self,
        limit: Duration,
        stream: &mut S,
        from: SocketAddr,
    ) -> Result<SocketAddr, BalancerError>
    where
        S: AsyncRead + Unpin,
    {
        let named = tokio::time::timeout(limit, self.other_end(stream, from))
            .await
            .unwrap_or(Err(BalancerError::TooLate));
        match &named {
            Ok(_) => {}
            // Its look at whether anybody listens.
            Err(error @ BalancerError::Closed) => {
                tracing::debug!(%error, balancer = %from, "a connection of a balancer was closed");
            }
            Err(error) => {
                tracing::warn!(%error, balancer = %from, "a connection of a balancer was closed before TLS");
            }
        }
        named
    }

    /// Who is at the other end of a connection from `from`: what its header says when it is a balancer's, else `from` itself.
    ///
    /// # Errors
    /// [`BalancerError`]; the connection is to be closed.
    pub async fn other_end<S>(
        &self,
        stream: &mut S,
        from: SocketAddr,
    ) -> Result<SocketAddr, BalancerError>
    where
        S: AsyncRead + Unpin,
    {
        if !self.contains(from.ip()) {
            return Ok(from);
        }
        let mut header = vec![0; FIXED];
        let read = stream.read(&mut header).await?;
        if read == 0 {
            return Err(BalancerError::Closed);
        }
        stream
            .read_exact(header.get_mut(read..).unwrap_or_default())
            .await?;
        let (Some(signature), Some(length)) = (header.get(..12), header.last_chunk::<2>()) else {
            return Err(BalancerError::Malformed("too short"));
        };
        if signature != ppp::v2::PROTOCOL_PREFIX {
            return Err(BalancerError::Malformed("another signature"));
        }
        let rest = usize::from(u16::from_be_bytes(*length));
        if rest > MAX_REST {
            return Err(BalancerError::Malformed("too long"));
        }
        header.resize(FIXED.saturating_add(rest), 0);
        let unread = header.get_mut(FIXED..).unwrap_or_default();
        stream.read_exact(unread).await?;
        let parsed = Header::try_from(header.as_slice())
            .map_err(|_| BalancerError::Malformed("it does not parse"))?;
        match (parsed.command, parsed.addresses) {
            // The balancer itself, as for its health checks.
            (Command::Local, _) => Ok(from),
            (Command::Proxy, _) if parsed.protocol != Protocol::Stream => {
                Err(BalancerError::Malformed("not of a TCP connection"))
            }
            (Command::Proxy, Addresses::IPv4(of)) => {
                Ok(SocketAddr::new(of.source_address.into(), of.source_port))
            }
            (Command::Proxy, Addresses::IPv6(of)) => {
                let source = IpAddr::from(of.source_address).to_canonical();
                Ok(SocketAddr::new(source, of.source_port))
            }
            (Command::Proxy, Addresses::Unix(_) | Addresses::Unspecified) => {
                Err(BalancerError::Malformed("it names no address"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn balancers() -> Balancers {
        Balancers::new(vec![
            IpRange::parse("10.1.0.0/16").unwrap(),
            IpRange::parse("fd00::1").unwrap(),
        ])
    }

    async fn read(from: &str, mut bytes: &[u8]) -> (Result<SocketAddr, BalancerError>, usize) {
        let end = balancers()
            .other_end(&mut bytes, from.parse().unwrap())
            .await;
        (end, bytes.len())
    }

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend(rest);
        header
    }

    const V4: [u8; 12] = [203, 0, 113, 9, 10, 1, 2, 3, 0x12, 0x34, 0x20, 0xfb];

    #[tokio::test]
    async fn the_client_is_who_the_balancer_says() {
        for (from, extra) in [
            ("10.1.2.3:5", 0),
            ("[::ffff:10.1.2.3]:5", 0),
            ("[fd00::1]:5", 7),
        ] {
            // What balancers add (section 2.2.7) is skipped.
            let added = vec![4; extra];
            let rest = if extra > 0 {
                [&V4[..], &[4, 0, 4], &added[..4]].concat()
            } else {
                V4.to_vec()
            };
            let bytes = [header(1, 0x11, &rest), b"TLS".to_vec()].concat();
            let (end, left) = read(from, &bytes).await;
            assert_eq!(end.unwrap(), "203.0.113.9:4660".parse().unwrap(), "{from}");
            assert_eq!(left, 3);
        }
        let mut rest = [0; 36];
        rest[..16].copy_from_slice(
            &"2001:db8::7"
                .parse::<std::net::Ipv6Addr>()
                .unwrap()
                .octets(),
        );
        rest[32..34].copy_from_slice(&[0, 80]);
        let (end, _) = read("10.1.2.3:5", &header(1, 0x21, &rest)).await;
        assert_eq!(end.unwrap(), "[2001:db8::7]:80".parse().unwrap());
    }

    #[tokio::test]
    async fn a_connection_of_the_balancer_itself_is_its_own() {
        assert_eq!(header(0, 0, &[]), LOCAL_HEADER);
        for bytes in [LOCAL_HEADER.to_vec(), header(0, 0x11, &V4)] {
            let (end, left) = read("10.1.2.3:5", &bytes).await;
            assert_eq!((end.unwrap(), left), ("10.1.2.3:5".parse().unwrap(), 0));
        }
    }

    #[tokio::test]
    async fn nobody_else_is_listened_to() {
        let bytes = header(1, 0x11, &V4);
        let (end, left) = read("10.2.0.1:5", &bytes).await;
        assert_eq!(
            (end.unwrap(), left),
            ("10.2.0.1:5".parse().unwrap(), bytes.len())
        );
    }

    #[tokio::test]
    async fn a_balancer_without_a_usable_header_is_refused() {
        let long = vec![0; MAX_REST + 1];
        let mut other_version = header(1, 0x11, &V4);
        other_version[12] = 0x31;
        for (bytes, why) in [
            (
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcde".to_vec(),
                "signature",
            ),
            (
                b"PROXY TCP4 203.0.113.9 10.1.2.3 1 2\r\n".to_vec(),
                "signature",
            ),
            (other_version, "parse"),
            (header(2, 0x11, &V4), "parse"),
            (header(1, 0x12, &V4), "TCP"),
            (header(1, 0x00, &[]), "TCP"),
            (header(1, 0x01, &[]), "names no address"),
            (header(1, 0x31, &[b'/'; 216]), "names no address"),
            (header(1, 0x11, &V4[..11]), "parse"),
            (header(1, 0x11, &long), "too long"),
            (header(1, 0x11, &V4)[..20].to_vec(), "no PROXY header"),
            (Vec::new(), "closed at once"),
        ] {
            let (end, _) = read("10.1.2.3:5", &bytes).await;
            let said = end.unwrap_err().to_string();
            assert!(said.contains(why), "{bytes:?}: {said}");
        }
    }
}
