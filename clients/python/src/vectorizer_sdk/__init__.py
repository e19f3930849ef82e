"""Client of Vectorizer nodes that replicate: it follows the master, reads from replicas, and hides no doubt.

from vectorizer_sdk import VectorizerClient
"""

from .client import VectorizerClient
from .errors import (
    ApiError,
    AuthenticationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    PositionLostError,
    UnavailableError,
    UnreachableError,
    VectorizerError,
)

__all__ = [
    "ApiError",
    "AuthenticationError",
    "ConflictError",
    "InvalidRequestError",
    "NotFoundError",
    "OutcomeUnknownError",
    "PositionLostError",
    "UnavailableError",
    "UnreachableError",
    "VectorizerClient",
    "VectorizerError",
]
