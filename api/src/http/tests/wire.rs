//! Requests that no client library would send, through a real socket.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::testing::TestCloud;

/// Sends this and gives all that comes until the server ends the connection.
async fn exchange(address: SocketAddr, sent: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The server may have closed before it read everything; what it said has arrived nevertheless.
    stream.read_to_end(&mut answer).await.ok();
    String::from_utf8(answer).unwrap()
}

fn answers(text: &str) -> Vec<&str> {
    let statuses = text.split("HTTP/1.1 ").skip(1);
    statuses.map(|answer| answer.split_once(' ').unwrap_or_default().0).collect()
}

const LOGIN: &str = "POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
const SMUGGLED: &str = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn a_body_with_two_lengths_is_refused() {
    let address = TestCloud::start().await.listen().await;
    for (headers, body) in [
        ("Content-Length: 2\r\nContent-Length: 3\r\n", "{} "),
        ("Content-Length: 2, 3\r\n", "{} "),
        ("Content-Length: +2\r\n", "{}"),
        ("Content-Length: 0x2\r\n", "{}"),
        ("Content-Length: -2\r\n", "{}"),
        ("Content-Length: 99999999999999999999\r\n", "{}"),
        ("Transfer-Encoding: gzip\r\n", "{}"),
        ("Transfer-Encoding: chunked, identity\r\n", "2\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: xchunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding : chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
        ("Content-Length : 2\r\n", "{}"),
        ("X: y\r\n Content-Length: 2\r\n", "{}"),
    ] {
        let said = exchange(address, &format!("{LOGIN}{headers}\r\n{body}{SMUGGLED}")).await;
        assert_eq!(answers(&said), ["400"], "{headers:?}: {said}");
    }
}

/// RFC 9112, 6.1: the chunks count, and nothing after them is believed.
#[tokio::test]
async fn what_follows_an_ambiguous_body_is_never_a_request() {
    let cloud = TestCloud::start().await;
    let address = cloud.listen().await;
    for headers in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 7\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n",
    ] {
        let said = exchange(address, &format!("{LOGIN}{headers}\r\n2\r\n{{}}\r\n0\r\n\r\n{SMUGGLED}")).await;
        // The chunks were read: `{}` lacks its fields.
        assert_eq!(answers(&said), ["422"], "{headers:?}: {said}");
    }
    // Without the second length both are answered: it is the ambiguity that ends the connection.
    let clear = format!("{LOGIN}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n");
    let last = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(answers(&exchange(address, &format!("{clear}{last}")).await), ["422", "200"]);
    for broken in ["x\r\n{}\r\n0\r\n\r\n", "2\r\n{}0\r\n\r\n", "FFFFFFFFFFFFFFFFF\r\n{}"] {
        let said =
            exchange(address, &format!("{LOGIN}Transfer-Encoding: chunked\r\n\r\n{broken}{SMUGGLED}")).await;
        assert_eq!(answers(&said), ["400"], "{broken:?}: {said}");
    }
}

#[tokio::test]
async fn headers_have_a_size_a_number_and_a_meaning() {
    let address = TestCloud::start().await.listen().await;
    let get = async |headers: String| {
        exchange(address, &format!("GET /healthz HTTP/1.1\r\nConnection: close\r\n{headers}\r\n")).await
    };
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let large = |bytes: usize| format!("X: {}\r\n", "y".repeat(bytes));
    for (headers, status, code) in [
        (many(62), "200", r#""status":"ok""#),
        (many(64), "431", "headers_too_large"),
        (large(31 << 10), "200", r#""status":"ok""#),
        (large(33 << 10), "431", "headers_too_large"),
        ("Authorization: Bearer a\r\nauthorization: Bearer b\r\n".to_owned(), "400", "invalid_header"),
        ("Host: x\r\nHost: y\r\n".to_owned(), "400", "invalid_header"),
        ("Idempotency-Key: x\r\nIdempotency-Key: x\r\n".to_owned(), "400", "invalid_header"),
        // So far from sense that hyper answers by itself.
        (many(200), "431", ""),
        (large(100 << 10), "431", ""),
        ("no colon\r\n".to_owned(), "400", ""),
        ("X: \0\r\n".to_owned(), "400", ""),
    ] {
        let said = get(headers.clone()).await;
        assert_eq!(answers(&said), [status], "{said}\nto {}", &headers[..headers.len().min(100)]);
        assert!(said.contains(code), "{said}");
    }
}
