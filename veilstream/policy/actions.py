"""The actions a policy may give an entity, with their parameters. What they do is in `veilstream/anonymize/actions.py`.

A new action: a class here, its name in `Action`, its function there, a row in docs/policy.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from veilstream.policy.edge import Strict, form

ENTITY_MARK = "<ENTITY>"
KEEP_LAST_MAX = 8


def _formed(holds: Callable[[str], bool], must_be: str) -> AfterValidator:
    def check(value: str) -> str:
        if not holds(value):
            raise form(must_be)
        return value

    return AfterValidator(check)


def _encodes(value: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _masks(value: str) -> bool:
    return len(value) == 1 and value.isprintable() and not value.isalnum() and not value.isspace()


Text = Annotated[str, _formed(_encodes, "text without lone surrogates")]
"""Free text that can be written as UTF-8."""


class Redact(Strict):
    """Remove the value."""

    action: Literal["redact"] = "redact"


class Mask(Strict):
    """Put `char` in place of each character but the last `keep_last`."""

    action: Literal["mask"] = "mask"
    char: Annotated[str, _formed(_masks, "one visible character, no letter or digit")] = "*"
    keep_last: Annotated[int, Field(ge=0, le=KEEP_LAST_MAX)] = 0


class Replace(Strict):
    """Put `new_value` in place of the value."""

    action: Literal["replace"] = "replace"
    new_value: Annotated[Text, Field(max_length=200)] = ENTITY_MARK

    def text_for(self, entity: str) -> str:
        """What is put there: `<ENTITY>` stands for the entity's name, so <PERSON>, <LOCATION>, …"""
        return self.new_value.replace(ENTITY_MARK, f"<{entity}>")


class Hash(Strict):
    """Put a keyed hash in place: equal values stay equal within the scope, and nobody without the key can guess them."""

    action: Literal["hash"] = "hash"
    scope: Literal["session", "tenant"] = "session"
    """Within what equal values stay equal, in records that name a session; in others it is the tenant."""


class Preserve(Strict):
    """Leave the value; the finding still stands in the verdict."""

    action: Literal["preserve"] = "preserve"


def _short_form(raw: Any) -> Any:
    return {"action": raw} if isinstance(raw, str) else raw


Action: TypeAlias = Annotated[
    Annotated[Redact | Mask | Replace | Hash | Preserve, Field(discriminator="action")], BeforeValidator(_short_form)
]
"""One action; `PERSON: redact` is short for `PERSON: {action: redact}`."""

ACTION_NAMES = frozenset({"redact", "mask", "replace", "hash", "preserve"})
