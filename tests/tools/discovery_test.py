#!/usr/bin/env python3
"""nvmf discover, connect-all and connections to discovery controllers, as their users run them,
against nvmf-target over loopback. Prints `N passed, N failed`."""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import cases  # noqa: E402
import programs  # noqa: E402
import vm  # noqa: E402
from cases import check  # noqa: E402

DISCOVERY_NQN = "nqn.2014-08.org.nvmexpress.discovery"
NQN = "nqn.2024-05.org.example:{}"
SCRIPT_LIMIT = 560
PATIENCE = 40
LONG_PATIENCE = 200  # for a thousand of something


def subsystems(log):
    """What a log in JSON names, without the discovery service itself."""
    return [r for r in json.loads(log)["records"] if r["subnqn"] != DISCOVERY_NQN]


class Target(programs.Server):
    """nvmf-target at a port that stays the same when it is killed and started again, and that nobody
    else takes meanwhile. Its disks have the same identity each time."""

    def __init__(self, space, names, port=0, host="127.0.0.1", namespaces=1):
        self.space, self.names, self.host = space, names, host
        self.options = namespaces
        subsystems = []
        for name in names:
            nqn = NQN.format(name)
            subsystems.append({"nqn": nqn, "namespaces": [
                f"memory:1M,uuid=00000000-0000-4000-8000-{hash(nqn) % (1 << 30):08x}{n:04x}"
                for n in range(namespaces)]})
        port = port or vm.free_ports(1)[0]
        shown = f"[{host}]" if ":" in host else host
        config = space.path(f"target-{port}-{len(os.listdir(space.folder))}.json")
        with open(config, "w") as out:
            json.dump({"listen": [f"{shown}:{port}"], "subsystems": subsystems}, out)
        self.control = config + ".sock"
        super().__init__(space, ["nvmf-target", "--config", config, "--control", self.control],
                         r"nvme\+tcp://\S+:(\d+)/(\S+)$", len(names), limit=LONG_PATIENCE)
        self.port = int(self.matches[0][1])
        self.address = ["-t", "tcp", "-a", host, "-s", str(self.port)]

    def ctl(self, *words):
        return self.space.run("nvmf-target", "ctl", self.control, *words).must_succeed()

    def again(self, names=None):
        self.kill()
        return programs.when_port_is_free(lambda: Target(
            self.space, names or self.names, self.port, self.host, self.options))


def connections(space):
    listed = json.loads(space.run("nvmf", "list", "-o", "json").must_succeed().out)
    return listed["Connections"]


def connected(space):
    """NQN to state, of subsystems."""
    return {c["subnqn"].rpartition(":")[2]: c["state"] for c in connections(space)
            if c["subnqn"] != DISCOVERY_NQN}


def record(nqn, host, port, subtype=2, trtype=3, treq=0, eflags=0):
    """One record of a discovery log."""
    family = 2 if ":" in host else 1
    head = struct.pack("<BBBBHHHH", trtype, family, subtype, treq, 1, 0xffff, 32, eflags)
    body = (head.ljust(32, b"\0") + str(port).encode().ljust(32) + bytes(192)
            + nqn.encode().ljust(256, b"\0") + host.encode().ljust(256))
    return body.ljust(1024, b"\0")


