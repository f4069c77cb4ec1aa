//! What the probe can reach.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr as InetAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::{Found, read};
use crate::question::Question;

/// Addresses for documentation: nobody answers there (RFC 5737, RFC 3849).
const OUTSIDE: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// Errors that say there is no way.
const NO_WAY: [Errno; 5] =
    [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EADDRNOTAVAIL, Errno::ENETDOWN, Errno::EAFNOSUPPORT];

/// What "at once" means, on a slow machine.
const AT_ONCE: Duration = Duration::from_secs(1);

pub(super) fn interfaces() -> Found {
    match interface_names(&read("/proc/net/dev")?).as_slice() {
        ["lo"] => Ok("lo".to_owned()),
        names => Err(format!("{names:?}, expected lo and nothing else")),
    }
}

/// The two lines of headings have no colon.
fn interface_names(dev: &str) -> Vec<&str> {
    dev.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect()
}

pub(super) fn egress() -> Found {
    let (v4, v6) = (InetAddr::from((OUTSIDE.0, 9)), InetAddr::from((OUTSIDE.1, 9)));
    let udp = |to: InetAddr| {
        let any: InetAddr =
            if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        UdpSocket::bind(any)?.connect(to)
    };
    no_way("UDP", v4, || udp(v4))?;
    no_way("TCP", v4, || TcpStream::connect_timeout(&v4, AT_ONCE).map(drop))?;
    no_way("UDP", v6, || udp(v6))?;
    Ok("no way out by IPv4 or IPv6".to_owned())
}

fn no_way(protocol: &str, to: InetAddr, connect: impl FnOnce() -> io::Result<()>) -> Result<(), String> {
    let start = Instant::now();
    match connect() {
        Ok(()) => Err(format!("{protocol} to {to}: there is a way, expected none")),
        Err(e) if !NO_WAY.iter().any(|errno| e.raw_os_error() == Some(*errno as i32)) => {
            Err(format!("{protocol} to {to}: {e}, expected an error of routing"))
        }
        Err(_) if start.elapsed() >= AT_ONCE => Err(format!("{protocol} to {to}: no error at once")),
        Err(_) => Ok(()),
    }
}

pub(super) fn host_sockets(question: &Question) -> Found {
    let port = InetAddr::from((Ipv4Addr::LOCALHOST, question.tcp_port));
    if TcpStream::connect_timeout(&port, AT_ONCE).is_ok() {
        return Err(format!("{port} of the host can be connected to, expected an error"));
    }
    let name = &question.abstract_socket;
    let address = SocketAddr::from_abstract_name(name).map_err(|e| format!("the socket's name {name:?}: {e}"))?;
    match UnixStream::connect_addr(&address) {
        Ok(_) => Err(format!("the host's abstract socket {name} can be connected to, expected an error")),
        Err(_) => Ok("neither the port nor the abstract socket can be reached".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SBX-12, `network-interfaces`.
    #[test]
    fn names_are_read() {
        let dev = "Inter-|   Receive  |  Transmit\n face |bytes  packets|bytes\n    lo:       0  0\n  eth0: 1 2\n";
        assert_eq!(interface_names(dev), ["lo", "eth0"]);
    }

    /// SBX-12, `network-egress`: success, another error and slowness do not hold.
    #[test]
    fn only_errors_of_routing_hold() {
        let to = InetAddr::from((OUTSIDE.0, 9));
        let error = |errno: Errno| no_way("UDP", to, || Err(errno.into()));
        assert!(error(Errno::ENETUNREACH).is_ok());
        assert!(error(Errno::EACCES).is_err());
        assert!(no_way("UDP", to, || Ok(())).is_err());
    }
}
