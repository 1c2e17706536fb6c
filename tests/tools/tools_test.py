#!/usr/bin/env python3
"""nvmf-target, nvmf-connect and nvmf as their users run them: background, foreground, --run, names,
identify, the end by every way there is. Prints `N passed, N failed`."""

import argparse
import json
import os
import pathlib
import re
import signal
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import cases  # noqa: E402
import losses  # noqa: E402
import programs  # noqa: E402
import refusals  # noqa: E402
from cases import check  # noqa: E402
from scene import NQN, PATIENCE, Scene  # noqa: E402

MIB = 1 << 20
SCRIPT_LIMIT = 560


def copies_back(scene, uri, size=16 * MIB):
    data = programs.random_file(scene.space.path("data"), size)
    scene.run("nbdcopy", data, uri).must_succeed()
    scene.run("nbdcopy", uri, scene.space.path("back")).must_succeed()
    with open(scene.space.path("back"), "r+b") as back:
        back.truncate(size)
    check(programs.same_bytes(data, scene.space.path("back")), "what was read is not what was written")


def background(new):
    with new(namespaces=("memory:64M", "memory:32M,block=4096")) as scene:
        exports = scene.connect()
        check(list(exports) == ["nvmf0n1", "nvmf0n2"], f"exports {exports}")
        copies_back(scene, exports["nvmf0n1"])
        copies_back(scene, exports["nvmf0n2"])
        shown = json.loads(scene.run("nbdinfo", "--json", exports["nvmf0n2"]).must_succeed().out)
        check(shown["exports"][0]["block_size_minimum"] == 1, f"nbdinfo says {shown}")
        listed = scene.listed()
        connection = listed["Connections"][0]
        check(connection["state"] == "live" and connection["subnqn"] == NQN, f"{connection}")
        check(connection["io"] == scene.space.environment["NVMF_IO"], f"runs on {connection['io']}")
        check([d["SectorSize"] for d in listed["Devices"]] == [512, 4096], f"{listed['Devices']}")
        table = [line.split() for line in scene.run("nvmf", "list").must_succeed().out.splitlines()]
        check(table[0] == ["Node", "NSID", "Size", "Format", "State", "Address", "Subsystem", "Export"],
              f"{table[0]}")
        check(table[3] == ["nvmf0n2", "2", "33.55", "MB", "4096", "B", "live",
                           f"127.0.0.1:{scene.target.port}", NQN, exports["nvmf0n2"]], f"{table[3]}")
        check("connected to" in scene.log("nvmf0"), scene.log("nvmf0"))
        done = scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
        check(done.seconds < 5, f"disconnect took {done.seconds:.1f} s")
        scene.nothing_left_but_the_target()
        left = [name for name in os.listdir(scene.space.runtime) if name != ".lock"]
        check(not left, f"a good end leaves nothing, but there is {left}")


def foreground_and_sigterm(new):
    with new() as scene:
        connection = programs.Connection(scene.space, scene.uri, "--name", "disk", "-g", "-G")
        copies_back(scene, connection.exports["diskn1"])
        connection.stop()
        check(connection.errors() == "", f"it said {connection.errors()!r}")
        scene.nothing_left_but_the_target()


def several_exports(new):
    """More places for NBD: all of them in JSON and in the table, the first one on stdout."""
    with new() as scene:
        path = scene.space.path("disk.sock")
        done = scene.run("nvmf-connect", scene.uri, "-o", "json", "--nbd", "unix:" + path, "--nbd",
                         "tcp:127.0.0.1:0").must_succeed()
        told = json.loads(done.out)
        uris = told["namespaces"][0]["uris"]
        check(told["device"] == "nvmf0" and told["namespaces"][0]["name"] == "nvmf0n1", f"{told}")
        check(path in uris[0] and uris[1].startswith("nbd://127.0.0.1:"), f"{uris}")
        rows = scene.run("nvmf", "list").must_succeed().out.splitlines()[2:]
        check(len(rows) == 2 and rows[0].endswith(uris[0]) and rows[1].split() == [uris[1]], f"{rows}")
        check("too;" not in done.err, f"JSON has them all: {done.err!r}")
        scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
        done = scene.run("nvmf-connect", scene.uri, "--nbd", "unix:" + path, "--nbd",
                         "tcp:127.0.0.1:0").must_succeed()
        check(done.out.split() == ["nvmf0n1", uris[0]], f"a line for each namespace: {done.out!r}")
        others = re.findall(r"nvmf0n1 is at (nbd://127\.0\.0\.1:\S+), too; `nvmf list`", done.err)
        check(len(others) == 1, f"the other address: {done.err!r}")
        scene.run("nbdinfo", "--size", others[0]).must_succeed()
        scene.run("nvmf", "disconnect", "nvmf0").must_succeed()


