"""A server on asyncio that ends in order."""

import asyncio
import sys

import sigwright as signal

stop = signal.graceful_shutdown(grace=float(sys.argv[1]))


def wait_at(gate):
    with open(gate):  # a FIFO: in this call until somebody opens it to write
        pass


async def answer(reader, writer):
    request = await reader.readuntil(b"\r\n\r\n")
    path, _, gate = request.split()[1].decode().partition("?")
    if path == "/slow":
        print("slow: begun", flush=True)
        await asyncio.to_thread(wait_at, gate)
    body = b"slow: done" if path == "/slow" else b"quick: done"
    writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()
    await writer.wait_closed()


@stop
async def main():
    requests = set()

    async def serve(reader, writer):
        requests.add(task := asyncio.current_task())
        try:
            await answer(reader, writer)
        finally:
            requests.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=128)
    stop.callback(print, "callback: all requests are answered", flush=True)

    @stop.callback
    async def finish():
        await asyncio.sleep(0.01)  # the loop takes what the kernel has accepted
        server.close()
        while requests:
            await asyncio.wait(requests)

    host, port = server.sockets[0].getsockname()
    print(f"Listening at: http://{host}:{port}", flush=True)
    await stop.async_wait()
    print("stopping", flush=True)


asyncio.run(main())
