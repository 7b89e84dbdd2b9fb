"""The jars of Apache Kafka: locked by SHA-256, resolved from the Maven repository jgo is configured for.

infra/kafka/jars.lock holds one `group:artifact:version sha256` a line. `resolve_jars` gives the class path after it has
hashed every file; `python -m veilstream.stack.jars --lock` (`make lock`) writes the lock file anew.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from veilstream.contracts.errors import ConfigError, StackError
from veilstream.stack.files import cache_dir, shipped, write_atomically

KAFKA_VERSION = "4.1.0"
ROOTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
"""What is resolved: the broker, and a log binding that writes to standard error, so that one file holds all output."""

LOCK_FILE = "infra/kafka/jars.lock"
_ATTEMPTS = 3
_PARALLEL = 8
_TIMEOUT_S = 60
_PARTIAL_MAX_S = 3600


@dataclass(frozen=True)
class Jar:
    """One line of the lock file."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinate(self) -> str:
        """`group:artifact:version`, as in the lock file."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file_name(self) -> str:
        """Name of the file in the cache."""
        return f"{self.artifact}-{self.version}.jar"


def parse_lock(text: str, *, where: str = LOCK_FILE) -> tuple[Jar, ...]:
    """Read a lock file; a line that does not read as one jar is refused with its number."""
    jars = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        coordinate, _, digest = line.partition(" ")
        parts = coordinate.split(":")
        if len(parts) != 3 or not all(parts) or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise ConfigError(
                f"{where}, line {number}: not `group:artifact:version sha256`. Restore the file, or write it anew: "
                "make lock"
            )
        jars.append(Jar(parts[0], parts[1], parts[2], digest))
    if not jars:
        raise ConfigError(f"{where} names no jar. Restore the file, or write it anew: make lock")
    return tuple(jars)


def format_lock(jars: Sequence[Jar]) -> str:
    """The text `parse_lock` reads, sorted, so that a new lock gives a small difference."""
    head = f"# Jars of Apache Kafka {KAFKA_VERSION} with their SHA-256. Written by `make lock`; do not edit.\n"
    return head + "".join(f"{jar.coordinate} {jar.sha256}\n" for jar in sorted(jars, key=lambda jar: jar.coordinate))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_jars(folder: Path, jars: Sequence[Jar]) -> None:
    """Raise StackError unless every jar is in the folder with its locked content. Some 0.1 s for all of Kafka."""
    for jar in jars:
        path = folder / jar.file_name
        if not path.is_file():
            raise StackError(
                f"{jar.file_name} is missing in {folder}. Delete the folder: the next start gets it again."
            )
        _check(path, jar)


def resolve_jars(environ: Mapping[str, str] = os.environ, *, console: Console | None = None) -> str:
    """Give the Java class path of the broker, downloading what the cache does not hold.

    1. A folder named by VEIL_KAFKA_JARS (the `libs` of an Apache Kafka of your own) is taken as it is.
    2. Each locked jar that the cache lacks is downloaded beside it, hashed, and only then renamed into it.
    3. Every jar is hashed again on every call: what runs is what is locked.
    """
    if named := environ.get("VEIL_KAFKA_JARS"):
        return _named_folder(Path(named))
    jars = parse_lock(shipped(LOCK_FILE).read_text(encoding="utf-8"))
    folder = cache_dir(environ) / f"kafka-{KAFKA_VERSION}"
    missing = [jar for jar in jars if not (folder / jar.file_name).is_file()]
    if missing:
        download_jars(missing, folder, console=console or Console(stderr=True))
    verify_jars(folder, jars)
    return os.pathsep.join(str(folder / jar.file_name) for jar in jars)


def download_jars(jars: Sequence[Jar], folder: Path, *, console: Console) -> None:
    """Download jars into a folder, in parallel, with a progress bar; a file appears there complete and verified."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".partial-*"):  # by a download that was killed
        if time.time() - left.stat().st_mtime > _PARTIAL_MAX_S:
            shutil.rmtree(left, ignore_errors=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as partial,
        Progress(*columns, console=console) as progress,
        ThreadPoolExecutor(_PARALLEL) as pool,
    ):
        task = progress.add_task(f"Apache Kafka {KAFKA_VERSION}, once", total=len(jars))
        fetch = _fetcher(Path(partial))

        def get(jar: Jar) -> None:
            path = _attempt(fetch, jar)
            _check(path, jar)
            path.replace(folder / jar.file_name)
            progress.advance(task)

        for _ in pool.map(get, jars):
            pass


