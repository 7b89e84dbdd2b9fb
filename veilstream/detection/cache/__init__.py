"""Answers of detection that are kept for a while: how they are named, sealed, and for how long. Where they are kept is not told
here (veilstream/cache)."""
