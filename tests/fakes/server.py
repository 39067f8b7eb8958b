"""A local HTTP server that counts what it is asked for, and can break off in the middle of a file."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LocalServer:
    """Serves `files` (path without slash to bytes) on 127.0.0.1.

    Parameters
    ----------
    files : dict of str to bytes
        May be changed while the server runs.
    """

    def __init__(self, files):
        self.files = files
        self.requests = Counter()
        self.breaks_off = set()  # paths of which only the first half is sent, though the whole was announced

    def url(self, path):
        return f"http://127.0.0.1:{self._http.server_address[1]}/{path}"

    @contextlib.contextmanager
    def running(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.lstrip("/")
                outer.requests[path] += 1
                if path not in outer.files:
                    self.send_error(404)
                    return
                content = outer.files[path]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if path in outer.breaks_off else content)

            def log_message(self, *args):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as self._http:
            thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield self
            finally:
                self._http.shutdown()
                thread.join()
