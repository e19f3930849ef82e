"""Copies a `docker save` archive, its Docker Hub names written out: kind looks for full names, Docker saves short ones."""

import io
import sys
import tarfile

with (
    tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as source,
    tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as target,
):
    for member in source:
        data = source.extractfile(member) if member.isfile() else None
        if data is not None and member.name in ("manifest.json", "repositories"):
            text = data.read().replace(b'"kindest/', b'"docker.io/kindest/')
            member.size, data = len(text), io.BytesIO(text)
        target.addfile(member, data)
