"""Veilstream: a firewall for text on Kafka."""
