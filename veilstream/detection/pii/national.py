"""National numbers that Presidio has no recognizer for, in Presidio's form."""

from __future__ import annotations

import re
from typing import Any, Final

from presidio_analyzer import Pattern, PatternRecognizer

_BLANKS: Final = re.compile(r"[ \u00a0\u202f.]")
_CORSICA: Final = {"2A": "19", "2B": "18"}
"""Departments that stand for a number in the key's sum."""


class FrNirRecognizer(PatternRecognizer):  # type: ignore[misc]
    """France's social security number (NIR): sex, year, month, department, commune, number, and a key of 97 - n mod 97.

    Décret n° 82-103; months above 12 stand for unknown ones (20 to 42, 50 to 99), 2A and 2B for Corsica.
    """

    COUNTRY_CODE = "fr"

    def __init__(self, supported_language: str = "fr", supported_entity: str = "FR_NIR", **kwargs: Any) -> None:
        gap = r"[ \u00a0\u202f.]?"
        parts = ["[1-478]", r"\d{2}", r"(?:0[1-9]|1[0-2]|[2-9]\d)", r"(?:\d{2}|2[AB])", r"\d{3}", r"\d{3}", r"\d{2}"]
        super().__init__(
            supported_entity=supported_entity,
            supported_language=supported_language,
            patterns=[Pattern("NIR with key", rf"(?<![\w.]){gap.join(parts)}(?!\w)", 0.5)],
            context=["sécurité sociale", "sécurité", "sociale", "secu", "sécu", "nir", "insee", "vitale", "assuré"],
            **kwargs,
        )

    def validate_result(self, pattern_text: str) -> bool:
        """Whether the key fits the number."""
        digits = _BLANKS.sub("", pattern_text).upper()
        digits = digits[:5] + _CORSICA.get(digits[5:7], digits[5:7]) + digits[7:]
        return int(digits[:13]) % 97 == 97 - int(digits[13:])
