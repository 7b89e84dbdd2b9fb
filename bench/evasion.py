"""`make bench-evasion`: attacks that are caught in plain words, in each disguise; and harmless texts in the same disguises.

A judge is any function from a text to True (an alarm) or False; `rules` is the one there is. Of the attacks it catches
plain, the share it catches in each disguise is printed; the aim is 90 % in each. Beside it: harmless texts alarmed on in a
disguise, attacks cut over several messages that are judged one by one, and attacks in other languages.
"""

from __future__ import annotations

import argparse
import base64
import codecs
import json
import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import quote

import yaml

from bench.corpus import ROOT

Judge: TypeAlias = Callable[[str], bool]
Disguise: TypeAlias = Callable[[str], str]
BUNDLED: Final = ROOT / "tests" / "data" / "threats.yaml"
FROZEN: Final = Path(os.environ.get("VEIL_BENCH_ATTACKS", ROOT.parent / "shared" / "data" / "injection"))
ATTACK_CHARS: Final = 2000
"""Longer attacks are cut to this: a text a hundred times as long says nothing more of a disguise."""
LIKE: Final = dict(zip("aceijopsxyABEHKMOPTX", "асеіјорѕхуАВЕНКМОРТХ", strict=True))
LEET: Final = dict(zip("aeiost", "431057", strict=True))


def _bidi(text: str) -> str:
    """Written from its end behind a right-to-left override, so that it reads as before."""
    return f"\u202e{text[::-1]}\u202c"


DISGUISES: Final[Mapping[str, Disguise]] = {
    "spacing": " ".join,
    "dots": lambda text: " ".join(".".join(word) for word in text.split()),
    "zero_width": "\u200b".join,
    "marks": lambda text: "".join(f"{c}\u2060" if n % 3 else f"{c}\u200e" for n, c in enumerate(text)),
    "confusables": lambda text: "".join(LIKE.get(c, c) for c in text),
    "full_width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "leet": lambda text: "".join(LEET.get(c.lower(), c) for c in text),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64_twice": lambda text: base64.b64encode(base64.b64encode(text.encode())).decode(),
    "hex": lambda text: text.encode().hex(),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "url": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "url_usual": lambda text: quote(text, safe=""),
    "html": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "bidi": _bidi,
    "case": lambda text: "".join(c.upper() if n % 2 else c.lower() for n, c in enumerate(text)),
}  # fmt: skip


def caught(judge: Judge, attacks: Sequence[str]) -> dict[str, float]:
    """Disguise → share of `attacks` (all caught plain) that the judge catches in it."""
    return {name: sum(judge(disguise(text)) for text in attacks) / len(attacks) for name, disguise in DISGUISES.items()}


def split_over_messages(judge: Judge, attacks: Sequence[str], parts: int = 2) -> float:
    """Share caught when an attack comes as `parts` messages of as many words each, judged one by one."""
    return sum(any(judge(part) for part in _parts(text, parts)) for text in attacks) / len(attacks)


def _parts(text: str, parts: int) -> list[str]:
    words = text.split()
    size = -(-len(words) // parts)
    return [" ".join(words[at : at + size]) for at in range(0, len(words), size)]


def rules() -> Judge:
    """The threat rules over all views of a text."""
    from veilstream.detection.model import DetectionConfig, TextField
    from veilstream.detection.threats.rules import load_rules
    from veilstream.detection.threats.scan import ThreatScan

    scan, config = ThreatScan(load_rules()), DetectionConfig(format_check=False)
    return lambda text: bool(scan.scan(TextField("text", text), config))


def score() -> Judge:
    """Rules and model: whether a text's score reaches `moderate`'s threshold for review."""
    from veilstream.detection.model import DetectionConfig, TextField
    from veilstream.detection.threats import load_threats
    from veilstream.policy.document import ModeThresholds

    threats, config, threshold = load_threats(), DetectionConfig(format_check=False), ModeThresholds().moderate.review
    return lambda text: any(
        threat.confidence >= threshold for threat in threats.scan([(TextField("text", text), config)])[0]
    )


JUDGES: Final[Mapping[str, Callable[[], Judge]]] = {"rules": rules, "score": score}


def bundled() -> dict[str, list[str]]:
    """The texts beside the tests: `attacks`, `translated` and `harmless`."""
    content = yaml.safe_load(BUNDLED.read_text(encoding="utf-8"))
    translated = [text for texts in content["translated"].values() for text in texts]
    return {"attacks": content["attacks"], "translated": translated, "harmless": content["harmless"]}


def _frozen(label: int, count: int) -> list[str]:
    """`count` texts of the development sets, where they are: an equal share of each."""
    texts: list[str] = []
    for file in sorted(FROZEN.glob("*.jsonl")):
        texts += _share(file, label, count // 20)
    return texts


def _share(file: Path, label: int, count: int) -> list[str]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    texts = sorted({row["text"][:ATTACK_CHARS] for row in rows if row["label"] == label})
    return random.Random(7).sample(texts, min(count, len(texts)))


def _row(name: str, share: float, count: int) -> str:
    return f"{name:16}{100 * share:7.1f} %  of {count}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", choices=sorted(JUDGES), default="rules")
    parser.add_argument("--texts", type=int, default=2000, help="of attacks and of harmless texts")
    arguments = parser.parse_args()
    judge, ours = JUDGES[arguments.judge](), bundled()
    attacks = [text for text in [*ours["attacks"], *_frozen(1, arguments.texts)] if judge(text)]
    harmless = [*ours["harmless"], *_frozen(0, arguments.texts)]
    print(f"{len(attacks)} attacks that are caught plain; {len(harmless)} harmless texts", flush=True)
    shares = caught(judge, attacks)
    alarms = _alarms(judge, harmless)
    for name, share in shares.items():
        print(f"{_row(name, share, len(attacks))}   harmless {_row('', alarms[name], len(harmless)).strip()}")
    split = split_over_messages(judge, attacks)
    translated = sum(map(judge, ours["translated"])) / len(ours["translated"])
    print(_row("split in two", split, len(attacks)))
    print(_row("translated", translated, len(ours["translated"])))
    worst = min(shares, key=lambda name: shares[name])
    print(
        "evasion: "
        + " ".join(f"{name}={share:.3f}" for name, share in shares.items())
        + f" worst={worst}:{shares[worst]:.3f} harmless_max={max(alarms.values()):.4f}"
        + f" split={split:.3f} translated={translated:.3f}"
    )


def _alarms(judge: Judge, texts: Iterable[str]) -> dict[str, float]:
    """Disguise → share of harmless `texts` with an alarm in it that they have not in plain words."""
    plain = [text for text in texts if not judge(text)]
    return {name: sum(judge(disguise(text)) for text in plain) / len(plain) for name, disguise in DISGUISES.items()}


if __name__ == "__main__":
    main()
