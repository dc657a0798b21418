-- What placing an instance and telling its host took grew with all instances of the cloud, by functions that were planned
-- anew at each call (see 0026_kept_plans.sql), and in which one OR made PostgreSQL read a whole table.

-- As 0025_shared_pools.sql has it. A tree that goes to a host has few layers.
CREATE OR REPLACE FUNCTION layers_to_place(instance uuid) RETURNS SETOF uuid LANGUAGE plpgsql STABLE ROWS 4 AS $$
BEGIN
    RETURN QUERY
    WITH RECURSIVE tree (id) AS (
        SELECT layer_id FROM volumes WHERE instance_id = instance AND host_id IS NULL AND pool_id IS NULL
        UNION
        SELECT n.id FROM tree t CROSS JOIN LATERAL (
            SELECT c.id FROM layers c WHERE c.parent_id = t.id
            UNION ALL
            SELECT l.parent_id FROM layers l WHERE l.id = t.id AND l.parent_id IS NOT NULL) n)
    SELECT tree.id FROM tree;
END $$;

-- As 0018_volumes.sql has it.
CREATE OR REPLACE FUNCTION gib_to_place(instance uuid) RETURNS integer LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT coalesce(sum(size_gib), 0)::integer FROM volumes
            WHERE layer_id IN (SELECT layers_to_place(instance)));
END $$;

-- The same.
CREATE OR REPLACE FUNCTION chain_of(top uuid) RETURNS uuid[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        WITH RECURSIVE chain (id, parent_id, depth) AS (
            SELECT l.id, l.parent_id, 0 FROM layers l WHERE l.id = top
            UNION ALL
            SELECT l.id, l.parent_id, c.depth + 1 FROM chain c JOIN layers l ON l.id = c.parent_id)
        SELECT array_agg(chain.id ORDER BY depth DESC) FROM chain);
END $$;

-- As 0046_merges_of_one_volume.sql has it.
CREATE OR REPLACE FUNCTION instance_disks(instance uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
                   'id', v.id, 'generation', v.spec_generation, 'size_gib', v.size_gib, 'pool', p.name,
                   'layers', chain.layers,
                   'merges', ARRAY(SELECT d.parent_id FROM layers d
                                   WHERE d.id = ANY (chain.layers) AND d.parent_merge IS NOT NULL AND d.merge_of = v.id
                                   ORDER BY d.parent_id),
                   'iops', v.iops_limit, 'bytes_per_second', v.bytes_per_second_limit,
                   'image', CASE WHEN v.image_id IS NOT NULL THEN jsonb_build_object(
                       'sha256', encode(b.sha256, 'hex'), 'format', b.format, 'size_bytes', b.size_bytes,
                       'virtual_size_bytes', b.virtual_size_bytes) END)
               ORDER BY v.position), '[]')
        FROM volumes v LEFT JOIN images m ON m.id = v.image_id LEFT JOIN blobs b ON b.id = m.blob_id
        LEFT JOIN pools p ON p.id = v.pool_id
        CROSS JOIN LATERAL chain_of(v.layer_id) chain (layers)
        WHERE v.instance_id = instance AND v.attachment_state <> 'detaching');
END $$;

-- Which hosts have an image: by host, since an image may have thousands of volumes on each.
CREATE INDEX volumes_of_image_on_host ON volumes (image_id, host_id);
DROP INDEX volumes_of_image;
