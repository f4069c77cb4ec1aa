//! The host's side of the wall `host-sockets`: something to reach, if it can be reached (SBX-11).

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::question::unique;

/// Two listening sockets of the host: a loopback port and an abstract name. Nobody has to accept: the kernel lets
/// connections in until the backlog is full. They close when this is dropped.
#[derive(Debug)]
pub struct HostSockets {
    port: u16,
    name: String,
    _tcp: TcpListener,
    _unix: UnixListener,
}

impl HostSockets {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the kernel gives no socket; without loopback on the host there is nothing to prove, and that is an error
    /// too.
    pub fn listen() -> io::Result<Self> {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let name = format!("ralph-sandbox-{}", unique()?);
        let unix = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        Ok(Self { port: tcp.local_addr()?.port(), name, _tcp: tcp, _unix: unix })
    }

    /// The port of 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The abstract name, without the leading zero byte.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    /// SBX-11: on the host both can be reached, or the assertion would prove nothing.
    #[test]
    fn both_can_be_reached_from_the_host() {
        let sockets = HostSockets::listen().unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, sockets.port())).unwrap();
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(sockets.name()).unwrap()).unwrap();
    }
}
