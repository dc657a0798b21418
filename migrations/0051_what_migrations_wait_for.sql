-- A guest on a host that is emptied is not shut down for what passes by itself, nor waits for it for ever.
ALTER TABLE evacuations
    -- Since when it waits for something that may pass, to go while it runs.
    ADD COLUMN waits_since timestamptz;
