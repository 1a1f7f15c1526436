//! The loopback interface of a new network namespace, which starts out down.
//!
//! libcontainer leaves it so; containers everywhere else find `127.0.0.1`
//! usable. A namespace that the spec names by path is somebody else's to set up.

use std::fs::File;
use std::os::fd::AsFd;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::LinkNameSpaceType;

use crate::error::{Error, ErrorKind, IoContext, Result};

/// Index of the loopback interface in every network namespace.
const LOOPBACK: i32 = 1;
const RTM_NEWLINK: u16 = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST_AND_ACK: u16 = 1 | 4;
const IFF_UP: u32 = 1;

/// Brings it up where the container of `spec` with the init `pid` has a new namespace.
pub(super) fn bring_up(spec: &Spec, pid: i32) -> Result<()> {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().clone());
    let is_new = namespaces.unwrap_or_default().iter().any(|namespace| {
        namespace.typ() == LinuxNamespaceType::Network && namespace.path().is_none()
    });
    if !is_new {
        return Ok(());
    }
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).context(|| format!("open {path}"))?;
    // On a thread of its own: the namespace that it enters ends with it.
    let inside = || {
        rustix::thread::move_into_link_name_space(
            namespace.as_fd(),
            Some(LinkNameSpaceType::Network),
        )
        .and_then(|()| set_up())
        .context(|| "bring up the container's loopback interface")
    };
    std::thread::scope(|scope| scope.spawn(inside).join())
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a thread panicked")))
}

fn set_up() -> rustix::io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE
    )?;
    rustix::net::send(&socket, &request(), SendFlags::empty())?;
    let mut answer = [0; 64];
    let (_, length) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    verdict(answer.get(..length).unwrap_or(&answer))
}

/// `struct nlmsghdr` and `struct ifinfomsg`: raise the flag IFF_UP, touch no other.
fn request() -> Vec<u8> {
    let mut message = Vec::with_capacity(32);
    message.extend(32u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_AND_ACK.to_ne_bytes());
    message.extend([0; 12]); // sequence number, port, family, device type
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message
}

/// The kernel acknowledges with an error message whose error is 0.
fn verdict(answer: &[u8]) -> rustix::io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok());
    match (kind.map(u16::from_ne_bytes), error.map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(Errno::from_raw_os_error(-error)),
        _ => Err(Errno::PROTO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_has_the_length_that_it_says() {
        let message = request();
        assert_eq!(message.len(), 32);
        assert_eq!(message[..4], 32u32.to_ne_bytes());
    }

    #[test]
    fn answers_are_understood() {
        let mut answer = vec![0; 36];
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        assert_eq!(verdict(&answer), Ok(()));
        answer[16..20].copy_from_slice(&(-1i32).to_ne_bytes());
        assert_eq!(verdict(&answer), Err(Errno::PERM));
        assert_eq!(verdict(&answer[..10]), Err(Errno::PROTO));
    }
}
