//! Several replicas: the two halves meet at that of the user, and a replica that dies leaves nothing.

use super::*;

#[tokio::test]
async fn the_host_brings_a_console_to_the_replica_that_waits() {
    let one = start().await;
    let options = ConsoleOptions {
        agent_url: Some("https://192.0.2.2:8443".parse().unwrap()),
        ..ConsoleOptions::default()
    };
    let two = one.replica_with_consoles(options).await;
    let at_two = two.listen().await;
    let host = one.join_host("host-1").await;
    running(&one, &host).await;
    // Asked for at the first, opened at the second; the host polls the first.
    let console = ask(&one, "vnc").await;
    let (agents_of_one, agents_of_two) =
        (listen_for_host(&one, host.id).await, listen_for_host(&two, host.id).await);
    let bring = async {
        let request = requested(&host, &console).await;
        assert_eq!(request["dial"], "https://192.0.2.2:8443");
        assert_eq!(request["console"], "vnc");
        assert_eq!(HostHalf::bring(agents_of_one, &console["id"], host.epoch).await.err(), Some(404));
        HostHalf::bring(agents_of_two, &console["id"], host.epoch).await.unwrap()
    };
    let (user, mut half) = tokio::join!(UserHalf::open(at_two, &console), bring);
    let mut user = user.unwrap();
    half.write(b"RFB 003.008\n").await;
    assert_eq!(user.read().await.as_deref(), Some(&b"RFB 003.008\n"[..]));

    // The second shuts down, and says so.
    two.app.shutdown.cancel();
    assert_eq!(user.closed().await, (1001, "shutdown".to_owned()));
    half.expect_end().await;
    two.app.consoles.ended().await;
    let records = records(&one).await;
    let end = records.iter().find(|(action, _)| action == "compute:EndConsole");
    assert_eq!(end.unwrap().1["reason"], "shutdown", "{records:?}");
}

#[tokio::test]
async fn what_a_dead_replica_had_open_is_written_down_by_another() {
    let cloud = TestCloud::start().await;
    cloud.furnish().await;
    let at = cloud.listen().await;
    let host = cloud.join_host("host-1").await;
    running(&cloud, &host).await;
    let console = ask(&cloud, "serial").await;
    let (_user, _half) = open(&cloud, &host, at, &console).await;
    cloud.pass(59);
    super::super::sweep(&cloud.app).await.unwrap();
    assert_eq!(left(&cloud).await, 1);
    cloud.pass(2);
    super::super::sweep(&cloud.app).await.unwrap();
    assert_eq!(left(&cloud).await, 0);
    let records = records(&cloud).await;
    let (_, end) = records.iter().find(|(action, _)| action == "compute:EndConsole").unwrap();
    assert_eq!((&end["reason"], &end["seconds"]), (&json!("lost"), &json!(61)), "{records:?}");
}
