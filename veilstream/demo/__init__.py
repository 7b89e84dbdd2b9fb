"""`make demo`: conversations in, verdicts and audit out, on a stack of its own that leaves nothing running."""
