#!/usr/bin/env python3
"""Namespaces out of what NBD servers of others serve: nbdkit and qemu-nbd behind nvmf-target, read
and written through nvmf-connect. Data, zeroes and flushes go through as they are; block sizes,
read-only exports, errors and several connections; servers that are gone, killed, restarted, or hang."""

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import cases
import nbd_client
import programs
import trouble
from nbd_servers import NbdServer, nbdkit

LIMIT = 560
NQN = "nqn.2024-05.org.example:doors"
MEBIBYTES = 64
PATIENCE = 40  # for what takes a moment
COPY = ("--connections=2", "--requests=32")


class Doors:
    def __init__(self, workspace):
        self.workspace = workspace
        self.data = programs.random_file(workspace.path("random"), MEBIBYTES << 20)

    def run(self, *argv, limit=60):
        return self.workspace.run(*argv, limit=limit)

    @contextlib.contextmanager
    def served(self, server, options="", *connect_options):
        """The server's export as a namespace, and a connection to it; all must end in order."""
        space = f"nbd:{server if isinstance(server, str) else server.uri}{options}"
        with programs.Target(self.workspace, {NQN: ["--namespace", space]}) as target:
            with programs.Connection(self.workspace, target.uris[NQN], "--name", "door", "-i", "2",
                                     "-c", "1", "-l", "300", *connect_options) as connection:
                yield target, connection

    def refused(self, space):
        """What nvmf-target says where it cannot serve that."""
        told = self.run("nvmf-target", "--listen", "127.0.0.1:0", "--subsystem", NQN,
                        "--namespace", space, limit=20)
        cases.check(told.status == 1, f"`{told.command}` exited {told.status}: {told.err}")
        cases.check(told.err.count("\n") == 1, f"no sentence of its own: {told.err}")
        return told.err

    def io(self, uri, *commands, options=()):
        """qemu-io; what it printed."""
        words = [word for command in commands for word in ("-c", command)]
        told = self.run("qemu-io", "-f", "raw", *options, *words, uri)
        return told.out + told.err


def both_doors(doors):
    """What is written through NVMe is read from the NBD server, and the other way round."""
    with nbdkit(doors.workspace, "memory", "memory", f"{MEBIBYTES}M") as server:
        with doors.served(server) as (_, connection):
            back = doors.workspace.path("back")
            for one, other in ((connection.export(1), server.uri), (server.uri, connection.export(1))):
                doors.run("nbdcopy", *COPY, doors.data, one).must_succeed()
                doors.run("nbdcopy", *COPY, other, back).must_succeed()
                cases.check(programs.same_bytes(doors.data, back), f"other data through {other}.")
                os.unlink(back)
                doors.io(server.uri, f"write -z 0 {MEBIBYTES}M")


def by_tcp_and_name(doors):
    """A name is looked up; an export has a name with odd characters."""
    port = trouble.lasting_address("127.0.0.1")[1]
    with NbdServer(doors.workspace, "tcp", "nbdkit", "-f", "-p", str(port), "-i", "localhost",
                   "--run", "touch SOCKET; sleep 60", "eval", "get_size=echo 1M",
                   'pread=dd if=/dev/zero bs=$3 count=1 status=none | tr "\\\\0" x',
                   'open=test "$3" = "a b,block=512" || { echo "ENOENT no $3" >&2; exit 1; }'):
        with doors.served(f"nbd://localhost:{port}/a%20b%2Cblock=512") as (_, connection):
            told = doors.io(connection.export(1), "read -P 0x78 0 1M", options=("-r",))
            cases.check("verification failed" not in told and "read 1048576" in told, told)
        told = doors.refused(f"nbd:nbd://localhost:{port}/other")
        cases.check("cannot be used" in told and "export" in told, told)


