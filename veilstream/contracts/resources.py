"""Where the contracts lie: `schemas/` and `topics/` of the checkout, or their copies inside the installed wheel."""

from __future__ import annotations

from pathlib import Path

from veilstream.contracts.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent.parent


def data_path(*parts: str) -> Path:
    """A file of the product that is not Python: `data_path("topics", "catalogue.yaml")`. Raises ConfigError."""
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise ConfigError(f"{'/'.join(parts)} is not installed: install veilstream again, or run it from its checkout")
