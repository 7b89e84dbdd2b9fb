"""Topics of a cluster against the catalogue: plan, apply, verify."""
