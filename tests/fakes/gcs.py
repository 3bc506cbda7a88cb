"""A Google Cloud Storage of this machine: enough of its JSON API for orbax, tensorstore and gcsfs.

It has a bucket named bucket, keeps objects in memory and can be told to fail.
"""

import base64
import contextlib
import email.parser
import hashlib
import http.server
import itertools
import json
import threading
import urllib.parse
from collections.abc import Iterator

_API, _UPLOAD, _DOWNLOAD = "/storage/v1/b/", "/upload/storage/v1/b/", "/download/storage/v1/b/"


class FakeStore:
    """Objects by "BUCKET/NAME".

    Attributes:
      objects: (generation, bytes) of each.
      refuse: called with the method and the object's name; True answers 403.
      address: http://127.0.0.1:PORT.
    """

    def __init__(self):
        self.objects: dict[str, tuple[int, bytes]] = {}
        self.refuse = lambda method, name: False
        self.address = ""
        self.lock = threading.Lock()
        self.uploads: dict[str, tuple[str, str, bytes]] = {}
        self._count = itertools.count(1)

    def names(self, prefix: str = "") -> list[str]:
        """In order."""
        with self.lock:
            return sorted(name for name in self.objects if name.startswith(prefix))

    def put(self, name: str, data: bytes) -> dict:
        """Replaces an object; what the service says of it."""
        with self.lock:
            self.objects[name] = next(self._count), data
        return self.resource(name)

    def resource(self, name: str) -> dict:
        """What the service says of an object."""
        generation, data = self.objects[name]
        bucket, _, key = name.partition("/")
        return {
            "kind": "storage#object", "bucket": bucket, "name": key, "id": f"{name}/{generation}",
            "generation": str(generation), "metageneration": "1", "size": str(len(data)),
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            "updated": "2026-01-01T00:00:00Z", "timeCreated": "2026-01-01T00:00:00Z",
            "contentType": "application/octet-stream", "storageClass": "STANDARD",
        }  # fmt: skip

    def settings(self) -> dict[str, str]:
        """The environment with which all three libraries talk to this store."""
        return {
            "STORAGE_EMULATOR_HOST": self.address,
            "TENSORSTORE_GCS_HTTP_URL": self.address,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            "GOOGLE_CLOUD_PROJECT": "test",
            "NO_GCE_CHECK": "true",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks the real service first
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for an answer
    store: FakeStore

    def log_message(self, *args):
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _answer(self, status: int, data: bytes | dict = b"", **headers: str) -> None:
        if isinstance(data, dict):
            data = json.dumps(data).encode()
            headers["Content_Type"] = "application/json"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, why: str) -> None:
        self._answer(status, {"error": {"code": status, "message": why}})

    def handle(self):
        with contextlib.suppress(ConnectionError):  # of a client that has heard enough
            super().handle()

    def _any(self) -> None:
        self.body = self._body()
        url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        if url.path.startswith("/batch/"):
            return self._batch()
        for prefix, act in ((_UPLOAD, self._upload), (_DOWNLOAD, self._object)):
            if url.path.startswith(prefix):
                return act(*self._parts(url.path.removeprefix(prefix)))
        return self._object(*self._parts(url.path.removeprefix(_API)))

    do_GET = do_POST = do_PUT = do_DELETE = _any

    def _parts(self, path: str) -> tuple[str, str]:
        bucket, _, rest = path.partition("/")
        return bucket, rest.removeprefix("o").removeprefix("/") if rest.startswith("o") else rest

    def _object(self, bucket: str, path: str) -> None:
        if bucket != "bucket":
            return self._error(404, "The specified bucket does not exist.")
        if not path:
            listed = urllib.parse.urlsplit(self.path).path.endswith("/o")
            return self._list(bucket) if listed else self._bucket(bucket)
        if path == "storageLayout":
            return self._bucket(bucket)
        source, moved, target = path.partition("/moveTo/o/")
        name = f"{bucket}/{urllib.parse.unquote(source)}"
        if self.store.refuse(self.command, name):
            return self._error(403, "refused by the test")
        if name not in self.store.objects:
            return self._error(404, f"No such object: {name}")
        if moved:
            with self.store.lock:
                data = self.store.objects.pop(name)[1]
            to = f"{bucket}/{urllib.parse.unquote(target)}"
            return self._answer(200, self.store.put(to, data))
        if self.command == "DELETE":
            with self.store.lock:
                self.store.objects.pop(name, None)
            return self._answer(204)
        if self.query.get("alt") == "media":
            return self._media(*self.store.objects[name])
        return self._answer(200, self.store.resource(name))

    def _bucket(self, bucket: str) -> None:
        self._answer(
            200,
            {"kind": "storage#bucket", "id": bucket, "name": bucket, "locationType": "region",
             "hierarchicalNamespace": {"enabled": False}},
        )  # fmt: skip

    def _media(self, generation: int, data: bytes) -> None:
        known = {"x_goog_generation": str(generation), "ETag": f'"{generation}"'}
        wanted = self.headers.get("Range", "")
        if not wanted.startswith("bytes="):
            return self._answer(200, data, **known)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        if first:
            start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
        else:
            start, end = max(len(data) - int(last), 0), len(data) - 1
        if start > end:
            return self._error(416, "the range is outside the object")
        known["Content_Range"] = f"bytes {start}-{end}/{len(data)}"
        return self._answer(206, data[start : end + 1], **known)

    def _list(self, bucket: str) -> None:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        found, folders = [], set()
        for name in self.store.names(f"{bucket}/{prefix}"):
            rest = name.removeprefix(f"{bucket}/{prefix}")
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                found.append(self.store.resource(name))
        answer = {"kind": "storage#objects", "items": found, "prefixes": sorted(folders)}
        self._answer(200, {key: value for key, value in answer.items() if value})

    def _upload(self, bucket: str, path: str) -> None:
        if "upload_id" in self.query:
            return self._chunk(self.query["upload_id"])
        kind, name, data = self.query["uploadType"], self.query.get("name", ""), self.body
        if kind == "multipart":
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            about, _ = email.parser.BytesParser().parsebytes(head + data).get_payload()
            name = json.loads(about.get_payload())["name"]
            edge = data.split(b"\r\n", 1)[0] if b"\r\n" in data else data.split(b"\n", 1)[0]
            data = data.split(edge)[2].replace(b"\r\n\r\n", b"\n\n", 1).split(b"\n\n", 1)[1]
            data = data.removesuffix(b"\n").removesuffix(b"\r")
        elif kind == "resumable":
            name = name or json.loads(self.body)["name"]
            upload = f"{len(self.store.uploads)}"
            self.store.uploads[upload] = (bucket, name, b"")
            where = f"{self.store.address}{_UPLOAD}{bucket}/o?upload_id={upload}"
            return self._answer(200, {}, Location=where)
        return self._store(f"{bucket}/{name}", data)

    def _chunk(self, upload: str) -> None:
        bucket, name, before = self.store.uploads[upload]
        data = before + self.body
        if self.headers.get("Content-Range", "").endswith("/*"):
            self.store.uploads[upload] = (bucket, name, data)
            return self._answer(308, Range=f"bytes=0-{len(data) - 1}")
        return self._store(f"{bucket}/{name}", data)

    def _store(self, name: str, data: bytes) -> None:
        if self.store.refuse(self.command, name):
            return self._error(403, "refused by the test")
        generation = self.store.objects.get(name, (0, b""))[0]
        if int(self.query.get("ifGenerationMatch", generation)) != generation:
            return self._error(412, f"{name} has generation {generation}")
        return self._answer(200, self.store.put(name, data))

    def _batch(self) -> None:
        """Deletes many: a multipart body whose parts are requests."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        answers = []
        for part in email.parser.BytesParser().parsebytes(head + self.body).get_payload():
            path = part.get_payload().split()[1]
            bucket, name = self._parts(urllib.parse.urlsplit(path).path.removeprefix(_API))
            with self.store.lock:
                gone = self.store.objects.pop(f"{bucket}/{urllib.parse.unquote(name)}", None)
            status = "404 Not Found" if gone is None else "204 No Content"
            answers.append(
                f"--edge\r\nContent-Type: application/http\r\nContent-ID: "
                f"{part.get('Content-ID', '')}\r\n\r\nHTTP/1.1 {status}\r\n\r\n\r\n"
            )
        body = ("".join(answers) + "--edge--").encode()
        self._answer(200, body, Content_Type="multipart/mixed; boundary=edge")


@contextlib.contextmanager
def serve() -> Iterator[FakeStore]:
    """Serves until the block ends."""
    store = FakeStore()
    handler = type("Handler", (_Handler,), {"store": store})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    store.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
