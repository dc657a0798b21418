-- The virtual machine around the guests of a type, where it is not the usual one: see GuestHardware of the protocol.

ALTER TABLE instance_types ADD COLUMN hardware jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(hardware) = 'object');
