-- What lists can be asked for: the states that people see, as the code computes them from the same columns.

-- As `instances::model::shown` has it; a test compares the two.
CREATE FUNCTION instance_state(
    deletion_requested boolean, placed boolean, power text, boot bigint, observed_boot bigint, observed_state text,
    observed_end_reason text, observed_paused text
) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN deletion_requested THEN 'deleting'
        WHEN NOT placed THEN 'pending'
        WHEN observed_boot IS NULL OR observed_state IS NULL THEN 'provisioning'
        WHEN observed_state = 'failed' THEN 'error'
        WHEN power = 'stopped' AND observed_state IN ('preparing', 'running', 'stopping') THEN 'stopping'
        WHEN power = 'stopped' THEN 'stopped'
        WHEN power = 'paused' AND observed_state = 'running' AND observed_paused IS NULL THEN 'running'
        WHEN power = 'paused' AND observed_state = 'running' THEN 'paused'
        WHEN power = 'paused' AND observed_state = 'stopped' THEN 'stopped'
        WHEN observed_boot < boot AND observed_state IN ('running', 'stopping') THEN 'stopping'
        WHEN observed_boot < boot THEN 'provisioning'
        WHEN observed_state = 'running' AND observed_paused IS NULL THEN 'running'
        WHEN observed_state = 'running' THEN 'paused'
        WHEN observed_state = 'stopping' THEN 'stopping'
        WHEN observed_state = 'stopped' AND observed_end_reason NOT IN ('never_started', 'requested') THEN 'stopped'
        ELSE 'provisioning'
    END
$$;

ALTER TABLE instances
    ADD COLUMN shown_state text NOT NULL GENERATED ALWAYS AS (instance_state(
        deletion_requested_at IS NOT NULL, host_id IS NOT NULL, power, boot,
        observed_boot, observed_state, observed_end_reason, observed_paused)) STORED;
-- Operators look for the few that fail among all of the cloud.
CREATE INDEX instances_of_state ON instances (shown_state, id);

-- As `volumes::model::shown` has it.
CREATE FUNCTION volume_state(v volumes) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN v.deletion_requested_at IS NOT NULL THEN 'deleting'
        WHEN v.attachment_state IS NULL THEN 'available'
        WHEN v.attachment_state <> 'attached' THEN v.attachment_state
        WHEN v.observed_state = 'ready' AND v.observed_generation >= v.spec_generation THEN 'attached'
        ELSE 'updating'
    END
$$;
