-- The backup that an instance comes from may be older than what its host has seen of it: of the very generation that is stored, too.
-- So its host is asked for something newer yet once it has told of it.
ALTER TABLE instances ADD COLUMN restored boolean NOT NULL DEFAULT false;
