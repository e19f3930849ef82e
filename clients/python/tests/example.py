"""Runs a script whose hosts have other addresses: `example.py SCRIPT '{"host:port": "ip", …}'`."""

import json
import runpy
import socket
import sys
from typing import Any

PLACES = json.loads(sys.argv[2])
resolve = socket.getaddrinfo


def resolved(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    return resolve(PLACES.get(f"{name}:{port}", name), port, *rest, **more)


socket.getaddrinfo = resolved
runpy.run_path(sys.argv[1], run_name="__main__")
