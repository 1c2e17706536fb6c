#!/usr/bin/env python3
"""nvmf-target ctl as its users run it: every verb reaches the target with all its words, wrong words
are refused, and the manual page lists what there is. Prints `N passed, N failed`.

usage: ctl_test.py --bin FOLDER [--io io_uring|epoll] REPOSITORY
"""

import argparse
import json
import os
import pathlib
import re
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import cases  # noqa: E402
import programs  # noqa: E402
import vm  # noqa: E402
import wire  # noqa: E402
from cases import check  # noqa: E402

NQN = "nqn.2024-05.org.example:ctl"
OTHER = "nqn.2024-05.org.example:other"
CC, CSTS = 0x14, 0x1C
ENABLE = 0x00460001  # CC.EN, entries of 64 and 16 bytes
PATIENCE = 40  # for what takes a moment


class Host:
    """One queue of a host: as much NVMe/TCP as it takes to be connected and ask something."""

    def __init__(self, port, qid=0, cntlid=0xFFFF, limit=PATIENCE):
        self.link = socket.create_connection(("127.0.0.1", port), timeout=limit)
        self.link.sendall(wire.ic_pdu(wire.ICREQ))
        wire.receive_pdu(self.link)
        data = struct.pack("<16sH238x256s256s256x", b"ctl-test-hostid!", cntlid, NQN.encode(),
                           programs.HOST_NQN.encode())
        sqe = self.sqe(0x7F, fctype=0x01, sgl=(len(data), 0x01),
                       rest=struct.pack("<HHHBxI12x", 0, qid, 31, 0, 0))
        self.status, result = self.ask(sqe, data)
        self.cntlid = result & 0xFFFF

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.link.close()

    @staticmethod
    def sqe(opcode, fctype=0, nsid=0, sgl=(0, 0x5A), rest=bytes(24)):
        word = fctype if opcode == 0x7F else nsid
        return struct.pack("<BBHI16x", opcode, 0x40, 7, word) + struct.pack(
            "<QI3xB", 0, *sgl) + rest

    def ask(self, sqe, data=b""):
        """(status, result)"""
        self.send(sqe, data)
        return self.answer()

    def send(self, sqe, data=b""):
        self.link.sendall(wire.COMMON_HEADER.pack(wire.COMMAND, 0, 72, 72 if data else 0,
                                                  72 + len(data)) + sqe + data)

    def answer(self):
        kind, pdu = wire.receive_pdu(self.link)
        check(kind == wire.RESPONSE, f"PDU type {kind} instead of a response")
        result, _, _, _, status = struct.unpack_from("<QHHHH", pdu, 8)
        return status >> 1 & 0x7FF, result

    def property_get(self, offset):
        status, value = self.ask(self.sqe(0x7F, 0x04, rest=struct.pack("<BxxxI16x", 0, offset)))
        check(status == 0, f"Property Get ended with {status:#x}")
        return value & 0xFFFFFFFF

    def property_set(self, offset, value):
        status, _ = self.ask(self.sqe(0x7F, 0x00,
                                      rest=struct.pack("<BxxxIQ8x", 0, offset, value)))
        check(status == 0, f"Property Set ended with {status:#x}")

    def enable(self):
        self.property_set(CC, ENABLE)
        return self

    def configure_events(self, bits):
        status, _ = self.ask(self.sqe(0x09, rest=struct.pack("<II16x", 0x0B, bits)))
        check(status == 0, f"Set Features ended with {status:#x}")

    def flush(self):
        return self.ask(self.sqe(0x00, nsid=1))[0]

    def closed(self, seconds):
        """Whether the connection ends within that time."""
        self.link.settimeout(seconds)
        try:
            return self.link.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