def tls(doors):
    """nbds, with a key: TLS is required, and a wrong key is refused."""
    keys = doors.workspace.path("keys.psk")
    with open(keys, "w") as text:
        text.write("alice:" + "5a" * 32 + "\n")
    wrong = doors.workspace.path("wrong.psk")
    with open(wrong, "w") as text:
        text.write("alice:" + "a5" * 32 + "\n")
    with nbdkit(doors.workspace, "tls", "--tls=require", f"--tls-psk={keys}", "memory",
                "16M") as server:
        uri = f"nbds+unix://alice@/?socket={server.socket}&tls-psk-file="
        with doors.served(uri + keys) as (_, connection):
            doors.io(connection.export(1), "write -P 7 1M 64k")
            told = doors.io(connection.export(1), "read -P 7 1M 64k")
            cases.check("verification failed" not in told and "read 65536" in told, told)
        cases.check("cannot be used" in doors.refused("nbd:" + uri + wrong), "a wrong key was good.")


def zeroes_trim_and_fua(doors):
    """Write Zeroes, Deallocate, Flush and FUA arrive as what they are."""
    log = doors.workspace.path("requests.log")
    with nbdkit(doors.workspace, "logged", "--filter=log", "memory", "16M",
                f"logfile={log}") as server:
        with doors.served(server) as (_, connection):
            uri = connection.export(1)
            doors.io(uri, "write -P 1 0 4M", "write -z 0 64k", "write -z -u 1M 64k",
                     "discard 2M 64k", "write -f -P 2 3M 4k", "flush")
            told = doors.io(server.uri, "read -P 0 0 64k", "read -P 1 64k 64k", "read -P 0 1M 64k",
                            "read -P 2 3M 4k")
            cases.check("verification failed" not in told, told)
    with open(log) as text:
        requests = text.read()
    for what in (r" Zero .*offset=0x0 .*trim=0", r" Zero .*offset=0x100000 .*trim=1",
                 r" Zero .*offset=0x200000 .*trim=1.*fast=1",
                 r" Write .*offset=0x300000 .*fua=1", r" Flush "):
        cases.check(re.search(what, requests), f"{what} is not among\n{requests[-3000:]}")


def without_abilities(doors):
    """A server without zeroes: they are written, and hints not taken. Without FUA: a flush after."""
    log = doors.workspace.path("plain.log")
    with nbdkit(doors.workspace, "plain", "--filter=nozero", "--filter=fua", "--filter=log",
                "memory", "16M", f"logfile={log}", "zeromode=none") as server:
        with doors.served(server) as (_, connection):
            uri = connection.export(1)
            doors.io(uri, "write -P 1 0 4M", "write -z 1M 1M", "discard 2M 1M", "write -f -P 2 3M 4k")
            told = doors.io(uri, "read -P 1 0 1M", "read -P 0 1M 1M", "read -P 1 2M 1M",
                            "read -P 2 3M 4k")
            cases.check("verification failed" not in told, told)
    with open(log) as text:
        requests = text.read()
    cases.check(re.search(r"Write .*offset=0x300000 .*fua=0.*\n.*return=0\n.* Flush ", requests)
                and "fua=1" not in requests, requests[-3000:])


def read_only(doors):
    """A server that only reads makes a namespace that is write-protected."""
    with nbdkit(doors.workspace, "pattern", "-r", "pattern", "16M") as server:
        with doors.served(server) as (_, connection):
            told = doors.run("nbdinfo", connection.export(1)).must_succeed().out
            cases.check("is_read_only: true" in told, told)
            back, direct = doors.workspace.path("back"), doors.workspace.path("direct")
            doors.run("nbdcopy", *COPY, connection.export(1), back).must_succeed()
            doors.run("nbdcopy", *COPY, server.uri, direct).must_succeed()
            cases.check(programs.same_bytes(direct, back), "other data through NVMe.")
            offset = 0x123000
            with open(back, "rb") as data:
                data.seek(offset)
                cases.check(int.from_bytes(data.read(8), "big") == offset, "that is no pattern.")


