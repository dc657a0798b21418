//! From libvirt's lifecycle events to ours.

use std::collections::HashSet;

use protocol::InstanceId;
use virt::sys;

use crate::hypervisor::{EndCause, Event};

/// Reads the events of one connection in their order.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Domains whose QEMU got a signal from the host: what follows looks like a guest that powered itself
    /// off, and must not be taken for the owner's wish.
    signalled: HashSet<InstanceId>,
}

impl Reader {
    pub(super) fn read(&mut self, id: InstanceId, event: u32, detail: u32) -> Event {
        match event {
            sys::VIR_DOMAIN_EVENT_STOPPED => self.stopped(id, detail),
            sys::VIR_DOMAIN_EVENT_SHUTDOWN if detail == sys::VIR_DOMAIN_EVENT_SHUTDOWN_HOST => {
                self.signalled.insert(id);
                Event::Changed { id }
            }
            _ => Event::Changed { id },
        }
    }

    fn stopped(&mut self, id: InstanceId, detail: u32) -> Event {
        let signalled = self.signalled.remove(&id);
        let why = match detail {
            sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN if signalled => EndCause::Destroyed,
            sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN => EndCause::GuestShutdown,
            sys::VIR_DOMAIN_EVENT_STOPPED_DESTROYED => EndCause::Destroyed,
            sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED | sys::VIR_DOMAIN_EVENT_STOPPED_FAILED => EndCause::Crashed,
            // Migrated, saved, reverted: not an end of its run.
            _ => return Event::Changed { id },
        };
        Event::Ended { id, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn read(events: &[(u32, u32)]) -> Event {
        let mut reader = Reader::default();
        let id = InstanceId::from_uuid(Uuid::from_u128(1));
        let read: Vec<_> = events.iter().map(|(event, detail)| reader.read(id, *event, *detail)).collect();
        assert!(reader.signalled.is_empty(), "nothing is remembered of a domain that has ended");
        let (last, before) = read.split_last().unwrap();
        assert!(before.iter().all(|event| *event == Event::Changed { id }), "{before:?}");
        last.clone()
    }

    #[test]
    fn an_end_has_its_cause() {
        use sys::*;
        let id = InstanceId::from_uuid(Uuid::from_u128(1));
        let ended = |why| Event::Ended { id, why };
        let by_guest = (VIR_DOMAIN_EVENT_SHUTDOWN, VIR_DOMAIN_EVENT_SHUTDOWN_GUEST);
        let by_host = (VIR_DOMAIN_EVENT_SHUTDOWN, VIR_DOMAIN_EVENT_SHUTDOWN_HOST);
        let stopped = |detail| (VIR_DOMAIN_EVENT_STOPPED, detail);
        let shut_down = stopped(VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN);
        for (events, expected) in [
            (&[by_guest, shut_down][..], ended(EndCause::GuestShutdown)),
            (&[shut_down], ended(EndCause::GuestShutdown)),
            (&[by_host, shut_down], ended(EndCause::Destroyed)),
            (&[stopped(VIR_DOMAIN_EVENT_STOPPED_DESTROYED)], ended(EndCause::Destroyed)),
            (&[stopped(VIR_DOMAIN_EVENT_STOPPED_CRASHED)], ended(EndCause::Crashed)),
            (&[stopped(VIR_DOMAIN_EVENT_STOPPED_FAILED)], ended(EndCause::Crashed)),
            (&[stopped(VIR_DOMAIN_EVENT_STOPPED_MIGRATED)], Event::Changed { id }),
            (&[(VIR_DOMAIN_EVENT_STARTED, 0)], Event::Changed { id }),
            (&[(VIR_DOMAIN_EVENT_CRASHED, 0)], Event::Changed { id }),
        ] {
            assert_eq!(read(events), expected, "{events:?}");
        }
    }
}
