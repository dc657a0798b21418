//! Joining, talking and renewing against a real TLS server on loopback.

mod server;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use protocol::agent::{Epoch, Heartbeat, HypervisorHealth, JoinToken};
use protocol::{Name, Sha256};

use super::join::{JoinError, Joined, join};
use super::{Endpoint, Identity, IdentityError, renew};
use crate::chain;
use crate::clock::ManualClock;
use crate::control_plane::http::HttpControlPlane;
use crate::control_plane::{ControlPlane, ControlPlaneError};
use server::{Server, Trust};

struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn state_dir(&self) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.dir.path().join("state")).unwrap()
    }

    async fn join(&self, server: &Server, name: &str) -> Result<Joined, JoinError> {
        self.join_with(server, &server.token(), name).await
    }

    async fn join_with(&self, server: &Server, token: &JoinToken, name: &str) -> Result<Joined, JoinError> {
        let name: Name = name.parse().unwrap();
        join(&server.endpoint(), token, &self.state_dir(), &name, &ManualClock::default()).await
    }
}

#[tokio::test]
async fn a_joined_host_has_an_identity_that_only_it_can_read_and_talks_with_it() {
    let (server, host) = (Server::start(Trust::Right).await, Host::new());
    let Joined::Now(membership) = host.join(&server, "host-1").await.unwrap() else { panic!("it was new") };
    assert_eq!(membership.host_id, server.host_id());
    let identity = Identity::load(&host.state_dir()).unwrap();
    assert_eq!(identity.membership, membership);
    let mode = |name: &str| std::fs::metadata(identity.folder.join(name)).unwrap().permissions().mode();
    assert_eq!(mode("key.pem") & 0o777, 0o600);
    assert_eq!(mode(".") & 0o777, 0o700);
    assert!(!format!("{identity:?}").contains("KEY"));

    let control_plane = HttpControlPlane::new(&identity).unwrap();
    let reply = control_plane.heartbeat(&heartbeat(1)).await.unwrap();
    assert!(reply.report_all);
    assert_eq!(server.last_client_certificate(), Some(identity.certificate_pem));
}

fn heartbeat(epoch: i64) -> Heartbeat {
    Heartbeat {
        epoch: Epoch(epoch),
        hypervisor: HypervisorHealth::Ok,
        observed_digest: Sha256::from_bytes([0; 32]),
        quarantined: 0,
        pool: None,
        shared_pools: Vec::new(),
        guarded_pools: Vec::new(),
        seen_leases: Vec::new(),
    }
}

#[tokio::test]
async fn a_stale_epoch_is_told_from_other_refusals() {
    let (server, host) = (Server::start(Trust::Right).await, Host::new());
    host.join(&server, "host-1").await.unwrap();
    let control_plane = HttpControlPlane::new(&Identity::load(&host.state_dir()).unwrap()).unwrap();
    let stale = control_plane.heartbeat(&heartbeat(0)).await;
    assert!(matches!(stale, Err(ControlPlaneError::StaleEpoch)), "{stale:?}");
    let gone = control_plane.blob(Sha256::from_bytes([0; 32])).await.err().unwrap();
    assert!(gone.is_gone(), "{gone:?}");
}

#[tokio::test]
async fn the_token_decides_which_authority_is_trusted() {
    let (server, host) = (Server::start(Trust::Right).await, Host::new());
    let other = JoinToken { ca_sha256: Sha256::from_bytes([1; 32]), ..server.token() };
    let error = host.join_with(&server, &other, "host-1").await.unwrap_err();
    assert!(chain(&error).contains("UnknownIssuer"), "{}", chain(&error));
    assert!(matches!(Identity::load(&host.state_dir()), Err(IdentityError::NotJoined { .. })));
    assert_eq!(server.requests(), 0, "the token's secret was not sent");
}

#[tokio::test]
async fn holding_the_right_authority_is_not_enough() {
    for (trust, complaint) in [
        (Trust::LeafOfAnotherAuthority, "BadSignature"),
        (Trust::WrongName, "not valid for name"),
        (Trust::Expired, "expired"),
    ] {
        let (server, host) = (Server::start(trust).await, Host::new());
        let error = host.join(&server, "host-1").await.unwrap_err();
        assert!(chain(&error).contains(complaint), "{trust:?}: {}", chain(&error));
        assert_eq!(server.requests(), 0, "{trust:?}: the token's secret was not sent");
    }
}

#[tokio::test]
async fn an_answer_with_another_authority_is_refused() {
    let (server, host) = (Server::start(Trust::AnswersAnotherAuthority).await, Host::new());
    let error = host.join(&server, "host-1").await.unwrap_err();
    assert!(matches!(error, JoinError::WrongAuthority), "{error:?}");
    assert!(!Identity::folder_in(&host.state_dir()).exists());
}

#[tokio::test]
async fn joining_twice_is_nothing_new_and_joining_elsewhere_is_refused() {
    let (server, host) = (Server::start(Trust::Right).await, Host::new());
    host.join(&server, "host-1").await.unwrap();
    assert!(matches!(host.join(&server, "host-1").await, Ok(Joined::Already(_))));
    assert_eq!(server.requests(), 1);
    let other_name = host.join(&server, "host-2").await;
    assert!(matches!(other_name, Err(JoinError::JoinedElsewhere { .. })));
    let other_cloud = Server::start(Trust::Right).await;
    assert!(matches!(host.join(&other_cloud, "host-1").await, Err(JoinError::JoinedElsewhere { .. })));
    assert_eq!(other_cloud.requests(), 0);
}