def lock_jars() -> tuple[Jar, ...]:
    """Resolve the roots and all they need at run time, download them to a temporary folder and hash them."""
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(_PARALLEL) as pool:
        context = MavenContext(repo_cache=Path(folder), timeout=_TIMEOUT_S)
        roots = [context.create_dependency(root) for root in ROOTS]
        inputs, transitive = context.resolver.resolve(roots)
        needed = [dependency for dependency in [*inputs, *transitive] if dependency.scope not in ("test", "provided")]

        def digest(dependency: object) -> Jar:
            artifact = dependency.artifact  # type: ignore[attr-defined]
            return Jar(artifact.groupId, artifact.artifactId, artifact.version, sha256_of(artifact.resolve()))

        return tuple(pool.map(digest, needed))


def _named_folder(folder: Path) -> str:
    if not any(folder.glob("kafka_2.13-*.jar")):
        raise ConfigError(
            f"VEIL_KAFKA_JARS names {folder}, which holds no kafka_2.13-*.jar. "
            "Name the `libs` folder of an Apache Kafka, or unset it to use the locked jars."
        )
    return f"{folder.absolute()}/*"


def _fetcher(repository: Path) -> Callable[[Jar], Path]:
    """A function that downloads one jar below `repository`; jgo writes in place, so this is never the cache itself."""
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=repository, timeout=_TIMEOUT_S)

    def fetch(jar: Jar) -> Path:
        component = context.project(jar.group, jar.artifact).at_version(jar.version)
        artifact = component.artifact()
        shutil.rmtree(repository / component.path_prefix, ignore_errors=True)  # what a failed attempt left
        return Path(artifact.resolve())

    return fetch


def _attempt(fetch: Callable[[Jar], Path], jar: Jar) -> Path:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return fetch(jar)
        except (
            OSError,
            RuntimeError,
        ) as error:  # requests' errors are OSErrors; jgo raises RuntimeError for "not found"
            if attempt == _ATTEMPTS:
                raise StackError(
                    f"{jar.coordinate} could not be downloaded ({type(error).__name__}, {_ATTEMPTS} attempts). Check "
                    "the network and any proxy, or set VEIL_KAFKA_JARS to the `libs` folder of your own Apache Kafka."
                ) from error
    raise AssertionError("unreachable")


def _check(path: Path, jar: Jar) -> None:
    found = sha256_of(path)
    if found != jar.sha256:
        raise StackError(
            f"{path} is not the jar that was locked: SHA-256 {found[:16]}…, {LOCK_FILE} has {jar.sha256[:16]}… for "
            f"{jar.coordinate}. The lock file rules: delete the jar and start again."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m veilstream.stack.jars`: fill the cache and verify it; with --lock, write the lock file anew."""
    parser = argparse.ArgumentParser(prog="python -m veilstream.stack.jars", description=main.__doc__)
    parser.add_argument("--lock", action="store_true", help=f"write {LOCK_FILE} anew from the newest resolution")
    console = Console(stderr=True)
    if parser.parse_args(arguments).lock:
        path = shipped("infra/kafka") / "jars.lock"
        jars = lock_jars()
        write_atomically(path, format_lock(jars))
        console.print(f"{len(jars)} jars locked in {path}")
    else:
        resolve_jars(console=console)
        console.print(f"the jars of Apache Kafka {KAFKA_VERSION} are complete and verified")
    return 0


if __name__ == "__main__":
    sys.exit(main())
