#!/usr/bin/env python3
"""What goes wrong for users: wrong addresses, refused names, ports that speak something else,
targets that stop half-way, files and sizes of no use, busy sockets, bad URIs. Each ends in seconds,
with one clear sentence, a status other than 0, and leaves neither a process nor a socket."""

import argparse
import concurrent.futures
import os
import socket
import sys

import cases
import programs
import wire

NQN = "nqn.2024-05.org.example:bad-input"
CLOSED = "nqn.2024-05.org.example:closed"
ALLOWED_HOST = "nqn.2024-05.org.example:host:allowed"
LIMIT = 560
# "In seconds": more than any default time limit of bring-up (10 s), less than all of them together.
PATIENCE = 25
FAILED, USAGE = 1, 2


class Bad:
    """Runs one of our programs on input that it must refuse."""

    def __init__(self, workspace):
        self.workspace = workspace

    def refuses(self, argv, words=(), statuses=(FAILED,), leaves=()):
        """`argv` ends in time with one of `statuses`; standard error is one sentence that contains
        each of `words` (any of them, where an entry is a tuple). Returns the sentence. `leaves`:
        sockets that were there before."""
        before = set(self.workspace.processes())
        told = self.workspace.run(*argv, limit=PATIENCE)
        cases.check(told.status in statuses,
                    f"`{told.command}` exited {told.status}, not {statuses}: {told.err}{told.out}")
        lines = [line for line in told.err.splitlines() if line.strip()]
        cases.check(lines, f"`{told.command}` failed without a word.")
        # After bad usage a second line may point to --help.
        most = 2 if told.status == USAGE else 1
        cases.check(len(lines) <= most, f"`{told.command}` said more than a sentence:\n{told.err}")
        cases.check(len(lines[0].split()) >= 4, f"that is no sentence: {lines[0]}")
        for entry in words:
            choices = entry if isinstance(entry, tuple) else (entry,)
            cases.check(any(word.lower() in lines[0].lower() for word in choices),
                        f"`{told.command}` does not say {' or '.join(choices)}: {lines[0]}")
        cases.wait_until(lambda: set(self.workspace.processes()) <= before, programs.LEAVE_LIMIT,
                         f"`{told.command}`: the end of every process that it started")
        left = set(self.workspace.sockets()) - set(leaves)
        cases.check(not left, f"`{told.command}` left sockets: {', '.join(sorted(left))}")
        return lines[0]

    def connect(self, uri, *options, host=programs.HOST_NQN, **expected):
        """As it is used most: in the background, on a socket in the runtime directory; and again in
        the foreground, on a socket of the caller's."""
        base = ["nvmf-connect", uri, "-q", host, "-I", programs.HOST_ID, *options]
        self.refuses(base, **expected)
        if "--nbd" not in options:
            base += ["--nbd", "unix:" + self.workspace.path("nbd.sock")]
        self.refuses(base + ["--foreground"], **expected)


def uri_of(port, nqn=NQN):
    return f"nvme+tcp://127.0.0.1:{port}/{nqn}"


def wrong_address(bad):
    with socket.socket() as holder:  # nobody else listens there meanwhile
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        bad.connect(uri_of(port), words=(f"127.0.0.1:{port}", "refused"))
        bad.refuses(["nvmf-connect", f"nvme+tcp://[::1]:{port}/{NQN}"], words=(str(port),))
        bad.refuses(["nvmf-connect", "-t", "tcp", "-a", "127.0.0.1", "-s", str(port), "-n", NQN],
                    words=(f"127.0.0.1:{port}",))
        bad.refuses(["nvmf", "id-ctrl", uri_of(port)], words=(f"127.0.0.1:{port}",))


