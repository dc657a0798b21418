-- Retention looks at schedules of which there is news, and images that were deleted before 0041_room_that_is_left.sql count.

-- Schedules that may have got too many snapshots. Whoever changes something adds a row without looking for others, so that
-- nobody waits for anybody; a foreign key would lock the schedule.
CREATE TABLE schedule_news (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schedule_id uuid NOT NULL
);

-- INVARIANT: a snapshot becomes surplus only by what these triggers see: a newer one, its own state, or the schedule.
CREATE FUNCTION note_schedule_news() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'snapshots' THEN
        INSERT INTO schedule_news (schedule_id) VALUES (NEW.schedule_id);
    ELSE
        INSERT INTO schedule_news (schedule_id) VALUES (NEW.id);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER snapshots_news AFTER INSERT OR UPDATE OF schedule_id, state ON snapshots
    FOR EACH ROW WHEN (NEW.schedule_id IS NOT NULL) EXECUTE FUNCTION note_schedule_news();
CREATE TRIGGER snapshot_schedules_news AFTER UPDATE ON snapshot_schedules
    FOR EACH ROW WHEN ((OLD.keep, OLD.volume_id, OLD.instance_id) IS DISTINCT FROM (NEW.keep, NEW.volume_id, NEW.instance_id))
    EXECUTE FUNCTION note_schedule_news();
INSERT INTO schedule_news (schedule_id) SELECT id FROM snapshot_schedules ORDER BY id;

-- As 0045_what_grows.sql has it, but for EXISTS: that is looked up in a table of all snapshots' volumes, made anew each time.
CREATE OR REPLACE VIEW surplus_snapshots AS
    SELECT id, schedule_id FROM (
        SELECT s.id, s.schedule_id, s.state, c.keep, count(*) OVER newer AS newer,
               count(*) FILTER (WHERE s.state = 'available') OVER newer AS newer_there
        FROM snapshots s JOIN snapshot_schedules c ON c.id = s.schedule_id
        WHERE CASE WHEN c.instance_id IS NOT NULL THEN s.instance_id = c.instance_id
                   ELSE s.instance_id IS NULL AND 0 < (
                       SELECT count(*) FROM snapshot_volumes v WHERE v.snapshot_id = s.id AND v.volume_id = c.volume_id) END
        WINDOW newer AS (PARTITION BY s.schedule_id ORDER BY s.created_at DESC, s.id DESC
                         ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) made
    WHERE CASE state WHEN 'creating' THEN false WHEN 'failed' THEN newer >= 1 ELSE newer_there >= keep END;

-- Images that had been deleted already when 0041_room_that_is_left.sql began to count such files: as much as those that were
-- deleted since, for the project that had made them. The row of the image does not say any more which; the audit log does.
SELECT set_config('cumulo.charge_anyway', 'on', true);
INSERT INTO image_remains (image_id, project_id, held_gib)
SELECT i.id, made.project_id, i.content_gib
FROM images i CROSS JOIN LATERAL (
    SELECT p.id AS project_id FROM audit_records r JOIN projects p ON p.id = r.project_id
    WHERE r.resource_id = i.id AND r.action = 'image:CreateImage' AND r.outcome = 'allowed'
    ORDER BY r.id LIMIT 1) made
WHERE i.deleted_at IS NOT NULL AND i.content_gib > 0 AND image_needed(i.id)
ON CONFLICT (image_id) DO NOTHING;
SELECT set_config('cumulo.charge_anyway', 'off', true);
