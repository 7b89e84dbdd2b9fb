"""`make parity`: our engine's findings beside Presidio's, on the corpus and on fresh texts, until a difference.

Prints the seed of the fresh texts, every flip and every difference; `--seed` gives the same texts again. Ends with 1 if
there is a difference. Texts are shared out to one process a core.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import secrets
import sys
from concurrent.futures import ProcessPoolExecutor

from bench.corpus import corpus_path
from bench.corpus import texts as corpus
from tests.parity.compare import Tally
from tests.parity.work import CHUNK, LONG, Job, start, work
from tests.unit.detection_corpus import bundled
from veilstream.detection.model import Profile

PROFILES: tuple[Profile, Profile] = ("parity", "fast")


def main() -> int:
    """Compare, print, and say whether all is equal."""
    arguments = _arguments()
    print(f"seed {arguments.seed}, {arguments.texts} fresh texts, corpus {corpus_path().name}", flush=True)
    known = [*bundled(), *corpus(arguments.corpus)]
    jobs: list[Job] = [
        (profile, 0, known[i : i + CHUNK], False) for i in range(0, len(known), CHUNK) for profile in PROFILES
    ]
    jobs += [(PROFILES[i % 3 == 0], arguments.seed + i, None, False) for i in range(1, 1 + arguments.texts // CHUNK)]
    jobs += [("parity", arguments.seed + i, None, True) for i in range(arguments.long)]
    total = Tally()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=spawn, initializer=start) as pool:
        for done, tally in enumerate(pool.map(work, jobs), 1):
            total.texts += tally.texts
            total.findings += tally.findings
            for kind, found in (("DIFFERENCE", tally.differences), ("flip", tally.flips)):
                for one in found or ():
                    print(f"{kind} {one}", flush=True)
            total.differences = [*(total.differences or ()), *(tally.differences or ())]
            total.flips = [*(total.flips or ()), *(tally.flips or ())]
            if done % 20 == 0:
                print(f"{total.texts} texts, {total.findings} findings", file=sys.stderr, flush=True)
    differences, flips = len(total.differences or ()), len(total.flips or ())
    print(
        f"parity: texts={total.texts} findings={total.findings} differences={differences} flips={flips} seed={arguments.seed}"
    )
    return int(differences > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=20_000, help="fresh texts")
    parser.add_argument("--long", type=int, default=6, help=f"fresh texts of {LONG} characters")
    parser.add_argument("--corpus", type=int, default=2_000, help="texts of the corpus, in both profiles")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(2**40), help="of the fresh texts; default: a new one"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that share the work")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
