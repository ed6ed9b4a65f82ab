"""An HTTP server that is told to end while a request is in flight, and answers it first.

SIGTERM asks for the end, and nothing else happens by itself: the main thread's wait() returns, and
the callbacks do the rest in reverse order, within the grace: the server takes no more requests,
then waits for those that it has.  Run in a shell, `echo $?` would say 143 after it: it ends by the
signal, when all is done.  Here it runs as a child of this program, which looks at it from outside.
It prints:

    the child serves
    a request is in flight: the child is told to end
    the server takes no more requests
    all requests are answered
    the answer: done
    the child was ended by SIGTERM
"""

import os
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import sigwright as signal

stop = signal.graceful_shutdown(grace=20)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        print("a request is in flight: the child is told to end", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        stop.wait()  # it takes until after the signal
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"done")

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close() waits for them


@stop
def serve():
    server = Server(("127.0.0.1", 0), Handler)
    stop.callback(print, "all requests are answered", flush=True)
    stop.callback(server.server_close)
    stop.callback(print, "the server takes no more requests", flush=True)
    stop.callback(server.shutdown)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    print(server.server_port, flush=True)
    stop.wait()


def look_at_it():
    command = [sys.executable, __file__, "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        print("the child serves")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=30) as response:
            answer = response.read().decode()
        print(child.stdout.read(), end="")
        print("the answer:", answer)
    print("the child was ended by", signal.Signals(-child.returncode).name)


if sys.argv[1:] == ["serve"]:
    serve()
else:
    look_at_it()
