"""Who is asked, and in which order: what the client knows of addresses, roles and who failed lately.

Writes go to the master, reads to whoever is not known to be it. Roles are learned from answers
(`X-Vectorizer-Role`) and refusals (`master_url`), so that nothing has to be asked beforehand. What a refusal names is a
hint: addresses that were given stay in the order behind it, as a node inside a cluster may be out of reach from here.
"""

import time
from collections.abc import Sequence
from enum import Enum

import httpx

COOL_DOWN = 10.0
"""For so long, in seconds, who could not be reached is asked after all others."""


class Route(Enum):
    """Which node a call is meant for."""

    MASTER = "master"
    READ = "read"
    NODE = "node"
    """The first address and no other: what is asked about a node, or told to it."""


class Nodes:
    """The addresses, the master among them once it is known."""

    def __init__(self, addresses: Sequence[str], reads: Sequence[str]) -> None:
        self._addresses = addresses
        self._reads = reads or addresses
        self._master: str | None = None
        self._failed: dict[str, float] = {}
        self._turn = 0

    def turn(self) -> int:
        """A number for one call, so that calls go round the replicas."""
        self._turn += 1
        return self._turn

    def order(self, route: Route, turn: int) -> list[str]:
        """All who may be asked, best first, each once."""
        if route is Route.NODE:
            return [self._addresses[0]]
        master = [self._master] if self._master else []
        if route is Route.MASTER:
            order = [*master, *self._addresses]
        else:
            at = turn % len(self._reads)
            replicas = [url for url in (*self._reads[at:], *self._reads[:at]) if url != self._master]
            order = [*replicas, *master, *self._addresses]
        now = time.monotonic()
        # A stable sort: who failed lately comes last, in the same order.
        return sorted(dict.fromkeys(order), key=lambda url: now - self._failed.get(url, -COOL_DOWN) < COOL_DOWN)

    def heard(self, url: str, role: str | None) -> None:
        """Note that somebody answered, in this role."""
        self._failed.pop(url, None)
        if role == "master":
            self._master = url
        elif role is not None and url == self._master:
            self._master = None

    def failed(self, url: str) -> None:
        """Note that somebody could not be reached, or gave no answer."""
        self._failed[url] = time.monotonic()
        if url == self._master:
            self._master = None

    def follow(self, named: object, by: str) -> bool:
        """Take over the master's URL from a refusal by another node. Whether it is one to follow."""
        if not isinstance(named, str):
            return False
        try:
            url = address(named)
        except ValueError:
            return False
        # The key must not leave an encrypted connection because an answer says so.
        if url == by or (by.startswith("https:") and not url.startswith("https:")):
            return False
        self._master = url
        return True


def address(text: str) -> str:
    """Check the URL of a node and bring it to one spelling. Errors repeat nothing of it, as it may hold a secret."""
    wrong = "not the URL of a node: expected such as http://localhost:15002"
    try:
        url = httpx.URL(text.strip())
    except (httpx.InvalidURL, TypeError, AttributeError):
        raise ValueError(wrong) from None
    if url.userinfo:
        raise ValueError(f"the URL of {url.host} holds a credential: leave it out and pass api_key instead")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ValueError(wrong)
    return str(url).rstrip("/")


def addresses(given: str | Sequence[str], what: str) -> list[str]:
    """Check one URL or several."""
    found = [address(text) for text in ([given] if isinstance(given, str) else given)]
    if not found:
        raise ValueError(f"{what} names no address: expected such as http://localhost:15002")
    return found