class Scene:
    """A target with two subsystems and a control socket."""

    def __init__(self, words, subsystems=None, options=()):
        self.space = programs.Workspace(words.bin, words.io)
        self.socket = self.space.path("ctl.sock")
        self.target = programs.Target(
            self.space, subsystems or {NQN: ["--namespace", "memory:4M,cache=volatile"],
                                       OTHER: ["--namespace", "memory:1M"]},
            ["--control", self.socket, *options], port=vm.free_ports(1)[0])
        self.port = self.target.port

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.target.stop()
                self.space.check_nothing_left()
        finally:
            self.target.kill()
            self.space.__exit__()

    def run(self, *words):
        return self.space.run("nvmf-target", "ctl", self.socket, *words)

    def ctl(self, *words):
        return self.run(*words).must_succeed().out

    def show(self):
        return json.loads(self.ctl("show"))

    def on(self, *words):
        """The verb is to make one standing fault, which is returned and then cleared."""
        self.ctl(*words)
        faults = self.show()["faults"]
        self.ctl("clear")
        check(len(faults) == 1, f"{words}: {faults}")
        check(self.show()["faults"] == [], "clear left something")
        return faults[0]

    def refused(self, *words, status=1, says=""):
        done = self.run(*words)
        check(done.status == status and says in done.err and done.out == "", f"{done}")
        check(done.err.count("\n") == (1 if status == 1 else 2), f"{done}")


def every_word_arrives(words):
    with Scene(words) as scene:
        everywhere = ["--subsystem", NQN, "--controller", "0x7", "--queue", "3"]
        narrowed = {"subsystem": NQN, "controller": 7, "queue": 3}
        for argv, expected in (
                (["refuse", "60000", "--count", "5"], {"fault": "refuse", "count": 5}),
                (["refuse", "--status", "1/0x81", "--queue", "2", "--subsystem", NQN],
                 {"fault": "refuse", "queue": 2, "subsystem": NQN,
                  "status": "Controller Busy (0x181)"}),
                (["refuse", "--status", "0x184", "--dnr"],
                 {"fault": "refuse", "status": "Connect Invalid Host (0x184, do not retry)"}),
                (["blackhole", *everywhere], {"fault": "blackhole", **narrowed}),
                (["delay", "7", "--nsid", "1", *everywhere],
                 {"fault": "delay", "before_ms": 7, "after_ms": 0, "nsid": 1, **narrowed}),
                (["delay", "0x10", "--after", "--opcode", "write", "--count", "2"],
                 {"fault": "delay", "before_ms": 0, "after_ms": 16, "opcode": 1, "count": 2}),
                (["late", "9", "--hold", "4", "--even-if-stopped", "--nsid", "1", *everywhere],
                 {"fault": "late", "after_ms": 9, "hold": 4, "even_if_stopped": True, "nsid": 1,
                  **narrowed}),
                (["late", "9"],
                 {"fault": "late", "after_ms": 9, "hold": 0, "even_if_stopped": False}),
                (["fail", "0x281", "--dnr", "--opcode", "0x2", "--lba", "8-15", "--count", "3",
                  "--nsid", "1", *everywhere],
                 {"fault": "fail", "status": "Unrecovered Read Error (0x281, do not retry)",
                  "opcode": 2, "lba": [8, 15], "count": 3, "nsid": 1, **narrowed}),
                (["fail", "2/0x81", "--opcode", "identify"],
                 {"fault": "fail", "status": "Unrecovered Read Error (0x281)", "opcode": 6,
                  "queue": 0}),
                (["fail", "0/0x21", "--crd", "2"],
                 {"fault": "fail", "status": "Command Interrupted (0x021, retry after CRDT2)"}),
                (["corrupt", "6", *everywhere], {"fault": "corrupt", "count": 6, **narrowed}),
                (["corrupt"], {"fault": "corrupt", "count": 1}),
                (["keep-alive", "--controller", "7", "--subsystem", NQN],
                 {"fault": "keep-alive", "controller": 7, "subsystem": NQN})):
            fault = scene.on(*argv)
            left = fault.pop("left_ms", None)
            check(fault == expected, f"{argv}: {fault} instead of {expected}")
            check((left is not None) == (argv[1:2] == ["60000"]), f"{argv}: {left} ms are left")


