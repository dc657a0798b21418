//! The genuine Debian guest: real cloud-init reads our seed, and systemd's network daemon takes both addresses.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, LabOptions, in_lab};
use serde_json::json;

/// About a minute and a half under emulation on a busy machine.
const BOOT: Duration = Duration::from_secs(420);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "one of many journeys: make chaos"]
async fn debian_runs_the_user_data_of_its_instance() -> Result<()> {
    in_lab(LabOptions { hosts: 1 }, async |lab| {
        let project = lab.project_with(Guest::Debian).await?;
        let subnet = json!({"name": "six", "network": "default", "cidr": "fd00:1::/64"});
        lab.cloud.post(&project.path("/subnets"), subnet).await?.success()?;
        let interface = json!({"subnet": "six"});
        lab.cloud.post(&project.path("/routers/default/add_interface"), interface).await?.success()?;
        // The answers are computed, so that no echo of the script can be taken for its output.
        let script = "#!/bin/sh
echo \"this is $(hostname) on $(. /etc/os-release; echo $ID): $((6 * 7))\"
for attempt in $(seq 60); do
  six=$(ip -6 -oneline address show scope global dynamic | sed -n 's,.*inet6 \\([^ /]*\\).*,\\1,p')
  [ -z \"$six\" ] || break
  sleep 1
done
echo \"by DHCPv6: $six\"
echo \"$(ip -6 route show default | wc -l) router\"
";
        let body = json!({
            "name": "real", "image": "debian", "instance_type": "debian", "user_data": script, "hostname": "db-1",
        });
        let instance = project.create(body).await?;
        instance.wait_for_state("running", BOOT).await?;
        let console = instance.wait_for_serial("finished at", BOOT).await?;
        ensure!(console.contains("Cloud-init v."), "cloud-init did not say that it has finished:\n{console}");
        ensure!(console.contains("this is db-1 on debian: 42"), "the script's output is missing:\n{console}");
        let card = instance.get().await?["nics"][0].clone();
        let six = card["addresses"][1].as_str().with_context(|| format!("no IPv6 address in {card}"))?;
        ensure!(console.contains(&format!("by DHCPv6: {six}\r")), "not {six}:\n{console}");
        ensure!(console.contains("1 router\r"), "no IPv6 router:\n{console}");

        instance.stop().await?;
        let stopped = instance.wait_for_state("stopped", Duration::from_secs(120)).await?;
        ensure!(stopped["state_reason"] == "as_requested", "{stopped}");
        instance.delete().await?.expect(202)?;
        instance.wait_gone(Duration::from_secs(60)).await?;
        lab.wait_empty(Duration::from_secs(30)).await
    })
    .await
}
