"""Addresses of servers that settings name: what is one, and whether its host stands on the allow list beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from veilstream.contracts.errors import ConfigError

LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Address:
    """Of an http(s) server, without user, password and fragment."""

    scheme: str
    host: str
    named: str
    """Host, with the port where the address has one: as it has to stand on the allow list."""
    path: str
    query: str

    @property
    def is_exposed(self) -> bool:
        """Unencrypted over a network: whoever is on the way reads and changes what is sent."""
        return self.scheme == "http" and self.host not in LOCAL


def address_of(text: str) -> Address | None:
    """The address in a setting; None where it is none."""
    from yarl import URL  # what fetches reads the address with it, too

    try:
        url = URL(text)
        host, port = url.host or "", url.explicit_port
    except ValueError:
        return None
    if url.scheme not in ("http", "https") or not host or url.user is not None or url.fragment:
        return None
    bracketed = f"[{host}]" if ":" in host else host
    return Address(
        url.scheme, host, bracketed if port is None else f"{bracketed}:{port}", url.raw_path, url.raw_query_string
    )


def check_allowed(address: Address, of: str, allowed: str, listed_in: str, purpose: str) -> None:
    """Raises ConfigError: the host in setting `of` does not stand in setting `listed_in`, whose value is `allowed`."""
    if address.named.lower() not in {one.strip().lower() for one in allowed.split(",")}:
        raise ConfigError(
            f"{of} names the host {address.named}, which is not in {listed_in}: add it there if {purpose}"
        )
