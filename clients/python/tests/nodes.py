"""Real nodes for the tests: processes of `vectorizer-node`, each with a loopback address of its own.

`VECTORIZER_NODE` names the program; without it, what `cargo build` left in `target` is taken, the newest first.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 60.0
"""No condition takes longer, even on a busy machine; seconds."""
CONTROL_TOKEN = "the-control-token"

_NEXT = itertools.count(1)


def program() -> Path:
    """The node's program."""
    if named := os.environ.get("VECTORIZER_NODE"):
        return Path(named)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [path for kind in ("release", "debug") if (path := target / kind / "vectorizer-node").exists()]
    if not built:
        raise FileNotFoundError("no vectorizer-node: run `cargo build -p vectorizer-node`, or set VECTORIZER_NODE")
    return max(built, key=lambda path: path.stat().st_mtime)


T = TypeVar("T")


def until(what: str, attempt: Callable[[], T]) -> T:
    """Poll until `attempt` raises nothing, and answer what it answers."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            return attempt()
        except (AssertionError, OSError, httpx.HTTPError) as why:
            if time.monotonic() > end:
                raise AssertionError(f"waited {DEADLINE} s for {what}: {why!r}") from why
            time.sleep(0.02)


class Node:
    """A machine and the node on it, which may be started, killed and started again."""

    def __init__(self, folder: Path, replication: dict[str, Any], port: int, keys: Mapping[str, str]) -> None:
        pid, number = os.getpid(), next(_NEXT)
        self.ip = f"127.{(pid >> 8) & 255 or 1}.{pid & 255}.{number}"
        self.url = f"http://{self.ip}:{port}"
        self.replication = f"{self.ip}:7001"
        self._folder = folder / self.ip
        self._folder.mkdir(parents=True)
        token = self._file("control-token", CONTROL_TOKEN)
        self._config = {
            "server": {"control_token_file": str(token)}
            | {f"{name}_file": str(self._file(name, value)) for name, value in keys.items()},
            "replication": {"enabled": True, "bind_address": self.replication} | replication,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def master(cls, folder: Path, **keys: str) -> Self:
        """A master by its configuration."""
        return cls(folder, {"role": "master", "heartbeat_interval_secs": 1}, 15002, keys)

    @classmethod
    def replica_of(cls, master: "Node", folder: Path, port: int = 15002, **keys: str) -> Self:
        """A replica by its configuration."""
        follow = {"role": "replica", "master_address": master.replication, "reconnect_interval_secs": 1}
        return cls(folder, follow | {"heartbeat_interval_secs": 1}, port, keys)

    def _file(self, name: str, text: str) -> Path:
        path = self._folder / name
        path.write_text(text)
        return path

    def start(self) -> Self:
        """Start the node and wait until it listens."""
        # JSON is YAML.
        config, ready = self._file("config.yaml", json.dumps(self._config)), self._folder / "ready.json"
        ready.unlink(missing_ok=True)
        command = [str(program()), "--config", str(config), "--data-dir", str(self._folder / "data")]
        command += ["--http-address", self.url.removeprefix("http://"), "--ready-file", str(ready)]
        with (self._folder / "log").open("ab") as log:
            # What this shell has set is nobody's business.
            self._process = subprocess.Popen(command, env={}, stdin=subprocess.DEVNULL, stderr=log)

        def listens() -> None:
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"the node ended:\n{(self._folder / 'log').read_text()}")
            assert ready.exists()

        until(f"{self.url} to listen", listens)
        return self

    def kill(self) -> None:
        """SIGKILL, as a machine that loses its power ends it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def get(self, path: str) -> Any:
        """What the node itself answers, not asked through the client under test."""
        return self._ask("GET", path, None)

    def command(self, name: str, **body: Any) -> Any:
        """One of the operator's commands."""
        return self._ask("POST", f"/control/{name}", body)

    def _ask(self, method: str, path: str, body: Any) -> Any:
        token = {"Authorization": f"Bearer {CONTROL_TOKEN}"}
        answer = httpx.request(method, self.url + path, json=body, headers=token, timeout=DEADLINE, trust_env=False)
        assert answer.is_success, answer.text
        return answer.json() if "json" in answer.headers["content-type"] else answer.text

    @property
    def state(self) -> Any:
        """`GET /control/state`."""
        return self.get("/control/state")

    def reaches(self, other: "Node") -> None:
        """Wait until this node has applied all that another has, and serves reads."""
        end = other.state["position"]

        def there() -> None:
            assert self.get("/replication/status")["current_offset"] >= end["offset"]
            assert self.get("/readyz")["status"] == "ready"

        until(f"{self.url} to reach {end}", there)

    def misses_its_replicas(self) -> None:
        """Wait until this master has noticed that none is connected."""

        def missed() -> None:
            assert not any(replica["connected"] for replica in self.get("/replication/replicas")["replicas"])

        until(f"{self.url} to miss its replicas", missed)

    def requests(self) -> dict[str, int]:
        """Requests answered so far, by the path in the table of endpoints."""
        counts: dict[str, int] = {}
        for line in self.get("/metrics").splitlines():
            if line.startswith("vectorizer_http_requests_total{"):
                labels, count = line.rsplit(" ", 1)
                path = labels.split('endpoint="')[1].split('"')[0]
                counts[path] = counts.get(path, 0) + int(float(count))
        return counts


@contextlib.contextmanager
def running(*nodes: Node) -> Iterator[None]:
    """Start nodes, and end them whatever happens."""
    try:
        for node in nodes:
            node.start()
        for replica in nodes[1:]:
            replica.reaches(nodes[0])
        yield
    finally:
        for node in nodes:
            node.kill()


def hand_over(old: Node, new: Node, *others: Node) -> None:
    """A planned switchover, by the commands that the operator gives."""
    state = old.state
    cluster, before = state["cluster"], state["masterEpoch"]
    wish = {"cluster": cluster, "fromEpoch": before, "epoch": before + 1}
    wish |= {"target": new.state["nodeId"], "deadlineMs": 20_000}
    at = until("the handover", lambda: old.command("handover", **wish))["position"]
    new.command("promote", cluster=cluster, epoch=before + 1, at=at)
    follow(new, old, *others)


def take_over(new: Node, *others: Node) -> None:
    """A failover: whatever the new master has is what there is."""
    state = new.state
    cluster, epoch = state["cluster"], state["promisedEpoch"] + 1
    at = new.command("fence", cluster=cluster, epoch=epoch)["position"]
    new.command("promote", cluster=cluster, epoch=epoch, at=at)
    follow(new, *others)


def follow(master: Node, *others: Node) -> None:
    """Let others follow a master."""
    state = master.state
    told = {"cluster": state["cluster"], "epoch": state["masterEpoch"]}
    told |= {"masterAddress": master.replication, "masterUrl": master.url}
    for node in others:
        node.command("follow", **told)
