"""A stand-in for Hugging Face's hub, on this machine."""

import base64
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextlib.contextmanager
def hub(folder: Path):
    """The address of a hub that puts all that is sent to it into a folder."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            size = int(self.headers.get('Content-Length') or 0)
            sent = self.rfile.read(size) if size else self._chunks()
            reply = self._answer(sent.decode())
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header('Content-Type', 'application/json')
            self.send_header('Content-Length', str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _chunks(self):
            data = b''
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            return data

        def _answer(self, sent):
            address = 'http://{}:{}/me/digits'.format(*self.server.server_address)
            if '/preupload/' in self.path:
                files = json.loads(sent)['files']
                modes = [dict(path=f['path'], uploadMode='regular', shouldIgnore=False) for f in files]
                return dict(files=modes)
            if '/commit/' in self.path:
                for line in map(json.loads, sent.splitlines()):
                    if line['key'] == 'file':
                        content = base64.b64decode(line['value']['content'])
                        (folder / line['value']['path']).write_bytes(content)
                return dict(commitUrl=f'{address}/commit/0', commitOid='0' * 40)
            return dict(url=address)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    thread.join()
    server.server_close()