def wrong_words(words):
    with Scene(words) as scene:
        for argv, says in (([], "say what to do: drop, "), (["frob"], "no such subcommand as frob"),
                           (["delay"], "MS is missing"), (["delay", "x"], '"x" is no value for MS'),
                           (["delay", "99999999999"], "from 0 to 86400000"),
                           (["late"], "MS is missing"), (["fail"], "STATUS is missing"),
                           (["fail", "0"], '"0" is no status'),
                           (["fail", "8/1"], '"8/1" is no status'),
                           (["fail", "2/0x100"], "is no status"),
                           (["fail", "6", "--opcode", "frob"], '"frob" is no opcode'),
                           (["fail", "6", "--lba", "9-8"], '"9-8" is no range'),
                           (["fail", "6", "--crd", "4"], "from 0 to 3"),
                           (["close-queue"], "QID is missing"),
                           (["ns-add"], "SPEC is missing"), (["ns-add", "disk"], "no namespace"),
                           (["ns-resize", "1", "big"], "'big' is no size"),
                           (["event"], "KIND is missing"), (["ana", "1"], "STATE is missing"),
                           (["subsystem-add"], "NQN is missing"),
                           (["subsystem-add", NQN, "--namespace", "disk"], "no namespace"),
                           (["referral-add", "tcp://somewhere"], "numeric address"),
                           (["show", "it"], '"it" is one word too many'),
                           (["drop", "--nsid", "1"], "no such option as --nsid")):
            scene.refused(*argv, status=2, says=says)
        for argv, says in ((["drop", "--queue", "9"], "No connection fits that"),
                           (["close-queue", "1"], "No queue fits that"),
                           (["close-queue", "0"], "Queue 0 is the admin queue"),
                           (["cfs"], "No enabled controller fits that"),
                           (["drop", "--subsystem", "nqn.nobody"], "no subsystem nqn.nobody"),
                           (["event", "frob"], '"frob" is no event'),
                           (["subsystem-add", "disks"], "disks"),
                           (["ana", "1", "change", "--subsystem", NQN], "no asymmetric access"),
                           (["ana", "1", "frob", "--subsystem", NQN], '"frob" is no ANA state'),
                           (["subsystem-add", NQN], "already"),
                           (["subsystem-remove", "nqn.nobody"], "no subsystem nqn.nobody"),
                           (["allow-host", NQN, "--subsystem", NQN], "as every host may"),
                           (["disallow-host", NQN, "--subsystem", NQN], "Every host may"),
                           (["allow-host", NQN], "2 subsystems: say which one"),
                           (["referral-remove", "tcp://192.0.2.1:8009"], "no referral to"),
                           (["event", "error"], "No enabled controller fits that"),
                           (["event", "firmware", "--warning", "1"], '"warning" means nothing'),
                           (["event", "smart", "--controller", "1"], "name that, not a controller"),
                           (["delay", "1", "--queue", "0"], "Queue 0 is the admin queue"),
                           (["late", "1", "--queue", "0"], "Queue 0 is the admin queue"),
                           (["refuse", "--queue", "1"], "give a status"),
                           (["refuse", "--dnr"], "go with a status only"),
                           (["restart", "--max-queues", "0"], "0 I/O queues"),
                           (["ns-add", "memory:1M"], "2 subsystems: say which one"),
                           (["ns-remove", "9", "--subsystem", NQN], "has no namespace 9"),
                           (["ns-resize", "1", "513", "--subsystem", NQN], "multiple"),
                           (["ns-add", "file:nowhere", "--subsystem", NQN], "nowhere")):
            scene.refused(*argv, says=says)
        gone = scene.space.run("nvmf-target", "ctl", scene.space.path("none"), "show")
        check(gone.status == 1 and "there is no socket" in gone.err, f"{gone}")
        check(scene.space.run("nvmf-target", "ctl").status == 2, "ctl without anything")
        late = scene.space.run("nvmf-target", "--listen", "127.0.0.1:0", "ctl", "x", "show")
        check(late.status == 2 and "ctl stands first" in late.err, f"{late}")
        # Whatever was refused has changed nothing.
        check(scene.show()["faults"] == [], "something is on")


