//! The answer to a refused request arrives, whatever part of its body the client has sent by then.

use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::*;

/// Bytes of each body: more than all buffers between a client and the node hold.
const BODY: usize = 24 << 20;

/// A node that refuses: without a key everything (401), with it bodies above 1 MiB (413).
async fn strict() -> (Machine, Node) {
    let machine = Machine::master();
    let key = machine.file("admin-key", "the-key");
    let machine = machine
        .set(&format!("server.admin_key_file={}", key.display()))
        .set("server.max_body_bytes=1048576");
    let node = machine.start().await;
    (machine, node)
}

/// What a program that is given the node's URL prints.
fn prints(program: &str, arguments: &[&str], url: &str) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .env("URL", url)
        .env("BODY", BODY.to_string())
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: there is no {program} here");
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn a_client_that_sends_everything_before_it_reads_gets_the_answer() {
    let (machine, node) = strict().await;
    let announced = format!("content-length: {BODY}\r\n\r\n");
    for (path, head, status) in [
        ("POST /insert", announced.as_str(), 401),
        (
            "POST /insert",
            &format!("authorization: Bearer the-key\r\n{announced}"),
            413,
        ),
        ("POST /nowhere", &announced, 404),
        ("PUT /collections", &announced, 405),
        ("GET /livez", &announced, 200),
    ] {
        let mut socket = TcpStream::connect((machine.ip, 15002)).await.unwrap();
        let request = format!("{path} HTTP/1.1\r\nhost: x\r\n{head}");
        socket.write_all(request.as_bytes()).await.unwrap();
        socket.write_all(&vec![b'x'; BODY]).await.unwrap();
        let mut answer = String::new();
        let read = socket.read_to_string(&mut answer);
        tokio::time::timeout(DEADLINE, read)
            .await
            .expect("not closed")
            .unwrap();
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{path}: {answer}");
        assert!(answer.contains("connection: close"), "{path}: {answer}");
    }
    assert!(node.client.live().await.unwrap());
}

#[tokio::test]
async fn a_short_body_that_nobody_reads_does_not_cost_the_connection() {
    let (machine, _node) = strict().await;
    let mut socket = TcpStream::connect((machine.ip, 15002)).await.unwrap();
    let request = "POST /insert HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n";
    for _ in 0..3 {
        socket.write_all(request.as_bytes()).await.unwrap();
        socket.write_all(&[b'x'; 1000]).await.unwrap();
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 401");
        // The rest of it: its end is that of the error, which closes one object.
        let mut last = [0];
        let mut depth = 0;
        loop {
            socket.read_exact(&mut last).await.unwrap();
            match last[0] {
                b'{' => depth += 1,
                b'}' if depth == 1 => break,
                b'}' => depth -= 1,
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn whoever_asks_before_sending_is_not_made_to_send() {
    let (machine, _node) = strict().await;
    let mut socket = TcpStream::connect((machine.ip, 15002)).await.unwrap();
    let request = format!(
        "POST /insert HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {BODY}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = socket.read_to_string(&mut answer);
    tokio::time::timeout(DEADLINE, read)
        .await
        .expect("not closed")
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn the_log_says_once_what_is_refused_and_the_metrics_say_how_often() {
    let (_machine, node) = strict().await;
    for _ in 0..20 {
        node.client.collections().await.unwrap_err();
    }
    let url = format!("{}/metrics", node.client.base());
    let metrics = reqwest::get(url).await.unwrap().text().await.unwrap();
    let counted = r#"vectorizer_http_refusals_total{error_type="unauthenticated"} 20"#;
    assert!(metrics.contains(counted), "{metrics}");
    let said = node.said();
    let lines = said.lines().filter(|l| l.contains("requests are refused"));
    let lines: Vec<_> = lines.collect();
    // A machine that stood still for a minute in between would say it once more.
    assert!((1..=2).contains(&lines.len()), "{lines:?}");
    assert!(lines[0].contains("unauthenticated"), "{lines:?}");
}

#[tokio::test]
async fn the_clients_that_people_use_get_the_answer() {
    let (machine, node) = strict().await;
    let python = r#"
import http.client, os, urllib.error, urllib.parse, urllib.request
url, body = os.environ["URL"], b"x" * int(os.environ["BODY"])
for key in ["wrong", "the-key"]:
    headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(urllib.parse.urlparse(url).netloc)
    connection.request("POST", "/insert", body, headers)
    answer = connection.getresponse()
    answer.read()
    print(answer.status)
    try:
        urllib.request.urlopen(urllib.request.Request(url + "/insert", body, headers))
    except urllib.error.HTTPError as error:
        print(error.code)
"#;
    if let Some(printed) = prints("python3", &["-c", python], &machine.url()) {
        assert_eq!(printed, "401\n401\n413\n413\n");
    }
    let fetch = r#"
(async () => {
  const body = "x".repeat(Number(process.env.BODY));
  for (const key of ["wrong", "the-key"]) {
    const headers = { authorization: "Bearer " + key, "content-type": "application/json" };
    const answer = await fetch(process.env.URL + "/insert", { method: "POST", headers, body });
    await answer.text();
    console.log(answer.status);
  }
})();
"#;
    if let Some(printed) = prints("node", &["-e", fetch], &machine.url()) {
        assert_eq!(printed, "401\n413\n");
    }
    assert!(node.client.live().await.unwrap());
}
