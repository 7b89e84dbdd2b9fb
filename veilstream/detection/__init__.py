"""Detection: which PII and which threats a record's text holds. Knows no Kafka and no agent.

Where things are: `model.py` the plain types other processes use; `engine.py` the three calls a pool worker serves;
`pii/` Presidio, with its recognizers in `pii/default.yaml`; `threats/` the heuristics, as data in `threats/rules.yaml`.
"""
