"""Apply a policy's actions to what was found: `actions.py` the actions (the place to add one), `overlaps.py` what covers what,
`apply.py` a content made safe.
"""