def block_sizes(doors):
    """The server's smallest and largest request decide, or are told."""
    policy = ("--filter=blocksize-policy", "memory", "16M", "blocksize-error-policy=error")
    with nbdkit(doors.workspace, "large", *policy, "blocksize-minimum=4096",
                "blocksize-preferred=4096", "blocksize-maximum=65536") as server:
        with doors.served(server) as (target, connection):
            told = doors.run("nvmf", "id-ns", target.uris[NQN] + "/1", "-q", programs.HOST_NQN, "-I",
                             programs.HOST_ID, "-o", "json").must_succeed().out
            cases.check('"ds":12' in told.replace(" ", "") and '"ds":9' not in told.replace(" ", ""),
                        told)
            doors.io(connection.export(1), "write -P 5 0 1M", "write -P 6 1M 4k")
            told = doors.io(connection.export(1), "read -P 5 0 1M", "read -P 6 1M 4k")
            cases.check("verification failed" not in told and "read 1048576" in told, told)
        cases.check("4096 bytes at a time" in doors.refused(f"nbd:{server.uri},block=512"),
                    "a block that is too small was taken.")
    with nbdkit(doors.workspace, "huge", *policy, "blocksize-minimum=8192",
                "blocksize-preferred=8192") as server:
        cases.check("8192 bytes at a time" in doors.refused(f"nbd:{server.uri}"), "8192 was taken.")
    with nbdkit(doors.workspace, "odd", "memory", "1000001") as server:
        cases.check("no multiple of the block size" in doors.refused(f"nbd:{server.uri}"),
                    "an odd size was taken.")


def gone_at_start(doors):
    """No server: a sentence and status 1, also from ns-add; then with one, ns-add is good."""
    path = doors.workspace.path("nobody.sock")
    sentence = doors.refused(f"nbd:nbd+unix:///?socket={path}")
    cases.check("cannot be used" in sentence and path in sentence, sentence)
    cases.check("Connection refused" in (told := doors.refused("nbd:nbd://127.0.0.1:1/"))
                or "could not connect" in told, told)
    control = doors.workspace.path("target.sock")
    with programs.Target(doors.workspace, {NQN: ["--namespace", "memory:1M"]},
                         ("--control", control)):
        def add():
            return doors.run("nvmf-target", "ctl", control, "ns-add",
                             f"nbd:nbd+unix:///?socket={path}", "--subsystem", NQN)
        told = add()
        cases.check(told.status == 1 and "cannot be used" in told.err, told.err)
        with nbdkit(doors.workspace, "nobody", "memory", "1M"):
            cases.check(add().must_succeed().out.strip() == "2", "ns-add gave another NSID.")


def errors(doors):
    """The server's errors become NVMe's, and those the host's."""
    with nbdkit(doors.workspace, "errors", "--filter=error", "memory", "16M", "error-pwrite=ENOSPC",
                "error-pread=EIO", "error-pwrite-rate=100%", "error-pread-rate=100%",
                "error-file=" + doors.workspace.path("fail")) as server:
        with doors.served(server) as (_, connection):
            with open(doors.workspace.path("fail"), "w"):
                pass
            told = doors.io(connection.export(1), "write 0 4k", "read 0 4k")
            cases.check("No space left" in told and "Input/output error" in told, told)
            os.unlink(doors.workspace.path("fail"))
            told = doors.io(connection.export(1), "write -P 3 0 4k", "read -P 3 0 4k")
            cases.check("error" not in told.lower() and "verification" not in told, told)


def connections(doors):
    """Several where the server allows it, one where it does not."""
    for more, wanted in (((), 4), (("--filter=multi-conn", "multi-conn-mode=disable"), 1)):
        filters = [word for word in more if word.startswith("--")]
        settings = [word for word in more if not word.startswith("--")]
        with nbdkit(doors.workspace, f"count{wanted}", "-v", *filters, "memory", "16M",
                    *settings) as server:
            with doors.served(server) as (_, connection):
                doors.io(connection.export(1), "write 0 4M")

                def count():
                    return server.said().count("accepted connection") - 1  # one was listens()
                cases.wait_until(lambda: count() >= wanted, PATIENCE, f"connection {wanted}")
                time.sleep(0.3)
                cases.check(count() == wanted, f"{count()} connections instead of {wanted}.")


