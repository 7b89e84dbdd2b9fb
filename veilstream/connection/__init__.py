"""How a process reaches Kafka: what its security settings must be, what a client is told, and why a broker lets it not in."""
