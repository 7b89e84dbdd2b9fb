"""How Hypothesis draws its examples.

`make test` draws the same ones each time, and no example has a time limit: a machine that stands still for a moment is no
fault of the code. `HYPOTHESIS_PROFILE=search` draws new ones, and prints how to draw the one that fails again.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)

settings.register_profile("same", UNHURRIED, derandomize=True, database=None)
settings.register_profile("search", UNHURRIED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
