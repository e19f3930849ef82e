"""What `python -m build` makes installs into an empty environment, and the README's examples run from there."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from nodes import ROOT, Node, running

CLIENT = ROOT / "clients/python"


def run(*command: object, **environment: str) -> str:
    """The output of a command that has to succeed, in surroundings without anything of this checkout."""
    done = attempt(*command, **environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def attempt(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VECTORIZER"))}
    return subprocess.run(words, check=False, env=surroundings | environment, text=True, capture_output=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Source distribution `.gz` and wheel `.whl`, which is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, CLIENT)
    return {file.suffix: file for file in folder.iterdir()}


@pytest.fixture(scope="module")
def python(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an empty environment into which the wheel was installed."""
    folder = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", built[".whl"])
    return python


def test_wheel_and_source_hold_what_belongs_to_them(built: dict[str, Path]) -> None:
    sources = {path.name for path in (CLIENT / "src/vectorizer_sdk").iterdir() if path.is_file()}
    assert "py.typed" in sources
    with zipfile.ZipFile(built[".whl"]) as archive:
        names = archive.namelist()
        [metadata] = [archive.read(name).decode() for name in names if name.endswith("/METADATA")]
    assert {name.split("/")[1] for name in names if name.startswith("vectorizer_sdk/")} == sources
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert {"License-Expression: Apache-2.0", "Requires-Python: >=3.11"} <= set(metadata.splitlines())
    assert [line for line in metadata.splitlines() if line.startswith("Requires-Dist")] == [
        "Requires-Dist: httpx<1,>=0.28"
    ]
    with tarfile.open(built[".gz"]) as archive:
        files = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml"} | {f"src/vectorizer_sdk/{name}" for name in sources} <= files
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_readmes_examples_run_from_the_installed_wheel(python: Path, folder: Path, tmp_path: Path) -> None:
    examples = re.findall(r"^```python\n(.*?)^```$", (CLIENT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) == 3
    key = "the-key-of-the-examples"
    master = Node.master(folder, admin_key=key)
    beside = Node.replica_of(master, folder, 15012, admin_key=key)
    replica = Node.replica_of(master, folder, admin_key=key)
    places = {
        "localhost:15002": master.ip,
        "localhost:15012": beside.ip,
        "demo-rw:15002": master.ip,
        "demo-ro:15002": replica.ip,
    }
    said = []
    with running(master, beside, replica):
        for number, example in enumerate(examples):
            script = tmp_path / f"{number}.py"
            script.write_text(example)
            driver = CLIENT / "tests/example.py"
            said.append(run(python, "-I", driver, script, json.dumps(places), VECTORIZER_API_KEY=key))
        end = master.state["position"]["offset"]
        assert "/collections/{name}/search" not in master.requests()
    assert said[:2] == ["a white rabbit with pink eyes\n", "a mad hatter\n"]
    assert re.fullmatch(rf"master at {end}\n(\S+: Connected, \d+ ms behind\n){{2}}", said[2])


def test_the_installed_types_are_seen_by_a_type_checker(python: Path, tmp_path: Path) -> None:
    script = tmp_path / "typed.py"
    script.write_text(
        "from vectorizer_sdk import VectorizerClient\n"
        "async def main(client: VectorizerClient) -> int:\n"
        "    return (await client.list_replicas())['replicas'][0]['lag_ms']\n"
    )
    check = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--cache-dir", tmp_path / "cache")
    assert "Success" in run(*check, script)
    script.write_text(script.read_text().replace("lag_ms", "lag"))
    assert 'has no key "lag"' in attempt(*check, script).stdout
