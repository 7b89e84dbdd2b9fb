"""The faults of the product's whole chain: rows of `python -m tests.faults`.

Lost, double and differing are counted on the public topics. Table errors are audit rows in Postgres that miss or are there
twice, verdicts whose audit events do, and records by which admit's quota table is wrong. A good record that is not allowed
and one that overtakes another of its conversation count as differing.
"""

from __future__ import annotations

from tests.faults import chain_agents, chain_overflow, chain_poison, chain_pool, chain_random, chain_services
from tests.faults.chain_agents import Fault, under_load
from tests.faults.chain_rig import ChainRig
from tests.faults.scenario import Broken, Scenario


def _row(name: str, fault: Fault, *finds: Broken, short: bool = False) -> Scenario[ChainRig]:
    return Scenario(name=name, rig="chain", run=under_load(fault), finds=finds, short=short)


SCENARIOS: tuple[Scenario[ChainRig], ...] = (
    _row("two agents killed, Postgres restarted", chain_agents.kill_two, "commits_early", short=True),
    _row("kill -9 of each agent", chain_agents.kill_each, "commits_early"),
    _row("SIGTERM of each, rolling restart", chain_agents.end_each, "forgets"),
    _row("each agent a zombie with an heir", chain_agents.zombies, "commits_early"),
    _row("gate and admit 1-4-1", chain_agents.scale_light, "forgets"),
    _row("detection 1-2-1", chain_agents.scale_detection, "forgets"),
    _row("pool worker killed", chain_pool.pool_worker_killed, "commits_early"),
    _row("pool worker without memory", chain_pool.pool_worker_starved, "forgets"),
    _row("broker restarted, killed", chain_services.broker_restarts, "commits_early"),
    _row("broker away", chain_services.broker_away, "forgets"),
    _row("Postgres away, slow, restarted", chain_services.postgres_away, "forgets"),
    _row("Redis away, slow, restarted", chain_services.redis_away, "forgets"),
    _row("bursts in overflow, admit and detection killed", chain_overflow.bursts, "commits_early"),
    _row("poison of every kind", chain_poison.poison, "forgets"),
    _row("everything killed at random", chain_random.random_kills, "commits_early"),
    Scenario(name="commands while policy is killed", rig="chain", run=chain_random.commands, finds=("commits_early",)),
)
