"""TLS by `verify`, as httpx has it: before a real node stands a real TLS relay."""

import ssl
import subprocess
from pathlib import Path

import pytest

from network import Service, listening
from nodes import Node
from vectorizer_sdk import UnreachableError, VectorizerClient

pytestmark = pytest.mark.anyio


async def test_a_certificate_is_checked_unless_told_otherwise(pair: tuple[Node, Node], tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    relay = Service(pair[0].url)
    async with listening(relay, relay.relay, tls):
        async with VectorizerClient(relay.url, timeout=1.0) as client:
            with pytest.raises(UnreachableError, match="certificate verify failed"):
                await client.insert_text("texts", "to whom?")
        trusted = ssl.create_default_context(cafile=str(certificate))
        for verify in (trusted, False):
            async with VectorizerClient(relay.url, verify=verify) as client:
                await client.insert_text("texts", "safe and sound")
