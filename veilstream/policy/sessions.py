"""Commands about one session: what is kept of it, and its erasure (docs/adr/0020)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from veilstream.contracts.records import Key
from veilstream.keys.session_key import SessionKey, erasure_entry, new_session_key, owner_of
from veilstream.policy.case import Case, Judgement
from veilstream.policy.edge import Strict, form
from veilstream.tenancy.ids import SESSION_ID_FORM, is_session_id


def _session(value: str) -> str:
    if not is_session_id(value):
        raise form(SESSION_ID_FORM)
    return value


class SessionNamed(Strict):
    """The session that is meant."""

    session: Annotated[str, AfterValidator(_session)]


def show(case: Case, body: SessionNamed) -> Judgement:
    """How many keys of it are kept, since when its present life is, and up to when it was erased."""
    tenant = case.live_tenant().tenant
    return Judgement(_resource(tenant, body), "", _told(case, tenant, body))


def erase(case: Case, body: SessionNamed) -> Judgement:
    """Destroys its keys: nothing of it that was received up to this command opens again. A repeat reaches up to the repeat.

    What is sent under its id afterwards begins a new session.
    """
    tenant, at_ms = case.live_tenant().tenant, case.place.at_ms
    owner = owner_of(tenant, body.session)
    told = _told(case, tenant, body)
    told |= {"keys": 0, "since_ms": None, "erased_ms": at_ms, "keys_destroyed": told["keys"], "changed": True}
    return Judgement(
        _resource(tenant, body), "the session is erased: nothing of it that was received until now opens again", told,
        session_keys=(erasure_entry(tenant, owner, at_ms),),
    )  # fmt: skip


def sealing(case: Case, tenant: str, owner: str) -> tuple[SessionKey, tuple[Key, ...]]:
    """What is sealed for a session now, and the entry where its key was made for that.

    It is the one of now and not the one a dead letter came under, as entries are kept only so long. Raises ErasedError,
    TenantError.
    """
    parent, at_ms = case.keyring.of_tenant(tenant), case.place.at_ms
    known = case.keyring.sessions.sealing(parent, tenant, owner, at_ms)
    if known is not None:
        return known, ()
    entry, made = new_session_key(parent, tenant, owner, at_ms)
    return made, (entry,)


def _told(case: Case, tenant: str, body: SessionNamed) -> dict[str, Any]:
    keys, since_ms, erased_ms = case.keyring.sessions.told(tenant, owner_of(tenant, body.session))
    return {"tenant": tenant, "session": body.session, "keys": keys, "since_ms": since_ms, "erased_ms": erased_ms}


def _resource(tenant: str, body: SessionNamed) -> str:
    """Its digest: what stands in the audit for good shall not name a session that was erased."""
    return f"session/{tenant}/{owner_of(tenant, body.session)}"
