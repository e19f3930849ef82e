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
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    let read = tokio::time::timeout(DEADLINE, read).await;
    // A reset is an end as well.
    let _ = read.unwrap_or_else(|_| panic!("not cut off after {} bytes", bytes.len()));
    answer.len()
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
    // Many at once, each with the beginning of something.
    let mut half_said = Vec::new();
    for _ in 0..200 {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        let _ = socket.write_all(&random[..16]).await;
        half_said.push(socket);
    }
    let position = master.put(0..10).await;
    replica.reaches(position).await;
    let grown = master.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes of memory for nonsense");
    assert!(master.metric("vectorizer_link_refused_total").await >= 4);
    assert_eq!(master.status().await.connected_replicas, 1);
    drop(half_said);
    agree([(&at_home, master), (&elsewhere, replica)]).await;
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
