//! Instances on hosts that nothing is heard of.

use serde_json::Value;

use crate::output::plain;

/// What is known of it, what it waits for, and what an operator can do; `None` of one whose host is heard of. `host` is its
/// host, if that may be read.
pub(super) fn explain(instance: &Value, host: Option<&Value>) -> Option<String> {
    if instance["state_reason"] != "host_unreachable" {
        return None;
    }
    let name = plain(&instance["name"]);
    let host_name = plain(&instance["host"]);
    let named = if host_name.is_empty() { "its host".to_owned() } else { format!("its host {host_name}") };
    let since = host.and_then(|host| host["last_seen_at"].as_str());
    let since = since.map(|at| format!(" since {at}")).unwrap_or_default();
    let mut text = format!(
        "  {} is what was last known of it: nothing was heard of {named}{since}\n",
        plain(&instance["state"]).replace('_', " ")
    );
    let command = if host_name.is_empty() { "HOST" } else { &host_name };
    let is_dead = host.is_some_and(|host| !host["declared_dead_at"].is_null());
    let lines = match (instance["state"] == "deleting", is_dead) {
        (true, true) => vec![
            "the host is declared dead, and cannot confirm any more that the instance is gone".to_owned(),
            format!("an operator ends the deletion by removing the host: cumulo host delete {command}"),
        ],
        (true, false) => vec![
            "it is gone when the host is heard of again and confirms that".to_owned(),
            format!(
                "if the host is gone for good, an operator declares it dead and removes it: cumulo host declare-dead {command} \
                 --no-guest-runs, then cumulo host delete {command}"
            ),
        ],
        (false, true) => vec![
            waits(instance, "the host is declared dead: it starts elsewhere when another host takes it"),
            format!(
                "if its volumes are all in shared pools, an operator can move it: cumulo instance move {name}; or all that are \
                 there: cumulo host drain {command}"
            ),
        ],
        (false, false) => vec![
            waits(
                instance,
                "it starts elsewhere when its volumes are all in shared pools and it is proven that the host no longer \
                 runs it: its lease has lapsed, or it was fenced or declared dead",
            ),
            format!(
                "when nothing runs on the host any more, an operator says so: cumulo host declare-dead {command} \
                 --no-guest-runs; with all its volumes in shared pools it moves then: cumulo instance move {name}"
            ),
        ],
    };
    for line in lines {
        text += &format!("  {line}\n");
    }
    Some(text)
}

fn waits(instance: &Value, restarts: &str) -> String {
    match instance["on_host_failure"].as_str() {
        Some("restart") => format!("on_host_failure is restart: {restarts}"),
        _ => "on_host_failure is wait: it stays there until the host is heard of again, or it is moved"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(state: &str, on_host_failure: &str, host: Option<&Value>) -> String {
        let instance = json!({
            "name": "web", "state": state, "state_reason": "host_unreachable", "on_host_failure": on_host_failure,
            "host": host.map(|_| json!({"id": "1", "name": "host-1"})),
        });
        explain(&instance, host).unwrap()
    }

    #[test]
    fn an_instance_on_a_silent_host_says_what_is_known_and_what_helps() {
        let silent = json!({"last_seen_at": "2026-01-02T03:04:05Z", "declared_dead_at": null});
        let text = of("running", "restart", Some(&silent));
        let known = "  running is what was last known of it: nothing was heard of its host host-1 since 2026-01-02T03:04:05Z\n";
        assert!(text.starts_with(known), "{text}");
        assert!(
            text.contains("on_host_failure is restart") && text.contains("its lease has lapsed"),
            "{text}"
        );
        assert!(text.contains("cumulo host declare-dead host-1 --no-guest-runs; "), "{text}");
        assert!(text.ends_with("cumulo instance move web\n"), "{text}");
        let text = of("running", "wait", Some(&silent));
        assert!(
            text.contains("on_host_failure is wait: it stays there until the host is heard of again"),
            "{text}"
        );
        let text = of("deleting", "wait", Some(&silent));
        assert!(
            text.contains("cumulo host declare-dead host-1 --no-guest-runs, then cumulo host delete host-1"),
            "{text}"
        );
        // Whoever may not read hosts.
        let text = of("running", "wait", None);
        assert!(
            text.contains("nothing was heard of its host\n") && text.contains("declare-dead HOST"),
            "{text}"
        );
    }

    #[test]
    fn on_a_dead_host_it_is_moved_and_what_is_deleted_goes_with_the_host() {
        let dead =
            json!({"last_seen_at": "2026-01-02T03:04:05Z", "declared_dead_at": "2026-01-02T03:14:05Z"});
        let text = of("running", "wait", Some(&dead));
        assert!(text.contains("cumulo instance move web") && !text.contains("declare-dead"), "{text}");
        let text = of("deleting", "wait", Some(&dead));
        assert!(text.contains("ends the deletion by removing the host: cumulo host delete host-1"), "{text}");
    }

    #[test]
    fn of_a_host_that_is_heard_of_nothing_is_said() {
        assert_eq!(explain(&json!({"state": "running", "state_reason": null}), None), None);
    }
}
