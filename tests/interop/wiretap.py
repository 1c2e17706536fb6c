"""A TCP relay in front of a target that counts the PDUs passing through. It shows that a test took
the way over the wire that it claims: which queues, digests or none, data in capsules or by R2T."""

import socket
import struct
import threading

import wire

FABRICS_OPCODE, FABRICS_CONNECT, WRITE_OPCODE = 0x7F, 0x01, 0x01
HEADER_DIGEST, DATA_DIGEST = 1, 2


class Counts:
    """Totals over all connections since the relay began."""

    def __init__(self):
        self.connections = 0
        self.queues = {}  # queue number to SQSIZE of its latest Connect
        self.commands = {}  # queue number to commands other than Connect
        self.writes_in_capsule = 0
        self.writes_by_r2t = 0  # Write commands with no data in their capsule
        self.longest_in_capsule = 0  # bytes, of a Write
        self.r2t = 0
        self.h2c_data = 0
        self.c2h_data = 0
        self.header_digests = 0  # PDUs with one, either direction
        self.data_digests = 0
        self.without_header_digest = 0  # PDUs after ICReq/ICResp


class _Direction:
    """Splits one direction of one connection into PDUs, without keeping their data."""

    # Common header, then the submission entry as far as Connect's queue number and size.
    KEPT = 8 + 64

    def __init__(self, tap, state):
        self._tap = tap
        self._state = state
        self._head = b""
        self._left = 0

    def take(self, data):
        at = 0
        while at < len(data):
            if self._left and len(self._head) >= self._wanted:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                if not self._left:
                    self._head = b""
                continue
            if len(self._head) < wire.COMMON_HEADER.size:
                step = min(wire.COMMON_HEADER.size - len(self._head), len(data) - at)
            else:
                step = min(self._wanted - len(self._head), len(data) - at)
            self._head += data[at:at + step]
            at += step
            if len(self._head) == wire.COMMON_HEADER.size:
                self._length = wire.COMMON_HEADER.unpack(self._head)[4]
                if self._length < wire.COMMON_HEADER.size:
                    raise ValueError("PLEN shorter than a header")
                self._wanted = min(self.KEPT, self._length)
                self._left = self._length - self._wanted
            if len(self._head) > 7 and len(self._head) == self._wanted:
                self._tap._count(self._state, self._head, self._length)
                if not self._left:
                    self._head = b""


class Wiretap:
    """`with Wiretap(port) as tap:` relays tap.port to 127.0.0.1:port; tap.counts."""

    def __init__(self, port):
        self._target = port
        self._lock = threading.Lock()
        self._links = []
        self.counts = Counts()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._links:
            _shut(link)

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for link in (near, far):
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._links += [near, far]
            with self._lock:
                self.counts.connections += 1
            state = {"queue": None}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._relay, daemon=True,
                                 args=(source, sink, _Direction(self, state))).start()

    def _relay(self, source, sink, direction):
        try:
            while True:
                data = source.recv(1 << 18)
                if not data:
                    break
                direction.take(data)
                sink.sendall(data)
        except (OSError, ValueError):
            pass
        _shut(sink)
        _shut(source)

    def _count(self, state, head, length):
        kind, flags, header_length, data_offset, _ = wire.COMMON_HEADER.unpack_from(head)
        if kind in (wire.ICREQ, wire.ICRESP):
            return
        counts = self.counts
        with self._lock:
            if flags & HEADER_DIGEST:
                counts.header_digests += 1
            else:
                counts.without_header_digest += 1
            if flags & DATA_DIGEST:
                counts.data_digests += 1
            if kind == wire.R2T:
                counts.r2t += 1
            elif kind == wire.H2C_DATA:
                counts.h2c_data += 1
            elif kind == wire.C2H_DATA:
                counts.c2h_data += 1
            elif kind == wire.COMMAND:
                trailer = 4 if flags & DATA_DIGEST else 0
                data = length - data_offset - trailer if data_offset else 0
                self._count_command(state, head, data)

    def _count_command(self, state, head, data):
        counts = self.counts
        opcode, function = head[8], head[8 + 4]
        if opcode == FABRICS_OPCODE and function == FABRICS_CONNECT:
            queue, size = struct.unpack_from("<HH", head, 8 + 42)
            state["queue"] = queue
            counts.queues[queue] = size
            return
        queue = state["queue"]
        counts.commands[queue] = counts.commands.get(queue, 0) + 1
        if queue and opcode == WRITE_OPCODE:
            if data > 0:
                counts.writes_in_capsule += 1
                counts.longest_in_capsule = max(counts.longest_in_capsule, data)
            else:
                counts.writes_by_r2t += 1


def _shut(link):
    try:
        link.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
