//! What happens to a guest while what it writes to is written to at another host as well: nothing.

use super::*;

/// The guest has stayed, and ran all the time.
async fn stayed(two: &Two, what: &str) {
    assert_eq!(two.owner, HOME, "{what}");
    two.check(what).await;
    assert_eq!(two.hosts[HOME].hypervisor.resumes(), 0, "{what}: it stood still");
}

/// Plays until the source has said that the disks are being mirrored, which never ends.
async fn mirroring(two: &mut Two) -> [Life; 2] {
    two.hosts[AWAY].hypervisor.fail_next(Call::HoldDisk, u32::MAX);
    let lives = [HOME, AWAY].map(|index| two.hosts[index].start_agent(NEVER));
    for _ in 0..400 {
        two.turn(&lives, &[HOME, AWAY]).await;
        let said = lives[HOME].outbox.migration(two.spec.id);
        if said.is_some_and(|said| matches!(said.state, MigrationState::Mirroring { .. })) {
            return lives;
        }
    }
    panic!("it is never mirrored: {:?}", two.told);
}

#[tokio::test]
async fn a_guest_without_disks_on_its_host_is_sent_without_any() {
    let mut two = Two::start_with(without_disks()).await;
    two.hosts[HOME].hypervisor.fail_next(Call::Mirror, u32::MAX);
    two.play([NEVER, NEVER]).await;
    assert_eq!(two.owner, AWAY);
    two.check("nothing to mirror").await;
}

#[tokio::test]
async fn a_guest_does_not_notice_that_the_other_disk_is_full_or_that_nothing_is_mirrored() {
    for (host, call) in [(AWAY, Call::WriteDisk), (HOME, Call::Mirror)] {
        let mut two = Two::start().await;
        two.hosts[host].hypervisor.fail_next(call, 1);
        two.play([NEVER, NEVER]).await;
        stayed(&two, &format!("{call:?}")).await;
    }
}

#[tokio::test]
async fn a_guest_whose_disks_are_not_all_there_at_the_end_is_called_back() {
    let mut two = Two::start().await;
    two.hosts[HOME].hypervisor.fail_next(Call::FinishMirrors, 1);
    two.play([NEVER, NEVER]).await;
    assert_eq!(two.owner, HOME);
    two.check("called back").await;
}

#[tokio::test]
async fn mirrors_that_cannot_be_ended_are_ended_again() {
    let mut two = Two::start().await;
    two.hosts[AWAY].hypervisor.fail_next(Call::WriteDisk, 1);
    two.hosts[HOME].hypervisor.fail_next(Call::EndMirrors, 2);
    two.play([NEVER, NEVER]).await;
    stayed(&two, "ended at the third attempt").await;
}

#[tokio::test]
async fn it_is_called_off_while_its_disks_are_mirrored() {
    let mut two = Two::start().await;
    two.hosts[AWAY].hypervisor.fail_next(Call::HoldDisk, u32::MAX);
    two.cancelled_midway = true;
    two.play([NEVER, NEVER]).await;
    stayed(&two, "called off").await;
}

#[tokio::test]
async fn whichever_agent_dies_while_its_disks_are_mirrored_the_guest_stays() {
    for side in [HOME, AWAY] {
        let mut two = Two::start().await;
        let lives = mirroring(&mut two).await;
        let [home, away] = lives;
        let mut lives = if side == HOME {
            drop(home);
            [two.hosts[HOME].start_agent(NEVER), away]
        } else {
            drop(away);
            [home, two.hosts[AWAY].start_agent(NEVER)]
        };
        for _ in 0..400 {
            two.turn(&lives, &[HOME, AWAY]).await;
            if two.is_over {
                break;
            }
        }
        assert!(two.is_over, "side {side}");
        for index in [HOME, AWAY] {
            lives[index].want(two.told[index].clone().unwrap());
            lives[index].settle(two.spec.id).await;
        }
        stayed(&two, &format!("side {side}")).await;
    }
}
