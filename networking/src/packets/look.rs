//! What [`Packets::converge`] would change, in words.

use std::collections::BTreeMap;

use protocol::agent::{HostNetwork, NetworkFault, NetworkSubject};
use serde_json::Value;

use super::nft::{self, Place};
use super::plan::plan;
use super::ruleset::{TABLE, Table};
use super::{Packets, PacketsError, SeenHost, router};
use crate::links::external;
use crate::{Difference, names, namespace};

impl Packets {
    /// What [`Self::converge`] would change, and what it could not make. Changes nothing.
    pub async fn look(&self, want: &HostNetwork) -> Result<Vec<Difference>, PacketsError> {
        let outside = external::devices(self.surroundings.external.as_deref()).await;
        let outside = outside.map_err(PacketsError::Routes)?;
        let seen = SeenHost::list().await?;
        let (tables, mut faults) = self.render(want, &seen.zones, &outside, &self.refused.recall(want));
        let mut differences = Vec::new();
        for (table, seen) in tables.iter().zip(&seen.tables) {
            differences.extend(described(NetworkSubject::Host, table, &plan(table, seen.as_ref())));
        }
        let protected = self.protected(want);
        for router in &want.routers {
            let (subject, namespace) =
                (NetworkSubject::Router(router.id), names::router_namespace(router.id));
            let (table, refused) = router::table(router, &protected);
            faults.extend(refused);
            // What is missing as a whole is named with the devices.
            if namespace::exists(&namespace) {
                let seen = nft::list(Place::Namespace(&namespace), table.family).await?;
                differences.extend(described(subject, &table, &plan(&table, seen.as_ref())));
            }
        }
        differences.extend(
            faults.into_iter().map(|NetworkFault { subject, detail }| Difference { subject, detail }),
        );
        Ok(differences)
    }
}

/// One difference for each thing that commands are about, with how many of them there are; one for a table that is
/// made anew.
fn described(subject: NetworkSubject, table: &Table, commands: &[Value]) -> Vec<Difference> {
    let place = format!("table {} {TABLE}", table.family.as_str());
    if commands.iter().filter_map(parts).any(|(_, kind, _)| kind == "table") {
        return vec![Difference { subject, detail: format!("make {place}") }];
    }
    let mut counts: BTreeMap<(&str, &str, String), usize> = BTreeMap::new();
    for command in commands {
        let Some((verb, kind, body)) = parts(command) else { continue };
        let of = if kind == "rule" { &body["chain"] } else { &body["name"] };
        let count = body["elem"].as_array().map_or(1, Vec::len);
        *counts.entry((verb, kind, of.as_str().unwrap_or_default().to_owned())).or_default() += count;
    }
    let describe = |((verb, kind, name), count): ((&str, &str, String), usize)| match kind {
        "element" | "rule" => {
            let owner = if kind == "rule" { "chain" } else { "set" };
            format!("{verb} {count} {kind}{} of {owner} {name} in {place}", if count == 1 { "" } else { "s" })
        }
        _ => format!("{verb} {kind} {name} in {place}"),
    };
    counts.into_iter().map(|count| Difference { subject, detail: describe(count) }).collect()
}

/// `{verb: {kind: body}}`.
fn parts(command: &Value) -> Option<(&str, &str, &Value)> {
    let (verb, what) = command.as_object()?.iter().next()?;
    let (kind, body) = what.as_object()?.iter().next()?;
    Some((verb, kind, body))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::packets::spoof;

    #[test]
    fn commands_are_summed_up() {
        let table = spoof::table(&[]);
        let commands = [
            json!({"flush": {"chain": {"name": "p_1"}}}),
            json!({"add": {"element": {"name": "ports", "elem": ["a", "b"]}}}),
            json!({"add": {"rule": {"chain": "p_1"}}}),
        ];
        let details: Vec<_> = described(NetworkSubject::Host, &table, &commands)
            .into_iter()
            .map(|difference| difference.detail)
            .collect();
        let expected = [
            "add 2 elements of set ports in table bridge cumulo",
            "add 1 rule of chain p_1 in table bridge cumulo",
            "flush chain p_1 in table bridge cumulo",
        ];
        assert_eq!(details, expected);
    }
}
