//! Memory of guests.

use std::os::unix::fs::PermissionsExt;

use protocol::LayerId;
use uuid::Uuid;

use super::*;
use crate::{Blame, Made};

#[tokio::test]
async fn memory_is_there_as_a_whole_or_not_at_all_and_goes_as_layers_go() {
    let fixture = Fixture::new();
    let pool = &fixture.pool;
    let id = LayerId::from_uuid(Uuid::now_v7());
    let incoming = || fixture.root.join("incoming").read_dir_utf8().unwrap().count();
    let write = |memory: &crate::NewMemory| {
        fs::write(memory.path(), "memory").unwrap();
        fs::set_permissions(memory.path(), fs::Permissions::from_mode(0o600)).unwrap();
    };
    let dropped = pool.new_memory(6).await.unwrap();
    write(&dropped);
    assert_eq!(incoming(), 1);
    drop(dropped);
    assert_eq!((incoming(), pool.has_memory(id).await.unwrap()), (0, false));

    let memory = pool.new_memory(6).await.unwrap();
    write(&memory);
    pool.flush_memory(&memory).await.unwrap();
    assert_eq!(pool.publish_memory(memory, id).await.unwrap(), Made::Now);
    assert_eq!(fs::read_to_string(pool.memory(id)).unwrap(), "memory");
    assert!(pool.has_memory(id).await.unwrap() && incoming() == 0);
    let full = pool.new_memory(u64::MAX / 2).await.unwrap_err();
    assert_eq!(full.blame(), Blame::Space);
    assert!(pool.remove_layers(&[id]).await.unwrap());
    assert!(!pool.has_memory(id).await.unwrap() && !pool.remove_layers(&[id]).await.unwrap());
}