def logs(new):
    """What was said is kept when it may be wanted: after a bad end, under a name used again."""
    with new() as scene:
        scene.connect()
        os.kill(scene.pid("nvmf0"), signal.SIGKILL)
        cases.wait_until(lambda: not scene.listed()["Connections"], PATIENCE, "the end of nvmf0")
        check("connected to" in scene.log("nvmf0"), "a killed connection's log stays")
        scene.connect("-l", "0.5")
        check("connected to" in scene.log("nvmf0.1"), "the log before this one is nvmf0.1.log")
        pid = scene.pid("nvmf0")
        scene.kill_target()
        scene.wait_gone(pid)
        check("is lost for good" in scene.log("nvmf0"), scene.log("nvmf0"))
        scene.target = None
        scene.wait_all_gone()


def verbose(new):
    with new() as scene:
        done = scene.run("nvmf-connect", scene.uri, "--run", "true").must_succeed()
        check(done.err == "", f"it said {done.err!r}")
        done = scene.run("nvmf-connect", "-v", scene.uri, "--run", "true").must_succeed()
        check(f"connected to {NQN}" in done.err, f"it said {done.err!r}")


def both_spellings(new):
    with new() as scene:
        done = scene.run("nvmf-connect", "-t", "tcp", "-a", "127.0.0.1", "-s", scene.target.port, "-n",
                         NQN, "-i", "3", "-Q", "32", "-k", "10", "-W", "1", "-P", "1",
                         "-q", programs.HOST_NQN, "-I", programs.HOST_ID, "-d", "-T", "8",
                         "--nbd", "tcp:127.0.0.1:0").must_succeed()
        check(done.err.count("no effect") == 2, f"notes: {done.err!r}")
        check(" nbd://127.0.0.1:" in done.out, f"it printed {done.out!r}")
        copies_back(scene, done.out.split()[1])
        connection = scene.listed()["Connections"][0]
        check(len(connection["queues"]) == 3, f"queues: {connection['queues']}")
        check(connection["queue_size"] == 32 and connection["hostnqn"] == programs.HOST_NQN,
              f"{connection}")
        scene.run("nvmf", "disconnect", "-n", NQN).must_succeed()
        scene.nothing_left_but_the_target()


def run_command(new):
    with new() as scene:
        done = scene.run("nvmf-connect", scene.uri, "--run", 'nbdinfo --size "$uri"; exit 7')
        check(done.status == 7 and done.out == f"{64 * MIB}\n", f"{done}")
        done = scene.run("nvmf-connect", scene.uri, "--run", "kill -9 $$")
        check(done.status == 137, f"{done}")
        scene.nothing_left_but_the_target()
        # The command goes when the connection does, with all that it started.
        mark = scene.space.path("mark")
        connection = programs.Server(
            scene.space, ["nvmf-connect", scene.uri, "-l", "0.2", "--run",
                          f"trap 'echo told > {mark}; exit 0' TERM; echo up; sleep 100 & wait"],
            "up", 1)
        os.kill(scene.target.process.pid, signal.SIGKILL)
        check(connection.wait(PATIENCE) == 1, "a connection that is lost for good must exit 1")
        check("lost for good" in connection.errors(), f"it said {connection.errors()!r}")
        check(os.path.exists(mark), "the command was not told")
        connection.kill()
        scene.wait_all_gone()


