-- Guests that hosts have and the cloud does not know: made after the backup that was restored, say. Their addresses are nobody
-- else's while they are there.

CREATE TABLE unknown_guests (
    id            uuid PRIMARY KEY,
    host_id       uuid NOT NULL REFERENCES hosts ON DELETE CASCADE,
    -- The instance that it is. The cloud may know it, on another host.
    instance_id   uuid NOT NULL,
    runs          boolean NOT NULL,
    -- What its host was last told of it, `protocol::agent::UnknownSpec`; NULL when it has nothing of that any more.
    spec          jsonb,
    first_seen_at timestamptz NOT NULL,
    CONSTRAINT unknown_guests_unique UNIQUE (host_id, instance_id)
);

CREATE VIEW unknown_guest_cards AS
    SELECT g.id AS guest_id, g.host_id, g.instance_id, (card ->> 'network_id')::uuid AS network_id,
           (card ->> 'mac')::macaddr AS mac, card -> 'addresses' AS addresses
    FROM unknown_guests g CROSS JOIN jsonb_array_elements(g.spec -> 'cards') card;

CREATE VIEW unknown_guest_addresses AS
    SELECT c.guest_id, c.host_id, c.instance_id, c.network_id, (one ->> 'subnet_id')::uuid AS subnet_id,
           (one ->> 'address')::inet AS address
    FROM unknown_guest_cards c CROSS JOIN jsonb_array_elements(c.addresses) one;

-- An agent that has just started counts none before it has listed them.
CREATE FUNCTION unknown_guests_on(host uuid) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT greatest(h.quarantined, (SELECT count(*)::integer FROM unknown_guests g WHERE g.host_id = h.id))
    FROM hosts h WHERE h.id = host
$$;

-- What such a guest has is kept from others, unless somebody has it already.
ALTER TABLE subnet_addresses
    ADD COLUMN unknown_guest_id uuid REFERENCES unknown_guests ON DELETE CASCADE,
    DROP CONSTRAINT subnet_addresses_one_owner,
    ADD CONSTRAINT subnet_addresses_one_owner
        CHECK (num_nonnulls(port_id, router_interface_id, unknown_guest_id) + reserved::int = 1);
CREATE INDEX subnet_addresses_of_unknown_guest ON subnet_addresses (unknown_guest_id) WHERE unknown_guest_id IS NOT NULL;