class Relay:
    """Between host and a discovery controller: replaces the data of Get Log Page (70h) by pieces of
    a log of our own. `log(offset)` is asked each time. No digests."""

    def __init__(self, target_port, log):
        self.log, self.target_port = log, target_port
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        self.reads = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                host, _ = self.listener.accept()
            except OSError:
                return
            target = socket.create_connection(("127.0.0.1", self.target_port))
            threading.Thread(target=self._serve, args=(host, target), daemon=True).start()

    @staticmethod
    def _pdus(stream):
        while True:
            head = stream.recv(8, socket.MSG_WAITALL)
            if len(head) < 8:
                return
            length = struct.unpack_from("<I", head, 4)[0]
            yield head + stream.recv(length - 8, socket.MSG_WAITALL)

    def _serve(self, host, target):
        threading.Thread(target=self._back, args=(target, host), daemon=True).start()
        try:
            for pdu in self._pdus(host):
                sqe = pdu[8:72]
                if pdu[0] == 4 and sqe[0] == 0x02 and sqe[40] == 0x70:
                    self._answer(host, sqe)
                else:
                    target.sendall(pdu)
        except OSError:
            pass
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def _answer(self, host, sqe):
        self.reads += 1
        cdw10, cdw11 = struct.unpack_from("<II", sqe, 40)
        length = ((cdw10 >> 16) + ((cdw11 & 0xffff) << 16) + 1) * 4
        offset = struct.unpack_from("<Q", sqe, 48)[0]
        data = self.log(offset)[offset:offset + length]
        cid = sqe[2:4]
        if len(data) < length:
            host.sendall(struct.pack("<BBBBI", 5, 0, 24, 0, 24)
                         + struct.pack("<QHH2sH", 0, 0, 0, cid, (0x4002 << 1) & 0xffff))
            return
        # C2HData with LAST and SUCCESS.
        host.sendall(struct.pack("<BBBBI", 7, 0x0c, 24, 24, 24 + length)
                     + struct.pack("<2sHIII", cid, 0, 0, length, 0) + data)

    @staticmethod
    def _back(target, host):
        try:
            while piece := target.recv(65536):
                host.sendall(piece)
        except OSError:
            pass
        host.close()


def log_of(records, generation=1, claimed=None):
    header = struct.pack("<QQH", generation, len(records) if claimed is None else claimed, 0)
    return header.ljust(1024, b"\0") + b"".join(records)


# The cases.


def a_thousand(space):
    """1,000 subsystems in one log."""
    with Target(space, [f"disk{n}" for n in range(1000)]) as target:
        done = space.run("nvmf", "discover", *target.address, "-o", "json").must_succeed()
        records = json.loads(done.out)["records"]
        check(sorted(r["subnqn"] for r in subsystems(done.out))
              == sorted(NQN.format(f"disk{n}") for n in range(1000)), "records are missing")
        done = space.run("nvmf", "discover", *target.address, "-r", space.path("raw"))
        done.must_succeed()
        check(os.path.getsize(space.path("raw")) == (1 + len(records)) * 1024, "the raw log's size")
        check(f"Number of Records {len(records)}, "
              in space.run("nvmf", "discover", *target.address).must_succeed().out, "the text")
        check(not space.processes()[1:], "a process is left")


def two_thousand_namespaces(space):
    with Target(space, ["wide"], namespaces=1000) as target:
        done = space.run("nvmf", "connect-all", *target.address, "-i", "1",
                         limit=LONG_PATIENCE).must_succeed()
        check(done.out.count("\n") == 1000, f"{done.out.count(chr(10))} lines")
        more = space.run("nvmf", "connect-all", *target.address, "-i", "1", "-D",
                         limit=LONG_PATIENCE).must_succeed()
        check(more.out.count("\n") == 1000, f"{more.out.count(chr(10))} lines")
        listed = json.loads(space.run("nvmf", "list", "-o", "json").must_succeed().out)
        check(len(listed["Devices"]) == 2000, f"{len(listed['Devices'])} are listed")
        space.run("nvmf", "disconnect-all").must_succeed()


def connects_what_there_is(space):
    with Target(space, ["a", "b", "c"]) as target:
        done = space.run("nvmf", "connect-all", *target.address, "-i", "1", "-g").must_succeed()
        check(len(done.out.splitlines()) == 3 and done.err == "", f"{done}")
        check(connected(space) == {"a": "live", "b": "live", "c": "live"}, f"{connected(space)}")
        check(all(c["hdr_digest"] for c in connections(space)), "-g was not passed on")
        again = space.run("nvmf", "connect-all", *target.address, "-i", "1").must_succeed()
        check(again.out == "" and again.err == "", f"what is connected was not left alone: {again}")
        space.run("nvmf", "disconnect", "-n", NQN.format("b")).must_succeed()
        again = space.run("nvmf", "connect-all", f"nvme+tcp://localhost:{target.port}", "-i", "1",
                          "-o", "json").must_succeed()
        check(json.loads(again.out)["namespaces"][0]["nsid"] == 1, f"{again}")
        check(len(connections(space)) == 3, "not one for each")
        space.run("nvmf", "disconnect-all").must_succeed()


