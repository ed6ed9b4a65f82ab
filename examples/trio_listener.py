"""Signals in trio: `async for` over a listener.

As trio.open_signal_receiver(), with three differences: the listener leaves alone what signal()
has set, it may be opened in any thread, and each record says who sent the signal.  It prints:

    serving
    SIGHUP: reload
    SIGHUP: reload
    SIGTERM: stop
    the worker was cancelled
"""

import os

import trio

import sigwright as signal


async def work():
    try:
        print("serving")
        for signum in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            await trio.sleep(0.05)
            os.kill(os.getpid(), signum)  # an administrator would do it
        await trio.sleep_forever()
    except trio.Cancelled:
        print("the worker was cancelled")
        raise


async def main():
    async with (
        signal.listen(signal.SIGHUP, signal.SIGTERM) as signals,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(work)
        async for info in signals:
            if info.si_signo == signal.SIGTERM:
                print("SIGTERM: stop")
                nursery.cancel_scope.cancel()
                break
            print("SIGHUP: reload")


trio.run(main)
