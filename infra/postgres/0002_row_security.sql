-- Row-level security of every table with rows of tenants, and who may do what. The roles are made by veilstream/store/roles.py
-- before this file runs: veil_audit (the audit agent), veil_reader (one tenant at a time), veil_operator (all tenants, no
-- writing). None of them is a superuser, bypasses row security or owns anything: docs/security.md.

REVOKE ALL ON SCHEMA veil FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA veil FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA veil FROM PUBLIC;
GRANT USAGE ON SCHEMA veil TO veil_audit, veil_reader, veil_operator;

-- The audit agent appends events of all tenants and reads none back. It must find its place, and tell what was migrated.
GRANT INSERT ON veil.audit_events TO veil_audit;
GRANT SELECT, INSERT, UPDATE ON veil.consumer_offsets TO veil_audit;
GRANT SELECT ON veil.migrations TO veil_audit;
GRANT SELECT ON veil.audit_events TO veil_reader;
GRANT SELECT ON veil.audit_events, veil.consumer_offsets, veil.migrations TO veil_operator;

-- FORCE: the owner too is shown nothing, as no policy names it.
ALTER TABLE veil.audit_events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY audit_appends ON veil.audit_events FOR INSERT TO veil_audit WITH CHECK (true);

-- No tenant set, or '' (which is what a setting is after the transaction that set it): null, so no row. FOR ALL: should somebody
-- grant a reader more than SELECT, it can touch and leave rows of its tenant alone.
CREATE POLICY reader_sees_its_tenant ON veil.audit_events FOR ALL TO veil_reader
    USING (tenant = nullif(current_setting('veil.tenant', true), ''))
    WITH CHECK (tenant = nullif(current_setting('veil.tenant', true), ''));

CREATE POLICY operator_reads ON veil.audit_events FOR SELECT TO veil_operator USING (true);

-- A month is reached through its parent, whose policies count then. By its own name it is closed: no grant, and row security
-- without a policy.
DO $$
DECLARE
    month regclass;
BEGIN
    FOR month IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'veil.audit_events'::regclass LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', month);
    END LOOP;
END
$$;

-- As in 0001, and a month made later is closed before it is attached. SECURITY DEFINER: only the owner makes tables. It
-- takes a date and nothing else, and its search_path is pinned.
CREATE OR REPLACE FUNCTION veil.ensure_audit_month(month date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text := 'audit_events_' || to_char(month, 'YYYY_MM');
    starts timestamptz := make_timestamptz(date_part('year', month)::int, date_part('month', month)::int, 1, 0, 0, 0, 'UTC');
    following date := (date_trunc('month', month::timestamp) + interval '1 month')::date;
    ends timestamptz := make_timestamptz(date_part('year', following)::int, date_part('month', following)::int, 1, 0, 0, 0, 'UTC');
BEGIN
    IF EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = 'veil'::regnamespace) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('veil.ensure_audit_month', 0));
    -- Looked up in the catalogue, as to_regclass would answer from a cache that does not know of a table made meanwhile.
    IF EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = 'veil'::regnamespace) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE veil.%I (LIKE veil.audit_events INCLUDING ALL)', name);
    EXECUTE format('ALTER TABLE veil.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE veil.audit_events ATTACH PARTITION veil.%I FOR VALUES FROM (%L) TO (%L)', name, starts, ends);
END
$$;
GRANT EXECUTE ON FUNCTION veil.ensure_audit_month(date) TO veil_audit;
