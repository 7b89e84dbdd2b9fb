"""The wall clock of one process, to be set while it runs."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")


@dataclass(frozen=True)
class Clock:
    """A library that a process preloads, and the file from which it takes its shift."""

    library: Path
    file: Path

    @classmethod
    async def make(cls, folder: Path) -> Clock:
        """Compile the library (needs cc); the shift is 0."""
        made = cls(folder / "clock.so", folder / "clock")
        made.set(0)
        arguments = ["-O2", "-shared", "-fPIC", "-o", str(made.library), str(_SOURCE)]
        compiler = await asyncio.create_subprocess_exec("cc", *arguments)
        assert await compiler.wait() == 0, "cc does not compile clock.c"
        return made

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "FAULTS_CLOCK": str(self.file)}

    def set(self, seconds: int) -> None:
        """Shift the clock by so much against the real one, from now on; in place, since processes have the file mapped."""
        mode = "r+b" if self.file.exists() else "wb"
        with self.file.open(mode) as file:
            file.write(struct.pack("<q", seconds))
