"""A server of the stdlib's, http.server, with a thread for each request, that ends in order."""

import select
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import sigwright as signal

stop = signal.graceful_shutdown(grace=float(sys.argv[1]))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, gate = self.path.partition("?")
        if path == "/slow":
            print("slow: begun", flush=True)
            with open(gate):  # a FIFO: in this call until somebody opens it to write
                pass
        body = b"slow: done" if path == "/slow" else b"quick: done"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close() waits for them
    request_queue_size = 128
    timeout = 0

    def take_the_rest(self):
        """The connections that the kernel has accepted, and nobody has had yet."""
        while select.select([self], [], [], 0)[0]:
            self.handle_request()


@stop
def main():
    server = Server(("127.0.0.1", 0), Handler)
    stop.callback(print, "callback: all requests are answered", flush=True)
    stop.callback(server.server_close)
    stop.callback(server.take_the_rest)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    stop.callback(server.shutdown)
    print("Listening at: http://{}:{}".format(*server.server_address), flush=True)
    stop.wait()
    print("stopping", flush=True)


main()
