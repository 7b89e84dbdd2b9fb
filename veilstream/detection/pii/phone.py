"""Whether a text can hold a phone number, asked before Presidio's slowest recognizer tries it for eight countries.

The library walks the same candidates for every country as long as none of them is a number. So a text where no candidate
can be one, in any of the countries, has no number. What stands around a candidate only ever speaks against it; it is
therefore judged alone, and short ones (years, counts, prices) are remembered. A long one is left to the recognizer.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from phonenumbers import PhoneNumberMatcher, phonenumbermatcher, phonenumberutil

DIGITS_LEAST: Final = 4
"""Digits of the shortest number in the metadata of any country; tests/unit/test_detection_prefilter.py asks them all."""
SHORT: Final = 8
"""Characters up to which a candidate is judged here and remembered; what is that short is no one's number."""
ENOUGH_DIGITS: Final = re.compile(rf"(?:\d\D{{0,40}}){{{DIGITS_LEAST - 1}}}\d")
"""Within a candidate no two digits are further apart: at most four signs, brackets twice, and an extension's word."""


def possible(text: str, recognizer: Any) -> bool:
    """Whether Presidio's PhoneRecognizer may find something in the text; if not, it finds nothing."""
    if not ENOUGH_DIGITS.search(text):
        return False
    find, cut = phonenumbermatcher._PATTERN.search, phonenumberutil._SECOND_NUMBER_START_PATTERN.search
    regions = tuple(recognizer.supported_regions)
    match = find(text)
    while match is not None:
        start, candidate = match.start(), match.group()
        if second := cut(candidate):
            candidate = candidate[: second.start()]
        if len(candidate) > SHORT or _is_number(candidate, regions, recognizer.leniency):
            return True
        match = find(text, start + len(candidate))
    return False


def find(text: str, recognizer: Any) -> list[Any]:
    """What Presidio's PhoneRecognizer finds. It parses each number once more, for an explanation that nobody reads here."""
    matches = {
        (match.start, match.end): match
        for region in recognizer.supported_regions
        for match in _Matcher(text, region, leniency=recognizer.leniency)
    }
    results = [recognizer._get_recognizer_result(match, text, None, None) for match in matches.values()]
    kept: list[Any] = recognizer.remove_duplicates(results)
    return kept


class _Matcher(PhoneNumberMatcher):
    """The library's own, which takes candidates apart and tries each part: most parts are a few digits, and no number."""

    def _parse_and_verify(self, candidate: str, offset: int) -> Any:
        if len(candidate) < DIGITS_LEAST:
            return None
        if len(candidate) <= SHORT and not _is_number_itself(candidate, self.preferred_region, self.leniency):
            return None
        return super()._parse_and_verify(candidate, offset)


@lru_cache(maxsize=16384)
def _is_number_itself(candidate: str, region: str, leniency: int) -> bool:
    """Whether a candidate is a number in a country as it stands, nothing around it."""
    return PhoneNumberMatcher(candidate, region, leniency=leniency)._parse_and_verify(candidate, 0) is not None


@lru_cache(maxsize=4096)
def _is_number(candidate: str, regions: tuple[str, ...], leniency: int) -> bool:
    return any(
        PhoneNumberMatcher(candidate, region, leniency=leniency)._extract_match(candidate, 0) is not None
        for region in regions
    )
