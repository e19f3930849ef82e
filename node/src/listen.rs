//! Listening on a TCP port, and how many files the process may have open for what comes.
//!
//! `[::]` stands for every address of the machine, of both families: the socket takes IPv4 as well, whatever the system's
//! default for that is, and where the system has no IPv6 at all it is `0.0.0.0`.
//!
//! Each connection is an open file, as are the log's segments and everybody's links. The soft limit of open files, which
//! is often 1024 for the sake of programs that cannot take more, is raised to the hard one at start; of what is allowed
//! then, a part is kept back for files, so that no number of clients keeps the node from writing its log.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::sockopt::set_ipv6_v6only;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};

use crate::config::Address;

/// Connections that the system holds for this process until they are accepted.
const BACKLOG: u32 = 1024;
/// Open files that are kept back from the REST API's connections: links (256), probes and commands (128), the log,
/// checkpoints, snapshots, forwarded writes.
const KEPT_BACK: u64 = 768;

/// Listens on an address of the configuration.
///
/// # Errors
///
/// What the system says, above all that the port is taken.
pub async fn listen(address: &Address) -> io::Result<TcpListener> {
    if address.host.parse() != Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) {
        return TcpListener::bind(address.to_string()).await;
    }
    match on_both_families(address.port) {
        Err(error) if has_no_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port)).await
        }
        listening => listening,
    }
}

fn on_both_families(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    set_ipv6_v6only(&socket, false)?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv6Addr::UNSPECIFIED, port).into())?;
    socket.listen(BACKLOG)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    let code = error
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error);
    matches!(
        code,
        Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL)
    )
}

/// The address of a peer as people write it: an IPv4 peer of a socket of both families is no IPv6 address.
pub fn plain(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// Raises the soft limit of open files to the hard one; how many are allowed then, `None` for as many as one likes.
pub fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, ?current, ?maximum, "the limit of open files cannot be raised");
            current
        }
    }
}

/// How many connections the REST API may have: as many as configured, less when so many files cannot be open.
pub fn connections(configured: usize, open_files: Option<u64>) -> usize {
    let Some(open_files) = open_files else {
        return configured;
    };
    let left = open_files - KEPT_BACK.min(open_files / 2);
    configured.min(usize::try_from(left).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn without_a_choice_both_families_are_listened_on() {
        let listener = listen(&"[::]:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hosts = [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        for host in hosts {
            TcpStream::connect((host, port)).await.unwrap();
            let (_, peer) = listener.accept().await.unwrap();
            assert_eq!(plain(peer).ip(), host);
        }
    }

    #[tokio::test]
    async fn an_address_of_the_configuration_is_the_only_one() {
        let listener = listen(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let bound = listener.local_addr().unwrap();
        TcpStream::connect(bound).await.unwrap();
        let elsewhere = (Ipv6Addr::LOCALHOST, bound.port());
        TcpStream::connect(elsewhere).await.unwrap_err();
        let taken = listen(&bound.to_string().parse().unwrap()).await;
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn connections_leave_room_for_files_however_few_are_allowed() {
        assert_eq!(connections(2048, None), 2048);
        assert_eq!(connections(2048, Some(1 << 20)), 2048);
        assert_eq!(connections(2048, Some(2048)), 1280);
        assert_eq!(connections(2048, Some(1024)), 512);
        assert_eq!(connections(2048, Some(64)), 32);
        assert_eq!(connections(100, Some(1024)), 100);
    }
}
