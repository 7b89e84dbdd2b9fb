"""Every fault that the runtime is tried with on one broker."""

from __future__ import annotations

from tests.faults import broker_scenarios, group_scenarios, kill_scenarios, world_scenarios
from tests.faults.scenario import AnyScenario

SCENARIOS: tuple[AnyScenario, ...] = (
    *kill_scenarios.SCENARIOS,
    *group_scenarios.SCENARIOS,
    *broker_scenarios.SCENARIOS,
    *world_scenarios.SCENARIOS,
)
