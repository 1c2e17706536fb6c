"""The few bytes of NVMe/TCP that these tests speak themselves: a probe that tells whether a target
is there, and targets that misbehave. PDU layouts are those of NVMe/TCP 1.0 section 3.6.2."""

import socket
import struct
import threading

ICREQ, ICRESP, H2C_TERM, C2H_TERM = 0, 1, 2, 3
COMMAND, RESPONSE, H2C_DATA, C2H_DATA, R2T = 4, 5, 6, 7, 9
IC_LENGTH = 128
COMMON_HEADER = struct.Struct("<BBBBI")  # type, flags, HLEN, PDO, PLEN


def ic_pdu(kind, version=0):
    """An ICReq or ICResp without digests and alignment; an ICResp takes 128 KiB per H2CData."""
    tail = struct.pack("<HBBI", version, 0, 0, 0 if kind == ICREQ else 0x20000)
    return (COMMON_HEADER.pack(kind, 0, IC_LENGTH, 0, IC_LENGTH) + tail).ljust(IC_LENGTH, b"\0")


def receive_exactly(link, count):
    data = b""
    while len(data) < count:
        piece = link.recv(count - len(data))
        if not piece:
            raise ConnectionError("closed in the middle of a PDU")
        data += piece
    return data


def receive_pdu(link):
    """(type, whole PDU)."""
    head = receive_exactly(link, COMMON_HEADER.size)
    kind, _, _, _, length = COMMON_HEADER.unpack(head)
    return kind, head + receive_exactly(link, length - COMMON_HEADER.size)


def answers_icreq(address, port, limit=2.0):
    """Whether an NVMe/TCP target is behind the port."""
    try:
        with socket.create_connection((address, port), timeout=limit) as link:
            link.settimeout(limit)
            link.sendall(ic_pdu(ICREQ))
            kind, pdu = receive_pdu(link)
            return kind == ICRESP and len(pdu) == IC_LENGTH
    except OSError:
        return False


def response_pdu(command_pdu, result=0, status=0):
    """A CapsuleResp without error to the command in `command_pdu`."""
    (identifier,) = struct.unpack_from("<H", command_pdu, 10)
    entry = struct.pack("<QHHHH", result, 0, 0, identifier, status << 1)
    return COMMON_HEADER.pack(RESPONSE, 0, 24, 0, 24) + entry


class FakeTarget:
    """Listens on a free port of 127.0.0.1 and runs `behave(link)` for each connection, in a thread.
    `with FakeTarget(behave) as fake: fake.port`. Connections stay open until the end of the block
    unless `behave` closes them."""

    def __init__(self, behave):
        self._behave = behave
        self._links = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.accepted = 0

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        # shutdown wakes the thread that waits in accept; close alone would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._links:
            link.close()

    def _accept(self):
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._links.append(link)
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link):
        try:
            self._behave(link)
        except (OSError, ValueError, struct.error):
            pass  # the program under test hung up, which is its right


def silent(link):
    """Accepts and never says a word."""
    link.recv(1)


def closes_at_once(link):
    link.close()


def speaks_http(link):
    link.recv(IC_LENGTH)
    body = b"<html><body>400 Bad Request</body></html>"
    link.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nContent-Length: "
                 + str(len(body)).encode() + b"\r\nConnection: close\r\n\r\n" + body)
    link.close()


def greets_first(link):
    """As SSH, SMTP and FTP do, and keeps the connection open."""
    link.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n")
    link.recv(IC_LENGTH)


def stops_inside_icresp(link):
    receive_pdu(link)
    link.sendall(ic_pdu(ICRESP)[:60])


def wrong_version(link):
    receive_pdu(link)
    link.sendall(ic_pdu(ICRESP, version=7))


def stops_after_icresp(link):
    receive_pdu(link)
    link.sendall(ic_pdu(ICRESP))


def closes_after_icresp(link):
    receive_pdu(link)
    link.sendall(ic_pdu(ICRESP))
    receive_pdu(link)
    link.close()


def stops_after_connect(link):
    """Grants Connect (controller 1), then leaves the first Property Get without an answer."""
    receive_pdu(link)
    link.sendall(ic_pdu(ICRESP))
    _, command = receive_pdu(link)
    link.sendall(response_pdu(command, result=1))


def refuses_with_term_request(link):
    """C2HTermReq, fatal error status 1 (invalid PDU header field), as the answer to ICReq."""
    _, request = receive_pdu(link)
    head = COMMON_HEADER.pack(C2H_TERM, 0, 24, 0, 24 + 24)
    link.sendall(head + struct.pack("<HI", 1, 8).ljust(16, b"\0") + request[:24])
    link.close()
