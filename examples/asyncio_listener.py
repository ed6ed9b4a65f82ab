"""Signals in asyncio: `async for` over a listener.

No handler, no callback, no thread: the loop's own selector sees that a signal has come, and the
task that asked for it goes on.  The same code runs on uvloop and, with its own tasks, on trio.
It prints:

    serving
    SIGHUP: reload
    SIGHUP: reload
    SIGTERM: stop
    the worker was cancelled
"""

import asyncio
import os

import sigwright as signal


async def work():
    try:
        print("serving")
        for signum in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            await asyncio.sleep(0.05)
            os.kill(os.getpid(), signum)  # an administrator would do it
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("the worker was cancelled")
        raise


async def main():
    async with (
        signal.listen(signal.SIGHUP, signal.SIGTERM) as signals,
        asyncio.TaskGroup() as tasks,
    ):
        worker = tasks.create_task(work())
        async for info in signals:
            if info.si_signo == signal.SIGTERM:
                print("SIGTERM: stop")
                worker.cancel()
                break
            print("SIGHUP: reload")


asyncio.run(main())
