"""What comes of a record: `decide.py` the decision and its reasons, `build.py` the verdict and its audit event, `lineage.py` what
made it, `dead_letters.py` the answer for a record that got no ordinary outcome.
"""
