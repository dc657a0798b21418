//! Instances with disks that other hosts reach.

use super::{Host, NEVER, Outcome};
use crate::hypervisor::Hypervisor;
use crate::samples::{GRACEFUL, instance_id, next, running, stopped, wish};

#[tokio::test]
async fn what_an_earlier_agent_had_heard_starts_no_guest_with_a_shared_disk() {
    let mut host = Host::new();
    let mut life = host.start_agent(NEVER);
    life.reconciler.confirmed();
    let mut spec = running(instance_id());
    spec.disks[0].volume.pool = Some("fast".parse().unwrap());
    let own = running(instance_id());
    for wanted in [&spec, &own] {
        life.want(wish(wanted));
        life.settle(wanted.id).await;
    }
    assert_eq!(host.hypervisor.domains().await.unwrap().len(), 2);

    // The machine was dead, and perhaps the instance is elsewhere by now.
    drop(life);
    host.reboot_machine();
    let mut life = host.start_agent(NEVER);
    assert!(matches!(life.reconciler.pass(spec.id).await, Outcome::Wait(_)));
    life.settle(own.id).await;
    let domains = host.hypervisor.domains().await.unwrap();
    assert_eq!(domains.iter().map(|domain| domain.id).collect::<Vec<_>>(), [own.id]);
    life.reconciler.confirmed();
    life.settle(spec.id).await;
    assert_eq!(host.hypervisor.domains().await.unwrap().len(), 2);

    // What runs is looked after by any agent.
    drop(life);
    let mut life = host.start_agent(NEVER);
    life.settle(spec.id).await;
    life.want(wish(&stopped(&next(&spec), GRACEFUL)));
    life.settle(spec.id).await;
    assert_eq!(host.hypervisor.domains().await.unwrap().len(), 1);
}
