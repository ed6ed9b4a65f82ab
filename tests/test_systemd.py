"""systemd's notify protocol, against a real socket: what is said, when, and by whom."""

import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

import programs
from sigwright import systemd

PREAMBLE = f"""
import os, sys, threading, time
import sigwright as signal
from sigwright import SIGTERM, graceful_shutdown, systemd
{programs.UNTIL}
def send(signum=SIGTERM):
    os.kill(os.getpid(), signum)
"""


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, address):
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.bind(b"\0" + address[1:] if address.startswith(b"@") else address)
        self.channel.settimeout(30)
        self.environment = {"NOTIFY_SOCKET": os.fsdecode(address)}

    def read(self):
        """The next message, as a dict."""
        lines = self.channel.recv(65536).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def read_all(self):
        """What has come; nobody sends any more."""
        self.channel.setblocking(False)
        messages = []
        try:
            while True:
                messages.append(self.read())
        except BlockingIOError:
            return messages

    def run(self, source, **environment):
        """Run a service to its end, and return what it has said."""
        messages = []
        # The kernel holds few messages for a socket; systemd reads them as they come.
        reader = threading.Thread(target=lambda: messages.extend(iter(self.read, {"END": "1"})))
        reader.start()
        try:
            environment = {**os.environ, **self.environment, **environment}
            programs.succeed(PREAMBLE, source, env=environment)
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.sendto(b"END=1", self.channel.getsockname())
            reader.join()
        return messages


@pytest.fixture
def manager(request, tmp_path):
    address = getattr(request, "param", b"") + os.fsencode(tmp_path / "notify")
    manager = Manager(address)
    yield manager
    manager.channel.close()


@pytest.mark.parametrize("manager", [b"", b"@"], ids=["path", "abstract"], indirect=True)
def test_the_life_of_a_service(manager):
    messages = manager.run("""
        with graceful_shutdown(grace=20) as stop:
            assert stop.ready(STATUS="up", MAINPID=os.getpid())
            assert stop.status("half done: 50 %")
            stop.callback(stop.status, "closing")
            send()
            assert stop.wait(10)
        systemd.notify(X_MINE="a = b")
    """)
    pid = messages[0].pop("MAINPID")
    assert pid.isdecimal()
    assert messages == [
        {"READY": "1", "STATUS": "up"},
        {"STATUS": "half done: 50 %"},
        # One second more than the grace, so that it is not the manager who ends it.
        {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "21000000"},
        {"STATUS": "closing"},
        {"X_MINE": "a = b"},
    ]


def test_stopping_is_said_once_and_only_after_a_signal(manager):
    messages = manager.run("""
        with graceful_shutdown():
            pass
        with graceful_shutdown(grace=float("inf")):
            for _ in range(10):
                send()
    """)
    assert messages == [{"STOPPING": "1"}]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_stopping_is_said_in_an_event_loop_too(manager, loop):
    messages = manager.run(f"""
        import {loop}
        async def main():
            async with graceful_shutdown(cancel=True) as stop:
                stop.ready()
                send()
                await {loop}.sleep(60)
        {loop}.run(main{"()" if loop == "asyncio" else ""})
    """)
    assert [next(iter(message)) for message in messages] == ["READY", "STOPPING"]


def test_a_reload_says_since_when_and_that_it_is_over(manager):
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    messages = manager.run("""
        with graceful_shutdown() as stop:
            with stop.reloading():
                stop.status("reading the settings")
            try:
                with stop.reloading():
                    raise KeyError("the new ones are wrong")
            except KeyError:
                pass
    """)
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    for message in messages:
        if "MONOTONIC_USEC" in message:
            assert before < int(message.pop("MONOTONIC_USEC")) < after
    assert messages == [
        {"RELOADING": "1"},
        {"STATUS": "reading the settings"},
        {"READY": "1"},
        {"RELOADING": "1"},
        {"READY": "1"},
    ]


def test_systemds_own_tool_says_the_same(manager, tmp_path):
    """What a message looks like is not our invention."""
    if subprocess.call(["sh", "-c", "command -v systemd-notify"], stdout=subprocess.DEVNULL):
        pytest.skip("systemd-notify is not installed")
    environment = {**os.environ, **manager.environment}
    subprocess.run(
        ["systemd-notify", "--ready", "--status=up", "--no-block"], env=environment, check=True
    )
    theirs = manager.read()
    (ours,) = manager.run('systemd.notify(READY=1, STATUS="up")')
    assert ours == {name: theirs[name] for name in ("READY", "STATUS")}


