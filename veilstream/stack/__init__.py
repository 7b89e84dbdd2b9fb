"""The embedded stack: Kafka, Postgres, Redis and the agents on one machine, started, watched and ended as one."""
