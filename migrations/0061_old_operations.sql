-- Operations that ended long ago are removed: see `forget_old` (api/src/operations/reconcile.rs).

CREATE INDEX operations_finished ON operations (finished_at) WHERE finished_at IS NOT NULL;
