//! The steps of guests that come and go.

use protocol::MigrationId;
use protocol::agent::{InstanceSpec, Migration};

use super::{Reconciler, StepError};
use crate::hypervisor::HypervisorError;
use crate::reconcile::boots::{BootRecord, Phase};
use crate::reconcile::migrating::{NOT_EXPECTED, Outgoing, Stage, Turn, going_along};

const NOT_WAITING: &str = "The host could not make a virtual machine for the guest.";

impl Reconciler {
    pub(super) async fn record_incoming(
        &self,
        spec: &InstanceSpec,
        id: MigrationId,
    ) -> Result<(), StepError> {
        let record = BootRecord { incoming: Some(id), ..self.new_record(spec.boot, Phase::Starting) };
        self.record(spec.id, Some(record)).await
    }

    pub(super) async fn create_waiting(&self, spec: &InstanceSpec, id: MigrationId) -> Result<(), StepError> {
        let domain = self.domain_spec(spec).await?;
        let turn = self.turn().await;
        let created = self.parts.hypervisor.create_waiting(&domain).await;
        drop(turn);
        created.map_err(|error| StepError::of(error, NOT_WAITING))?;
        self.amend_record(spec.id, |record| {
            record.phase = Phase::Started;
            record.incoming = Some(id);
        })
        .await
    }

    pub(super) async fn expect(&self, spec: &InstanceSpec) -> Result<(), StepError> {
        let Some(Migration::Incoming { id, source }) = spec.migration else {
            return Err(StepError::LookAgain);
        };
        let expected = self.parts.relays.expect(spec.id, id, source, going_along(spec)).await;
        expected.map_err(|error| StepError::Failed { detail: NOT_EXPECTED, source: error.into() })
    }

    /// It stands still until that is written down, and goes on from there like one whose memory was loaded.
    pub(super) async fn record_arrived(&self, spec: &InstanceSpec) -> Result<(), StepError> {
        if !going_along(spec).is_empty() {
            super::unless_ignored(spec.id, self.parts.hypervisor.close_disks(spec.id).await)?;
        }
        self.amend_record(spec.id, |record| {
            record.incoming = None;
            record.phase = Phase::Started;
            record.to_resume = true;
        })
        .await?;
        self.parts.relays.forget(spec.id);
        Ok(())
    }

    pub(super) async fn record_outgoing(
        &self,
        spec: &InstanceSpec,
        id: MigrationId,
        stage: Stage,
    ) -> Result<(), StepError> {
        if stage == Stage::Kept && !going_along(spec).is_empty() {
            super::unless_ignored(spec.id, self.parts.hypervisor.end_mirrors(spec.id).await)?;
        }
        self.amend_record(spec.id, |record| {
            record.outgoing = Some(Outgoing { id, stage });
            // QEMU lets a guest go on that it could not send; should it not have, that is made up for.
            record.to_resume |= stage == Stage::Kept;
        })
        .await?;
        self.remember(spec.id, |memory| {
            memory.may_send = (stage == Stage::Begun).then_some((id, Turn::Begin));
        });
        if stage == Stage::Kept {
            self.parts.relays.forget(spec.id);
        }
        Ok(())
    }

    /// Whatever comes of it, it is tried once.
    pub(super) async fn mirror(&self, spec: &InstanceSpec, id: MigrationId) -> Result<(), StepError> {
        self.remember(spec.id, |memory| memory.may_send = None);
        let Some(Migration::Outgoing { destination, address, .. }) = spec.migration else {
            return Err(StepError::LookAgain);
        };
        let volumes = going_along(spec);
        let ways = self.parts.relays.reach_disks(spec.id, id, (destination, address), &volumes).await;
        let ways = ways.map_err(|error| {
            tracing::warn!(instance = %spec.id, %error, "the destination of a guest is not reached");
            StepError::LookAgain
        })?;
        if let Err(error) = self.parts.hypervisor.mirror(spec.id, ways).await {
            return Err(self.not_sent(spec, id, &error));
        }
        self.remember(spec.id, |memory| memory.may_send = Some((id, Turn::Send)));
        Ok(())
    }

    /// The same. INVARIANT: nothing is sent of a guest any more whose disks are not all there.
    pub(super) async fn switch_over(&self, spec: &InstanceSpec, id: MigrationId) -> Result<(), StepError> {
        self.remember(spec.id, |memory| memory.may_send = None);
        let switched = self.parts.hypervisor.switch_over(spec.id).await;
        switched.map_err(|error| self.not_sent(spec, id, &error))
    }

    fn not_sent(&self, spec: &InstanceSpec, id: MigrationId, error: &HypervisorError) -> StepError {
        if matches!(error, HypervisorError::StartedEarlier) {
            self.remember(spec.id, |memory| memory.started_earlier = Some(id));
        }
        tracing::warn!(instance = %spec.id, error = %crate::chain(error), "a guest is not sent");
        StepError::LookAgain
    }

    /// Whatever comes of it, it is tried once.
    pub(super) async fn send(&self, spec: &InstanceSpec) -> Result<(), StepError> {
        self.remember(spec.id, |memory| memory.may_send = None);
        let Some(Migration::Outgoing { id, destination, address, max_downtime_ms, .. }) = spec.migration
        else {
            return Err(StepError::LookAgain);
        };
        let (relays, to) = (&self.parts.relays, (destination, address));
        let with_disks = !going_along(spec).is_empty();
        let way = if with_disks {
            relays.reach_after_disks(spec.id, id, to).await
        } else {
            relays.reach(spec.id, id, to).await
        };
        let way = match way {
            Ok(way) => way,
            Err(error) => {
                tracing::warn!(instance = %spec.id, %error, "the destination of a guest is not reached");
                return Err(StepError::LookAgain);
            }
        };
        if let Err(error) = self.parts.hypervisor.send(spec.id, way, max_downtime_ms).await {
            return Err(self.not_sent(spec, id, &error));
        }
        if with_disks {
            self.remember(spec.id, |memory| memory.may_send = Some((id, Turn::SwitchOver)));
        }
        Ok(())
    }

    pub(super) async fn call_off(&self, spec: &InstanceSpec, id: MigrationId) -> Result<(), StepError> {
        let now = self.parts.clock.now();
        self.remember(spec.id, |memory| memory.called_off = Some((id, now)));
        let cancelled = self.parts.hypervisor.cancel_sending(spec.id).await;
        super::unless_ignored(spec.id, cancelled)
    }
}
