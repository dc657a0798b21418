-- What a project may have, and what it has.
--
-- A later migration adds a resource with a default and a call for each table that counts for it:
--     INSERT INTO quota_defaults (resource, limit_value) VALUES ('volumes', 100);
--     CALL count_in_quota('volumes', 'volumes');
--     CALL count_in_quota('disk_gib', 'volumes', 'size_gib');

-- What is limited, and the operator's limit for every project; NULL is unlimited.
CREATE TABLE quota_defaults (
    resource    text PRIMARY KEY,
    limit_value bigint CHECK (limit_value >= 0),
    generation  bigint NOT NULL DEFAULT 1
);
INSERT INTO quota_defaults (resource, limit_value) VALUES
    ('instances', 20), ('vcpus', 40), ('memory_mib', 81920), ('disk_gib', 1000), ('images', 50),
    ('service_accounts', 20);

-- One row for each project and resource, made with whichever comes last.
CREATE TABLE project_quotas (
    project_id  uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    resource    text NOT NULL REFERENCES quota_defaults,
    -- INVARIANT: what recount_quotas() finds, whatever statement changes the rows that count.
    used        bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    -- Whether this project has a limit of its own, and which; NULL is unlimited.
    overridden  boolean NOT NULL DEFAULT false,
    limit_value bigint CHECK (limit_value >= 0),
    -- Counts changes of the limit.
    generation  bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (project_id, resource),
    CONSTRAINT project_quotas_default_is_the_default CHECK (overridden OR limit_value IS NULL)
);

-- Which rows count, and for how much: what a column says, or one each where there is no column.
CREATE TABLE quota_sources (
    relation      text NOT NULL,
    resource      text NOT NULL REFERENCES quota_defaults,
    amount_column text,
    PRIMARY KEY (relation, resource)
);

