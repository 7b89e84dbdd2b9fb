"""The gate's wiring: see step.py for what it does."""

from __future__ import annotations

from pathlib import Path

from agents.ingest.gate.actors import Actors
from agents.ingest.gate.gate import Gate
from agents.ingest.gate.sessions import SessionTopic
from agents.ingest.gate.step import make_on_failure, make_step
from agents.ingest.gate.tokens import Tokens
from agents.wiring import log, wire
from veilstream.cache.actor_log import RedisActorLog
from veilstream.connection.tokens import is_exposed, is_url
from veilstream.contracts.catalogue import REDRIVE, REQUESTS
from veilstream.contracts.step import Record
from veilstream.keyset.follow import FollowedKeys
from veilstream.keyset.source import FileSource, UrlSource
from veilstream.policy.view import PolicyView
from veilstream.runtime.app import Agent, run
from veilstream.settings import Settings
from veilstream.telemetry.access import AccessMetrics
from veilstream.telemetry.quotas import ActorLimitMetrics, QuotaMetrics
from veilstream.tenancy.token_rules import rules_of


def build(settings: Settings) -> Agent[Record]:
    """The agent, from settings."""
    w = wire(settings)
    counts = AccessMetrics()
    keys = _followed_keys(settings)
    actor_log = _actor_log(settings)
    gate = Gate(
        w.codec, w.keyring, w.view, w.cluster, w.wait_for_key, w.wait_for_named_key, w.framing,
        tokens=_tokens(settings, keys, w.view, counts), region=settings.region, counts=counts,
        actors=None if actor_log is None else Actors(
            actor_log, settings.actor_limits_without_redis == "refuse", QuotaMetrics().refused
        ),
        read_on=w.read_on, session_topic=SessionTopic(w.session_home, w.read_session_keys),
    )  # fmt: skip
    return Agent(
        name="gate", group="veil-gate", topics=(REQUESTS, REDRIVE), decode=lambda record: record,
        step=make_step(gate), on_failure=make_on_failure(gate), followers=w.followers,
        services=(*w.registry, *(service for service in (keys, actor_log) if service is not None)),
        also=w.own_topics_of(REQUESTS),
    )  # fmt: skip


def _actor_log(settings: Settings) -> RedisActorLog | None:
    if not settings.actor_limits:
        log.warning(
            "actor_limits_off", reason="VEIL_ACTOR_LIMITS is off: one user or address may use all of a tenant's quota"
        )
        return None
    return RedisActorLog(settings.redis.get_secret_value(), ActorLimitMetrics(), wait_s=settings.actor_limits_wait_s)


def _followed_keys(settings: Settings) -> FollowedKeys | None:
    place = settings.token_keys
    if place is None:
        return None
    if is_exposed(place):
        log.warning("token_keys_exposed", reason="VEIL_TOKEN_KEYS is not https: whoever is on the way can put in a key")
    return FollowedKeys(
        UrlSource(place) if is_url(place) else FileSource(Path(place)),
        refresh_s=settings.token_keys_refresh_s,
        interval_s=settings.token_keys_interval_s,
        max_age_s=settings.token_keys_max_age_s,
    )


def _tokens(settings: Settings, keys: FollowedKeys | None, view: PolicyView, counts: AccessMetrics) -> Tokens | None:
    """What tokens are checked with. Every way in which somebody can speak for a tenant without one is told at each start."""
    rules = rules_of(settings)
    if rules is None or keys is None:
        log.warning(
            "tokens_not_checked", reason="token_mode is off: anyone who may write to the topic speaks for any tenant"
        )
        return None
    if not rules.required:
        log.warning("tokens_optional", reason="token_mode is optional: a record without a token speaks for any tenant")
    if rules.bearer is not None:
        log.warning("bearer_taken", reason="a bearer token is not bound to its record: see docs/security.md")
    return Tokens(rules, keys, view.revoked, counts)


def main() -> None:
    """Run it until it is told to stop."""
    run(build)