def connections(words):
    with Scene(words, options=["--cqt", "200"]) as scene:
        with Host(scene.port) as admin:
            admin.enable()
            with Host(scene.port, 1, admin.cntlid) as one, Host(scene.port, 2, admin.cntlid) as two:
                check(one.status == two.status == 0 and one.flush() == 0, "cannot connect")
                shown = scene.show()
                check(len(shown["connections"]) == 3, f"{shown}")
                check(shown["controllers"][0]["io_queues"] == 2, f"{shown}")
                check(scene.ctl("close-queue", "2") == "1\n", "close-queue")
                check(two.closed(PATIENCE), "the queue lives on")
                scene.ctl("fail", "0/0x06", "--count", "1")
                check((one.flush(), one.flush()) == (6, 0), "fail")
                check(scene.ctl("cfs") == "1\n", "cfs")
                check(admin.property_get(CSTS) & 2 == 2, "CSTS.CFS is not set")
                admin.property_set(CC, 0)
                cases.wait_until(lambda: admin.property_get(CSTS) == 0, PATIENCE, "the reset")
            cases.wait_until(lambda: len(scene.show()["connections"]) == 1, PATIENCE,
                             "the end of the I/O queues")
            check(scene.ctl("drop") == "1\n", "drop")
            check(admin.closed(PATIENCE), "the connection lives on")
        check(scene.show()["counters"]["dropped"] == 2, "counters")


def holes(words):
    with Scene(words) as scene:
        with Host(scene.port) as admin:
            scene.ctl("blackhole")
            admin.send(admin.sqe(0x7F, 0x04, rest=struct.pack("<BxxxI16x", 0, CSTS)))
            check(not wire.answers_icreq("127.0.0.1", scene.port, 0.5), "the hole is leaky")
            check(not admin.closed(0.3), "the connection is gone")
            scene.ctl("clear")
            admin.link.settimeout(PATIENCE)
            check(admin.answer() == (0, 0), "no answer behind the hole")
        started = time.monotonic()
        scene.ctl("blackhole", "1000")
        check(not wire.answers_icreq("127.0.0.1", scene.port, 0.2)
              or time.monotonic() - started > 1, "the hole is leaky")
        cases.wait_until(lambda: wire.answers_icreq("127.0.0.1", scene.port), PATIENCE, "the end")
        scene.ctl("refuse", "--count", "1")
        check(not wire.answers_icreq("127.0.0.1", scene.port), "not refused")
        check(wire.answers_icreq("127.0.0.1", scene.port, PATIENCE), "refused twice")
        scene.ctl("refuse", "--status", "1/0x81", "--count", "1")
        with Host(scene.port) as busy, Host(scene.port) as good:
            check((busy.status, good.status) == (0x181, 0), f"{busy.status:#x} {good.status:#x}")
        scene.ctl("refuse")
        scene.target.stop()  # with a fault on, and while it refuses


def restarts(words):
    with Scene(words) as scene:
        for verb in ("restart", "power-loss"):
            with Host(scene.port) as admin:
                started = time.monotonic()
                scene.ctl(verb, "1500", "--queue-size", "64", "--max-queues", "3")
                check(admin.closed(PATIENCE), "the connection lives on")
                check(not scene.show()["listening"] or time.monotonic() - started > 1.5,
                      "it says that it listens")
                try:
                    socket.create_connection(("127.0.0.1", scene.port), timeout=1).close()
                    check(time.monotonic() - started > 1.5, "somebody listens")
                except ConnectionRefusedError:
                    pass
                cases.wait_until(lambda: wire.answers_icreq("127.0.0.1", scene.port), PATIENCE,
                                 "the return of the target")
                check(time.monotonic() - started >= 1.5, "the target was back too early")
            cases.wait_until(lambda: not scene.show()["connections"], PATIENCE, "a probe's end")
        scene.ctl("restart", "60000")
        scene.target.stop()


