"""An S3-compatible server on the loopback address, for tests: moto's, which keeps objects in this process."""

from __future__ import annotations

import hashlib

import pytest

SECRET = "a-secret-of-forty-characters-0123456789x"
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "OUR-KEY-ID-0123456789",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",
}


class S3:
    """The server, which can go away and come back with its objects, and `clients` that look at them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import s3fs

        for name, value in _ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
        self._port = 0
        self.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{self._port}")

    def start(self) -> None:
        """Listens, after `stop` where it did before."""
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]
        self.running = True

    def stop(self) -> None:
        """Refuses connections from now on."""
        if self.running:
            self._server.stop()
            self._server._server.server_close()
        self.running = False

    def bucket(self, name: str) -> str:
        """The name of a new bucket; `name` is of the test."""
        made = f"b{hashlib.sha256(name.encode()).hexdigest()[:20]}"
        self.client().create_bucket(Bucket=made)
        return made

    def client(self):
        """A plain client of the server, which knows nothing of this project."""
        import boto3

        return boto3.client("s3")

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Everything in a bucket."""
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
