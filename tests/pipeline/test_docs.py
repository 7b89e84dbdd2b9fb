"""Every command of the docs is run, but for the exceptions they name."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.chain import Chain, veil

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"<!-- (run|exception): ([^\n]*) -->\n```(\w+)\n(.*?)```", re.DOTALL)
pytestmark = pytest.mark.timeout(240)


def test_every_command_block_says_whether_it_is_run() -> None:
    """A console or Python block without a mark above it would be run by nobody."""
    marked = [match.group(4) for match in BLOCK.finditer(README)]
    blocks = re.findall(r"```(?:console|python)\n(.*?)```", README, re.DOTALL)
    assert blocks
    assert blocks == marked


def test_the_stack_commands_of_the_readme_run(chain: Chain) -> None:
    """Each `veil …` line exits with 0 on a running stack; `up` and `down` are how the stack of this test came and goes."""
    (block,) = [m.group(4) for m in BLOCK.finditer(README) if (m.group(1), m.group(2)) == ("run", "stack")]
    commands = [shlex.split(line.removeprefix("$ ")) for line in block.strip().splitlines()]
    assert [commands[0][1], commands[-1][1]] == ["up", "down"]
    for command in commands[1:-1]:
        assert command[0] == "veil"
        done = veil(*command[1:], data=chain.folder)
        assert done.stdout


@pytest.mark.parametrize("example", sorted((ROOT / "docs" / "examples").glob("*.py")), ids=lambda p: p.name)
def test_the_examples_of_the_docs_run(chain: Chain, example: Path) -> None:
    """Each example prints a verdict, and the lines the README shows of it are in it."""
    environment = os.environ | {"VEIL_BOOTSTRAP": chain.settings.bootstrap}
    done = subprocess.run(
        [sys.executable, str(example)], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "allow" in done.stdout
    shown = [m.group(4) for m in BLOCK.finditer(README) if m.group(2) == f"python docs/examples/{example.name}"]
    text = " ".join(example.read_text().split())
    for line in "".join(shown).splitlines():
        assert " ".join(line.split()) in text, line
