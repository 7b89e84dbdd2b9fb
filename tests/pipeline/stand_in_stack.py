"""`veil up` with real servers and stand-ins for agents; `python stand_in_stack.py FOLDER AGENT …`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from rich.console import Console

from veilstream.stack.running import NO_PREPARATION, running_stack
from veilstream.stack.up import UpOptions, up

AGENT = Path(__file__).with_name("stand_in_agent.py")


def stand_in(name: str) -> tuple[str, ...]:
    """The command of a stand-in agent."""
    return (sys.executable, str(AGENT), name)


if __name__ == "__main__":
    run_stack = partial(running_stack, agents=sys.argv[2:], agent_command=stand_in, preparation=NO_PREPARATION)
    up(UpOptions(sys.argv[1]), Console(), run_stack=run_stack)
