"""An application that writes through switchovers: `switchovers.py WRITE_URL READ_URL WRITES`.

Its key is in the environment. It writes numbered texts until its standard input ends and at least WRITES were answered,
and says how many were as it goes. Then it reads back each. The first write that fails ends it.
"""

import asyncio
import sys
import threading

from vectorizer_sdk import VectorizerClient

TASKS = 4
PAUSE = 0.02
"""Seconds between two writes of a task."""


async def main(write_url: str, read_url: str, writes: int) -> None:
    answered: dict[str, str] = {}
    over = threading.Event()

    def await_end() -> None:
        sys.stdin.read()
        over.set()

    # A daemon: a failure ends the process, whoever holds its input.
    threading.Thread(target=await_end, daemon=True).start()

    async def write(client: VectorizerClient, task: int) -> None:
        number = 0
        while not (over.is_set() and len(answered) >= writes):
            id, text = f"{task}-{number}", f"text {number} of task {task}"
            inserted = await client.insert_text("numbered", text, id=id)
            assert inserted["vector_ids"] == [id]
            answered[id] = text
            number += 1
            if len(answered) % 50 == 0:
                print(len(answered), flush=True)
            await asyncio.sleep(PAUSE)

    async def read_back(client: VectorizerClient, ids: list[str]) -> None:
        for id in ids:
            assert (await client.get_vector("numbered", id))["payload"]["content"] == answered[id]

    async with VectorizerClient(write_url, reads=read_url) as client:
        await client.create_collection("numbered", 16)
        async with asyncio.TaskGroup() as group:
            for task in range(TASKS):
                group.create_task(write(client, task))
        ids = list(answered)
        async with asyncio.TaskGroup() as group:
            for task in range(TASKS):
                group.create_task(read_back(client, ids[task::TASKS]))
        assert (await client.get_collection("numbered"))["vector_count"] == len(answered)
    print(f"{len(answered)} were answered and read back", flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
