//! A way out, for `--without network-egress` alone: in its own network namespace, loopback is up and claims to know
//! the way to 192.0.2.0/24. Nothing leaves the machine by it.

use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{recv, sendto, socket};

use crate::error::{Error, Explain};

const RTM_SETLINK: u16 = 19;
const RTM_NEWROUTE: u16 = 24;
const REQUEST_ACK: u16 = 0x1 | 0x4;
const CREATE: u16 = 0x400;
const LOOPBACK: u32 = 1;

/// Opens it.
pub(super) fn open_route() -> Result<(), Error> {
    let up = 1u32.to_ne_bytes();
    // struct ifinfomsg: family, pad, type, index, flags, change.
    let link = [&[0; 4][..], &LOOPBACK.to_ne_bytes(), &up, &up].concat();
    request(RTM_SETLINK, 0, &link).step("bring loopback up")?;
    // struct rtmsg: AF_INET, /24, /0, tos, table main, protocol boot, scope link, unicast, flags.
    let route = [2, 24, 0, 0, 254, 3, 253, 1, 0, 0, 0, 0];
    let destination = attribute(1, [192, 0, 2, 0]);
    let interface = attribute(4, LOOPBACK.to_ne_bytes());
    request(RTM_NEWROUTE, CREATE, &[&route[..], &destination, &interface].concat()).step("add a route")
}

fn attribute(kind: u16, value: [u8; 4]) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..2].copy_from_slice(&8u16.to_ne_bytes());
    bytes[2..4].copy_from_slice(&kind.to_ne_bytes());
    bytes[4..].copy_from_slice(&value);
    bytes
}

/// Sends one request (struct nlmsghdr and `body`) and reads the answer: struct nlmsghdr and a negative errno.
fn request(kind: u16, flags: u16, body: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX).to_ne_bytes();
    let flags = (REQUEST_ACK | flags).to_ne_bytes();
    let message = [&length[..], &kind.to_ne_bytes(), &flags, &[0; 8], body].concat();
    let family = AddressFamily::Netlink;
    let descriptor = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    sendto(descriptor.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 1024];
    let read = recv(descriptor.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let code = answer[..read].get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(std::io::Error::from_raw_os_error(-code)),
        None => Err(std::io::Error::other("the kernel's answer is too short")),
    }
}