def address_that_never_answers(bad):
    """A listener whose queue is full drops every SYN: on loopback, as good as a black hole."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        try:
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
                fillers.append(filler)
            bad.connect(uri_of(port), words=(f"127.0.0.1:{port}",))
        finally:
            for filler in fillers:
                filler.close()


def host_not_allowed(bad):
    with programs.Target(bad.workspace, {CLOSED: ["--namespace", "memory:16M", "--host",
                                                  ALLOWED_HOST]}) as target:
        bad.connect(target.uris[CLOSED], words=(programs.HOST_NQN,))
        bad.workspace.run("nvmf-connect", target.uris[CLOSED], "-q", ALLOWED_HOST, "-I",
                          programs.HOST_ID, "--run", "true").must_succeed()


def unknown_subsystem(bad):
    unknown = "nqn.2024-05.org.example:nowhere"
    with programs.Target(bad.workspace, {NQN: ["--namespace", "memory:16M"]}) as target:
        bad.connect(uri_of(target.port, unknown), words=(unknown,))
        bad.connect(target.uris[NQN] + "/77", words=("77",))


def misbehaving_target(bad, behave):
    with wire.FakeTarget(behave) as fake:
        bad.connect(uri_of(fake.port), words=(f"127.0.0.1:{fake.port}",))
        cases.check(fake.accepted >= 2, "nobody connected.")
        bad.refuses(["nvmf", "id-ctrl", uri_of(fake.port)], words=(f"127.0.0.1:{fake.port}",))


def bad_uris(bad):
    for uri in ("", "nowhere", f"http://127.0.0.1:4420/{NQN}", "nvme+tcp://",
                f"nvme+tcp:///{NQN}", f"nvme+tcp://127.0.0.1:99999/{NQN}",
                f"nvme+tcp://127.0.0.1:0/{NQN}", f"nvme+tcp://127.0.0.1:port/{NQN}",
                f"nvme+tcp://[::1/{NQN}", f"nvme+tcp://127.0.0.1/{NQN}/0",
                f"nvme+tcp://127.0.0.1/{NQN}/4294967296", "nvme+tcp://127.0.0.1/",
                "nvme+tcp://127.0.0.1/%00", f"nvme+rdma://127.0.0.1/{NQN}",
                f"nvme+tcp://127.0.0.1/nqn.2024-05.org.example:{'x' * 300}"):
        bad.refuses(["nvmf-connect", uri], statuses=(USAGE,))


def bad_usage(bad):
    uri = uri_of(4420)
    for argv in (["nvmf-connect"], ["nvmf-connect", uri, "--no-such-option"],
                 ["nvmf-connect", uri, "-i", "0"], ["nvmf-connect", uri, "-i", "many"],
                 ["nvmf-connect", uri, "-Q", "1"], ["nvmf-connect", uri, "-Q", "70000"],
                 ["nvmf-connect", uri, "-q", "nqn." + "x" * 300], ["nvmf-connect", uri, "-I", "zz"],
                 ["nvmf-connect", uri, "--nbd", "carrier-pigeon:9"],
                 ["nvmf-connect", "-t", "fc", "-a", "127.0.0.1", "-n", NQN],
                 ["nvmf-connect", "-t", "tcp", "-a", "127.0.0.1"],
                 ["nvmf"], ["nvmf", "no-such-verb"], ["nvmf", "id-ctrl"],
                 ["nvmf-target"], ["nvmf-target", "--no-such-option"],
                 ["nvmf-target", "--listen", "nowhere"],
                 ["nvmf-target", "--listen", "127.0.0.1:0", "--subsystem", "not-an-nqn",
                  "--namespace", "memory:1M"],
                 ["nvmf-target", "--listen", "127.0.0.1:0", "--namespace", "memory:1M"]):
        bad.refuses(argv, statuses=(USAGE,))
    for argv in (["nvmf", "id-ctrl", "nvmf77"], ["nvmf", "disconnect", "nvmf77"]):
        bad.refuses(argv, words=("nvmf77",))


def bad_namespaces(bad):
    def path_of(size, name):
        path = bad.workspace.path(name)
        with open(path, "wb") as disk:
            disk.truncate(size)
        return path

    empty, short = path_of(0, "empty.img"), path_of(511, "short.img")
    short4k = path_of(4095, "short4k.img")
    lost = bad.workspace.path("lost.img")
    base = ["nvmf-target", "--listen", "127.0.0.1:0", "--subsystem", NQN, "--namespace"]
    for space, words in ((f"file:{empty}", (empty,)), (f"file:{short}", (short,)),
                         (f"file:{short4k},block=4096", (short4k,)), (f"file:{lost}", (lost,)),
                         (f"file:{bad.workspace.folder}", (bad.workspace.folder,))):
        bad.refuses(base + [space], words=words, statuses=(FAILED, USAGE))
    for space in ("memory:0", "memory:", "memory:12Q", "memory:-1M", "memory:100",
                  "memory:1M,block=0", "memory:1M,block=1000", "memory:1M,colour=red",
                  "memory:99999999999999999999",
                  "floppy:A", "file:"):
        bad.refuses(base + [space], statuses=(FAILED, USAGE))
    cases.check(not os.path.exists(lost), "a file was made that nobody asked for.")


def busy_sockets(bad):
    """A socket that somebody serves, a file that is no socket, a folder that is not there."""
    with programs.Target(bad.workspace, {NQN: ["--namespace", "memory:16M"]}) as target:
        uri = target.uris[NQN]
        busy = bad.workspace.path("busy.sock")
        with programs.Connection(bad.workspace, uri, "--name", "first", nbd="unix:" + busy) as one:
            there = bad.workspace.sockets()
            bad.connect(uri, "--duplicate-connect", "--nbd", "unix:" + busy, words=(busy,), leaves=there)
            bad.connect(uri, "--duplicate-connect", "--name", "first", words=("first",), leaves=there)
            bad.workspace.run("nbdinfo", one.export(1)).must_succeed()
        precious = bad.workspace.path("precious")
        with open(precious, "w") as text:
            text.write("keep me")
        bad.connect(uri, "--nbd", "unix:" + precious, words=(precious,))
        with open(precious) as text:
            cases.check(text.read() == "keep me", "a file in the way was overwritten.")
        nowhere = bad.workspace.path("no/such/folder.sock")
        bad.connect(uri, "--nbd", "unix:" + nowhere, words=(nowhere,))
        long = bad.workspace.path("x" * 120)
        bad.connect(uri, "--nbd", "unix:" + long, words=("long",), statuses=(FAILED, USAGE))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            bad.connect(uri, "--nbd", f"tcp:127.0.0.1:{port}", words=(str(port),))
        bad.refuses(["nvmf-target", "--listen", f"127.0.0.1:{target.port}", "--subsystem", NQN,
                     "--namespace", "memory:16M"], words=(str(target.port),))


def stale_socket(bad):
    """A socket left by a process that was killed is in nobody's way."""
    with programs.Target(bad.workspace, {NQN: ["--namespace", "memory:16M"]}) as target:
        path = bad.workspace.path("stale.sock")
        killed = programs.Connection(bad.workspace, target.uris[NQN], "--name", "again",
                                     nbd="unix:" + path)
        killed.kill()
        cases.check(os.path.exists(path), "the killed process left no socket: nothing is shown.")
        with programs.Connection(bad.workspace, target.uris[NQN], "--name", "again",
                                 nbd="unix:" + path) as connection:
            bad.workspace.run("nbdinfo", connection.export(1)).must_succeed()


