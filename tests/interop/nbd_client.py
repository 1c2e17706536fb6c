"""An NBD client of a few lines, for what finished clients do not let a test say: which request is
under way when, what exactly was answered to it, and at what moment. Simple replies."""

import collections
import contextlib
import select
import socket
import struct
import time

import cases

OPTION, REQUEST, SIMPLE = 0x49484156454F5054, 0x25609513, 0x67446698
READ, WRITE, DISCONNECT, FLUSH, TRIM, ZEROES = 0, 1, 2, 3, 4, 6
GO_OPTION, ACKNOWLEDGE = 7, 1
PATIENCE = 60

Reply = collections.namedtuple("Reply", "cookie error data at")  # `at`: time.monotonic()


def socket_of(uri):
    """The path in a URI such as nbd+unix:///nvmf0n1?socket=/run/nvmf/nvmf0.nbd.sock"""
    return uri.partition("?socket=")[2]


def name_of(uri):
    return uri.partition("?")[0].rpartition("/")[2]


def go_option(name=b""):
    """What a client sends after the greeting: its flags, and the wish to use that export."""
    return (struct.pack(">IQIII", 3, OPTION, GO_OPTION, 6 + len(name), len(name))
            + name + b"\0\0")


class Client:
    """One connection. ask_…() returns a cookie at once; take() gives the next reply, of whichever
    request; the others do both."""

    def __init__(self, path, name=""):
        self._name = name.encode()
        self._reading = {}  # cookie to length
        self._next = 1
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(path)  # it waits, without a timeout, where many wait to be accepted
        except OSError:
            self.socket.close()
            raise
        self.socket.settimeout(PATIENCE)

    @classmethod
    def of(cls, uri):
        """A client of an export's URI, ready for requests."""
        return cls(socket_of(uri), name_of(uri)).go()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def receive(self, size):
        data = bytearray(size)
        view, got = memoryview(data), 0
        while got < size:
            count = self.socket.recv_into(view[got:])
            cases.check(count > 0, f"the server closed after {got} of {size} bytes")
            got += count
        return bytes(data)

    def go(self):
        magic, option, flags = struct.unpack(">QQH", self.receive(18))
        cases.check(option == OPTION and flags == 3, "this is not the greeting of an NBD server")
        self.socket.sendall(go_option(self._name))
        while True:
            _, _, kind, length = struct.unpack(">QIII", self.receive(20))
            self.receive(length)
            cases.check(kind < 1 << 31, f"GO was refused with {kind:#x}")
            if kind == ACKNOWLEDGE:
                return self

    def ask(self, command, cookie, offset=0, length=0, payload=b""):
        if command == READ:
            self._reading[cookie] = length
        self.socket.sendall(struct.pack(">IHHQQI", REQUEST, 0, command, cookie, offset, length)
                            + payload)

    def _new(self):
        self._next += 1
        return self._next

    def ask_read(self, offset, length):
        cookie = self._new()
        self.ask(READ, cookie, offset, length)
        return cookie

    def ask_write(self, offset, data):
        cookie = self._new()
        self.ask(WRITE, cookie, offset, len(data), data)
        return cookie

    def take(self, limit=PATIENCE):
        """The next reply, or None if there is none within the limit."""
        readable, _, _ = select.select([self.socket], [], [], limit)
        if not readable:
            return None
        magic, error, cookie = struct.unpack(">IIQ", self.receive(16))
        cases.check(magic == SIMPLE, f"{magic:#x} is not the beginning of a simple reply")
        length = self._reading.pop(cookie, 0)
        data = self.receive(length) if not error else b""
        return Reply(cookie, error, data, time.monotonic())

    def take_reply_to(self, cookie, limit=PATIENCE):
        """The reply to this request, whatever is answered before it."""
        deadline = time.monotonic() + limit
        while True:
            reply = self.take(max(0, deadline - time.monotonic()))
            cases.check(reply is not None, f"request {cookie} was not answered within {limit} s")
            if reply.cookie == cookie:
                return reply

    def answer_to(self, cookie, limit=PATIENCE):
        """The reply to this request, which must be the next one."""
        reply = self.take(limit)
        cases.check(reply is not None, f"no reply within {limit} s")
        cases.check(reply.cookie == cookie, f"request {cookie} was asked, {reply.cookie} answered")
        return reply

    def answer(self, cookie):
        reply = self.answer_to(cookie)
        cases.check(reply.error == 0, f"request {cookie} was answered with error {reply.error}")
        return reply.data

    def write(self, offset, data):
        self.answer(self.ask_write(offset, data))

    def read(self, offset, length):
        return self.answer(self.ask_read(offset, length))

    def flush(self):
        cookie = self._new()
        self.ask(FLUSH, cookie)
        self.answer(cookie)

    def is_cut_off(self, limit):
        """Whether the server closes, after whatever it still says, within the limit."""
        deadline = time.monotonic() + limit
        with contextlib.suppress(ConnectionError, cases.Failed):
            while True:
                left = deadline - time.monotonic()
                if left <= 0 or self.take(left) is None:
                    return False
        return True
