"""A TCP relay in front of a target that writes what passes through to a pcap file, with TCP and IP
headers of its own: no raw socket and no privilege is needed, and nothing else is in the file."""

import socket
import struct
import threading
import time

LINKTYPE_RAW = 101  # packets begin with the IPv4 header
SYN, ACK, PSH, FIN = 0x02, 0x10, 0x08, 0x01
CLIENT, SERVER = 0, 1
SEGMENT = 32768  # an IPv4 packet has at most 65535 bytes
ADDRESSES = (bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)))


class _Flow:
    """One connection as the capture shows it."""

    def __init__(self, capture, client_port, server_port):
        self._capture = capture
        self._ports = (client_port, server_port)
        self._sequence = [1000, 5000]
        self._segment(CLIENT, SYN)
        self._segment(SERVER, SYN | ACK)
        self._segment(CLIENT, ACK)

    def data(self, side, data):
        for at in range(0, len(data), SEGMENT):
            self._segment(side, PSH | ACK, data[at:at + SEGMENT])

    def fin(self, side):
        self._segment(side, FIN | ACK)

    def _segment(self, side, flags, data=b""):
        other = 1 - side
        acknowledged = self._sequence[other] if flags & ACK else 0
        tcp = struct.pack(">HHIIBBHHH", self._ports[side], self._ports[other],
                          self._sequence[side], acknowledged, 5 << 4, flags, 65535, 0, 0)
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40 + len(data), 0, 0x4000, 64, 6, 0,
                         ADDRESSES[side], ADDRESSES[other])
        self._capture._packet(ip + tcp + data)
        self._sequence[side] += len(data) + (1 if flags & (SYN | FIN) else 0)


class Capture:
    """`with Capture(port, path) as tap:` relays tap.port to 127.0.0.1:port. In the file the target
    has the port 4420. `flush()` before the file is read."""

    SHOWN_PORT = 4420

    def __init__(self, port, path):
        self._target = port
        self._file = open(path, "wb")
        self._file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, LINKTYPE_RAW))
        self._lock = threading.Lock()
        self._links = []
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
        with self._lock:
            self._file.close()

    def flush(self):
        with self._lock:
            self._file.flush()

    def _packet(self, packet):
        """The caller has the lock."""
        now = time.time()
        self._file.write(struct.pack("<IIII", int(now), int(now % 1 * 1e6), len(packet),
                                     len(packet)) + packet)

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            far.settimeout(None)
            for link in (near, far):
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._links += [near, far]
            with self._lock:
                flow = _Flow(self, near.getpeername()[1], self.SHOWN_PORT)
            for side, source, sink in ((CLIENT, near, far), (SERVER, far, near)):
                threading.Thread(target=self._relay, daemon=True,
                                 args=(flow, side, source, sink)).start()

    def _relay(self, flow, side, source, sink):
        try:
            while True:
                data = source.recv(1 << 18)
                with self._lock:
                    if self._file.closed:
                        return
                    if not data:
                        flow.fin(side)
                        break
                    # Written down before it goes on, so that no answer comes before its question.
                    flow.data(side, data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            _shut(sink)
            _shut(source)


def _shut(link):
    try:
        link.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