MISBEHAVIOURS = (
    ("a web server", wire.speaks_http),
    ("a server that speaks first", wire.greets_first),
    ("a port that never answers", wire.silent),
    ("a port that hangs up", wire.closes_at_once),
    ("stops inside ICResp", wire.stops_inside_icresp),
    ("ICResp of another version", wire.wrong_version),
    ("C2HTermReq instead of ICResp", wire.refuses_with_term_request),
    ("stops after ICResp", wire.stops_after_icresp),
    ("hangs up after ICResp", wire.closes_after_icresp),
    ("stops after Connect", wire.stops_after_connect),
)


def those_waited_for(bad, counted):
    """Who keeps silent is waited for, ten seconds each time: all of these at once, each in a
    workspace of its own."""
    def alone(function, *arguments):
        with programs.Workspace(bad.workspace.bin) as workspace:
            function(Bad(workspace), *arguments)

    these = {"an address that never answers": (address_that_never_answers,)}
    for name, behave in MISBEHAVIOURS:
        these[f"target: {name}"] = (misbehaving_target, behave)
    these = {name: what for name, what in these.items() if counted.wanted(name)}
    with concurrent.futures.ThreadPoolExecutor(len(these) or 1) as pool:
        running = {name: pool.submit(alone, *what) for name, what in these.items()}
        for name, one in running.items():
            counted.run(name, one.result)


def run_all(bad, counted):
    counted.run("nobody listens", wrong_address, bad)
    counted.run("host not allowed", host_not_allowed, bad)
    counted.run("unknown subsystem, unknown namespace", unknown_subsystem, bad)
    those_waited_for(bad, counted)
    counted.run("bad URIs", bad_uris, bad)
    counted.run("bad usage", bad_usage, bad)
    counted.run("namespaces of no size, short and missing files", bad_namespaces, bad)
    counted.run("busy sockets and ports", busy_sockets, bad)
    counted.run("a stale socket", stale_socket, bad)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/release/bin", help="folder with our programs")
    parser.add_argument("--only", action="append", help="only cases whose names contain this")
    options = parser.parse_args()
    counted = cases.Cases(options.only)

    def body():
        with programs.Workspace(options.bin) as workspace:
            for name in ("nvmf-target", "nvmf-connect", "nvmf", "nbdinfo"):
                workspace.program(name)
            counted.after_failure = workspace.sweep
            run_all(Bad(workspace), counted)

    return cases.run_script(body, counted, LIMIT)


if __name__ == "__main__":
    sys.exit(main())
