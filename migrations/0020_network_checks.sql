-- What each host found when it last compared itself with its document: {checked_at, differences, first}.

ALTER TABLE hosts ADD COLUMN network_check jsonb;
