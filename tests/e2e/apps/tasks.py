"""A celery application on the filesystem broker, whose worker gives itself one task to do."""

import signal
from pathlib import Path

from celery import Celery
from celery.signals import worker_ready
from whose import tell

queue = Path("queue")
queue.mkdir(exist_ok=True)
app = Celery(
    "tasks",
    broker="filesystem://",
    broker_transport_options={
        "data_folder_in": str(queue),  # one for both ways: sender and worker are both here
        "data_folder_out": str(queue),
        "control_folder": "control",
        "polling_interval": 0.05,  # seconds; of 1, an end takes several
    },
    worker_timer_precision=0.05,
)


@app.task
def hold(gate):
    tell(signal.SIGTERM)
    print("task: begun", flush=True)
    with open(gate) as lock:  # a FIFO: in this call until the test lets it go on
        lock.read()
    print("task: done", flush=True)


@worker_ready.connect
def begin(**_):
    tell(signal.SIGTERM)
    hold.delay("gate")
