//! Many connections, silent ones, and those that came for a master which is none any more.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vectorizer_api::client::{Client, Timeouts};

use super::agree::agree;
use super::harness::*;
use super::roles::*;

async fn connect(machine: &Machine, port: u16) -> TcpStream {
    TcpStream::connect((machine.ip, port)).await.unwrap()
}

async fn silent(machine: &Machine, port: u16, count: usize) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..count {
        silent.push(connect(machine, port).await);
    }
    silent
}

/// Of the port for probes, commands and metrics.
fn ops(machine: &Machine) -> Client {
    let timeouts = Timeouts {
        connect: DEADLINE,
        overall: DEADLINE,
    };
    Client::new(machine.ops(), timeouts).unwrap()
}

/// The sum of a metric over all its labels that have this in them.
async fn counted(machine: &Machine, name: &str, label: &str) -> f64 {
    let url = format!("{}/metrics", machine.ops());
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let lines = text
        .lines()
        .filter(|l| l.starts_with(name) && l.contains(label));
    lines
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum()
}

/// One request on a connection that stays open, and the head of its answer.
async fn ask(socket: &mut TcpStream, request: &str) -> String {
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let (head, length) = loop {
        let mut some = [0; 4096];
        let read = tokio::time::timeout(DEADLINE, socket.read(&mut some)).await;
        let read = read.expect("no answer").unwrap();
        assert!(read > 0, "closed without an answer");
        answer.extend_from_slice(&some[..read]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.unwrap().parse().unwrap();
            break (head.to_owned(), length - body.len());
        }
    };
    socket.read_exact(&mut vec![0; length]).await.unwrap();
    head
}

/// Waits until the node has closed a connection.
async fn closed(socket: &mut TcpStream) {
    let read = tokio::time::timeout(DEADLINE, socket.read(&mut [0])).await;
    let read = read.expect("not closed");
    assert!(!read.is_ok_and(|bytes| bytes > 0), "it said something");
}

const READ: &str = "GET /collections HTTP/1.1\r\nhost: x\r\n\r\n";
const WRITE: &str =
    "DELETE /collections/none HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\r\n";

#[tokio::test]
async fn any_number_of_silent_connections_keeps_nobody_from_being_answered() {
    const PLACES: usize = 64;
    let machine = commandable(Machine::master())
        .set("server.max_concurrent_requests=1")
        .set(&format!("server.max_connections={PLACES}"));
    let node = machine.start().await;
    node.create().await;
    let many = silent(&machine, 15002, 5 * PLACES).await;
    let of_ops = silent(&machine, 15003, 5 * PLACES).await;
    for port in [node.client.clone(), ops(&machine)] {
        assert!(port.live().await.unwrap());
        assert!(port.ready().await.unwrap());
        port.replication_status().await.unwrap();
    }
    let commander = commander(&node).at(machine.ops());
    assert!(commander.control_state().await.unwrap().writable);
    node.put(0..3).await;
    node.holds(0..3).await;

    // Data has no place on the port for probes.
    let refused = ops(&machine).list_vectors("c", 1, 0).await.unwrap_err();
    let refused = refused.api().unwrap();
    assert_eq!(refused.status_code, 404);
    assert!(refused.message.contains("is on port 15002"), "{refused}");

    let closed = "vectorizer_http_connections_closed_total";
    let displaced = counted(&machine, closed, "port=\"rest\",reason=\"displaced\"").await;
    assert!(displaced >= (4 * PLACES) as f64, "{displaced}");
    let open = counted(&machine, "vectorizer_http_connections{", "rest").await;
    assert!(open <= PLACES as f64, "{open}");
    let said = node.said();
    let lines = said.lines().filter(|l| l.contains("connections run short"));
    let lines: Vec<_> = lines.collect();
    assert!((1..=4).contains(&lines.len()), "{lines:?}");
    drop((many, of_ops));
    assert_eq!(node.stop().await, Some(0));
}

#[tokio::test]
async fn whoever_says_nothing_or_takes_nothing_is_cut_off_after_a_while() {
    let machine = Machine::master();
    let node = machine.start().await;
    node.create().await;
    node.put_large(0..1000, 8 << 10).await;
    let mut says_nothing = connect(&machine, 15002).await;
    let mut on_ops = connect(&machine, 15003).await;
    // More than all buffers between here and there hold.
    let mut takes_nothing = connect(&machine, 15002).await;
    let page = "GET /collections/c/vectors?limit=1000 HTTP/1.1\r\nhost: x\r\n\r\n";
    let pages = page.repeat(8);
    takes_nothing.write_all(pages.as_bytes()).await.unwrap();
    // One that asks now and then is no such client.
    let mut asks = connect(&machine, 15002).await;
    ask(&mut asks, READ).await;
    closed(&mut says_nothing).await;
    closed(&mut on_ops).await;
    until("those who say or take nothing to be cut off", async || {
        let name = "vectorizer_http_connections_closed_total";
        match counted(&machine, name, "reason=\"silent\"").await {
            3.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    ask(&mut asks, READ).await;
    node.put(0..1).await;
}

#[tokio::test]
async fn however_many_connect_files_can_be_opened() {
    let machine = Machine::master()
        .open_files("-n 256")
        .set("storage.segment_bytes=4096")
        .set("replication.log_size=64");
    let node = machine.start().await;
    node.create().await;
    let many = silent(&machine, 15002, 400).await;
    for n in 0..60 {
        node.put(n * 20..n * 20 + 20).await;
    }
    node.holds(0..1200).await;
    assert!(!node.said().contains("Too many open files"));
    drop(many);
    assert_eq!(node.stop().await, Some(0));

    let machine = Machine::master().open_files("-Sn 256");
    let node = machine.start().await;
    let (soft, hard) = node.open_files();
    assert_eq!(soft, hard, "the soft limit is raised at start");
}

#[tokio::test]
async fn connections_that_came_for_a_master_end_with_it_and_fail_no_request() {
    let first = commandable(Machine::master());
    let second = commandable(Machine::replica_of(&first));
    let (old, new) = pair(&first, &second).await;
    let mut reads = connect(&first, 15002).await;
    let mut writes = connect(&first, 15002).await;
    let mut idles = connect(&first, 15002).await;
    let mut of_replica = connect(&second, 15002).await;
    for socket in [&mut reads, &mut writes, &mut idles, &mut of_replica] {
        let head = ask(socket, READ).await;
        assert!(!head.contains("connection: close"), "{head}");
    }
    hand_over(&old, &new, &second).await;

    // The next answer says that it is the last one here.
    let head = ask(&mut reads, READ).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    closed(&mut reads).await;
    // Forwarded: the new master's answer, that there is no such collection.
    let head = ask(&mut writes, WRITE).await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    // Whoever comes while the Service may still lead here is sent on as well.
    let mut late = connect(&first, 15002).await;
    let head = ask(&mut late, READ).await;
    assert!(head.contains("connection: close"), "{head}");
    // The new master's connections stay.
    let head = ask(&mut of_replica, READ).await;
    assert!(!head.contains("connection: close"), "{head}");

    // One that asks nothing is closed when writes are not forwarded any more.
    closed(&mut idles).await;
    // From then on writes are refused, and whoever wants another answer needs another connection.
    let mut after = connect(&first, 15002).await;
    let head = ask(&mut after, READ).await;
    assert!(!head.contains("connection: close"), "{head}");
    let head = ask(&mut after, WRITE).await;
    assert!(head.starts_with("HTTP/1.1 421"), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    closed(&mut after).await;
    agree([(&second, new), (&first, old)]).await;
}