def the_other_name(space):
    """`nvmf connect` is nvmf-connect; a connection to a name is one to its address."""
    with Target(space, ["a"]) as target:
        done = space.run("nvmf", "connect", "-t", "tcp", "-a", "localhost", "-s", target.port, "-n",
                         NQN.format("a"), "--name", "disk", "-i", "1").must_succeed()
        check(done.out.startswith("diskn1 nbd"), f"{done}")
        again = space.run("nvmf", "connect-all", *target.address, "-i", "1").must_succeed()
        check(again.out == "", f"{again}")
        check(space.run("nvmf", "connect", "--frob").status == 2, "a wrong word")
        space.run("nvmf", "disconnect", "disk").must_succeed()


def ipv6(space):
    with Target(space, ["six"], host="::1") as target:
        for address in ("::1", "[::1]", "0:0::1"):
            done = space.run("nvmf", "discover", "-t", "tcp", "-a", address, "-s", target.port,
                             "-o", "json").must_succeed()
            found = subsystems(done.out)[0]
            check((found["adrfam"], found["traddr"]) == ("ipv6", "::1"), f"{found}")
        space.run("nvmf", "connect-all", f"nvme+tcp://[::1]:{target.port}", "-i", "1").must_succeed()
        check(connected(space) == {"six": "live"}, f"{connected(space)}")
        space.run("nvmf", "disconnect-all").must_succeed()


def refusals(space):
    """Every verb with no argument, a wrong one, a dead target."""
    def refused(*argv, status=1, says=""):
        done = space.run(*argv)
        check(done.status == status and says in done.err and done.seconds < 15, f"{done}")
        check(done.out == "", f"{done}")
    for verb in ("discover", "connect-all"):
        refused("nvmf", verb, "-a", "127.0.0.1", "-s", "1", says="ECONNREFUSED")
        refused("nvmf", verb, "nvmf7", says="there is no connection nvmf7")
        refused("nvmf", verb, "-d", "../x", says="")
        refused("nvmf", verb, "-t", "rdma", "-a", "127.0.0.1", status=2, says="only tcp")
        refused("nvmf", verb, "-a", "x", "-s", "0", status=2, says="is not a port")
        refused("nvmf", verb, "--nbft", status=2, says="boot firmware")
        refused("nvmf", verb, "-a", "x", "-J", "file", status=2, says="-J,--config")
        refused("nvmf", verb, "-a", "x", "-l", "ever", status=2, says="--ctrl-loss-tmo")
        refused("nvmf", verb, "-a", "x", "--tls", status=2, says="no TLS")
        refused("nvmf", verb, "a", "b", status=2, says="one word too many")
    with Target(space, ["a"]) as target:
        refused("nvmf", "discover", f"nvme+tcp://127.0.0.1:{target.port}/{NQN.format('a')}",
                says="not a discovery controller")
        refused("nvmf-connect", f"nvme+tcp://127.0.0.1:{target.port}/{NQN.format('a')}",
                "--discovery", says="not a discovery controller")


