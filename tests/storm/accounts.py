"""The books of the listeners' storm: what each consumer has had, and whether it adds up.

A sender queues its numbers 0, 1, 2 ... as one real-time signal of its own, and a label says which
sender it is. What a consumer missed it has to have counted: received + dropped = sent, exactly.
"""

import time

SENDERS = 4
LABEL_BITS = 26  # below the label: the number; sival_int holds both


class ImbalanceError(AssertionError):
    """The books do not add up."""


def label(sender: int) -> int:
    return sender << LABEL_BITS


def eventually(condition, complaint, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise ImbalanceError(complaint())
        time.sleep(0.001)


class Account:
    """Where each sender's signal lands on one thread, so that its numbers come in order.

    (Two threads that take the same signal may publish n + 1 before n: the kernel hands out n, and
    the thread that has it may lose its processor before it can say so.)
    """

    def __init__(self, origins: list[tuple[int, int, int]]) -> None:
        self.origins = origins  # of each sender: signal, pid, thread that it lands on
        self.received = 0
        self.first = [0] * SENDERS
        self.last = [-1] * SENDERS

    def take(self, info) -> None:
        sender, number = divmod(info.si_value, 1 << LABEL_BITS)
        if (info.si_signo, info.si_pid, info.thread_id) != self.origins[sender]:
            raise ImbalanceError(f"{info} is not from sender {sender}, {self.origins[sender]}")
        last = self.last[sender]
        if number <= last:
            raise ImbalanceError(f"sender {sender}: {number} after {last}")
        if last < 0:
            self.first[sender] = number
        self.last[sender] = number
        self.received += 1

    def sent(self) -> int:
        """How many were sent from the first that was received to the last."""
        pairs = zip(self.first, self.last, strict=True)
        return sum(last - first + 1 for first, last in pairs if last >= 0)

    def sent_until(self, stop: int) -> int:
        """The same, but to the last that was sent."""
        pairs = zip(self.first, self.last, strict=True)
        return sum(stop - first for first, last in pairs if last >= 0)


class Jumble:
    """Where any thread takes any signal: each number at most once, and in order on each thread."""

    def __init__(self, origins: list[tuple[int, int]], start: int, stop: int) -> None:
        self.origins = origins  # of each sender: signal, pid
        self.start = start
        self.received = 0
        self.seen = [bytearray(stop - start) for _ in range(SENDERS)]
        self.last: dict[tuple[int, int], int] = {}

    def take(self, info) -> None:
        sender, number = divmod(info.si_value, 1 << LABEL_BITS)
        if (info.si_signo, info.si_pid) != self.origins[sender]:
            raise ImbalanceError(f"{info} is not from sender {sender}, {self.origins[sender]}")
        if self.seen[sender][number - self.start]:
            raise ImbalanceError(f"sender {sender}: {number} came twice")
        self.seen[sender][number - self.start] = 1
        place = sender, info.thread_id
        last = self.last.get(place, -1)
        if number <= last:
            raise ImbalanceError(f"sender {sender}, thread {info.thread_id}: {number} after {last}")
        self.last[place] = number
        self.received += 1


class Shares:
    """What several readers of one listener have had together: each number once."""

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.received = 0
        self.seen = [bytearray(stop - start) for _ in range(SENDERS)]

    def take(self, info) -> None:
        sender, number = divmod(info.si_value, 1 << LABEL_BITS)
        if self.seen[sender][number - self.start]:
            raise ImbalanceError(f"sender {sender}: {number} went to two readers")
        self.seen[sender][number - self.start] = 1
        self.received += 1


class Life:
    """A listener's life in the storm, with a window in which every single number is known.

    It begins with the first number that was received of each sender: before that nothing of this
    sender was dropped, since a full ring still has a slot for each of its signals. It ends with the
    last ones, if no drop came after them. That is so when `dropped` has stayed as it was while the
    ring was emptied and then one more came of each sender. As long as it has not, try again; a
    small one does not find such a moment while all are flooding, and asks the senders for calm.
    """

    PATIENCE = 5  # tries

    def __init__(
        self, listener, account: Account | Jumble, senders: list[int], goal: int, ask_for_calm
    ) -> None:
        self.listener = listener
        self.account = account
        self.senders = senders  # whom it listens to
        self.goal = goal  # so many received, and it may end
        self.ask_for_calm = ask_for_calm  # called with whether
        self.ended = False
        self.tries = 0
        self.dropped = 0
        self.marks: list[int] = []

    def may_end(self) -> bool:
        """Ask when each record that was read has been taken."""
        account = self.account
        if account.received < self.goal:
            return False
        if isinstance(account, Jumble):
            self.ended = True
            return True
        if self.marks:
            if any(account.last[sender] == self.marks[sender] for sender in self.senders):
                return False
            if self.listener.dropped == self.dropped:
                self.check(account.sent(), self.dropped)
                self.ended = True
                self.ask_for_calm(False)
                return True
        self.tries += 1
        if self.tries == self.PATIENCE:
            self.ask_for_calm(True)
        self.dropped = self.listener.dropped
        for info in self.listener.drain():
            account.take(info)
        self.marks = account.last.copy()
        return False

    def owed(self, stop: int) -> int:
        """When all has been sent, up to number `stop`: how many it has neither got nor dropped."""
        assert isinstance(self.account, Account)
        return self.account.sent_until(stop) - self.account.received - self.listener.dropped

    def check(self, sent: int, dropped: int) -> None:
        received = self.account.received
        if received + dropped != sent:
            raise ImbalanceError(f"{received} received + {dropped} dropped, but {sent} sent")
