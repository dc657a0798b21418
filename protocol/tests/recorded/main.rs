//! The messages of the agent protocol, written down: `protocol/recorded/<version>/<message>.json`.
//!
//! Each file is a list of messages that together say everything that a message of that name can say. Those of the present
//! version are compared with what the code says now, and written by `UPDATE_GOLDEN=1 cargo nextest run -p protocol recorded`.
//! Those of the version before are what its code wrote: they are never changed, and go when the version is raised.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod from_agents;
mod parts;
mod to_agents;

use std::collections::BTreeSet;
use std::path::PathBuf;

use protocol::agent::{
    DesiredPage, DriftAccepted, DriftReport, EARLIEST_PROTOCOL_VERSION, Heartbeat, HeartbeatReply,
    ImageStatus, InsightAccepted, InsightBatch, JoinRequest, JoinResponse, ObservedAccepted, ObservedBatch,
    OpenSession, PROTOCOL_VERSION, Refusal, RenewRequest, RenewResponse, SessionOpened,
};
use protocol::recorded::{folder, messages, unknown_to};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What the present code says for each name.
fn said() -> Vec<(&'static str, String)> {
    fn text<T: Serialize>(name: &'static str, messages: &[T]) -> (&'static str, String) {
        (name, serde_json::to_string_pretty(messages).unwrap() + "\n")
    }
    vec![
        text("join_request", &[from_agents::join_request()]),
        text("renew_request", &[from_agents::renew_request()]),
        text("open_session", &from_agents::open_sessions()),
        text("observed_batch", &[from_agents::observed_batch()]),
        text("heartbeat", &from_agents::heartbeats()),
        text("insight_batch", &[from_agents::insight_batch()]),
        text("drift_report", &[from_agents::drift_report()]),
        text("image_status", &from_agents::image_statuses()),
        text("refusal", &from_agents::refusals()),
        text("join_response", &[to_agents::join_response()]),
        text("renew_response", &[to_agents::renew_response()]),
        text("session_opened", &[to_agents::session_opened()]),
        text("desired_page", &[to_agents::desired_page()]),
        text("observed_accepted", &[to_agents::observed_accepted()]),
        text("heartbeat_reply", &[to_agents::heartbeat_reply()]),
        text("insight_accepted", &[to_agents::insight_accepted()]),
        text("drift_accepted", &[to_agents::drift_accepted()]),
    ]
}

/// Reads a message of this name and says it anew.
fn read(name: &str, message: &Value) -> Result<Value, serde_json::Error> {
    fn again<T: DeserializeOwned + Serialize>(message: &Value) -> Result<Value, serde_json::Error> {
        // From text, as it comes: numbers and strings are read in another way from a value.
        serde_json::to_value(serde_json::from_str::<T>(&message.to_string())?)
    }
    match name {
        "join_request" => again::<JoinRequest>(message),
        "renew_request" => again::<RenewRequest>(message),
        "open_session" => again::<OpenSession>(message),
        "observed_batch" => again::<ObservedBatch>(message),
        "heartbeat" => again::<Heartbeat>(message),
        "insight_batch" => again::<InsightBatch>(message),
        "drift_report" => again::<DriftReport>(message),
        "image_status" => again::<ImageStatus>(message),
        "refusal" => again::<Refusal>(message),
        "join_response" => again::<JoinResponse>(message),
        "renew_response" => again::<RenewResponse>(message),
        "session_opened" => again::<SessionOpened>(message),
        "desired_page" => again::<DesiredPage>(message),
        "observed_accepted" => again::<ObservedAccepted>(message),
        "heartbeat_reply" => again::<HeartbeatReply>(message),
        "insight_accepted" => again::<InsightAccepted>(message),
        "drift_accepted" => again::<DriftAccepted>(message),
        other => panic!("nobody reads {other}"),
    }
}

/// Where `again` lacks or changes something of `before`; it may say more.
fn lost(at: &str, before: &Value, again: &Value) -> Vec<String> {
    match (before, again) {
        (Value::Object(before), Value::Object(again)) => {
            let each = before.iter().filter(|(_, value)| !value.is_null());
            each.flat_map(|(key, value)| {
                lost(&format!("{at}.{key}"), value, again.get(key).unwrap_or(&Value::Null))
            })
            .collect()
        }
        (Value::Array(before), Value::Array(again)) if before.len() == again.len() => {
            let each = before.iter().zip(again).enumerate();
            each.flat_map(|(index, (before, again))| lost(&format!("{at}[{index}]"), before, again)).collect()
        }
        _ if before == again => Vec::new(),
        _ => vec![format!("{at}: {before} became {again}")],
    }
}

