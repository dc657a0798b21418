//! What is measured of a real guest at work, and what an agent in it says until it falls silent.

use std::time::{Duration, Instant};

use compute_agent::hypervisor::{Hypervisor as _, HypervisorError};

use crate::agent::{NEVER, Site, instance};
use crate::instants::{cached_guest, says};

/// What the guest may take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Reads its disk all the time, beside an agent that speaks as QEMU's does, as far as libvirt asks, with texts that a
/// terminal would obey. Once it has told the time it says nothing more.
const SCRIPT: &str = r#"
work() {
  while true; do
    echo 3 > /proc/sys/vm/drop_caches
    dd if=/dev/vda of=/dev/null bs=1M count=4 2> /dev/null
    sleep 0.5
  done
}
agent() {
  port=
  while [ -z "$port" ]; do
    name=$(grep -lx org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name) && port=/dev/$(basename $(dirname $name))
    sleep 0.1
  done
  exec 3<> $port
  while true; do
    read -r line <&3 || { sleep 0.1; continue; }
    [ -n "$silent" ] && continue
    case "$line" in
      *guest-sync*) answer=$(echo "$line" | sed 's/.*"id": *\([0-9]*\).*/\1/') ;;
      *get-host-name*) answer='{"host-name": "evil\u001b[2J"}' ;;
      *get-osinfo*) answer='{"id": "busybox", "pretty-name": "The fast guest", "kernel-release": "6.1"}' ;;
      *get-timezone*) answer='{"zone": "UTC", "offset": 0}' ;;
      *guest-get-time*) answer=$(date +%s)000000000; silent=yes ;;
      *get-fsinfo*) answer='[{"name": "vda1", "mountpoint": "/", "type": "ext4", "disk": [], "used-bytes": 40, "total-bytes": 100}]' ;;
      *network-get-interfaces*) answer='[{"name": "eth0", "hardware-address": "02:00:00:00:00:01", "ip-addresses": [{"ip-address-type": "ipv4", "ip-address": "10.0.0.5", "prefix": 24}]}]' ;;
      *) answer='{}' ;;
    esac
    echo "{\"return\": $answer}" >&3
  done
}
work < /dev/null &
agent < /dev/null &
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_at_work_is_measured_and_heard_and_holds_up_nobody_when_it_falls_silent() {
    let mut site = Site::start();
    let image = site.image(&cached_guest("fast"));
    let spec = instance(Some(&image), 1, Some(format!("#!/bin/sh\n{SCRIPT}")));
    let id = spec.id;
    let mut agent = site.agent(NEVER).await;
    agent.want(&spec);
    agent.settle(id).await;
    let libvirt = &agent.libvirt;
    // On a busy machine, one measurement or another comes too late.
    let measured = async || {
        let began = Instant::now();
        loop {
            match libvirt.measure().await {
                Ok(all) => break all.into_iter().find(|one| one.id == id).unwrap(),
                Err(HypervisorError::Unreachable(error)) if began.elapsed() < LIMIT => println!("{error}"),
                Err(error) => panic!("{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let first = measured().await;
    says(&site, &spec, "cumulo-test: ready");

    let began = Instant::now();
    let last = loop {
        let now = measured().await;
        let read = now.disks[0].counters.read_bytes - first.disks[0].counters.read_bytes;
        if now.cpu_ns > first.cpu_ns && read > 8 << 20 && now.memory.available_bytes > Some(1 << 20) {
            break now;
        }
        assert!(began.elapsed() < LIMIT, "{now:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    println!("{last:?}");
    assert_eq!(last.run, first.run);
    assert_eq!(last.disks[0].layer, spec.disks[0].volume.layers[0]);
    assert!(
        last.memory.resident_bytes > Some(1 << 20) && last.memory.total_bytes > last.memory.available_bytes
    );

    let said = loop {
        match libvirt.ask_guest(id).await {
            Ok(said) => break said,
            Err(HypervisorError::NoGuestAgent) if began.elapsed() < LIMIT => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    };
    println!("{said:?}");
    assert_eq!(said.hostname.as_deref(), Some("evil[2J"));
    assert_eq!(said.os.unwrap().pretty_name.as_deref(), Some("The fast guest"));
    assert_eq!(said.interfaces[0].addresses[0].address.to_string(), "10.0.0.5");
    assert_eq!((said.filesystems[0].mount_point.as_str(), said.filesystems[0].used_bytes), ("/", Some(40)));
    assert!(said.clock_offset_ms.unwrap().abs() < 600_000);

    let began = Instant::now();
    let others = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let meanwhile = libvirt.ask_guest(id).await;
        assert!(matches!(meanwhile, Err(HypervisorError::Unreachable(_))), "{meanwhile:?}");
        measured().await;
        assert_eq!(libvirt.domains().await.unwrap().len(), 1);
        began.elapsed()
    };
    let (silent, others) = tokio::join!(libvirt.ask_guest(id), others);
    println!("given up after {:?}; others waited {others:?}", began.elapsed());
    assert!(matches!(silent, Err(HypervisorError::Refused { .. })), "{silent:?}");
    assert!(began.elapsed() < Duration::from_secs(45));
}