def ignoring_command(new):
    with new() as scene:
        connection = programs.Server(
            scene.space, ["nvmf-connect", scene.uri, "--run",
                          "trap '' TERM; echo up; while :; do sleep 1; done"], "up", 1)
        os.kill(connection.process.pid, signal.SIGTERM)
        check(connection.wait(10) == 137, "the command's status is that of its SIGKILL")
        connection.kill()
        scene.nothing_left_but_the_target()


def read_only(new):
    with new() as scene:
        uri = scene.connect("--read-only")["nvmf0n1"]
        scene.run("nbdinfo", "--is", "read-only", uri).must_succeed()


def identify(new):
    with new() as scene:
        scene.connect()
        by_name = scene.run("nvmf", "id-ctrl", "nvmf0").must_succeed().out
        check("sqes      : 0x66" in by_name, by_name)
        check(scene.run("nvmf", "id-ctrl", "nvmf0n1").must_succeed().out == by_name, "by namespace")
        by_uri = json.loads(scene.run("nvmf", "id-ctrl", scene.uri, "-o", "json").must_succeed().out)
        check(by_uri["subnqn"] == NQN, f"{by_uri}")
        namespace = json.loads(
            scene.run("nvmf", "id-ns", "nvmf0n1", "-o", "json").must_succeed().out)
        check(namespace["nsze"] == 64 * MIB // 512, f"{namespace}")
        raw = scene.space.path("raw")
        scene.run("sh", "-c", f"{scene.space.program('nvmf')} id-ns {scene.uri}/1 -b > {raw}"
                  ).must_succeed()
        with open(raw, "rb") as data:
            data = data.read()
        check(len(data) == 4096 and int.from_bytes(data[:8], "little") == 64 * MIB // 512, "raw data")
        scene.refused("nvmf", "id-ns", "nvmf0n7", says="Invalid Namespace")
        scene.refused("nvmf", "id-ctrl", "nvmf3", says="no connection nvmf3")
        scene.refused("nvmf", "id-ctrl", f"{scene.uri}x", says=NQN + "x")
        check(len(scene.listed()["Connections"]) == 1, "a URI must leave nothing behind")


def names(new):
    with new() as scene:
        scene.connect("--name", "disk")
        scene.refused("nvmf-connect", scene.uri, says="disk (process")
        scene.refused("nvmf-connect", scene.uri, "-D", "--name", "disk", says="the name disk is taken")
        check(list(scene.connect("-D")) == ["nvmf0n1"], "a second one, as asked for")
        check(list(scene.connect("-D")) == ["nvmf1n1"], "a third one")
        scene.run("nvmf", "disconnect", "disk", "nvmf0").must_succeed()
        check([c["name"] for c in scene.listed()["Connections"]] == ["nvmf1"], "nvmf1 stays")
        scene.refused("nvmf", "disconnect", "disk", says="no connection disk")
        scene.refused("nvmf", "disconnect", "nvmf1n1", says="is a namespace of the connection nvmf1")
        scene.refused("nvmf", "disconnect", "-n", "nqn.other", says="nqn.other")
        scene.refused("nvmf", "disconnect", "", status=2, says="use 1 to 64 letters")
        scene.run("nvmf", "disconnect-all").must_succeed()
        scene.nothing_left_but_the_target()
        scene.run("nvmf", "disconnect", "--all").must_succeed()


def killed_connection(new):
    with new() as scene:
        scene.connect("-k", "1", "--cqt", "0.1")
        pid = scene.pid("nvmf0")
        os.kill(pid, signal.SIGKILL)
        scene.wait_gone(pid)
        check(scene.space.sockets(), "the test expects sockets that nobody removed")
        check(scene.listed()["Connections"] == [], "a dead connection is not listed")
        scene.refused("nvmf", "id-ctrl", "nvmf0", says="no connection nvmf0")
        exports = scene.connect()
        check(list(exports) == ["nvmf0n1"], f"the name is free again: {exports}")
        copies_back(scene, exports["nvmf0n1"])
        scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
        scene.nothing_left_but_the_target()


def hanging_target(new):
    """A target that is stopped keeps its connections open and says nothing."""
    with new() as scene:
        uri = scene.connect("-k", "60")["nvmf0n1"]
        client = programs.Server(scene.space, ["sh", "-c", f"echo up; exec nbdcopy {uri} null:"],
                                 "up", 1)
        programs.suspend(scene.target.process.pid)
        try:
            time.sleep(0.3)
            done = scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
            check(done.seconds < 5, f"disconnect took {done.seconds:.1f} s")
            client.kill()
            scene.nothing_left_but_the_target()
            scene.refused("nvmf", "id-ctrl", scene.uri, within=25)
            connecting = programs.Server(scene.space, ["sh", "-c", "echo up; exec " + " ".join(
                [scene.space.program("nvmf-connect"), "--foreground", scene.uri])], "up", 1)
            scene.wait_state(("connecting",))
            started = time.monotonic()
            connecting.process.terminate()
            check(connecting.wait(10) == 1, "ended while connecting: exit 1")
            check(time.monotonic() - started < 5, "SIGTERM while connecting took too long")
            connecting.kill()
        finally:
            scene.target.process.send_signal(signal.SIGCONT)
        scene.nothing_left_but_the_target()


def keep_alive_notices_silence(new):
    with new() as scene:
        scene.connect("-k", "2")
        programs.suspend(scene.target.process.pid)
        try:
            scene.wait_state(("lost", "reconnecting"))
        finally:
            scene.target.process.send_signal(signal.SIGCONT)
        check("is lost" in scene.log("nvmf0"), f"the log says {scene.log('nvmf0')!r}")
        scene.wait_state(("live",))
        scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
        scene.nothing_left_but_the_target()


def hanging_control_client(new):
    """Somebody who opens the control socket and says nothing hurts nobody."""
    with new() as scene:
        scene.connect()
        path = os.path.join(scene.space.runtime, "nvmf0.sock")
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(80)]
        for one in crowd:
            one.connect(path)
            one.sendall(b'{"version":1,')
        check(scene.run("nvmf", "list").must_succeed().seconds < 5, "list took too long")
        done = scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
        check(done.seconds < 5, f"disconnect took {done.seconds:.1f} s")
        for one in crowd:
            one.close()


def stopped_connection(new):
    """A connection whose process is stopped is named by list, and others are shown."""
    with new() as scene:
        scene.connect()
        scene.connect("-D")
        pid = scene.pid("nvmf0")
        programs.suspend(pid)
        try:
            done = scene.run("nvmf", "list")
            check(done.status == 1 and "nvmf1n1" in done.out and "nvmf0.sock" in done.err, f"{done}")
            check(done.seconds < 2 + 4, f"list took {done.seconds:.1f} s")
        finally:
            os.kill(pid, signal.SIGCONT)
        scene.run("nvmf", "disconnect", "--all").must_succeed()
        scene.nothing_left_but_the_target()


def interrupted_parent(new):
    """Whoever ends the waiting parent ends the child that still connects."""
    with new(target=False) as scene, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        uri = f"nvme+tcp://127.0.0.1:{listener.getsockname()[1]}/{NQN}"
        parent = programs.Server(scene.space, ["sh", "-c", "echo up; exec "
                                               + scene.space.program("nvmf-connect") + " " + uri],
                                 "up", 1)
        cases.wait_until(lambda: len(scene.space.processes()) == 2, PATIENCE, "the start of a child")
        time.sleep(0.2)
        parent.process.send_signal(signal.SIGINT)
        parent.wait(10)
        parent.kill()
        scene.wait_all_gone()
        check(not scene.space.sockets(), f"sockets are left: {scene.space.sockets()}")


ALL = [background, foreground_and_sigterm, several_exports, logs, verbose, both_spellings,
       run_command, ignoring_command, read_only, identify, names, killed_connection,
       hanging_target, keep_alive_notices_silence, hanging_control_client,
       stopped_connection, interrupted_parent,
       *losses.ALL, *refusals.ALL]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of the programs")
    parser.add_argument("--io", choices=("io_uring", "epoll"), default="epoll")
    parser.add_argument("--only", action="append", help="run cases whose name has this in it")
    words = parser.parse_args()
    counted = cases.Cases(words.only)

    def body():
        for case in ALL:
            counted.run(case.__name__, case,
                        lambda **options: Scene(words.bin, words.io, **options))

    return cases.run_script(body, counted, SCRIPT_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
