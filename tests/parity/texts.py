# ruff: noqa: E501 - one maker a line
"""Texts to compare detection on: every kind of entity, near misses, and what Unicode does to offsets and classes.

All of them follow from a seed. Values are made, none is anyone's.
"""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Callable
from typing import Final

WORDS: Final = [
    "the", "a", "an", "of", "to", "in", "on", "by", "for", "with", "from", "and", "or", "but", "if", "when", "while",
    "because", "my", "your", "his", "her", "our", "their", "this", "that", "is", "are", "was", "were", "be", "been", "being",
    "has", "have", "had", "does", "do", "did", "will", "would", "can", "could", "should", "may", "must", "not", "never",
    "please", "send", "call", "write", "read", "find", "tell", "show", "make", "give", "take", "ask", "meet", "pay", "book",
    "order", "check", "confirm", "update", "cancel", "move", "change", "keep", "leave", "bring", "account", "bank", "bill",
    "order", "ticket", "meeting", "office", "flight", "train", "hotel", "room", "house", "street", "road", "city", "country",
    "company", "team", "manager", "doctor", "lawyer", "teacher", "friend", "brother", "sister", "mother", "father", "child",
    "customer", "client", "patient", "student", "number", "code", "key", "word", "name", "address", "phone", "mobile", "cell",
    "telephone", "card", "credit", "visa", "license", "passport", "driver", "social", "security", "ssn", "itin", "iban",
    "routing", "savings", "email", "mail", "url", "link", "website", "server", "network", "router", "device", "ip", "mac",
    "wallet", "bitcoin", "btc", "payment", "transfer", "transaction", "birthday", "date", "birth", "dob", "nhs", "health",
    "dea", "medical", "uuid", "guid", "identifier", "invoice", "amount", "price", "cost", "year", "month", "week", "day",
    "hour", "minute", "running", "ran", "better", "best", "children", "mice", "geese", "went", "gone", "lives", "leaves",
    "saw", "seen", "phones", "calling", "called", "cards", "licensed", "banks", "quickly", "slowly", "again", "today",
    "tomorrow", "yesterday", "soon", "later", "here", "there", "about", "under", "over", "between", "during", "after",
    "before",
]  # fmt: skip
NAMES: Final = [
    "Ann", "Miller", "Peter", "Novak", "Maria", "Garcia", "Wei", "Chen", "Fatima", "Khan", "José", "Álvarez", "Søren",
    "Ångström", "Zoë", "O'Brien", "Jean-Luc", "Müller", "Springfield", "London", "Berlin", "Paris", "Tokyo", "Germany",
    "France", "Canada", "Brazil", "India", "Ohio", "Texas", "Amazon", "Google", "Siemens", "Microsoft", "UNICEF", "Christmas",
    "Monday", "January", "American", "French", "Buddhist", "Republican", "Muslim",
]  # fmt: skip
TROUBLE: Final = [
    "e\u0301", "a\u0308\u0323", "İ", "ı", "ſ", "K", "ß", "ẞ", "ﬁ", "Ǆ", "\u200b", "\u200d", "\ufeff", "\u2060", "\u202e", "\u200f", "\u00a0",
    "\u2003", "\u2028", "\x1c", "\x1f", "\x85", "\x00", "\t", "\n", "\r\n", "😀", "👨‍👩‍👧", "🇩🇪", "\ud800", "\udfff", "中文电话", "שלום", "مرحبا",
    "٤٥٦", "१२३", "１２３", "²³", "½", "Ⅻ", "–", "—", "’", "“", "•", "＠", "。", "．", "‐", "‑", "´", "\u0300", "\U0001d7d8",
]  # fmt: skip
"""Combining marks, odd cases, invisible and right-to-left signs, lone surrogates, digits and dots of other scripts."""


def _digits(r: random.Random, count: int) -> str:
    return "".join(r.choice(string.digits) for _ in range(count))


def _luhn(r: random.Random) -> str:
    body = r.choice("3456") + _digits(r, 14)
    total = sum(sum(divmod(int(d) * (2 - i % 2), 10)) for i, d in enumerate(body))
    number = body + str(-total % 10)
    parts = [number[i : i + 4] for i in range(0, 16, 4)]
    return r.choice(["", " ", "-"]).join(parts)


def _iban(r: random.Random) -> str:
    country, body = r.choice([("GB", "NWBK" + _digits(r, 14)), ("DE", _digits(r, 18)), ("FR", _digits(r, 23))])
    number = int("".join(str(int(c, 36)) for c in body + country + "00"))
    whole = f"{country}{98 - number % 97:02d}{body}"
    return r.choice([whole, " ".join(whole[i : i + 4] for i in range(0, len(whole), 4)), whole.lower()])


def _phone(r: random.Random) -> str:
    form = r.choice([
        "(212) 555-01##", "+1 212 555 ####", "212-555-####", "+44 20 7946 0###", "030 901820 ##", "+49 30 9018####", "01 42 68 5# ##",
        "+972-3-5#######", "+91 98########", "0800 ### ####", "212.555.####", "+55 11 9####-####", "555-####", "20#####", "(0)#### ######",
        "1-800-555-#### ext. ##", "00 44 20 7946 0###",
    ])  # fmt: skip
    return "".join(r.choice(string.digits) if c == "#" else c for c in form)


