"""The one way a child process of the stack is started: as a program that dies with its parent, also by kill -9.

    python child.py --parent PID [--signal N] [--user NAME] [--] COMMAND …

replaces itself by COMMAND. Only the standard library is imported, and nothing of this package, so that it costs some
20 ms and runs by path without `site`. A process pool calls `die_with_parent` first thing in its workers' initializer.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
ORPHANED = 70
"""Exit code of a launcher whose parent was gone before the kernel could be asked to watch it."""


def die_with_parent(parent: int, death_signal: int = signal.SIGKILL) -> None:
    """Have the kernel send `death_signal` to this process when `parent` dies; end now if it is dead already.

    1. Ask the kernel. It watches the parent *thread*: a child must be started from a thread that lives as long as the
       process, in practice the main thread.
    2. Only then compare the parent's pid: one that died before step 1 would never be reported.

    A change of user clears the request, so that comes first; exec keeps it. Linux only: elsewhere just step 2.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(ORPHANED)


def command_line(command: list[str], *, death_signal: int = signal.SIGKILL, user: str | None = None) -> list[str]:
    """The command that starts `command` as a child of this process, which dies with it."""
    launcher = [sys.executable, "-I", "-S", __file__, "--parent", str(os.getpid()), "--signal", str(int(death_signal))]
    return [*launcher, *(["--user", user] if user else []), "--", *command]


def become(user: str) -> None:
    """Give up root for good: groups first, since a plain user may not change them."""
    import pwd

    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ["HOME"] = entry.pw_dir
    os.environ["USER"] = os.environ["LOGNAME"] = user


def main(arguments: list[str]) -> None:
    """Read the options, drop the user, tie this process to its parent, and become the command."""
    import resource

    split = arguments.index("--")
    options = dict(zip(arguments[0:split:2], arguments[1:split:2], strict=True))
    command = arguments[split + 1 :]
    if user := options.get("--user"):
        become(user)
    os.umask(0o077)  # the same whoever starts it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold texts
    die_with_parent(int(options["--parent"]), int(options.get("--signal", signal.SIGKILL)))
    os.execvp(command[0], command)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])