def namespaces(words):
    with Scene(words, {NQN: ["--namespace", "memory:4M"]}) as scene:
        def there():
            return [(ns["nsid"], ns["bytes"]) for ns in
                    scene.show()["subsystems"][0]["namespaces"]]
        check(scene.ctl("ns-add", "memory:1M") == "2\n", "ns-add")
        check(scene.ctl("ns-add", "memory:1M", "--nsid", "7") == "7\n", "ns-add --nsid")
        uuid = "0db2c1a9-8a5c-4c6a-9d3c-0123456789ab"
        with open(scene.space.path("disk.img"), "wb") as disk:
            disk.truncate(1 << 20)
        scene.ctl("ns-swap", "2", f"file:disk.img,uuid={uuid}")  # of the folder ctl runs in
        check(scene.show()["subsystems"][0]["namespaces"][1]["uuid"] == uuid, "ns-swap")
        scene.ctl("ns-resize", "1", "8M")
        scene.ctl("ns-remove", "7")
        check(there() == [(1, 8 << 20), (2, 1 << 20)], f"{there()}")


def subsystems(words):
    more, host = "nqn.2024-05.org.example:more", "nqn.2024-05.org.example:friend"
    with Scene(words, options=["--referral", "tcp://127.0.0.1:8009"]) as scene:
        def named():
            return [one["subsystem"] for one in scene.show()["subsystems"]]
        check(scene.show()["referrals"] == ["tcp://127.0.0.1:8009"], "--referral")
        generation = scene.show()["generation"]
        scene.ctl("referral-add", "[2001:db8::1]:4420")
        scene.ctl("referral-remove", "tcp://127.0.0.1:8009")
        check(scene.show()["referrals"] == ["tcp://[2001:db8::1]:4420"], "referrals")
        with open(scene.space.path("disk.img"), "wb") as disk:
            disk.truncate(1 << 20)
        scene.ctl("subsystem-add", more, "--namespace", "memory:1M,block=4096", "--namespace",
                  "file:disk.img", "--host", programs.HOST_NQN, "--serial", "S1")
        made = scene.show()["subsystems"][2]
        check([ns["block"] for ns in made["namespaces"]] == [4096, 512], f"{made}")
        check(made["hosts"] == [programs.HOST_NQN], f"{made}")
        scene.ctl("allow-host", host, "--subsystem", more)
        check(scene.show()["subsystems"][2]["hosts"] == [programs.HOST_NQN, host], "allow-host")
        scene.ctl("disallow-host", host, "--subsystem", more)
        scene.ctl("subsystem-remove", more)
        check(named() == [NQN, OTHER], f"{named()}")
        check(scene.show()["generation"] == generation + 6, "the generation")
        with Host(scene.port) as admin:
            scene.ctl("subsystem-remove", NQN)
            check(admin.closed(PATIENCE), "a controller without a subsystem")
        check(named() == [OTHER], f"{named()}")


def ways(words):
    with Scene(words, {NQN: ["--ana", "2", "--namespace", "memory:1M,anagrp=2"]}) as scene:
        with Host(scene.port) as admin:
            admin.enable()
            admin.configure_events(1 << 11)
            with Host(scene.port, 1, admin.cntlid) as one:
                scene.ctl("ana", "2", "inaccessible")
                check(admin.ask(admin.sqe(0x0C)) == (0, 0x0C_03_02), "the event")
                check(one.flush() == 0x302, "the way is open")
                scene.ctl("ana", "2", "optimized", "--port", "1")
                check(one.flush() == 0, "the way is closed")
        check(scene.show()["subsystems"][0]["ana"] == [
            {"group": 1, "state": "optimized"},
            {"group": 2, "state": "inaccessible", "ports": [{"port": 1, "state": "optimized"}]}],
            f"{scene.show()['subsystems'][0]['ana']}")
        scene.refused("ana", "3", "optimized", says="its groups are 1 to 2")
        scene.refused("ana", "2", "optimized", "--port", "2", says="no port 2")