def _date(r: random.Random) -> str:
    d, m, y = r.randint(1, 31), r.randint(1, 12), r.randint(1930, 2040)
    month = r.choice(["Jan", "FEB", "march", "Oct", "DEC", "sep"])
    return r.choice([
        f"{m}/{d}/{y}", f"{d}.{m}.{y}", f"{y}-{m:02d}-{d:02d}", f"{d}-{month}-{y}", f"{month} {d}, {y}", f"{y}-{m:02d}-{d:02d}T10:20:30Z",
        f"{m}/{y % 100:02d}", str(y), f"{d} {month}", f"{d + 20}/{m + 9}/{y}",
    ])  # fmt: skip


def _host(r: random.Random) -> str:
    return r.choice(["example", "my-site", "a.b", "xn--bcher-kva", "müller"]) + r.choice(
        [".com", ".org", ".de", ".co.uk", ".invalid", ".c", ".io", ".museum", ".рф"]
    )


def _hex(r: random.Random, count: int) -> str:
    return "".join(r.choice("0123456789abcdefABCDEF") for _ in range(count))


PLANTED: Final[list[Callable[[random.Random], str]]] = [
    _luhn, _iban, _phone, _phone, _date, _date,
    lambda r: r.choice(["ann.lee", "o'neil+x", "büro", "a", "x_y-z"]) + r.choice(["@", " @", "@@"]) + _host(r),
    lambda r: r.choice(["http://", "https://www.", "www.", "", "'https://", "ftp://"]) + _host(r) + r.choice(["", "/a?b=c#d", ":80/x", "."]),
    lambda r: ".".join(str(r.randint(0, 280)) for _ in range(r.choice([4, 4, 4, 3, 5]))),
    lambda r: r.choice(["::1", "fe80::1%eth0", "2001:db8::" + _hex(r, 4), ":".join(_hex(r, 4) for _ in range(8)), "::ffff:10.0.0.1", "1:2:3"]),
    lambda r: r.choice([":", "-", "."]).join(_hex(r, 2) for _ in range(r.choice([6, 6, 5]))),
    lambda r: ".".join(_hex(r, 4) for _ in range(3)),
    lambda r: f"{_digits(r, 3)}{r.choice('- .')}{_digits(r, 2)}{r.choice('- .')}{_digits(r, 4)}",
    lambda r: "9" + _digits(r, 2) + r.choice(["-", " ", ""]) + r.choice("5678") + _digits(r, 1) + r.choice(["-", " ", ""]) + _digits(r, 4),
    lambda r: _digits(r, r.randint(1, 18)),
    lambda r: r.choice(string.ascii_letters) * r.randint(1, 2) + _digits(r, r.randint(2, 12)),
    lambda r: f"{_digits(r, 3)}{r.choice(['', ' ', '-'])}{_digits(r, 3)}{r.choice(['', ' ', '-'])}{_digits(r, 4)}",
    lambda r: r.choice(["1", "3", "bc1"]) + "".join(r.choice("abcdefghjkmnpqrstuvwxyzABCDEFGH23456789") for _ in range(r.randint(20, 40))),
    lambda r: "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"[: r.choice([34, 34, 33])],
    lambda r: str(uuid.UUID(int=r.getrandbits(128)))[: r.choice([36, 36, 35])],
    lambda r: r.choice("abmx") + r.choice(string.ascii_letters) + _digits(r, 7),
    lambda r: f"{r.randint(0, 24)}:{r.randint(0, 60):02d}",
    lambda r: r.choice(["phone:", "card:the", "to:from", "be:is", ":", "::", "a:b:c", "the:", ":)"]),
    lambda r: " ".join(r.choice(NAMES) for _ in range(r.randint(1, 4))),
    lambda r: " ".join(r.choice(NAMES) for _ in range(r.randint(1, 4))),
    lambda r: r.choice(["two dollars", "$" + _digits(r, 3), "50 percent", "last Friday", "the 3rd of May", "ten miles", "first"]),
]  # fmt: skip
"""Makers of values that are an entity, or just not one."""


def _damaged(r: random.Random, value: str) -> str:
    """A value with one character doubled, lost, in its other case, or with trouble put in."""
    if not value:
        return value
    place = r.randrange(len(value))
    piece = r.choice(
        [value[place] * 2, "", value[place].swapcase(), value[place] + r.choice(TROUBLE), r.choice(TROUBLE)]
    )
    return value[:place] + piece + value[place + 1 :]


def text(r: random.Random) -> str:
    """One text: words, planted values and near misses, in some, trouble; between 1 and some 700 characters."""
    trouble = r.random() < 0.35
    pieces: list[str] = []
    for _ in range(r.choice([1, 3, 8, 15, 30, 60])):
        chance = r.random()
        if chance < 0.22:
            value = r.choice(PLANTED)(r)
            pieces.append(_damaged(r, value) if r.random() < 0.25 else value)
        elif trouble and chance < 0.35:
            pieces.append(r.choice(TROUBLE))
        else:
            word = r.choice(WORDS)
            pieces.append(r.choice([word, word, word, word.capitalize(), word.upper()]))
    ends = [" "] * 12 + [", ", ". ", ": ", "\n", "? ", "", "  ", " (", ") ", "; ", "-", "/", '"', "'", "…"]
    return "".join(piece + r.choice(ends) for piece in pieces) or " "


def long_text(r: random.Random, characters: int) -> str:
    """A text of exactly so many characters: mixed, or one kind of value again and again."""
    make = text if r.random() < 0.5 else r.choice(PLANTED)
    pieces: list[str] = []
    while sum(map(len, pieces)) < characters:
        pieces += [make(r) + r.choice([" ", ", ", "\n"]) for _ in range(200)]
    return "".join(pieces)[:characters]