fn names_in(version: u32) -> BTreeSet<String> {
    let files = std::fs::read_dir(folder(version)).unwrap();
    files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_said_is_recorded() {
    let said = said();
    for (name, text) in &said {
        let file: PathBuf = folder(PROTOCOL_VERSION).join(format!("{name}.json"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(folder(PROTOCOL_VERSION)).unwrap();
            std::fs::write(&file, text).unwrap();
        }
        assert!(
            std::fs::read_to_string(&file).ok().as_ref() == Some(text),
            "{} is not what is said now. If a release speaks version {PROTOCOL_VERSION}, raise the version first (decision \
             30 says how); otherwise run this with UPDATE_GOLDEN=1",
            file.display()
        );
    }
    let names: BTreeSet<_> = said.into_iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names_in(PROTOCOL_VERSION), names);
}

#[test]
fn what_the_version_before_said_is_read_and_nothing_of_it_is_lost() {
    assert_eq!(EARLIEST_PROTOCOL_VERSION, PROTOCOL_VERSION - 1);
    for version in [EARLIEST_PROTOCOL_VERSION, PROTOCOL_VERSION] {
        for name in names_in(version) {
            for message in messages(version, &name) {
                let again = read(&name, &message).unwrap_or_else(|error| panic!("{version} {name}: {error}"));
                assert_eq!(lost(&name, &message, &again), Vec::<String>::new(), "version {version}");
            }
        }
    }
}

#[test]
fn nothing_else_is_kept() {
    let kept = std::fs::read_dir(folder(1).parent().unwrap()).unwrap();
    let kept: BTreeSet<_> = kept.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
    let two = [EARLIEST_PROTOCOL_VERSION, PROTOCOL_VERSION].map(|version| version.to_string());
    assert_eq!(kept, BTreeSet::from(two));
}

#[test]
fn the_version_before_is_told_nothing_that_it_does_not_know() {
    let before = EARLIEST_PROTOCOL_VERSION;
    let unknown = |name, message: Value| unknown_to(before, name, &message);
    let page = to_agents::desired_page();
    assert_ne!(unknown("desired_page", serde_json::to_value(&page).unwrap()), Vec::<String>::new());
    let page = serde_json::to_value(page.for_version(before)).unwrap();
    assert_eq!(unknown("desired_page", page), Vec::<String>::new());

    let batch = from_agents::observed_batch().for_version(before);
    assert_eq!(unknown("observed_batch", serde_json::to_value(batch).unwrap()), Vec::<String>::new());
    for request in from_agents::open_sessions() {
        let request = request.for_version(before);
        assert_eq!(request.protocol_version, before);
        assert_eq!(unknown("open_session", serde_json::to_value(request).unwrap()), Vec::<String>::new());
    }

    // These have no form for a version: they may say no more to agents than what those pass over, and nothing at all to
    // control planes, which refuse it.
    for (name, text) in said() {
        let messages: Vec<Value> = serde_json::from_str(&text).unwrap();
        let found: Vec<_> = messages.iter().flat_map(|message| unknown_to(before, name, message)).collect();
        match name {
            "desired_page" | "observed_batch" | "open_session" => {}
            "session_opened" => assert_eq!(found, ["session_opened.protocol_version"]),
            "heartbeat_reply" => assert_eq!(found, ["heartbeat_reply.protocol_version"]),
            _ => assert_eq!(found, Vec::<String>::new()),
        }
    }
}

#[test]
fn what_a_later_release_adds_is_passed_over_where_that_does_no_harm() {
    let later = |text: &str| -> DesiredPage { serde_json::from_str(text).unwrap() };
    let page = later(
        r#"{"revision": 3, "complete": false, "mood": "good", "objects": [{"revision": 3, "kind": "sing", "song": 1}]}"#,
    );
    assert_eq!(page.objects.len(), 1);
    assert_eq!(page.objects[0].body, protocol::agent::DesiredBody::Unknown);
    let mut request = serde_json::to_value(&from_agents::open_sessions()[0]).unwrap();
    request["inventory"]["gpus"] = serde_json::json!(3);
    assert!(serde_json::from_value::<OpenSession>(request.clone()).is_ok());
    request["mood"] = serde_json::json!("good");
    assert!(serde_json::from_value::<OpenSession>(request).is_err());
}
