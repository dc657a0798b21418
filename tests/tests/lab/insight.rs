//! What is measured of a guest at work, and what an agent in it says. Part of the life of a guest, to save a boot.

use anyhow::{Context, Result, bail, ensure};
use lab::{Instance, Lab, Shell, eventually};
use serde_json::Value;

use crate::scene::LIMIT;

/// An agent that speaks as QEMU's does, as far as libvirt asks, and names its guest so that a terminal would obey it.
const AGENT: &str = r#"agent() { while [ -z "$port" ]; do name=$(grep -lx org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name) && port=/dev/$(basename $(dirname $name)); done; exec 3<> $port; while true; do read -r line <&3 || { sleep 0.1; continue; }; case "$line" in *guest-sync*) answer=$(echo "$line" | sed 's/.*"id": *\([0-9]*\).*/\1/') ;; *get-host-name*) answer='{"host-name": "evil\u001b[2J"}' ;; *get-osinfo*) answer='{"id": "busybox", "pretty-name": "The fast guest", "kernel-release": "'$(uname -r)'"}' ;; *get-timezone*) answer='{"zone": "UTC", "offset": 0}' ;; *guest-get-time*) answer=$(date +%s)000000000 ;; *get-fsinfo*) answer='[{"name": "vda1", "mountpoint": "/", "type": "ext4", "disk": [], "used-bytes": 40, "total-bytes": 100}]' ;; *network-get-interfaces*) answer='[{"name": "eth0", "hardware-address": "02:00:00:00:00:01", "ip-addresses": [{"ip-address-type": "ipv4", "ip-address": "10.0.0.5", "prefix": 24}]}]' ;; *) answer='{}' ;; esac; echo "{\"return\": $answer}" >&3; done; }; agent < /dev/null > /dev/null 2>&1 &"#;

/// Keeps processor, disk and card busy for a moment.
const WORK: &str = "echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/vda of=/dev/null bs=1M count=4 2> /dev/null; \
    dd if=/dev/urandom of=/dev/null bs=64k count=16 2> /dev/null; \
    ping -c 2 -W 1 $(ip route | sed -n 's,/.*,,; s,[0-9]*$,77,p' | tail -n 1) > /dev/null; true";

pub async fn is_seen(lab: &mut Lab, instance: &Instance, shell: &mut Shell) -> Result<()> {
    let guest = async || lab.cloud.get(&instance.path("/guest")).await?.success();
    let silent = eventually("its host to have asked", LIMIT, async || {
        let guest = guest().await?;
        ensure!(guest["agent"] == "no_agent", "{guest}");
        Ok(guest)
    });
    ensure!(silent.await?["seen_at"].is_null());
    let metrics = instance.path("/metrics");
    let point = eventually("its work to be seen", LIMIT, async || {
        shell.run(WORK)?;
        let metrics = lab.cloud.get(&metrics).await?.success()?;
        let points = metrics["items"].as_array().context("no points")?;
        let has = |point: &Value, name: &str| point[name].as_f64().is_some_and(|rate| rate > 0.0);
        let busy = [
            "cpu_percent",
            "read_bytes_per_second",
            "sent_packets_per_second",
            "memory_used_bytes",
            "memory_resident_bytes",
        ];
        let found = points.iter().find(|point| busy.iter().all(|name| has(point, name)));
        found.cloned().with_context(|| format!("{metrics}"))
    })
    .await?;
    eprintln!("seen at work: {point}");
    let volumes = point["volumes"].as_array().map_or(0, Vec::len);
    ensure!(volumes == 1 && point["cpu_percent"].as_f64().is_some_and(|busy| busy <= 250.0), "{point}");

    shell.run(AGENT)?;
    // The next agent asks at once.
    lab.hosts[0].crash_agent().await?;
    let said = eventually("what the guest says", LIMIT, async || {
        let guest = lab.cloud.get(&instance.path("/guest")).await?.success()?;
        if guest["agent"] != "answering" {
            bail!("{guest}");
        }
        Ok(guest)
    })
    .await?;
    eprintln!("said: {said}");
    ensure!(said["hostname"] == "evil[2J" && said["os"]["pretty_name"] == "The fast guest", "{said}");
    ensure!(said["interfaces"][0]["addresses"][0]["address"] == "10.0.0.5", "{said}");
    ensure!(said["filesystems"][0]["mount_point"] == "/" && said["clock_offset_ms"].is_i64(), "{said}");
    ensure!(!lab.hosts[0].agent.log_tail(10_000).contains('\u{1b}'), "a guest writes to the log as it likes");
    Ok(())
}
