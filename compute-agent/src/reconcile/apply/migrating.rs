//! The steps of guests that come and go.

use protocol::MigrationId;
use protocol::agent::{InstanceSpec, Migration};

use super::{Reconciler, StepError};
use crate::hypervisor::HypervisorError;
use crate::reconcile::boots::{BootRecord, Phase};
use crate::reconcile::migrating::{NOT_EXPECTED, Outgoing, Stage};

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
        let expected = self.parts.relays.expect(spec.id, id, source).await;
        expected.map_err(|error| StepError::Failed { detail: NOT_EXPECTED, source: error.into() })
    }

    /// It stands still until that is written down, and goes on from there like one whose memory was loaded.
    pub(super) async fn record_arrived(&self, spec: &InstanceSpec) -> Result<(), StepError> {
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
        self.amend_record(spec.id, |record| {
            record.outgoing = Some(Outgoing { id, stage });
            // QEMU lets a guest go on that it could not send; should it not have, that is made up for.
            record.to_resume |= stage == Stage::Kept;
        })
        .await?;
        self.remember(spec.id, |memory| memory.may_send = (stage == Stage::Begun).then_some(id));
        if stage == Stage::Kept {
            self.parts.relays.forget(spec.id);
        }
        Ok(())
    }

    /// Whatever comes of it, it is tried once.
    pub(super) async fn send(&self, spec: &InstanceSpec) -> Result<(), StepError> {
        self.remember(spec.id, |memory| memory.may_send = None);
        let Some(Migration::Outgoing { id, destination, address, max_downtime_ms, .. }) = spec.migration
        else {
            return Err(StepError::LookAgain);
        };
        let way = match self.parts.relays.reach(spec.id, id, (destination, address)).await {
            Ok(way) => way,
            Err(error) => {
                tracing::warn!(instance = %spec.id, %error, "the destination of a guest is not reached");
                return Err(StepError::LookAgain);
            }
        };
        if let Err(error) = self.parts.hypervisor.send(spec.id, way, max_downtime_ms).await {
            if matches!(error, HypervisorError::StartedEarlier) {
                self.remember(spec.id, |memory| memory.started_earlier = Some(id));
            }
            tracing::warn!(instance = %spec.id, error = %crate::chain(&error), "a guest is not sent");
            return Err(StepError::LookAgain);
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