def events(words):
    with Scene(words, {NQN: ["--namespace", "memory:4M"]}) as scene:
        with Host(scene.port) as admin:
            admin.enable()

            def told():
                """DW0 of the next event."""
                return admin.ask(admin.sqe(0x0C))
            check(scene.ctl("event", "error", "--status", "2/0x81", "--persistent") == "1\n", "error")
            check(told() == (0, 0x01_03_00), "the error event")
            admin.configure_events(1 << 9 | 4)
            check(scene.ctl("event", "firmware", "--controller", "1") == "1\n", "firmware")
            check(told() == (0, 0x03_01_02), "the firmware event")
            scene.ctl("event", "smart", "--warning", "0xc", "--temperature", "310", "--spare", "9",
                      "--used", "70")
            check(told() == (0, 0x02_00_01), "the SMART event")
            health = scene.show()["subsystems"][0]["health"]
            check(health == {"critical_warning": 12, "temperature": 310, "spare": 9, "used": 70},
                  f"{health}")


def socket_of_its_own(words):
    with Scene(words) as scene:
        check(os.stat(scene.socket).st_mode & 0o777 == 0o600, "others may use the socket")
        second = scene.space.run("nvmf-target", "--listen", "127.0.0.1:0", "--subsystem", NQN,
                                 "--namespace", "memory:1M", "--control", scene.socket)
        check(second.status == 1 and scene.socket in second.err, f"{second}")
        # One that was killed leaves its socket behind, which is in nobody's way.
        scene.target.process.kill()
        scene.target.process.wait()
        check(os.path.exists(scene.socket), "the socket went with a kill -9")
        scene.target = programs.Target(scene.space, {NQN: ["--namespace", "memory:1M"]},
                                       ["--control", "unix:" + scene.socket])
        scene.show()
        told = scene.space.run("nvmf-target", "ctl", "unix:" + scene.socket, "show")
        check(json.loads(told.must_succeed().out) == scene.show(), "other words by unix:PATH")


def page(words):
    """Each verb's line in the manual page against its --help."""
    text = (words.repository / "man" / "nvmf-target.1").read_text()
    lines = re.findall(r"^\.It Cm ([a-z-]+)((?: (?:Oo|Ar|Fl).*)?)$", text, re.MULTILINE)
    told = {verb: (set(re.findall(r"Fl (-[\w-]+)(?: Ar (\S+))?", rest)),
                   re.findall(r"(?<!Fl )Ar (\S+)", re.sub(r"Fl \S+ Ar \S+", "", rest)))
            for verb, rest in lines}
    space = programs.Workspace(words.bin)
    with space:
        out = space.run("nvmf-target", "ctl", "--help").must_succeed().out
        verbs = re.findall(r"^  ([a-z-]+)  ", out.split("Subcommands:")[1], re.MULTILINE)
        check(set(verbs) == set(told), f"verbs: {set(verbs) ^ set(told)}")
        for verb in verbs:
            out = space.run("nvmf-target", "ctl", "x", verb, "--help").must_succeed().out
            options = set(re.findall(r"^  -(-[\w-]+)(?: ([A-Z][A-Z-]*))?(?= |$)", out,
                                     re.MULTILINE)) - {("-help", "")}
            operands = re.findall(r"^  [a-z]+ ([A-Z]+)", out, re.MULTILINE)
            check(options == told[verb][0], f"{verb}: {options ^ told[verb][0]}")
            check(operands == told[verb][1], f"{verb}: {operands} and {told[verb][1]}")


ALL = [every_word_arrives, wrong_words, connections, holes, restarts, namespaces, subsystems, ways, events,
       socket_of_its_own, page]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of the programs")
    parser.add_argument("--io", choices=("io_uring", "epoll"), default="epoll")
    parser.add_argument("--only", action="append", help="run cases whose name has this in it")
    parser.add_argument("repository", type=pathlib.Path)
    words = parser.parse_args()
    counted = cases.Cases(words.only)

    def body():
        for case in ALL:
            counted.run(case.__name__, case, words)

    return cases.run_script(body, counted, 560)


if __name__ == "__main__":
    sys.exit(main())
