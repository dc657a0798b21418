//! The commands of docs/images.md, run as they stand there.

use axum::http::Method;
use serde_json::{Value, json};

use crate::testing::{Answer, TestCloud};

const GUIDE: &str = include_str!("../../../../docs/images.md");

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
fn commands() -> Vec<Vec<String>> {
    // What comes after needs a web server, or breaks off on purpose: see `import` and `uploads`.
    let guide = GUIDE.split("\n## Import by URL").next().unwrap();
    let blocks = guide.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks
        .flat_map(|block| block.split("\napi ").map(|command| words(command.trim_start_matches("api "))))
        .collect()
}

async fn run(cloud: &TestCloud, command: &[String]) -> Answer {
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

#[tokio::test]
async fn the_commands_of_the_guide_work() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    cloud.post("/v1/projects", json!({"name": "shop"})).await.expect(201);
    let commands = commands();
    assert!(commands.len() > 15, "{commands:?}");
    let mut last = Value::Null;
    for command in commands {
        let answer = run(&cloud, &command).await;
        assert!(answer.status.is_success(), "{command:?}: {answer:?}");
        last = if answer.body.is_empty() { Value::Null } else { answer.json() };
    }
    assert_eq!((&last["image"]["name"], &last["image"]["gone"]), (&json!("debian-12"), &json!(true)));
}