def qcow2(doors):
    """A qcow2 image behind qemu-nbd: filled through NVMe, compared by qemu-img; stopped and started
    while fio verifies."""
    image = doors.workspace.path("disk.qcow2")
    doors.run("qemu-img", "create", "-q", "-f", "qcow2", image, f"{MEBIBYTES}M").must_succeed()
    with NbdServer(doors.workspace, "qemu", "qemu-nbd", "-f", "qcow2", "-t", "-e", "8",
                   "--discard=unmap", "-k", "SOCKET", image) as server:
        with doors.served(server) as (_, connection):
            doors.run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", doors.data,
                      connection.export(1)).must_succeed()
            doors.run("qemu-img", "compare", "-f", "raw", "-F", "raw", doors.data,
                      connection.export(1)).must_succeed()
            restarted_under(doors, server, connection, signal.SIGTERM, 5)
            doors.io(connection.export(1), "flush")
        server.end(signal.SIGTERM)
        doors.run("qemu-img", "check", "-q", image).must_succeed()


def restarted_under(doors, server, connection, number, seconds):
    """Twice at least: where starting a server takes long, fio has to run again for that."""
    times = 0
    while times < 2:
        with trouble.FioMeanwhile(doors.workspace, connection.export(1), seconds) as fio:
            while fio.runs_for(1.2):
                server.end(number)
                time.sleep((0, 0.5, 1)[times % 3])
                server.start()
                times += 1


def killed(doors):
    """nbdkit over a file, killed with -9 and started again while fio verifies: no error at all."""
    path = doors.workspace.path("disk.img")
    with open(path, "wb") as disk:
        disk.truncate(MEBIBYTES << 20)
    with nbdkit(doors.workspace, "file", "file", path) as server:
        with doors.served(server) as (target, connection):
            restarted_under(doors, server, connection, signal.SIGKILL, 6)
            cases.check("was lost" in target.errors() and "is back after" in target.errors(),
                        target.errors())


def hangs(doors):
    """A server that answers nothing for longer than the timeout is asked again on a new connection,
    and writes wait until the first of them cannot be executed any more."""
    # With several threads nbdkit 1.32 may abort when its connection is reset under their replies
    # (raw_send_socket: Assertion `sock >= 0' failed).
    with nbdkit(doors.workspace, "hung", "--threads=1", "memory", f"{MEBIBYTES}M") as server:
        # Longer than a busy machine makes a server wait that does not hang.
        with doors.served(server, ",timeout=4") as (target, connection):
            with trouble.FioMeanwhile(doors.workspace, connection.export(1), 8) as fio:
                cases.check(fio.runs_for(1.5), "fio ended early.")
                programs.suspend(server.process.pid)
                try:
                    cases.wait_until(lambda: "unanswered for 4 s" in target.errors(), PATIENCE,
                                     "the target's losing its patience")
                finally:
                    server.process.send_signal(signal.SIGCONT)


def hung_at_the_end(doors):
    """SIGTERM ends the target in bounded time though its server hangs, and it says that."""
    with nbdkit(doors.workspace, "stuck", "memory", "16M") as server:
        target = programs.Target(doors.workspace, {NQN: ["--namespace", f"nbd:{server.uri}"]})
        try:
            with programs.Connection(doors.workspace, target.uris[NQN]) as connection, \
                    nbd_client.Client.of(connection.export(1)) as client:
                client.read(0, 512)
                programs.suspend(server.process.pid)
                client.ask_read(0, 512)
                cases.check(client.take(1) is None, "a server that hangs has answered.")
                target.process.terminate()
                cases.check(target.wait(20) == 1, "it ended as if nothing were wrong.")
                cases.check("did not end within" in target.errors(), target.errors())
        finally:
            target.kill()


