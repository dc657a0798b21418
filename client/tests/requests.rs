//! Against a server that answers as it is told to, connection by connection.

#![expect(clippy::unwrap_used, reason = "a test that cannot listen shall fail")]

use std::sync::{Arc, Mutex};

use client::{Client, Credential, Error, Method, Request, Session, SessionFile};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const DONE: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{\"is\":true}";
/// No answer: the connection ends.
const NOTHING: &str = "";
const BUSY: &str =
    "HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

fn json_answer(status: &str, body: &serde_json::Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn problem(status: u16, code: &str) -> String {
    let body =
        json!({"type": "about:blank", "code": code, "title": code, "status": status, "request_id": "1"});
    json_answer(&format!("{status} Refused"), &body)
}

fn tokens(access: &str) -> serde_json::Value {
    json!({"access_token": access, "refresh_token": "next", "token_type": "Bearer", "expires_in": 900})
}

/// Its address, and what it was sent.
async fn server(answers: &[&str]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answers: Vec<_> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        for answer in answers {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1 << 16];
            let count = connection.read(&mut request).await.unwrap();
            seen.lock().unwrap().push(String::from_utf8_lossy(&request[..count]).into_owned());
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, requests)
}

fn key(request: &str) -> Option<&str> {
    request.lines().find_map(|line| line.strip_prefix("idempotency-key: "))
}

#[tokio::test]
async fn a_creation_without_an_answer_is_repeated_under_its_key() {
    let (url, requests) = server(&[NOTHING, BUSY, DONE]).await;
    let client = Client::new(&url, None).unwrap();
    let request = Request::new(Method::POST, "/v1/things").json(json!({}));
    assert_eq!(client.send(&request).await.unwrap().body, json!({"is": true}));
    let requests = requests.lock().unwrap();
    let keys: Vec<_> = requests.iter().map(|request| key(request).unwrap()).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[tokio::test]
async fn a_deletion_that_may_have_happened_is_not_repeated() {
    let (url, requests) = server(&[NOTHING, DONE]).await;
    let client = Client::new(&url, None).unwrap();
    let refused = client.send(&Request::new(Method::DELETE, "/v1/things/1")).await;
    assert!(matches!(refused, Err(Error::Unreachable { .. })));
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_refused_for_good_is_said_at_once() {
    let (url, requests) = server(&[&problem(409, "protected"), DONE]).await;
    let client = Client::new(&url, None).unwrap();
    let refused = client.get("/v1/things").await.unwrap_err();
    assert_eq!(refused.code(), Some("protected"));
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_not_cumulo_is_told_apart() {
    let (url, _) =
        server(&["HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\nconnection: close\r\n\r\nnginx"]).await;
    let refused = Client::new(&url, None).unwrap().get("/v1/things").await;
    assert!(matches!(refused, Err(Error::Foreign { status: 404, .. })));
}

#[tokio::test]
async fn a_token_that_has_ended_is_exchanged_once_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = SessionFile::new(folder.path().join("session.json"));
    let old = Session::of(serde_json::from_value(tokens("old")).unwrap());
    file.write(&old).unwrap();
    let refresh = json_answer("200 OK", &tokens("new"));
    let (url, requests) = server(&[&problem(401, "unauthenticated"), &refresh, DONE]).await;
    let client = Client::new(&url, Some(Credential::Session(file.clone()))).unwrap();
    client.get("/v1/things").await.unwrap();
    {
        let requests = requests.lock().unwrap();
        assert!(requests[0].contains("Bearer old"));
        assert!(requests[1].starts_with("POST /v1/auth/refresh") && !requests[1].contains("Bearer"));
        assert!(requests[2].contains("Bearer new"));
    }
    assert_eq!(file.read().unwrap().unwrap().access_token, "new");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(folder.path().join("session.json")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_session_that_was_ended_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let file = SessionFile::new(folder.path().join("session.json"));
    file.write(&Session::of(serde_json::from_value(tokens("old")).unwrap())).unwrap();
    let gone = problem(401, "unauthenticated");
    let (url, _) = server(&[&gone, &gone]).await;
    let client = Client::new(&url, Some(Credential::Session(file.clone()))).unwrap();
    assert!(matches!(client.get("/v1/things").await, Err(Error::NotSignedIn(_))));
    assert!(file.read().unwrap().is_none());
}
