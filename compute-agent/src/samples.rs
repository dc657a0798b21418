//! Specifications for tests.

use bytes::Bytes;
use protocol::agent::{
    Architecture, DesiredBody, DesiredObject, DesiredPage, ImageSource, InstanceSpec, Power, RootDisk, Seed,
    StopMode,
};
use protocol::image::Format;
use protocol::{Generation, InstanceId, MemoryMib, OperationId, Revision, Sha256, SizeGib};
use uuid::Uuid;

pub(crate) const IMAGE: Bytes = Bytes::from_static(b"the bytes of an image");
pub(crate) const IMAGE_SHA256: Sha256 = Sha256::from_bytes([7; 32]);
pub(crate) const GRACEFUL: StopMode = StopMode::Graceful { timeout_seconds: 12 };

pub(crate) fn instance_id() -> InstanceId {
    InstanceId::from(Uuid::now_v7())
}

/// An instance that shall run its first boot, in its first generation, for a new operation.
pub(crate) fn running(id: InstanceId) -> InstanceSpec {
    InstanceSpec {
        id,
        generation: Generation(1),
        hostname: "web-1".parse().unwrap(),
        power: Power::Running,
        boot: 1,
        stop: GRACEFUL,
        architecture: Architecture::X86_64,
        vcpus: 1,
        memory_mib: MemoryMib(256),
        root_disk: RootDisk {
            size_gib: SizeGib(1),
            image: ImageSource {
                sha256: IMAGE_SHA256,
                format: Format::Qcow2,
                size_bytes: IMAGE.len() as u64,
                virtual_size_bytes: 1 << 20,
            },
        },
        seed: Seed { user_data: None, ssh_authorized_keys: Vec::new() },
        operation_id: Some(OperationId::from(Uuid::now_v7())),
        request_id: None,
    }
}

/// The next generation of an instance, for another operation.
pub(crate) fn next(spec: &InstanceSpec) -> InstanceSpec {
    InstanceSpec {
        generation: Generation(spec.generation.0 + 1),
        operation_id: Some(OperationId::from(Uuid::now_v7())),
        ..spec.clone()
    }
}

pub(crate) fn stopped(spec: &InstanceSpec, stop: StopMode) -> InstanceSpec {
    InstanceSpec { power: Power::Stopped, stop, ..next(spec) }
}

/// Started anew: a reboot if it runs, a start if it does not.
pub(crate) fn booted_again(spec: &InstanceSpec) -> InstanceSpec {
    InstanceSpec { power: Power::Running, boot: spec.boot + 1, ..next(spec) }
}

pub(crate) fn deleted(spec: &InstanceSpec) -> DesiredBody {
    let next = next(spec);
    DesiredBody::DeleteInstance { id: next.id, generation: next.generation, operation_id: next.operation_id }
}

pub(crate) fn wish(spec: &InstanceSpec) -> DesiredBody {
    DesiredBody::Instance(Box::new(spec.clone()))
}

pub(crate) fn page(complete: bool, bodies: impl IntoIterator<Item = DesiredBody>) -> DesiredPage {
    let objects = bodies.into_iter().map(|body| DesiredObject { revision: Revision(1), body }).collect();
    DesiredPage { revision: Revision(1), complete, objects }
}
