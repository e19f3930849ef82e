"""Why a call has no answer to give.

VectorizerError
├── ApiError                refused: nothing happened
│   ├── InvalidRequestError     the request is at fault
│   ├── AuthenticationError     no credential, or one that does not allow it
│   ├── NotFoundError           no such collection, vector or replica
│   ├── ConflictError           it exists already, or contradicts what the node knows
│   │   └── PositionLostError       what this client wrote was lost in a failover
│   └── UnavailableError        not now: no master, too few replicas, no room
├── UnreachableError        nobody answered in time: nothing happened
└── OutcomeUnknownError     a write that may have happened, or may not
"""

from collections.abc import Mapping
from typing import Any, Final


class VectorizerError(Exception):
    """A call failed. `str(error)` is the message alone; who called in vain where is in the notes of the exception."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        url: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message: Final = message
        """What, where, and what would be right, as the node says it."""
        self.status: Final = status
        """The HTTP status; `None` without an answer."""
        self.code: Final = code
        """The node's `error_type`; `None` where no node spoke."""
        self.details: Final[dict[str, Any]] = dict(details or {})
        """More, by code, as the node says it."""
        self.url: Final = url
        """Who answered, or did not."""

    @property
    def place(self) -> str | None:
        """Where in the request the bad value stands, such as `vectors[3].embedding`."""
        path = self.details.get("path")
        return path if isinstance(path, str) else None

    @property
    def position(self) -> str | None:
        """The position in the log that the node names, such as that of a write of unknown outcome."""
        position = self.details.get("position")
        return position if isinstance(position, str) else None


class ApiError(VectorizerError):
    """The node, or something before it, refused: nothing happened."""


class InvalidRequestError(ApiError):
    """The request is malformed, too large, or has a value out of range: see `place`."""


class AuthenticationError(ApiError):
    """There was no credential, an unknown one, or one that does not allow this."""


class NotFoundError(ApiError):
    """There is no such collection, vector or replica."""


class ConflictError(ApiError):
    """It exists already, or the request contradicts what the node is or knows."""


class PositionLostError(ConflictError):
    """A read asked for this client's last write, and the node's log has something else there.

    The write was lost in a failover, or belongs to another cluster. The client has forgotten the position: the next
    read is answered with what there is.
    """


class UnavailableError(ApiError):
    """No node could take it until the deadline: see `code`. The same call may succeed later."""


class UnreachableError(VectorizerError):
    """No node could be reached, or a read was not answered, until the deadline. Nothing happened."""


class OutcomeUnknownError(VectorizerError):
    """A write was sent and not confirmed: it may have happened, or may not. Read it back before sending it again."""


SERVER_ERROR: Final = 500
"""The lowest status of those that say that the request was not at fault."""

_CLASSES: Final[Mapping[str, type[VectorizerError]]] = {
    "invalid_request": InvalidRequestError,
    "unauthenticated": AuthenticationError,
    "forbidden": AuthenticationError,
    "endpoint_not_found": InvalidRequestError,
    "method_not_allowed": InvalidRequestError,
    "collection_not_found": NotFoundError,
    "vector_not_found": NotFoundError,
    "replica_not_found": NotFoundError,
    "collection_exists": ConflictError,
    "conflict": ConflictError,
    "request_timeout": UnavailableError,
    "payload_too_large": InvalidRequestError,
    "unsupported_media_type": InvalidRequestError,
    "not_master": UnavailableError,
    "too_many_requests": UnavailableError,
    "fenced": UnavailableError,
    "not_enough_replicas": UnavailableError,
    "disk_full": UnavailableError,
    "memory_full": UnavailableError,
    "unavailable": UnavailableError,
    "outcome_unknown": OutcomeUnknownError,
    "internal": OutcomeUnknownError,
}

RETRYABLE: Final = frozenset(
    {"request_timeout", "not_master", "too_many_requests", "fenced", "not_enough_replicas", "unavailable"}
)
"""Nothing happened, and soon or on another node it may. Room on a disk or in memory does not come back so soon."""


def from_node(body: object, status: int, url: str) -> VectorizerError | None:
    """Read the body of a refusal. `None` when it is not one of this API: then nothing is known about what happened."""
    match body:
        case {"error_type": str(code), "message": str(message), **rest}:
            details = rest.get("details")
            details = details if isinstance(details, dict) else {}
            # What a later node calls a failure of its own promises nothing here.
            other = OutcomeUnknownError if status >= SERVER_ERROR else ApiError
            return _CLASSES.get(code, other)(message, status=status, code=code, details=details, url=url)
        case _:
            return None
