"""Copies a `docker save` archive, its images under other names: node_images.py IMAGE=NAME… <archive >archive.

Docker saves names of Docker Hub shortened, and kind looks for full ones. And kind reads the names of all images from
`repositories`, but those of only the first from `manifest.json`, whichever of the two comes first.
"""

import io
import json
import sys
import tarfile

names = {}
for argument in sys.argv[1:]:
    image, name = argument.split("=", 1)
    names.setdefault(f"{image}:latest", []).append(name)


def add(archive, name, document):
    text = json.dumps(document).encode()
    member = tarfile.TarInfo(name)
    member.size = len(text)
    archive.addfile(member, io.BytesIO(text))


with (
    tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as source,
    tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as target,
):
    repositories = {}
    for name in (name for group in names.values() for name in group):
        repository, tag = name.rsplit(":", 1)
        repositories.setdefault(repository, {})[tag] = ""
    add(target, "repositories", repositories)
    for member in source:
        data = source.extractfile(member) if member.isfile() else None
        if member.name == "manifest.json":
            manifest = json.load(data)
            for image in manifest:
                image["RepoTags"] = [name for tag in image["RepoTags"] for name in names[tag]]
            add(target, "manifest.json", manifest)
        elif member.name != "repositories":
            target.addfile(member, data)
