//! Hosts in a table: what an operator has to know of each, in few words.

use serde_json::Value;

use super::plain;

/// What lists of these are called.
pub const NOUN: &str = "host";

/// In the order of their names, `host-2` before `host-10`, with all that is to be said of each beside its state.
pub fn shown(rows: &[Value]) -> Vec<Value> {
    let mut rows: Vec<_> = rows.iter().map(one).collect();
    rows.sort_by_key(|row| in_order(&plain(&row["name"])));
    rows
}

fn one(host: &Value) -> Value {
    let mut host = host.clone();
    let maintenance = maintenance(&host["maintenance"]);
    let said = [
        (!host["declared_dead_at"].is_null()).then(|| "declared dead".to_owned()),
        // Each host in maintenance is cordoned.
        maintenance.clone().or_else(|| (host["cordoned"] == true).then(|| "cordoned".to_owned())),
        match host["drift"].as_u64() {
            None | Some(0) => None,
            Some(1) => Some("differs in 1 thing".to_owned()),
            Some(many) => Some(format!("differs in {many} things")),
        },
    ];
    let state = std::iter::once(plain(&host["state"])).chain(said.into_iter().flatten());
    let state = state.collect::<Vec<_>>().join(", ");
    let Some(object) = host.as_object_mut() else { return host };
    if object.contains_key("state") {
        object.insert("state".to_owned(), state.into());
    }
    if object.contains_key("maintenance") {
        object.insert("maintenance".to_owned(), maintenance.unwrap_or_default().into());
    }
    host
}

fn maintenance(of: &Value) -> Option<String> {
    let state = of["state"].as_str().filter(|state| *state != "none")?;
    Some(match state {
        "draining" => format!("draining {} of {}", plain(&of["left"]), plain(&of["instances"])),
        "ending" => "ending maintenance".to_owned(),
        other => other.to_owned(),
    })
}

/// Numbers at the end of names count as numbers.
fn in_order(name: &str) -> (String, Option<u64>) {
    let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    (stem.to_owned(), name[stem.len()..].parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::{columns, table};

    #[test]
    fn an_operator_sees_at_once_which_hosts_take_instances_and_which_are_in_need() {
        let host = |name: &str, state: &str, more: Value| {
            let mut host = json!({
                "name": name, "state": state, "cordoned": false, "maintenance": {"state": "none", "instances": 0, "left": 0},
                "vcpus": {"total": 64, "reserved": 5}, "memory_mib": {"total": 65536, "reserved": 5120},
                "disk_gib": {"total": 1000, "reserved": 40, "used": 17}, "agent_version": "0.1.0",
                "last_seen_at": "2026-01-02T03:04:05.678Z", "zone": null, "rack": null,
            });
            host.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            host
        };
        let draining =
            json!({"state": "draining", "instances": 5, "left": 3, "remaining": [{"phase": "waiting"}]});
        let rows = [
            host("host-10", "ready", json!({"zone": "a", "rack": "a3", "drift": 2})),
            host("host-2", "ready", json!({"cordoned": true, "drift": 0})),
            host("host-3", "ready", json!({"cordoned": true, "maintenance": draining})),
            host("host-4", "ready", json!({"cordoned": true, "maintenance": {"state": "drained"}})),
            host("host-5", "unreachable", json!({"declared_dead_at": "2026-01-02T03:04:05Z"})),
        ];
        let table = |columns: &[String]| table::render(columns, &shown(&rows));
        insta::assert_snapshot!(table(&columns::of(NOUN, &rows)), @r"
        NAME     STATE                       ZONE  RACK  VCPUS  MEMORY MIB  DISK GIB  AGENT VERSION  LAST SEEN
        host-2   ready, cordoned                         5/64   5120/65536  40/1000   0.1.0          2026-01-02 03:04:05Z
        host-3   ready, draining 3 of 5                  5/64   5120/65536  40/1000   0.1.0          2026-01-02 03:04:05Z
        host-4   ready, drained                          5/64   5120/65536  40/1000   0.1.0          2026-01-02 03:04:05Z
        host-5   unreachable, declared dead              5/64   5120/65536  40/1000   0.1.0          2026-01-02 03:04:05Z
        host-10  ready, differs in 2 things  a     a3    5/64   5120/65536  40/1000   0.1.0          2026-01-02 03:04:05Z
        ");
        insta::assert_snapshot!(table(&["name".to_owned(), "maintenance".to_owned()]), @r"
        NAME     MAINTENANCE
        host-2
        host-3   draining 3 of 5
        host-4   drained
        host-5
        host-10
        ");
    }
}