#[tokio::test]
async fn a_host_whose_certificate_has_run_out_is_let_in_again_with_the_same_key() {
    let (server, host) = (Server::start(Trust::Right).await, Host::new());
    host.join(&server, "host-1").await.unwrap();
    let before = Identity::load(&host.state_dir()).unwrap();
    let clock = ManualClock::default();
    let again = async |name: &str| {
        join(&server.endpoint(), &server.token(), &host.state_dir(), &name.parse().unwrap(), &clock).await
    };
    let not_after = before.validity().unwrap().not_after;
    clock.advance_to(not_after - time::Duration::SECOND);
    assert!(matches!(again("host-1").await, Ok(Joined::Already(_))));
    assert_eq!((server.requests(), server.joined_as()), (1, None));
    clock.advance_to(not_after);
    assert!(matches!(again("host-2").await, Err(JoinError::JoinedElsewhere { .. })), "it is another");
    assert_eq!(again("host-1").await.unwrap(), Joined::Again(before.membership.clone()));
    assert_eq!(server.joined_as(), Some(before.membership.host_id));
    let after = Identity::load(&host.state_dir()).unwrap();
    assert_ne!(after.certificate_pem, before.certificate_pem);
    assert_eq!((&after.key_pem, &after.membership), (&before.key_pem, &before.membership));
    HttpControlPlane::new(&after).unwrap().heartbeat(&heartbeat(1)).await.unwrap();
    assert_eq!(server.last_client_certificate(), Some(after.certificate_pem));
}

#[tokio::test]
async fn an_answer_for_another_host_changes_nothing() {
    let (server, host) = (Server::start(Trust::AnswersAnotherHost).await, Host::new());
    host.join(&server, "host-1").await.unwrap();
    let before = Identity::load(&host.state_dir()).unwrap();
    let clock = ManualClock::default();
    clock.advance_to(before.validity().unwrap().not_after);
    let name = "host-1".parse().unwrap();
    let answer = join(&server.endpoint(), &server.token(), &host.state_dir(), &name, &clock).await;
    assert!(matches!(answer, Err(JoinError::AnotherHost { .. })), "{answer:?}");
    assert_eq!(Identity::load(&host.state_dir()).unwrap().certificate_pem, before.certificate_pem);
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_same_key_and_used_at_once() {
    let (server, host) = (Server::start(Trust::Right).await, Host::new());
    host.join(&server, "host-1").await.unwrap();
    let before = Identity::load(&host.state_dir()).unwrap();
    let validity = before.validity().unwrap();
    let life = validity.not_after - validity.not_before;
    assert_eq!(validity.renew_at() - validity.not_before, life * 2 / 3);

    let control_plane = Arc::new(HttpControlPlane::new(&before).unwrap());
    let renewed = renew::renew(&before, &control_plane).await.unwrap();
    assert_ne!(renewed.certificate_pem, before.certificate_pem);
    let stored = Identity::load(&host.state_dir()).unwrap();
    assert_eq!(stored.certificate_pem, renewed.certificate_pem);
    assert_eq!(stored.key_pem, before.key_pem);
    control_plane.heartbeat(&heartbeat(1)).await.unwrap();
    assert_eq!(server.last_client_certificate(), Some(renewed.certificate_pem));
}

#[tokio::test]
async fn by_a_clock_that_goes_wrong_a_certificate_is_renewed_once_and_not_without_end() {
    let (server, host) = (Server::start(Trust::Right).await, Host::new());
    host.join(&server, "host-1").await.unwrap();
    let identity = Identity::load(&host.state_dir()).unwrap();
    let clock = Arc::new(ManualClock::default());
    clock.advance_to(identity.validity().unwrap().not_after);
    let control_plane = Arc::new(HttpControlPlane::new(&identity).unwrap());
    let keeping = tokio::spawn(renew::keep_valid(identity, control_plane, clock));
    let renewed = async {
        while server.requests() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), renewed).await.expect("it is due");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.requests(), 2, "the join and one renewal");
    keeping.abort();
}

#[tokio::test]
async fn who_joins_is_told_what_to_do_when_an_answer_was_lost() {
    let (server, host) = (Server::start(Trust::LosesTheAnswer).await, Host::new());
    let lost = host.join(&server, "host-1").await.unwrap_err();
    assert!(matches!(lost, JoinError::Unanswered { .. }), "{lost:?}");
    let again = host.join(&server, "host-1").await.unwrap_err();
    assert!(matches!(again, JoinError::Spent { .. }), "{again:?}");
    for error in [lost, again] {
        let text = chain(&error);
        assert!(text.contains("`cumulo host delete host-1`") && text.contains("new token"), "{text}");
    }
    assert!(matches!(Identity::load(&host.state_dir()), Err(IdentityError::NotJoined { .. })));
}

#[tokio::test]
async fn a_control_plane_that_is_not_there_is_unreachable() {
    let (server, host) = (Server::start(Trust::Right).await, Host::new());
    host.join(&server, "host-1").await.unwrap();
    let identity = Identity::load(&host.state_dir()).unwrap();
    server.stop().await;
    let answer = HttpControlPlane::new(&identity).unwrap().heartbeat(&heartbeat(1)).await;
    assert!(matches!(answer, Err(ControlPlaneError::Unreachable { .. })), "{answer:?}");
}

#[test]
fn an_endpoint_is_kept_as_it_was_given() {
    let endpoint: Endpoint = "https://cloud.example:7443".parse().unwrap();
    let text = serde_json::to_string(&endpoint).unwrap();
    assert_eq!(text, "\"https://cloud.example:7443\"");
    assert_eq!(serde_json::from_str::<Endpoint>(&text).unwrap(), endpoint);
}
