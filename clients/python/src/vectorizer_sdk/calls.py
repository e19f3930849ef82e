"""One call: attempts at one node after the other, until an answer, a refusal that is final, or the deadline.

| what became of an attempt | a write | a read |
|---|---|---|
| the request did not leave | goes on | goes on |
| it left and was not answered | `OutcomeUnknownError` | goes on |
| refused by a node, which says that nothing happened and that it may work soon or elsewhere | goes on | goes on |
| refused by a node otherwise | raised | raised |
| a 5xx or a 2xx that is not this API's: a proxy, which does not know either | `OutcomeUnknownError` | goes on |
| any other status that is not this API's | raised | raised |

To go on is to ask the next node, and when all were asked, to begin again after a pause. What is asked about one node is
asked twice at most, and its refusal is the answer.
"""

import asyncio
import random
from dataclasses import dataclass, replace
from typing import Any, Final

from . import errors
from .errors import ApiError, OutcomeUnknownError, PositionLostError, UnreachableError, VectorizerError
from .nodes import Nodes, Route
from .transport import ACKS_HEADER, POSITION_HEADER, ROLE_HEADER, Answer, NotAnswered, NotSent, Request, Transport

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0


@dataclass(frozen=True)
class Call:
    """What is asked, and of whom."""

    route: Route
    request: Request
    changes: bool = False
    """Whether asking twice can do harm."""
    text: bool = False
    """Whether the answer is a text, not JSON."""


@dataclass(frozen=True)
class _GoOn:
    """Nothing happened, and another attempt may do better."""

    why: VectorizerError
    after: float = 0.0
    """Seconds to wait before the same node is asked again."""
    settled: bool = False
    """Whether that node would say the same again."""


class Caller:
    """Carries out calls, and remembers the position of the last write."""

    def __init__(self, nodes: Nodes, transport: Transport, timeout: float) -> None:
        self._nodes = nodes
        self._transport = transport
        self._timeout = timeout
        self.position: str | None = None

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def call(self, call: Call, timeout: float | None = None, acks: int | None = None) -> Any:
        """Carry out a call within `timeout` seconds, however many nodes are asked. The body of the answer."""
        seconds = self._timeout if timeout is None else timeout
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        call = self._with_headers(call, acks)
        why: VectorizerError = UnreachableError(f"a timeout of {seconds} s leaves no time to ask anybody")
        said: dict[str, str] = {}
        turn, pause, rounds = self._nodes.turn(), _FIRST_PAUSE, 0
        while clock() < deadline:
            asked: list[str] = []
            after, settled = 0.0, True
            while (left := deadline - clock()) > 0:
                # Anew each time: a refusal may have named the master.
                order = [url for url in self._nodes.order(call.route, turn) if url not in asked]
                if not order:
                    break
                asked.append(order[0])
                # A read leaves time for the other nodes; a write that has left is waited for.
                outcome = await self._attempt(call, order[0], left if call.changes or len(order) == 1 else left / 2)
                if not isinstance(outcome, _GoOn):
                    return outcome
                said[order[0]] = outcome.why.message
                # What a node said tells more than that another attempt came to nothing.
                if not (isinstance(why, ApiError) and isinstance(outcome.why, UnreachableError)):
                    why = outcome.why
                after, settled = max(after, outcome.after), settled and (outcome.settled or call.route is Route.NODE)
            rounds += 1
            # Once more even so: the refusal ended a connection to a Service, which may lead elsewhere by now.
            if settled and rounds > 1:
                break
            wait = max(after, pause * random.uniform(0.5, 1.0))
            await asyncio.sleep(max(0.0, min(wait, deadline - clock())))
            pause = min(pause * 2, _LONGEST_PAUSE)
        for url, reason in said.items():
            why.add_note(f"{url}: {reason}")
        raise why

    def _with_headers(self, call: Call, acks: int | None) -> Call:
        headers = dict(call.request.headers)
        if acks is not None:
            headers[ACKS_HEADER] = str(acks)
        if call.route is Route.READ and self.position is not None:
            headers[POSITION_HEADER] = self.position
        return replace(call, request=replace(call.request, headers=headers))

    async def _attempt(self, call: Call, url: str, within: float) -> Any:
        """Ask one node: the body of its answer or `_GoOn`; raises what is final."""
        try:
            answer = await self._transport.send(url, call.request, within)
        except NotSent as why:
            self._nodes.failed(url)
            return _GoOn(UnreachableError(f"cannot connect to {url}: {why}", url=url))
        except NotAnswered as why:
            self._nodes.failed(url)
            return self._unknown(call, f"{url} gave no answer: {why}", url)
        self._nodes.heard(url, answer.headers.get(ROLE_HEADER))
        if not answer.ok:
            return self._refused(call, answer)
        body = answer.content.decode(errors="replace") if call.text else answer.json()
        if body is None:
            return self._unknown(
                call, f"{url} answered {answer.status} with something that is no JSON", url, answer.status
            )
        if call.changes:
            self._wrote(answer.headers.get(POSITION_HEADER))
        return body

    def _refused(self, call: Call, answer: Answer) -> _GoOn:
        url, status = answer.url, answer.status
        why = errors.from_node(answer.json(), status, url)
        if why is None:
            text = f"{url} answered {status}, but not as a node does"
            if status >= errors.SERVER_ERROR:
                return self._unknown(call, text, url, status)
            raise ApiError(text, status=status, url=url)
        if isinstance(why, OutcomeUnknownError):
            if call.changes:
                raise why
            raise ApiError(why.message, status=status, code=why.code, details=why.details, url=url)
        named = why.details.get("master_url") or why.details.get("masterUrl")
        if call.route is Route.MASTER and self._nodes.follow(named, url):
            return _GoOn(why)
        if why.code in errors.RETRYABLE and call.route is not Route.NODE:
            after = answer.headers.get("retry-after", "")
            return _GoOn(why, float(after) if after.isdecimal() else 0.0, why.code == "not_master")
        sent = call.request.headers.get(POSITION_HEADER)
        if why.code == "conflict" and sent is not None:
            if self.position == sent:
                self.position = None
            raise PositionLostError(why.message, status=status, code=why.code, details=why.details, url=url)
        raise why

    def _unknown(self, call: Call, text: str, url: str, status: int | None = None) -> _GoOn:
        """Say what is known of a request that left: of a write nothing, and a read changes nothing."""
        if call.changes:
            text = f"{text}; the write may or may not have happened: read it back"
            raise OutcomeUnknownError(text, url=url, status=status)
        return _GoOn(UnreachableError(text, url=url, status=status))

    def _wrote(self, position: str | None) -> None:
        """Take note of a write's position. Of concurrent writes the last one counts."""
        if position is not None and order_of(position) > order_of(self.position):
            self.position = position


def order_of(position: str | None) -> tuple[int, int]:
    """Epoch and offset; what is no position lies before all others."""
    epoch, _, offset = (position or "").partition(".")
    return (int(epoch), int(offset)) if epoch.isdecimal() and offset.isdecimal() else (-1, -1)
