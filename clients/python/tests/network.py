"""What a node does not do on demand, over real sockets: a Service whose backend changes, a proxy, silence."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Place:
    """An address where something listens."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        self.requests = 0


@contextlib.asynccontextmanager
async def listening(place: Place, handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    """Serve connections by `handler`, one task for each."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            tasks.add(task)
        place.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    place.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Service(Place):
    """As a Kubernetes Service: each new connection goes to the backend of the moment, and stays there."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.backend = backend

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = urlsplit(self.backend)
        back_reader, back_writer = await asyncio.open_connection(there.hostname, there.port)

        async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    to.write(data)
                    await to.drain()
            to.close()

        await asyncio.gather(copy(reader, back_writer), copy(back_reader, writer))


class Proxy(Place):
    """Takes a whole request, answers these bytes, none perhaps, and hangs up."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self._answer = answer

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        self.requests += 1
        writer.write(self._answer)
        await writer.drain()


class Silence(Place):
    """Takes whole requests and never answers."""

    async def wait(self, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        self.requests += 1
        await asyncio.Event().wait()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request, with its body; the head."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().splitlines():
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.split(b":")[1]))
    return head


def http(status: str, body: str, content_type: str = "text/html") -> bytes:
    """An answer."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return (head + body).encode()
