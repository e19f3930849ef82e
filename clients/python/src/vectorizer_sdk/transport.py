"""One attempt: a request to one node, and what became of it.

httpx sends; its `trace` extension tells whether the request had left before something went wrong, which is what decides
whether a write may be sent again.
"""

import asyncio
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

API_KEY_VARIABLE: Final = "VECTORIZER_API_KEY"
POSITION_HEADER: Final = "x-vectorizer-position"
ROLE_HEADER: Final = "x-vectorizer-role"
ACKS_HEADER: Final = "x-vectorizer-acks"

_CONNECT_SECONDS: Final = 3.0
# Well before a node closes an idle connection, after 120 s: none is closed just as its next request leaves.
_IDLE_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Request:
    """What is sent, to whichever node."""

    method: str
    path: str
    query: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None


@dataclass(frozen=True)
class Answer:
    """A whole answer, whoever gave it."""

    url: str
    status: int
    headers: httpx.Headers
    content: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return httpx.codes.is_success(self.status)

    def json(self) -> Any:
        """The body as JSON; `None` when it is none, which no node answers."""
        try:
            return json.loads(self.content)
        except ValueError:
            return None


class NotSent(Exception):
    """The request did not leave: nothing happened."""


class NotAnswered(Exception):
    """The request left, wholly or in part, and no whole answer came."""


class Transport:
    """The connections to all nodes, and the key."""

    def __init__(self, api_key: str | None, verify: ssl.SSLContext | bool) -> None:
        # httpx shows the value of this header as [secure]; the key is kept nowhere else.
        self._http = httpx.AsyncClient(
            headers=_credential(api_key),
            verify=verify,
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=_IDLE_SECONDS),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def send(self, url: str, request: Request, within: float) -> Answer:
        """Send a request to the node at `url` and read the answer, in `within` seconds."""
        left = False

        async def trace(event: str, _: Mapping[str, Any]) -> None:
            nonlocal left
            left = left or event.endswith(".send_request_headers.started")

        try:
            async with asyncio.timeout(within):
                answer = await self._http.request(
                    request.method,
                    url + request.path,
                    params=request.query or None,
                    headers=request.headers,
                    content=request.content,
                    timeout=httpx.Timeout(within, connect=min(_CONNECT_SECONDS, within)),
                    follow_redirects=False,
                    extensions={"trace": trace},
                )
        except (httpx.RequestError, TimeoutError) as why:
            reason = str(why) or ("no answer in time" if left else "no connection in time")
            raise (NotAnswered if left else NotSent)(reason) from why
        return Answer(url, answer.status_code, answer.headers, answer.content)


def _credential(api_key: str | None) -> dict[str, str]:
    key = (os.environ.get(API_KEY_VARIABLE, "") if api_key is None else api_key).strip()
    # httpx would say what it cannot send, which is the key.
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the API key holds characters that no key has: expected printable ASCII without spaces")
    return {"Authorization": f"Bearer {key}"} if key else {}
