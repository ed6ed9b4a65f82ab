"""A handler in sigwright's own thread ends a call of C that the main thread is in.

Handlers otherwise wait for the main thread's next safe point, between two bytecodes.  A long call
of C code has none, even where it lets go of the GIL: here a database query that would count for
ever.  A handler with thread=True does not wait.  (alarm() and a handler in the main thread end the
example of open_with_alarm.py, but would never end this one.)  It prints:

    counting for ever
    SIGALRM: interrupted by a handler in another thread
    the query ended: interrupted
"""

import sqlite3
import threading

import sigwright as signal

COUNT_FOR_EVER = """
    WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter)
    SELECT count(*) FROM counter
"""

database = sqlite3.connect(":memory:")
interrupted_by = []


# interrupt() is made to be called from another thread.
@signal.on(signal.SIGALRM, thread=True)
def interrupt(info):
    interrupted_by.append((info.si_signo.name, threading.current_thread()))
    database.interrupt()


print("counting for ever")
# It rings until the query has ended: where the first ring comes before the query has begun, there
# is nothing to interrupt yet.
signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
try:
    database.execute(COUNT_FOR_EVER).fetchone()
except sqlite3.OperationalError as error:
    signal.setitimer(signal.ITIMER_REAL, 0)
    name, thread = interrupted_by[0]
    where = "the main thread" if thread is threading.main_thread() else "another thread"
    print(f"{name}: interrupted by a handler in {where}")
    print("the query ended:", error)
database.close()
