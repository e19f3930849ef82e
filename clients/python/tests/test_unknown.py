"""What is not known is said, and sent once: hang-ups, proxies, silence."""

import time

import pytest

from network import Place, Proxy, Silence, http, listening
from nodes import Node
from vectorizer_sdk import ApiError, OutcomeUnknownError, UnreachableError, VectorizerClient

pytestmark = pytest.mark.anyio

PROXIES = {
    "a connection that ends after the request": b"",
    "a proxy's 503": http("503 Service Unavailable", "<h1>no healthy upstream</h1>"),
    "a proxy's 504": http("504 Gateway Timeout", '{"error": "upstream"}', "application/json"),
    "a 200 that is no JSON": http("200 OK", "<h1>welcome</h1>"),
    "half an answer": http("200 OK", '{"message": "x"}')[:-4],
}


@pytest.mark.parametrize("what", PROXIES)
async def test_a_write_behind_it_is_of_unknown_outcome_and_sent_once(what: str, pair: tuple[Node, Node]) -> None:
    master, _ = pair
    proxy = Proxy(PROXIES[what])
    async with listening(proxy, proxy.answer), VectorizerClient([proxy.url, master.url]) as client:
        with pytest.raises(OutcomeUnknownError) as unknown:
            await client.insert_text("texts", "once")
        assert unknown.value.url == proxy.url
        assert "may or may not have happened" in unknown.value.message
    assert proxy.requests == 1


@pytest.mark.parametrize("what", PROXIES)
async def test_a_read_behind_it_is_answered_by_another_node(what: str, pair: tuple[Node, Node]) -> None:
    master, _ = pair
    proxy = Proxy(PROXIES[what])
    async with listening(proxy, proxy.answer), VectorizerClient(master.url, reads=proxy.url) as client:
        assert (await client.get_collection("texts"))["name"] == "texts"
    assert proxy.requests == 1


async def test_silence_ends_at_the_deadline_and_a_read_is_answered_by_another_node(pair: tuple[Node, Node]) -> None:
    master, _ = pair
    silence = Silence()
    async with listening(silence, silence.wait):
        async with VectorizerClient([silence.url, master.url]) as client:
            begun = time.monotonic()
            with pytest.raises(OutcomeUnknownError) as unknown:
                await client.insert_text("texts", "to nobody", timeout=1.0)
            assert 1.0 <= time.monotonic() - begun < 10
            assert unknown.value.status is None
        async with VectorizerClient(master.url, reads=silence.url) as client:
            assert (await client.get_collection("texts", timeout=4.0))["name"] == "texts"
        async with VectorizerClient(silence.url) as client:
            with pytest.raises(UnreachableError):
                await client.get_collection("texts", timeout=1.0)


async def test_what_was_never_sent_is_not_of_unknown_outcome() -> None:
    place = Place()

    async def nobody(*_: object) -> None: ...

    async with listening(place, nobody):
        pass
    async with VectorizerClient(place.url, timeout=1.0) as client:
        with pytest.raises(UnreachableError) as failed:
            await client.insert_text("texts", "to nobody")
        assert failed.value.url == place.url
        with pytest.raises(UnreachableError):
            await client.get_replication_status(timeout=60.0)


@pytest.mark.parametrize("status", ["403 Forbidden", "413 Content Too Large", "307 Temporary Redirect"])
async def test_a_proxy_that_refuses_is_not_taken_for_a_node(status: str) -> None:
    proxy = Proxy(http(status, "<h1>no</h1>"))
    async with listening(proxy, proxy.answer), VectorizerClient(proxy.url) as client:
        with pytest.raises(ApiError) as refused:
            await client.insert_text("texts", "once")
    assert (refused.value.status, refused.value.code, proxy.requests) == (int(status[:3]), None, 1)


async def test_a_node_that_does_not_confirm_says_where_the_write_stands(pair: tuple[Node, Node]) -> None:
    body = '{"error_type": "outcome_unknown", "message": "the write at position 4.17 may or may not survive",'
    body += f'"status_code": 504, "details": {{"position": "4.17", "master_url": "{pair[0].url}"}}}}'
    proxy = Proxy(http("504 Gateway Timeout", body, "application/json"))
    async with listening(proxy, proxy.answer), VectorizerClient([proxy.url, pair[0].url]) as client:
        with pytest.raises(OutcomeUnknownError) as unknown:
            await client.insert_text("texts", "once")
        # A read has no outcome that could be unknown.
        with pytest.raises(ApiError):
            await client.get_replication_status()
    assert proxy.requests == 2
    assert (unknown.value.code, unknown.value.status, unknown.value.position) == ("outcome_unknown", 504, "4.17")
