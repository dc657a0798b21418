-- Addresses that were floating IPs before. A host that cannot be reached may still answer for one, and the world
-- may still send to whoever had it: so those that were given back last are given again last.

CREATE TABLE released_floating_addresses (
    address         inet PRIMARY KEY,
    address_pool_id uuid NOT NULL REFERENCES address_pools ON DELETE CASCADE,
    -- Grows with each release.
    turn            bigint GENERATED ALWAYS AS IDENTITY
);
CREATE INDEX released_floating_addresses_of_pool ON released_floating_addresses (address_pool_id, turn);

CREATE FUNCTION release_floating_address() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO released_floating_addresses (address, address_pool_id) VALUES (OLD.address, OLD.address_pool_id);
    RETURN NULL;
END $$;
CREATE TRIGGER floating_ips_release AFTER DELETE ON floating_ips
    FOR EACH ROW EXECUTE FUNCTION release_floating_address();

CREATE FUNCTION take_floating_address() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM released_floating_addresses WHERE address = NEW.address;
    RETURN NULL;
END $$;
CREATE TRIGGER floating_ips_take AFTER INSERT ON floating_ips
    FOR EACH ROW EXECUTE FUNCTION take_floating_address();