-- What there is, counted from scratch. STABLE: all of it in the snapshot of the statement that asks.
CREATE FUNCTION recount_quotas() RETURNS TABLE (project_id uuid, resource text, used bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    counts text;
BEGIN
    SELECT string_agg(format('SELECT project_id, %L AS resource, %s AS used FROM %I
                              WHERE project_id IS NOT NULL GROUP BY project_id',
            s.resource,
            CASE WHEN s.amount_column IS NULL THEN 'count(*)' ELSE format('sum(%I)', s.amount_column) END,
            s.relation), ' UNION ALL ')
    INTO counts FROM quota_sources s;
    RETURN QUERY EXECUTE format(
        'SELECT project_id, resource, sum(used)::bigint FROM (%s) c GROUP BY project_id, resource', counts);
END $$;

-- Adds to what a project uses. Growth beyond a limit is refused with SQLSTATE QE001, and the detail says in
-- JSON which limits are in the way; getting smaller is never refused.
CREATE FUNCTION charge_project(project uuid, amounts jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    exceeded jsonb;
BEGIN
    -- All rows of the project, in one order: then no two transactions that charge it lock each other out,
    -- whichever tables they change in whichever order.
    PERFORM 1 FROM project_quotas q WHERE q.project_id = project ORDER BY q.resource FOR NO KEY UPDATE;
    UPDATE project_quotas q SET used = q.used + a.value::bigint
    FROM jsonb_each_text(amounts) a WHERE q.project_id = project AND q.resource = a.key;

    SELECT jsonb_agg(jsonb_build_object('resource', q.resource, 'limit', l.value,
                                        'used', q.used - a.value::bigint, 'asked', a.value::bigint)
                     ORDER BY q.resource)
    INTO exceeded
    FROM project_quotas q
    JOIN quota_defaults d USING (resource)
    JOIN jsonb_each_text(amounts) a ON a.key = q.resource
    CROSS JOIN LATERAL (SELECT CASE WHEN q.overridden THEN q.limit_value ELSE d.limit_value END) l (value)
    WHERE q.project_id = project AND a.value::bigint > 0 AND q.used > l.value;
    IF exceeded IS NOT NULL THEN
        RAISE EXCEPTION 'quota exceeded' USING ERRCODE = 'QE001', DETAIL = exceeded;
    END IF;
END $$;

-- What one row counts for; nothing when it is not in a project.
CREATE FUNCTION quota_charges(relation text, counted jsonb, sign integer)
RETURNS TABLE (project uuid, resource text, amount bigint) LANGUAGE sql STABLE AS $$
    SELECT (counted ->> 'project_id')::uuid, s.resource,
           sign * CASE WHEN s.amount_column IS NULL THEN 1 ELSE (counted ->> s.amount_column)::bigint END
    FROM quota_sources s WHERE s.relation = quota_charges.relation AND counted ->> 'project_id' IS NOT NULL
$$;

-- Charges all rows of an INSERT or a DELETE at once, projects in one order.
CREATE FUNCTION charge_rows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sign CONSTANT integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
    charge record;
BEGIN
    FOR charge IN
        SELECT project, jsonb_object_agg(resource, amount) AS amounts FROM (
            SELECT c.project, c.resource, sum(c.amount) AS amount
            FROM changed, quota_charges(TG_TABLE_NAME, to_jsonb(changed), sign) c
            GROUP BY c.project, c.resource) sums
        GROUP BY project ORDER BY project
    LOOP
        PERFORM charge_project(charge.project, charge.amounts);
    END LOOP;
    RETURN NULL;
END $$;

-- Charges the difference that an UPDATE of one row makes. Row by row, because most updates change nothing
-- that counts, and a WHEN clause costs nothing.
CREATE FUNCTION charge_difference() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    charge record;
BEGIN
    FOR charge IN
        SELECT project, jsonb_object_agg(resource, amount) AS amounts FROM (
            SELECT c.project, c.resource, sum(c.amount) AS amount FROM (
                SELECT * FROM quota_charges(TG_TABLE_NAME, to_jsonb(OLD), -1)
                UNION ALL
                SELECT * FROM quota_charges(TG_TABLE_NAME, to_jsonb(NEW), 1)) c
            GROUP BY c.project, c.resource HAVING sum(c.amount) <> 0) sums
        GROUP BY project ORDER BY project
    LOOP
        PERFORM charge_project(charge.project, charge.amounts);
    END LOOP;
    RETURN NULL;
END $$;

-- Lets every row of a table with a project_id count for a resource: those that are there, and from now on
-- those that come, change and go.
CREATE PROCEDURE count_in_quota(counted_resource text, counted_relation text, counted_column text DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    olds text;
    news text;
BEGIN
    INSERT INTO quota_sources (relation, resource, amount_column)
    VALUES (counted_relation, counted_resource, counted_column);

    EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER INSERT ON %I REFERENCING NEW TABLE AS changed
                    FOR EACH STATEMENT EXECUTE FUNCTION charge_rows()',
                   counted_relation || '_charge_insert', counted_relation);
    EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER DELETE ON %I REFERENCING OLD TABLE AS changed
                    FOR EACH STATEMENT EXECUTE FUNCTION charge_rows()',
                   counted_relation || '_charge_delete', counted_relation);
    SELECT string_agg(format('OLD.%I', name), ', '), string_agg(format('NEW.%I', name), ', ')
    INTO olds, news
    FROM (SELECT 'project_id' AS name
          UNION ALL
          SELECT amount_column FROM quota_sources
          WHERE relation = counted_relation AND amount_column IS NOT NULL) columns;
    EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER UPDATE ON %I
                    FOR EACH ROW WHEN (ROW(%s) IS DISTINCT FROM ROW(%s)) EXECUTE FUNCTION charge_difference()',
                   counted_relation || '_charge_update', counted_relation, olds, news);

    INSERT INTO project_quotas (project_id, resource) SELECT id, counted_resource FROM projects
    ON CONFLICT DO NOTHING;
    UPDATE project_quotas q SET used = r.used FROM recount_quotas() r
    WHERE r.resource = counted_resource AND q.resource = r.resource AND q.project_id = r.project_id;
END $$;

CALL count_in_quota('instances', 'instances');
CALL count_in_quota('vcpus', 'instances', 'vcpus');
CALL count_in_quota('memory_mib', 'instances', 'memory_mib');
CALL count_in_quota('disk_gib', 'instances', 'root_disk_gib');
CALL count_in_quota('images', 'images');
-- Users are principals, too, but in no project.
CALL count_in_quota('service_accounts', 'principals');

CREATE FUNCTION add_project_quotas() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO project_quotas (project_id, resource) SELECT NEW.id, resource FROM quota_defaults;
    RETURN NULL;
END $$;
CREATE TRIGGER projects_quotas AFTER INSERT ON projects
    FOR EACH ROW EXECUTE FUNCTION add_project_quotas();
