-- A host may have seen generations of another history: those after the backup that an instance comes from. What it says of
-- generations before this one may be of that, and counts for nothing.
ALTER TABLE instances ADD COLUMN believed_from bigint;
