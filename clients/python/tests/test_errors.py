"""Errors say what the node says, bad arguments are named before anything is sent, and keys are never told."""

import logging
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from network import Proxy, http, listening
from nodes import Node, running
from vectorizer_sdk import (
    ApiError,
    AuthenticationError,
    ConflictError,
    InvalidRequestError,
    OutcomeUnknownError,
    VectorizerClient,
    VectorizerError,
    errors,
)

pytestmark = pytest.mark.anyio

ADMIN, READ = "the-admin-key-4f1c", "the-read-key-91aa"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with keys."""
    node = Node.master(tmp_path_factory.mktemp("locked"), admin_key=ADMIN, read_key=READ)
    with running(node):
        yield node


async def test_an_error_has_status_code_message_and_place_of_the_node(pair: tuple[Node, Node]) -> None:
    async with VectorizerClient(pair[0].url) as client:
        with pytest.raises(InvalidRequestError) as refused:
            await client.create_collection("c", 0)
        error = refused.value
        assert (error.status, error.code, error.place, error.url) == (400, "invalid_request", "dimension", pair[0].url)
        assert error.message == str(error)
        assert "dimension" in error.message
        with pytest.raises(ConflictError) as refused_too:
            await client.create_collection("texts", 64)
        assert (refused_too.value.status, refused_too.value.code) == (409, "collection_exists")
        with pytest.raises(InvalidRequestError, match="acks"):
            await client.insert_text("texts", "a", acks=-1)


async def test_every_code_of_a_node_has_its_class(pair: tuple[Node, Node]) -> None:
    async with VectorizerClient(pair[0].url) as client:
        codes = (await client.openapi())["components"]["schemas"]["ErrorCode"]["oneOf"]
    assert len(codes) > 15
    assert {code["const"] for code in codes} <= set(errors._CLASSES)
    assert set(errors.RETRYABLE) < set(errors._CLASSES)


@pytest.mark.parametrize(("status", "kind"), [(507, OutcomeUnknownError), (422, ApiError)])
async def test_a_code_of_a_later_node_keeps_its_words_and_promises_nothing(status: int, kind: type[Exception]) -> None:
    body = f'{{"error_type": "melted", "message": "too warm", "status_code": {status}}}'
    node = Proxy(http(f"{status} Melted", body, "application/json"))
    async with listening(node, node.answer), VectorizerClient(node.url) as client:
        with pytest.raises(VectorizerError) as refused:
            await client.insert_text("texts", "once")
    assert (type(refused.value), refused.value.code, str(refused.value)) == (kind, "melted", "too warm")
    assert node.requests == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda client: client.get_collection(".."), "collection: '..' cannot be said in a path"),
        (lambda client: client.delete_vector("texts", "."), "batch_delete"),
        (lambda client: client.delete_collection(""), "collection: ''"),
        (lambda client: client.search("texts", vector=[float("nan")] * 64), "Out of range float"),
        (lambda client: client.insert_bulk("texts", []), "vectors: is empty"),
        (lambda client: client.insert_bulk("texts", [{"embedding": [1.0]}]), r"vectors\[0\].id: 0 bytes"),
        (
            lambda client: client.insert_bulk("texts", [{"id": "a", "embedding": [1.0]}, {"id": "b", "embedding": []}]),
            r"vectors\[1\].embedding: 0 numbers beside 1",
        ),
        (lambda client: client.insert_bulk("texts", [{"id": "a", "embedding": [1e40]}]), r"vectors\[0\].embedding"),
    ],
)
async def test_a_bad_argument_is_named_and_nothing_is_sent(call: Any, says: str, pair: tuple[Node, Node]) -> None:
    before = pair[0].requests()
    async with VectorizerClient(pair[0].url) as client:
        with pytest.raises(ValueError, match=says):
            await call(client)
        with pytest.raises(TypeError):
            await client.insert_text("texts", "a", ack=1)  # type: ignore[call-arg]
    after = pair[0].requests()
    assert {path for path in after if after[path] != before.get(path, 0)} == {"/metrics"}


@pytest.mark.parametrize(
    "url", ["localhost:15002", "ftp://localhost", "http://", "", [], "http://h:15002/?key=secret", "http://u:secret@h"]
)
def test_what_is_no_address_is_refused_and_not_repeated(url: Any) -> None:
    with pytest.raises(ValueError, match=r"expected such as|pass api_key instead") as refused:
        VectorizerClient(url)
    assert "secret" not in str(refused.value)


async def test_keys_come_by_argument_or_environment(locked: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async with VectorizerClient(locked.url, api_key=ADMIN + "\n") as client:
        await client.create_collection("c", 2)
    async with VectorizerClient(locked.url) as client:
        with pytest.raises(AuthenticationError) as refused:
            await client.list_collections()
        assert (refused.value.status, refused.value.code) == (401, "unauthenticated")
    monkeypatch.setenv("VECTORIZER_API_KEY", READ)
    async with VectorizerClient(locked.url) as client:
        assert (await client.list_collections())["collections"][0]["name"] == "c"
        with pytest.raises(AuthenticationError) as refused:
            await client.insert_vectors("c", [{"embedding": [1, 2]}])
        assert (refused.value.status, refused.value.code) == (403, "forbidden")


async def test_a_key_is_in_no_message_and_no_log(locked: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    wrong = "a-wrong-key-77"
    async with VectorizerClient(locked.url, api_key=wrong) as client:
        said.append(
            repr(client) + repr(vars(client)) + repr(vars(client._caller)) + repr(vars(client._caller._transport))
        )
        said.append(repr(client._caller._transport._http.headers))
        for call in (client.list_collections(), client.create_collection("c", 2)):
            with pytest.raises(AuthenticationError) as refused:
                await call
            said += [repr(refused.value), str(refused.value), repr(vars(refused.value))]
    async with VectorizerClient("http://127.0.0.1:1", api_key=wrong, timeout=0.2) as client:
        with pytest.raises(VectorizerError) as unreached:
            await client.list_collections()
        said += [repr(unreached.value), repr(unreached.value.__notes__), repr(unreached.value.__cause__)]
    for bad in (f"{wrong}\r\nX-Other: 1", f"{wrong} {wrong}", f"{wrong}ü"):
        with pytest.raises(ValueError, match="API key") as impossible:
            VectorizerClient(locked.url, api_key=bad)
        said.append(repr(impossible.value))
    assert len(caplog.records) > 10
    said += [record.getMessage() for record in caplog.records]
    assert [text for text in said if wrong in text] == []


async def test_an_answer_cannot_lead_a_key_out_of_tls() -> None:
    from vectorizer_sdk.nodes import Nodes, Route  # noqa: PLC0415

    nodes = Nodes(["https://a:15002"], [])
    assert not nodes.follow("http://b:15002", "https://a:15002")
    assert nodes.order(Route.MASTER, 0) == ["https://a:15002"]
    assert nodes.follow("https://b:15002", "https://a:15002")
    assert nodes.order(Route.MASTER, 0) == ["https://b:15002", "https://a:15002"]
    for nonsense in (None, 7, "b:7001", "file:///etc", "http://key@b"):
        assert not nodes.follow(nonsense, "http://a:15002")


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    stranger = Proxy(http("200 OK", "{}", "application/json"))
    async with listening(stranger, stranger.answer):
        moved = http("307 Temporary Redirect", "").replace(
            b"\r\n\r\n", f"\r\nlocation: {stranger.url}/\r\n\r\n".encode()
        )
        proxy = Proxy(moved)
        async with listening(proxy, proxy.answer), VectorizerClient(proxy.url, api_key=ADMIN) as client:
            with pytest.raises(VectorizerError):
                await client.list_collections()
    assert stranger.requests == 0


def test_an_error_survives_being_sent_to_another_process() -> None:
    error = ConflictError("it exists", status=409, code="collection_exists", details={"path": "name"}, url="http://a")
    again = pickle.loads(pickle.dumps(error))
    assert vars(again) == vars(error)
    assert (type(again), str(again), again.place) == (ConflictError, "it exists", "name")


def test_a_client_is_made_outside_of_a_loop() -> None:
    assert repr(VectorizerClient(["http://a:15002/", "https://b"], reads="http://c")) == (
        "VectorizerClient(http://a:15002, https://b)"
    )
