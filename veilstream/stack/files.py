"""Files of the stack: those that ship with the code, those in the cache, and how one is written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from veilstream.contracts.errors import StackError

_PACKAGE = Path(__file__).resolve().parent.parent
_OTHERS = 0o077
"""Every right of the group and of everybody else."""


def shipped(relative: str) -> Path:
    """Path of a file that ships with the code: below `veilstream/_data` in a wheel, in the repository otherwise."""
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        path = root / relative
        if path.exists():
            return path
    raise StackError(
        f"{relative} is in neither {_PACKAGE / '_data'} nor {_PACKAGE.parent}: this installation is incomplete. "
        "Install veilstream again, or run it from a complete checkout."
    )


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Folder for what can be had again: VEIL_CACHE_DIR, else `veilstream` in XDG_CACHE_HOME, else in ~/.cache."""
    if named := environ.get("VEIL_CACHE_DIR"):
        return Path(named).absolute()
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "veilstream"


def data_folder(folder: Path) -> None:
    """Make the data folder, or close one that others can enter. One that holds other things is refused: it may be /tmp."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = folder.stat().st_mode & 0o777
    if not mode & _OTHERS:
        return
    try:
        if not (folder / "lock").exists() and any(folder.iterdir()):
            raise StackError(
                f"{folder} can be entered by others (mode {mode:o}) and holds more than a stack's data. Name a folder of its "
                f"own by --data (VEIL_DATA_DIR), or close this one: chmod 700 {folder}"
            )
        folder.chmod(0o700)
    except PermissionError:
        raise StackError(
            f"{folder} can be entered by others (mode {mode:o}) and is not yours to close. Name a folder of your own by "
            "--data (VEIL_DATA_DIR), or have its owner set mode 700"
        ) from None


@contextmanager
def closed_to_others() -> Iterator[None]:
    """What this process makes, and what processes started meanwhile make, only their user can read."""
    former = os.umask(_OTHERS)
    try:
        yield
    finally:
        os.umask(former)


def write_atomically(path: Path, content: str, *, mode: int = 0o644) -> None:
    """Write a file so that a reader, or a crash at any moment, finds the former content or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
