//! Peers that speak nonsense are cut off, cost next to nothing, and disturb nobody.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::agree::agree;
use super::harness::*;

/// Sends bytes and waits until the other side closes; how much it said before.
async fn said_to(address: &str, bytes: &[u8]) -> usize {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // It may close while we still talk.
    let _ = socket.write_all(bytes).await;
    said_by(&mut socket).await
}

/// Waits until the other side closes; how much it said before.
async fn said_by(socket: &mut TcpStream) -> usize {
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    // A reset is an end as well.
    let _ = tokio::time::timeout(DEADLINE, read)
        .await
        .expect("not cut off");
    answer.len()
}

/// The kind of frame that a replica begins with.
const GREET: u8 = 1;

/// A frame's header, its checksum right (docs/replication.md, Frames).
fn header(kind: u8, len: u32) -> Vec<u8> {
    let mut out = vec![0x01, 0x56, kind, 0, 0, 0];
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    out
}

#[tokio::test]
async fn whoever_speaks_nonsense_on_the_replication_port_is_cut_off() {
    let at_home = Machine::master();
    let elsewhere = Machine::replica_of(&at_home);
    let (master, replica) = pair(&at_home, &elsewhere).await;
    let before = master.memory();
    let address = at_home.replication();
    let random: Vec<u8> = (0..100_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let huge_length = [[0xff; 8].as_slice(), &random].concat();
    let mut large_frame = u32::MAX.to_le_bytes().to_vec();
    large_frame.resize(4 << 20, 7);
    for nonsense in [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".as_slice(),
        &random,
        &huge_length,
        &large_frame,
        &[0; 65_536],
    ] {
        let said = said_to(&address, nonsense).await;
        assert!(said < 65_536, "{said} bytes of answer to nonsense");
    }
    // A header that is right in itself, and announces more than anybody would take.
    let said = said_to(&address, &header(GREET, u32::MAX)).await;
    assert!(said < 65_536, "{said} bytes of answer to nonsense");
    // Many at once, each with the beginning of what a replica says first, and never more.
    let mut half_said = Vec::new();
    for _ in 0..400 {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        let _ = socket.write_all(&header(GREET, 100)[..8]).await;
        half_said.push(socket);
    }
    // The oldest made way for the newest: they keep nobody out who has something to say.
    let closed = said_by(&mut half_said[0]).await;
    assert_eq!(closed, 0, "the first was told something");
    let newest = half_said[399].try_read(&mut [0; 16]);
    let open = newest.as_ref().err().map(std::io::Error::kind);
    assert_eq!(open, Some(std::io::ErrorKind::WouldBlock), "{newest:?}");
    let late = Machine::replica_of(&at_home);
    let another = late.start().await;
    let position = master.put(0..10).await;
    replica.reaches(position).await;
    another.reaches(position).await;
    let grown = master.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes of memory for nonsense");
    assert!(master.metric("vectorizer_link_refused_total").await >= 5);
    assert_eq!(master.status().await.connected_replicas, 2);
    drop(half_said);
    agree([(&at_home, master), (&elsewhere, replica), (&late, another)]).await;
}

#[tokio::test]
async fn whoever_speaks_nonsense_on_the_rest_port_is_refused() {
    let machine = Machine::master();
    let node = machine.start().await;
    let address = format!("{}:15002", machine.ip);
    for nonsense in [
        b"nonsense\r\n\r\n".as_slice(),
        b"GET / HTTP/9.9\r\n\r\n",
        &[0xff; 200_000],
        b"POST /insert HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 99999999999999\r\n\r\n{}",
        b"POST /insert HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    ] {
        said_to(&address, nonsense).await;
    }
    assert!(node.client.ready().await.unwrap());
    assert!(node.client.live().await.unwrap());
}