def silent_target(space):
    """One that accepts and says nothing is given up in bounded time."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        done = space.run("nvmf", "discover", "-a", "127.0.0.1", "-s", listener.getsockname()[1],
                         limit=40)
        check(done.status == 1 and done.err.count("\n") == 1, f"{done}")


def conf(space):
    """discovery.conf: comments, both spellings, lines that are wrong, dead controllers."""
    with Target(space, ["a"]) as one, Target(space, ["b"]) as other:
        folder = space.path("home/.config/nvmf")
        os.makedirs(folder, exist_ok=True)
        with open(folder + "/discovery.conf", "w") as out:
            out.write(f"# a comment\n\n-t tcp -a 127.0.0.1 -s {one.port}\n"
                      f"--transport=tcp --traddr=127.0.0.1 --trsvcid={other.port} --hdr-digest\n"
                      "-t tcp -a 127.0.0.1 --frob\n"
                      "-t tcp -a 127.0.0.1 -s 1\n")
        done = space.run("nvmf", "discover", "-o", "json")
        check(done.status == 1 and "line 5: there is no such option as --frob" in done.err
              and "ECONNREFUSED" in done.err, f"{done}")
        check(NQN.format("a") in done.out and NQN.format("b") in done.out, f"{done}")
        done = space.run("nvmf", "connect-all", "-i", "1")
        check(done.status == 0 and "ECONNREFUSED" in done.err, f"{done}")
        check(connected(space) == {"a": "live", "b": "live"}, f"{connected(space)}")
        digests = {c["subnqn"].rpartition(":")[2]: c["hdr_digest"] for c in connections(space)}
        check(digests == {"a": False, "b": True}, f"a line's options are not its own: {digests}")
        os.unlink(folder + "/discovery.conf")
        space.run("nvmf", "disconnect-all").must_succeed()


def changing_log(space):
    """GENCTR moves while the log is read: once, always, and a log that lies."""
    with Target(space, ["a"]) as target:
        wanted = [record(NQN.format(f"new{n}"), "127.0.0.1", 4420) for n in range(200)]
        old = [record(NQN.format(f"old{n}"), "127.0.0.1", 4420) for n in range(150)]
        state = {"log": log_of(old, 1)}

        def once(offset):
            if offset > 100_000:
                state["log"] = log_of(wanted, 2)
            return state["log"]

        def always(_):
            state["count"] = state.get("count", 0) + 1
            return log_of(wanted[:3], state["count"])

        relay = Relay(target.port, once)
        address = ["-a", "127.0.0.1", "-s", relay.port]
        done = space.run("nvmf", "discover", *address, "-o", "json").must_succeed()
        found = json.loads(done.out)
        check(found["genctr"] == 2 and len(found["records"]) == 200
              and all(":new" in r["subnqn"] for r in found["records"]), "two logs were mixed")
        relay.log = always
        done = space.run("nvmf", "discover", *address)
        check(done.status == 1 and "10 times in a row" in done.err, f"{done}")
        for claimed in (4, 60_000, 1 << 40, (1 << 64) - 1):
            relay.log = lambda _, n=claimed: log_of(wanted[:3], 1, n)
            done = space.run("nvmf", "discover", *address)
            check(done.status == 1 and "records" in done.err and done.seconds < 10, f"{done}")
        evil = [record("nqn.x:\x1b[2Jboom", "127.0.0.1", 1), record("nqn.x:y", "--run=false", 1),
                record("nqn.x:y", "127.0.0.1", "$(x)"), bytes(range(256)) * 4, bytes(1024)]
        relay.log = lambda _: log_of(evil)
        done = space.run("nvmf", "connect-all", *address)
        check(done.status == 0 and done.out == "" and done.err.count("is left out") == 5, f"{done}")
        check("\x1b" not in done.err, "a terminal would have been steered")
        relay.close()


def referrals(space):
    """Two discovery controllers that refer to each other, to a dead one, and to what is no use."""
    with Target(space, ["a"]) as one, Target(space, ["b"]) as other:
        logs = {}
        relays = [Relay(one.port, lambda _: logs["one"]), Relay(other.port, lambda _: logs["other"])]
        tls = record(NQN.format("tls"), "127.0.0.1", other.port, treq=1)
        rdma = record(NQN.format("rdma"), "127.0.0.1", 4420, trtype=1)
        here = record(DISCOVERY_NQN, "127.0.0.1", relays[0].port, subtype=3)
        logs["one"] = log_of([here, record(DISCOVERY_NQN, "127.0.0.1", relays[1].port, subtype=1),
                              record(NQN.format("a"), "0.0.0.0", one.port), tls, rdma])
        logs["other"] = log_of([record(DISCOVERY_NQN, "127.0.0.1", relays[0].port, subtype=1),
                                record(DISCOVERY_NQN, "127.0.0.1", 1, subtype=1),
                                record(NQN.format("a"), "127.0.0.1", one.port),
                                record(NQN.format("b"), "127.0.0.1", other.port)])
        done = space.run("nvmf", "connect-all", "-a", "127.0.0.1", "-s", relays[0].port, "-i", "1")
        check(done.status == 0 and len(done.out.splitlines()) == 2, f"{done}")
        check("only TCP" in done.err and "requires TLS" in done.err and "127.0.0.1:1" in done.err,
              f"{done}")
        check(connected(space) == {"a": "live", "b": "live"}, f"{connected(space)}")
        check([relay.reads for relay in relays] == [3, 3], "not asked once each")
        space.run("nvmf", "disconnect-all").must_succeed()
        logs["other"] = log_of([record(NQN.format("gone"), "127.0.0.1", other.port)])
        done = space.run("nvmf", "connect-all", "-a", "127.0.0.1", "-s", relays[0].port, "-i", "1",
                         "-S")
        check(done.status == 1 and "gone" in done.err and "only TCP" not in done.err, f"{done}")
        check(connected(space) == {"a": "live"}, f"{connected(space)}")
        space.run("nvmf", "disconnect-all").must_succeed()
        # Connections that stay, one to each that wishes it, however they refer to each other.
        logs["one"] = log_of([record(DISCOVERY_NQN, "127.0.0.1", relays[1].port, subtype=1,
                                     eflags=2), record(NQN.format("a"), "127.0.0.1", one.port)])
        logs["other"] = log_of([record(DISCOVERY_NQN, "127.0.0.1", relays[0].port, subtype=1,
                                       eflags=2), record(NQN.format("b"), "127.0.0.1", other.port)])
        done = space.run("nvmf", "connect-all", "-a", "127.0.0.1", "-s", relays[0].port, "-i", "1",
                         "-p")
        check(done.status == 0 and len(done.out.splitlines()) == 4, f"{done}")
        time.sleep(1)
        kept = sorted(c["trsvcid"] for c in connections(space) if c["subnqn"] == DISCOVERY_NQN)
        check(kept == sorted(str(relay.port) for relay in relays), f"{kept}")
        check(connected(space) == {"a": "live", "b": "live"}, f"{connected(space)}")
        space.run("nvmf", "disconnect-all").must_succeed()
        for relay in relays:
            relay.close()


def persistent(space):
    """A discovery controller is killed and comes back with more: that is connected."""
    target = Target(space, ["a"])
    try:
        done = space.run("nvmf", "connect-all", *target.address, "-p", "-i", "1").must_succeed()
        check(len(done.out.splitlines()) == 2, f"{done}")
        kept = [c for c in connections(space) if c["subnqn"] == DISCOVERY_NQN]
        check(len(kept) == 1 and kept[0]["state"] == "live" and kept[0]["keep_alive_ms"] == 30_000,
              f"{kept}")
        name = kept[0]["name"]
        shown = space.run("nvmf", "list").must_succeed().out
        check(any(line.split()[:2] == [name, "live"] for line in shown.splitlines()), shown)
        again = space.run("nvmf", "connect-all", *target.address, "-p", "-i", "1").must_succeed()
        check(again.out == "" and len(connections(space)) == 2, "one that stays is enough")
        asked = space.run("nvmf", "discover", name, "-o", "json").must_succeed()
        check(NQN.format("a") in asked.out, f"{asked}")
        check("discovery" in space.run("nvmf", "id-ctrl", name).must_succeed().out, "subnqn")
        for names in (["a", "b"], ["a", "b", "c"]):
            target = target.again(names)
            cases.wait_until(lambda: connected(space) == dict.fromkeys(names, "live"), PATIENCE,
                             f"connecting to {names}")
        log = pathlib.Path(space.runtime) / (name + ".log")
        cases.wait_until(lambda: "connected to what is new" in log.read_text(), PATIENCE,
                         "a word of it in the log")
        space.run("nvmf", "disconnect", name).must_succeed()
        check(set(connected(space)) == {"a", "b", "c"}, "the others went with it")
        space.run("nvmf", "disconnect-all").must_succeed()
    finally:
        target.kill()


def follows(space):
    """What the discovery controller tells of while it is there: a new subsystem, a referral."""
    with Target(space, ["a"]) as one, Target(space, ["x"]) as other:
        space.run("nvmf", "connect-all", *one.address, "-p", "-i", "1", "-G").must_succeed()
        one.ctl("subsystem-add", NQN.format("b"), "--namespace", "memory:1M")
        wanted = {"a": "live", "b": "live"}
        cases.wait_until(lambda: connected(space) == wanted, PATIENCE, "connecting to a new subsystem")
        check(all(c["data_digest"] for c in connections(space)), "-G was not passed on")
        one.ctl("referral-add", f"127.0.0.1:{other.port}")
        wanted["x"] = "live"
        cases.wait_until(lambda: connected(space) == wanted, PATIENCE, "following a new referral")
        for n in range(20):
            one.ctl("subsystem-add", NQN.format(f"s{n}"), "--namespace", "memory:1M")
            wanted[f"s{n}"] = "live"
        cases.wait_until(lambda: connected(space) == wanted, 2 * PATIENCE,
                         "connecting to twenty more")
        # What goes is left alone: its connection notices by itself, and waits.
        one.ctl("subsystem-remove", NQN.format("b"))
        cases.wait_until(lambda: connected(space)["b"] != "live", PATIENCE, "the loss of b")
        check(set(connected(space)) == set(wanted), "a connection was ended")
        space.run("nvmf", "disconnect-all").must_succeed()


def moving_log(space):
    """A real log that changes all the time is read in one generation, or not at all."""
    with Target(space, [f"disk{n}" for n in range(300)]) as target:
        stop = threading.Event()
        moves = []

        def move():
            with contextlib.suppress(cases.Failed):
                while not stop.is_set():
                    target.ctl("subsystem-add", NQN.format("moving"), "--namespace", "memory:1M")
                    target.ctl("subsystem-remove", NQN.format("moving"))
                    moves.append(1)

        mover = threading.Thread(target=move)
        mover.start()
        try:
            read = 0
            for tries in range(200):
                if tries >= 20 and len(moves) > 20:
                    break
                done = space.run("nvmf", "discover", *target.address, "-o", "json")
                if done.status != 0:
                    check("times in a row" in done.err, f"{done}")
                    continue
                names = [r["subnqn"] for r in subsystems(done.out)]
                check(len(names) == len(set(names)) and len(names) in (300, 301), f"{len(names)}")
                read += 1
            check(read > 0, "it was never read")
        finally:
            stop.set()
            mover.join()
        check(len(moves) > 20, f"the log changed only {len(moves)} times")


def stays_only(space):
    """discover --persistent stays connected, and connects to nothing."""
    with Target(space, ["a"]) as target:
        done = space.run("nvmf", "discover", *target.address, "-p").must_succeed()
        check(f"nvme+tcp://127.0.0.1:{target.port}/{DISCOVERY_NQN}" in done.out, f"{done}")
        check([c["state"] for c in connections(space)] == ["live"], f"{connections(space)}")
        check(connected(space) == {}, f"{connected(space)}")
        pid = connections(space)[0]["pid"]
        os.kill(pid, signal.SIGTERM)
        cases.wait_until(lambda: not programs.running(pid), programs.LEAVE_LIMIT, "its end")
        check(os.listdir(space.runtime) in ([], [".lock"]), f"{os.listdir(space.runtime)}")


def ends_while_it_connects(space):
    """A connection that is just connecting others ends at once all the same."""
    with Target(space, ["a"]) as target, socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(8)
        port = hole.getsockname()[1]
        relay = Relay(target.port, lambda _: log_of(
            [record(DISCOVERY_NQN, "127.0.0.1", port, subtype=1),
             record(NQN.format("hole"), "127.0.0.1", port)]))
        space.run("nvmf-connect", "-a", "127.0.0.1", "-s", relay.port, "-n", DISCOVERY_NQN,
                  "--connect-all").must_succeed()
        time.sleep(0.5)
        done = space.run("nvmf", "disconnect-all").must_succeed()
        check(done.seconds < 2 + 2, f"the end took {done.seconds:.1f} s")
        relay.close()
    cases.wait_until(lambda: not space.processes(), programs.LEAVE_LIMIT, "the end of every process")


ALL = [a_thousand, two_thousand_namespaces, connects_what_there_is, the_other_name, ipv6, refusals,
       silent_target, conf, changing_log, referrals, persistent, follows,
       moving_log, stays_only,
       ends_while_it_connects]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of the programs")
    parser.add_argument("--io", choices=("io_uring", "epoll"), default="epoll")
    parser.add_argument("--only", action="append", help="run cases whose name has this in it")
    words = parser.parse_args()
    counted = cases.Cases(words.only)

    def run_in_space(case):
        with programs.Workspace(words.bin, words.io) as space:
            case(space)
            cases.wait_until(lambda: not space.processes(), programs.LEAVE_LIMIT,
                             "the end of every process")

    def body():
        for case in ALL:
            counted.run(case.__name__, run_in_space, case)

    return cases.run_script(body, counted, SCRIPT_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
