"""A server for tests of the client: it answers as it is told, and remembers what it was asked."""

import email
import email.policy
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Asked:
    """A request: method, path, headers, and the fields and files of its form, or its JSON."""

    def __init__(self, handler):
        self.method, self.path, self.headers = handler.command, handler.path, handler.headers
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        kind, self.files, self.fields, self.json = handler.headers.get("Content-Type", ""), [], [], None
        if kind.startswith("multipart/"):
            form = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body, policy=email.policy.HTTP)
            for part in form.iter_parts():
                content = part.get_payload(decode=True)
                self.files.append((part.get_filename(), content)) if part.get_filename() else self.fields.append(content.decode())
        elif body:
            self.json = json.loads(body)


@contextmanager
def serving(answer):
    """Yield the address of a server, and the list of what it was asked; `answer(asked)` returns (status, content, headers)."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            seen.append(asked := Asked(self))
            status, content, headers = answer(asked)
            text = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": len(text), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = handle_any

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