# --- nobody has asked, or cannot hear ------------------------------------------------------------


def test_without_the_variable_nothing_is_sent(monkeypatch):
    for value in (None, ""):
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
        if value is not None:
            monkeypatch.setenv("NOTIFY_SOCKET", value)
        assert systemd.notify(READY=1) is False


def test_a_message_that_is_none(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with pytest.raises(ValueError, match="at least one field"):
        systemd.notify()
    with pytest.raises(ValueError, match="one line"):
        systemd.notify(STATUS="two\nREADY=1")


@pytest.mark.parametrize("address", ["relative/path", "vsock:2:1234", "/not/there"])
def test_an_address_of_nobody(monkeypatch, address):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with pytest.raises(OSError):
        systemd.notify(READY=1)


def test_a_shutdown_needs_no_manager_that_hears_it():
    programs.succeed(
        PREAMBLE,
        """
        with graceful_shutdown() as stop:
            send()
            assert stop.wait(10)
        """,
        env={**os.environ, "NOTIFY_SOCKET": "/not/there"},
    )


def test_a_manager_that_does_not_read_keeps_nobody_waiting(manager):
    began = time.monotonic()
    programs.succeed(
        PREAMBLE,
        """
        try:
            while True:
                systemd.notify(X_FILL="x" * 10_000)     # until the queue is full
        except TimeoutError:
            pass
        with graceful_shutdown() as stop:
            send()
            assert stop.wait(10)
        """,
        env={**os.environ, **manager.environment},
    )
    assert time.monotonic() - began < 30


# --- the watchdog --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "period"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "ours"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_PID": "ours"}, None),
    ],
)
def test_whom_the_watchdog_asks_and_how_often(monkeypatch, environment, period):
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("ours", str(os.getpid())))
    assert systemd.watchdog_period() == period


def test_the_watchdog_is_fed_in_the_block_only(manager):
    messages = manager.run(
        """
        with graceful_shutdown() as stop:
            stop.ready()
            until(lambda: time.monotonic() - begun > 0.5)
        stop.status("after")
        time.sleep(0.2)
        with graceful_shutdown(watchdog=False) as stop:
            time.sleep(0.2)
        """.replace("with", "begun = time.monotonic()\n        with", 1),
        WATCHDOG_USEC="100000",
    )
    names = [next(iter(message)) for message in messages]
    assert names.count("WATCHDOG") >= 3
    assert names[0] == "READY" and names[-1] == "STATUS"


DEADLOCK = """
import ctypes
mutex = ctypes.create_string_buffer(256)
lock = ctypes.{library}(None).pthread_mutex_lock
lock(mutex)
lock(mutex)
"""
STUCK = {
    "a loop in C": "from itertools import repeat\nsum(repeat(1))",
    "a deadlock with the GIL": DEADLOCK.format(library="PyDLL"),
    "a deadlock without the GIL": DEADLOCK.format(library="CDLL"),
}


@pytest.mark.parametrize("how", STUCK)
def test_a_main_thread_that_is_stuck_in_c_does_not_feed_it(manager, how):
    """The watchdog is there to find that out: a thread that pings for it would be a lie."""
    source = f"""
with graceful_shutdown(grace=300) as stop:
    busy = threading.Thread(target=time.sleep, args=(60,), daemon=True)     # threads are fine
    busy.start()
    time.sleep(0.5)
    stop.status("stuck from here on")
    exec({STUCK[how]!r})
"""
    environment = {**os.environ, **manager.environment, "WATCHDOG_USEC": "100000"}
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + source], env=environment, stderr=subprocess.PIPE
    )
    try:
        fed = 0
        while "STATUS" not in (message := manager.read()):
            fed += "WATCHDOG" in message
        assert fed >= 3
        time.sleep(0.4)
        manager.read_all()  # what came on the way into the call
        time.sleep(0.4)  # eight periods
        assert manager.read_all() == []
        assert process.poll() is None, process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_a_main_thread_that_sleeps_or_computes_in_python_feeds_it(manager):
    messages = manager.run(
        """
        with graceful_shutdown() as stop:
            time.sleep(0.4)
            stop.status("computing")
            end = time.monotonic() + 0.4
            while time.monotonic() < end:
                pass
        """,
        WATCHDOG_USEC="100000",
    )
    said = "".join(re.sub("[^WS]", "", next(iter(message)))[0] for message in messages)
    assert re.fullmatch("W{2,}SW{2,}", said), said
