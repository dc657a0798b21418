-- Of the attempts that come too early only the first of each wait is written down in the audit log; otherwise
-- whoever may not try could still fill the disk.
ALTER TABLE sign_in_backoff
    -- When an attempt was first refused since the last one that was let in.
    ADD COLUMN refused_at timestamptz;
