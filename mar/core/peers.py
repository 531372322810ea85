"""Notice that another process of a run has died: gloo and NCCL wait for it until their own timeout, up to hours.

A file of its own, since it knows sockets and no torch. Process 0 listens and every other process holds a connection to
it. The system closes the connection of a dead process at once; that of a dead machine is silent for 20 seconds. A
process that ends in order says so first.
"""

from __future__ import annotations

import os
import secrets
import selectors
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mar.core.log import logger

_GRACE = 3.0  # seconds in which a process may end by itself, with the error of its own
_CONNECT = 25.0  # seconds to find each other
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2}  # seconds, seconds, times
_BYE, _TOLD = b"b", b"t"  # it is done; it ends with an error, and has said so


def _listener(alone: bool, backlog: int) -> socket.socket:
    """Return a socket that listens on a free port, of this machine ``alone`` or of all its addresses."""
    if not alone and socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
    return socket.create_server(("127.0.0.1" if alone else "", 0), backlog=backlog)


class Peers:
    """The connections of one process. A death ends this process with one line and exit code 1.

    Args:
        share: returns process 0's value on every process.
    """

    def __init__(self, rank: int, world: int, share: Callable[[Any], Any]) -> None:
        self.rank, self.dead, self.left = rank, threading.Event(), threading.Event()
        self.line = ""
        self.connections: dict[socket.socket, int] = {}
        alone = os.environ.get("LOCAL_WORLD_SIZE") == str(world)  # one machine: nothing is open to others
        listener = _listener(alone, world) if rank == 0 else None
        port, key = share((listener.getsockname()[1], secrets.token_bytes(16)) if listener is not None else None)
        if listener is not None:
            with listener:
                self._accept(listener, key, world)
        else:
            host = "127.0.0.1" if alone else os.environ["MASTER_ADDR"]
            connection = socket.create_connection((host, port), timeout=_CONNECT)
            connection.sendall(key + rank.to_bytes(4, "little"))
            self.connections = {connection: 0}
        for connection in self.connections:
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                if hasattr(socket, name):  # not on every system
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        threading.Thread(target=self._watch, daemon=True).start()

    def leave(self, in_order: bool) -> None:
        """Stop watching. Tell the others that this process is done, or that it ends with an error of its own."""
        self.left.set()
        for connection in self.connections:
            with suppress(OSError):  # it is gone
                connection.sendall(_BYE if in_order else _TOLD)

    def say(self) -> None:
        """Print the line about the dead process, once."""
        line, self.line = self.line, ""
        if line:
            logger.error(line)

    def _accept(self, listener: socket.socket, key: bytes, world: int) -> None:
        listener.settimeout(_CONNECT)
        while len(self.connections) < world - 1:
            connection, _ = listener.accept()
            connection.settimeout(_CONNECT)
            said = connection.recv(len(key) + 4, socket.MSG_WAITALL)
            if said[: len(key)] == key:  # others may knock at an open port
                self.connections[connection] = int.from_bytes(said[len(key) :], "little")
            else:
                connection.close()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as watched:
            for connection in self.connections:
                watched.register(connection, selectors.EVENT_READ)
            while watched.get_map():
                for found, _ in watched.select():
                    connection: Any = found.fileobj
                    try:
                        said = connection.recv(1)
                    except OSError:
                        said = b""
                    watched.unregister(connection)
                    if said != _BYE and not self.left.is_set():
                        self._end(self.connections[connection], told=said == _TOLD)

    def _end(self, rank: int, told: bool) -> None:
        if not told and self.rank <= 1:  # one process speaks: the first, or after its death the second
            self.line = f"mar: process {rank} has died, so all end: run the same command again to resume"
        self.dead.set()
        if not self.left.wait(_GRACE):  # it waits for the dead one
            self.leave(in_order=False)
            self.say()
            sys.stdout.flush()
            os._exit(1)
