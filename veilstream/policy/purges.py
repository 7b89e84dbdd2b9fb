"""The command that purges kept answers of detection: from now on they are not found any more, in no worker and not in Redis.

The offset of the command goes into the names of answers (veilstream/detection/cache/entry.py). So nothing is deleted: what was
kept before has a name that nobody asks for, and leaves when it is too old, within half an hour.
"""

from __future__ import annotations

from veilstream.contracts.errors import RecordError
from veilstream.contracts.records import Purge
from veilstream.policy.bodies import CachePurge
from veilstream.policy.case import Case, Judgement
from veilstream.policy.state import purged_key


def purge(case: Case, body: CachePurge) -> Judgement:
    """The tenant's answers, or all tenants' where the command names none; under one policy, or under all."""
    tenant = "" if case.command.tenant is None else case.live_tenant().tenant
    policy = body.policy or ""
    if policy and not any(row.policy == policy for row in case.state.versions()):
        raise RecordError("there is no such policy: policy.list names those there are", code="unknown_policy")
    row = Purge(tenant, policy, case.place.at_ms, case.place.offset)
    whose, under = tenant or "all tenants", f"policy {policy}" if policy else "every policy"
    return Judgement(
        f"purged/{tenant or '*'}/{policy or '*'}", f"what was found before for {whose} under {under} is not used again",
        {"tenant": tenant or None, "policy": policy or None, "changed": True},
        writes={purged_key(tenant, policy): case.codec.encode(row)},
    )  # fmt: skip
