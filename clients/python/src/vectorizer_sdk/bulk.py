"""The body of `POST /collections/{name}/bulk`, laid out as in docs/bulk.md."""

import json
import struct
from collections.abc import Sequence
from typing import Final

from .types import VectorItem

CONTENT_TYPE: Final = "application/vnd.vectorizer.bulk"

_MAGIC: Final = b"VZB1"
_LONGEST_ID: Final = 1024


def body(vectors: Sequence[VectorItem]) -> bytes:
    """Pack vectors with their ids. `ValueError` names the one that does not fit."""
    if not vectors:
        raise ValueError("vectors: is empty: expected at least one")
    dimension = len(vectors[0]["embedding"])
    parts = [_MAGIC, struct.pack("<III", len(vectors), dimension, 0)]
    for index, item in enumerate(vectors):
        id = item.get("id", "").encode()
        if not 1 <= len(id) <= _LONGEST_ID:
            raise ValueError(f"vectors[{index}].id: {len(id)} bytes: expected 1 to {_LONGEST_ID}")
        numbers = item["embedding"]
        if len(numbers) != dimension:
            raise ValueError(f"vectors[{index}].embedding: {len(numbers)} numbers beside {dimension} of the first")
        try:
            packed = struct.pack(f"<{dimension}f", *numbers)
        except (struct.error, OverflowError) as why:
            raise ValueError(f"vectors[{index}].embedding: {why}") from None
        payload = b""
        if item.get("payload"):
            payload = json.dumps(item["payload"], ensure_ascii=False, allow_nan=False).encode()
        parts += [struct.pack("<HHI", len(id), 0, len(payload)), id, packed, payload]
    return b"".join(parts)
