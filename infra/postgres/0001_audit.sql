-- The audit store. Applied once, in the order of the numbers, by veilstream/store/migrations.py; never edited afterwards:
-- a change is a new file with the next number.

CREATE TABLE veil.audit_events (
    time             timestamptz NOT NULL,  -- broker's time of the cause; decides the month it is stored under
    tenant           text        NOT NULL,
    id               text        NOT NULL,  -- digest of what the event is about
    actor            text        NOT NULL,  -- keyed pseudonym
    action           text        NOT NULL,  -- verdict, policy.set, tenant.create, …
    resource         text        NOT NULL,
    result           text        NOT NULL,
    origin_cluster   text,                  -- input record; null for what no record caused
    origin_topic     text,
    origin_partition integer,
    origin_offset    bigint,
    revision         integer     NOT NULL,
    policy           text,
    policy_version   text,
    policy_digest    text,
    lineage          text        NOT NULL,
    codes            text[]      NOT NULL,
    counts           jsonb       NOT NULL,  -- entity type → number
    subject_digest   text,                  -- SHA-256 of the verdict's bytes
    canonical        bytea       NOT NULL,  -- RFC 8785 bytes of the event: what is hashed and proved
    leaf_hash        bytea       NOT NULL,  -- SHA-256(0x00 || canonical), RFC 6962
    source_topic     text        NOT NULL,  -- where it stood on the audit topic
    source_partition integer     NOT NULL,
    source_offset    bigint      NOT NULL,
    PRIMARY KEY (source_topic, source_partition, source_offset, time)
) PARTITION BY RANGE (time);

CREATE INDEX audit_events_by_time ON veil.audit_events (time, source_topic, source_partition, source_offset);
CREATE INDEX audit_events_by_tenant ON veil.audit_events (tenant, time);

COMMENT ON TABLE veil.audit_events IS
    'Who did what to which resource with which result. No text, no value, nobody''s name. Written by the audit agent alone.';

-- How far each partition of the audit topic is stored, and by whose claim. A row here and its events change in one transaction.
CREATE TABLE veil.consumer_offsets (
    topic       text    NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint,           -- null: claimed, nothing stored yet
    epoch       bigint  NOT NULL, -- one more with each claim: a former owner's epoch no longer fits
    PRIMARY KEY (topic, partition)
);

-- Make the partition of a month, unless it is there. The table is attached rather than created in place, so that no long
-- read of the audit log holds up the first event of a month; one caller at a time, so that two cannot make the same one.
CREATE FUNCTION veil.ensure_audit_month(month date) RETURNS void
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
    EXECUTE format('ALTER TABLE veil.audit_events ATTACH PARTITION veil.%I FOR VALUES FROM (%L) TO (%L)', name, starts, ends);
END
$$;
