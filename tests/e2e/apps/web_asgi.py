"""What uvicorn serves here: who serves it, and a request that takes as long as the test likes."""

import asyncio
import json
import os
import signal

from whose import tell, whose


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    body = await slow(scope["query_string"]) if scope["path"] == "/slow" else about()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})


async def lifespan(receive, send):
    while True:
        event = (await receive())["type"].removeprefix("lifespan.")
        if event == "startup":
            tell(signal.SIGTERM)
        print("lifespan:", event)
        await send({"type": f"lifespan.{event}.complete"})
        if event == "shutdown":
            return


def about():
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    return json.dumps({**whose(signal.SIGTERM), "loop": loop})


async def slow(path):
    """Wait at the test's gate, a FIFO: it is readable once somebody has opened it to write."""
    print("slow: begun")
    gate = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    opened = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(gate, opened.set)
    try:
        await opened.wait()
    finally:
        loop.remove_reader(gate)
        os.close(gate)
    return "slow: done"
