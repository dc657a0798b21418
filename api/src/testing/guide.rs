//! The commands of a guide in `docs/`, run as they stand there.

use axum::http::Method;
use serde_json::Value;

use super::{Answer, TestCloud};

/// The words of a command, as a shell takes them apart.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in command.chars() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, c) if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            (_, c) => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// Every `api` command, with what follows it in quotes.
pub(crate) fn commands(guide: &str) -> Vec<Vec<String>> {
    let blocks = guide.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks
        .flat_map(|block| block.split("\napi ").map(|command| words(command.trim_start_matches("api "))))
        .collect()
}

pub(crate) async fn run(cloud: &TestCloud, command: &[String]) -> Answer {
    let (mut method, mut path, mut body, mut file) = (None, String::new(), None, false);
    let mut rest = command.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-X" => method = rest.next().map(|verb| verb.parse::<Method>().unwrap()),
            "--json" => body = rest.next().map(|text| serde_json::from_str::<Value>(text).unwrap()),
            "-T" => file = rest.next().is_some(),
            other => path = other.replace("$P", "/v1/projects/demo").replace("$CUMULO_URL", ""),
        }
    }
    if file {
        return cloud.put_bytes(&path, vec![0; 4096]).await;
    }
    let method = method.unwrap_or(if body.is_some() { Method::POST } else { Method::GET });
    cloud.call(method, &path, body).await
}
