-- What hosts measure of their guests, for some hours, and what guests say of themselves.
--
-- Samples go round in slots of half an hour, a table each, and a slot is emptied as a whole before its next turn: no row
-- is ever changed or deleted, so nothing is left to vacuum. They are not written ahead: after a crash of the database the
-- history begins anew, which is worth half of the writes. They refer to nothing for the same reason; samples of an
-- instance that is gone are found by nobody, and go with their slot.
CREATE TABLE instance_samples (
    -- Of the eight: half-hours since 1970, modulo eight.
    slot        smallint NOT NULL,
    instance_id uuid NOT NULL,
    at          timestamptz NOT NULL,
    sample      jsonb NOT NULL
) PARTITION BY LIST (slot);

CREATE UNLOGGED TABLE instance_samples_0 PARTITION OF instance_samples FOR VALUES IN (0);
CREATE UNLOGGED TABLE instance_samples_1 PARTITION OF instance_samples FOR VALUES IN (1);
CREATE UNLOGGED TABLE instance_samples_2 PARTITION OF instance_samples FOR VALUES IN (2);
CREATE UNLOGGED TABLE instance_samples_3 PARTITION OF instance_samples FOR VALUES IN (3);
CREATE UNLOGGED TABLE instance_samples_4 PARTITION OF instance_samples FOR VALUES IN (4);
CREATE UNLOGGED TABLE instance_samples_5 PARTITION OF instance_samples FOR VALUES IN (5);
CREATE UNLOGGED TABLE instance_samples_6 PARTITION OF instance_samples FOR VALUES IN (6);
CREATE UNLOGGED TABLE instance_samples_7 PARTITION OF instance_samples FOR VALUES IN (7);
CREATE INDEX instance_samples_of_instance ON instance_samples (instance_id, at);

-- Empties a slot, unless it is empty. Whoever waits for a reader that takes long, like a backup, holds up all other
-- readers, so it does not wait for long: the next look comes soon.
CREATE FUNCTION empty_sample_slot(emptied smallint) RETURNS void LANGUAGE plpgsql
SET lock_timeout = '200ms' AS $$
BEGIN
    IF EXISTS (SELECT FROM instance_samples WHERE slot = emptied) THEN
        EXECUTE format('TRUNCATE instance_samples_%s', emptied);
    END IF;
EXCEPTION WHEN lock_not_available THEN
    NULL;
END $$;

CREATE TABLE instance_guests (
    instance_id uuid PRIMARY KEY REFERENCES instances ON DELETE CASCADE,
    asked_at    timestamptz NOT NULL,
    -- Why the newest question had no answer.
    silence     text CHECK (silence IN ('no_agent', 'not_answering')),
    -- The newest answer.
    info        jsonb,
    seen_at     timestamptz,
    CONSTRAINT instance_guests_seen_with_info CHECK ((info IS NULL) = (seen_at IS NULL)),
    CONSTRAINT instance_guests_say_something CHECK (info IS NOT NULL OR silence IS NOT NULL)
);