def not_ready(doors):
    """Gone for longer than it is waited for: Namespace Not Ready, which may be tried again; then it
    is back, and so is the namespace. A larger export does no harm, a smaller one is not used."""
    with nbdkit(doors.workspace, "away", "memory", "16M") as server:
        with programs.Target(doors.workspace, {NQN: ["--namespace", f"nbd:{server.uri}"]}) as target:
            def read():
                return doors.run("nvmf", "read", target.uris[NQN] + "/1", "-q", programs.HOST_NQN,
                                 "-I", programs.HOST_ID, "-s", "0", "-c", "0", "-z", "512", limit=80)
            read().must_succeed()
            server.end(signal.SIGKILL)
            told = read()
            cases.check(told.status != 0 and "not ready" in told.err.lower(), told.err)
            cases.check(18 < told.seconds < 60, f"it took {told.seconds:.1f} s.")
            told = read()
            cases.check(told.status != 0 and told.seconds < 15, f"again: {told.seconds:.1f} s.")
            server.argv[-1] = "8M"
            server.start()
            cases.wait_until(lambda: "has 8388608 bytes where it had 16777216" in target.errors(), PATIENCE,
                             "the smaller export being told")
            cases.check(read().status != 0, "a smaller export was used.")
            server.end(signal.SIGKILL)
            server.argv[-1] = "32M"
            server.start()
            cases.wait_until(lambda: "is back after" in target.errors(), PATIENCE, "its return")
            read().must_succeed()


def unflushed(doors):
    """unflushed=fail: after a loss with writes that no flush followed, one flush fails."""
    path = doors.workspace.path("unflushed.img")
    with open(path, "wb") as disk:
        disk.truncate(16 << 20)
    with nbdkit(doors.workspace, "unflushed", "file", path) as server:
        for policy, fails in (("fail", True), ("trust", False)):
            with doors.served(server, f",unflushed={policy}") as (target, connection):
                with nbd_client.Client.of(connection.export(1)) as client:
                    client.write(0, b"1" * 4096)
                    server.end(signal.SIGKILL)
                    cases.wait_until(lambda: "was lost" in target.errors(), PATIENCE, "the loss")
                    server.start()
                    cases.wait_until(lambda: "is back" in target.errors(), PATIENCE,
                                     "its return")
                    cases.check("may be lost with it" in target.errors(), target.errors())
                    client.ask(nbd_client.FLUSH, 77)
                    error = client.answer_to(77).error
                    cases.check((error != 0) == fails, f"{policy}: the first flush said {error}.")
                    client.flush()


SHORT = [
    ("one storage, two doors", both_doors),
    ("by TCP and by name", by_tcp_and_name),
    ("TLS with a key", tls),
    ("zeroes, trim, flush, FUA", zeroes_trim_and_fua),
    ("a server without zeroes and FUA", without_abilities),
    ("read-only", read_only),
    ("block sizes", block_sizes),
    ("no server", gone_at_start),
    ("errors", errors),
    ("connections", connections),
    ("unflushed writes", unflushed),
]
LONG = [
    ("killed under fio", killed),
    ("qcow2 behind qemu-nbd", qcow2),
    ("a server that hangs", hangs),
    ("SIGTERM while it hangs", hung_at_the_end),
    ("not ready", not_ready),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/release/bin", help="folder with our programs")
    parser.add_argument("--long", action="store_true", help="the cases that take their time")
    parser.add_argument("--io", choices=("io_uring", "epoll"), help="only this event loop")
    parser.add_argument("--only", action="append", help="only cases whose names contain this")
    options = parser.parse_args()
    counted = cases.Cases(options.only)

    def body():
        for io in (options.io,) if options.io else ("io_uring", "epoll"):
            with programs.Workspace(options.bin, io) as workspace:
                for name in ("nvmf-target", "nvmf-connect", "nvmf", "nbdkit", "qemu-nbd", "qemu-io",
                             "nbdcopy"):
                    workspace.program(name)
                counted.after_failure = workspace.sweep
                doors = Doors(workspace)
                for name, function in LONG if options.long else SHORT:
                    if io == "io_uring" or options.io or function is both_doors:
                        counted.run(f"{io}: {name}", function, doors)

    return cases.run_script(body, counted, LIMIT)


if __name__ == "__main__":
    sys.exit(main())
