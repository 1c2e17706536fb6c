#!/usr/bin/env python3
"""What a running connection tells of itself: nvmf events, shown afterwards and while they happen,
with the control socket's stream behind it; nvmf stats; nvmf trace. Prints `N passed, N failed`."""

import argparse
import contextlib
import json
import pathlib
import socket
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import cases  # noqa: E402
from cases import check  # noqa: E402
from scene import RestartableTarget, Scene  # noqa: E402

SCRIPT_LIMIT = 560
PATIENCE = 40
CROWD = 40
FOLLOWERS_MAX = 32  # of a connection


class ControlledScene(Scene):
    """A target that takes orders."""

    def __init__(self, bin_folder, io, control=False, **named):
        super().__init__(bin_folder, io, target=False, **named)
        if control:
            self._arguments += ["--control", self.space.path("ctl")]
            self.target = RestartableTarget(self.space, 0, self._arguments)


def ask(scene, verb, args):
    """What the connection nvmf0 answers, asked as any program may ask it."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(scene.space.runtime + "/nvmf0.sock")
        client.settimeout(PATIENCE)
        client.sendall((json.dumps({"version": 2, "verb": verb, "args": args}) + "\n").encode())
        return json.loads(client.makefile().readline())


def followers(scene):
    return ask(scene, "events", {})["followers"]


class Follower:
    """`nvmf events --follow`, and the lines that it has printed so far. It follows when made."""

    def __init__(self, scene, *words):
        self.lines = []
        before = followers(scene)
        self.process = subprocess.Popen(
            [scene.space.program("nvmf"), "events", *words], env=scene.space.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        cases.wait_until(lambda: self.process.poll() is not None or followers(scene) > before,
                         PATIENCE, "the follower to be counted")

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    def events(self):
        return [json.loads(line) for line in list(self.lines)]

    def wait_for(self, kind):
        def come():
            return next((e for e in self.events() if e["event"] == kind), None)
        return cases.wait_until(come, PATIENCE, f"an event {kind}, of {self.lines}")

    def ends(self):
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status, self.process.stderr.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def followed(new, *words):
    with new(control=True) as scene:
        scene.connect()
        with Follower(scene, "--follow", *words) as follower:
            yield scene, follower


def ctl(scene, *words):
    return scene.run("nvmf-target", "ctl", scene.space.path("ctl"), *words).must_succeed()


def each_kind_is_told(new):
    with followed(new) as (scene, follower):
        ctl(scene, "event", "smart", "--warning", "4")
        check(follower.wait_for("smart")["critical_warning"] == 4, follower.lines)
        ctl(scene, "event", "error")
        check(follower.wait_for("error")["errors"], follower.lines)
        ctl(scene, "event", "firmware")
        follower.wait_for("firmware_activation")
        ctl(scene, "ns-resize", "1", "128M")
        resized = follower.wait_for("namespace_resized")
        check((resized["size_bytes_before"], resized["size_bytes"]) == (64 << 20, 128 << 20), resized)
        check(follower.wait_for("namespaces_changed")["nsids"] == [1], follower.lines)
        ctl(scene, "drop")
        follower.wait_for("connection_lost")
        follower.wait_for("connection_live")
        for event in follower.events():
            check(event["connection"] == "nvmf0" and event["message"] and event["time"].endswith("Z"),
                  event)
        counts = scene.connection()["events"]
        check(counts["smart"] == 1 and counts["namespace_resized"] == 1, counts)
        check("health" in scene.run("nvmf", "list").must_succeed().out, "list tells of no event")


def shown_afterwards(new):
    with new(control=True) as scene:
        scene.connect()
        check(scene.run("nvmf", "events").must_succeed().out == "", "events of nothing")
        ctl(scene, "event", "smart", "--warning", "1")
        text = cases.wait_until(lambda: scene.run("nvmf", "events", "nvmf0").must_succeed().out,
                                PATIENCE, "the event")
        check(" nvmf0" in text and "Spare" in text, text)
        line = scene.run("nvmf", "events", "-o", "json").must_succeed().out
        check(json.loads(line)["event"] == "smart", line)


def follower_ends_with_the_connection(new):
    with followed(new) as (scene, follower):
        scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
        status, said = follower.ends()
        check(status == 0 and said == "", f"{status}: {said}")


def crowds_and_the_deaf(new):
    """Followers that do not read, that vanish, that are too many: nobody else notices."""
    with followed(new) as (scene, follower):
        path = scene.space.runtime + "/nvmf0.sock"
        request = json.dumps({"version": 2, "verb": "events", "args": {"follow": True}}) + "\n"
        crowd = []
        for _ in range(CROWD):
            client = socket.socket(socket.AF_UNIX)
            client.connect(path)
            client.settimeout(PATIENCE)
            client.sendall(request.encode())
            crowd.append(client)
        # In whatever order they are heard.
        answers = [json.loads(client.makefile().readline()) for client in crowd]
        refused = [answer for answer in answers if not answer["ok"]]
        check(len(refused) == CROWD + 1 - FOLLOWERS_MAX, f"{len(refused)} were refused")
        check(all("most" in answer["error"] for answer in refused), refused)
        ctl(scene, "event", "smart", "--warning", "4")
        follower.wait_for("smart")
        for client in crowd:
            client.close()
        cases.wait_until(lambda: followers(scene) == 1, PATIENCE, "the crowd to be forgotten")
        with Follower(scene, "--follow") as late:
            ctl(scene, "ns-resize", "1", "96M")
            late.wait_for("namespace_resized")


def what_is_not_there(new):
    with new() as scene:
        scene.refused("nvmf", "events", "nvmf7", says="no connection nvmf7")
        scene.refused("nvmf", "events", "--follow", says="no connection")
        scene.refused("nvmf", "events", "no/name", status=2)
        check(scene.run("nvmf", "events").must_succeed().out == "", "events of nobody")


def statistics(new):
    with new(control=True) as scene:
        exports = scene.connect()
        scene.run("nbdcopy", "--no-extents", exports["nvmf0n1"], "null:").must_succeed()
        told = json.loads(scene.run("nvmf", "stats", "-o", "json").must_succeed().out)
        [connection] = told["connections"]
        queues = connection["queues"]
        check(sum(q["read_bytes"] for q in queues[1:]) == 64 << 20, queues)
        check(connection["requests"]["read_bytes"] == 64 << 20, connection["requests"])
        text = scene.run("nvmf", "stats", "nvmf0").must_succeed().out
        check("p99.99" in text and "67.11 MB" in text, text)
        metrics = scene.run("nvmf", "stats", "--openmetrics").must_succeed().out
        check(metrics.endswith("# EOF\n") and 'connection="nvmf0"' in metrics, metrics[-200:])
        scene.kill_target()
        scene.wait_state(("reconnecting", "lost"))
        scene.restart_target()
        scene.wait_state(("live",))
        [later] = json.loads(scene.run("nvmf", "stats", "-o", "json").out)["connections"]
        check(later["losses"] == 1 and later["reconnects"] == 1, later)
        check(sum(q["read_bytes"] for q in later["queues"][1:]) == 64 << 20, "a loss took counts away")
        scene.refused("nvmf", "stats", "nvmf0", "--openmetrics", "-o", "json", status=2)
        scene.refused("nvmf", "stats", "nvmf5", says="no connection nvmf5")


def wire_trace(new):
    with new(control=True) as scene:
        scene.connect()
        place = scene.space.path("wire.pcapng")
        check("no trace" in scene.run("nvmf", "trace", "nvmf0").must_succeed().out, "a trace of itself")
        scene.run("nvmf", "trace", "nvmf0", place).must_succeed()
        scene.refused("nvmf", "trace", "nvmf0", scene.space.path("other"), says="already")
        scene.run("nvmf", "id-ctrl", "nvmf0").must_succeed()
        ended = scene.run("nvmf", "trace", "nvmf0", "--off").must_succeed().out
        check("has ended" in ended and " 0 packets" not in ended, ended)
        with open(place, "rb") as trace:
            check(trace.read(4) == b"\x0a\x0d\x0d\x0a", "it is no pcapng file")
        scene.refused("nvmf", "trace", "nvmf0", "--off", says="no trace")
        scene.refused("nvmf", "trace", "nvmf0", "/nowhere/file", says="/nowhere")
        scene.refused("nvmf", "trace", "nvmf0", "x", "--off", status=2)
        check("must be a path" in ask(scene, "trace", {"file": place + "\0no"})["error"],
              "a path with a NUL in it")


ALL = (statistics, wire_trace, each_kind_is_told, shown_afterwards, follower_ends_with_the_connection,
       crowds_and_the_deaf, what_is_not_there)


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
                        lambda **options: ControlledScene(words.bin, words.io, **options))

    return cases.run_script(body, counted, SCRIPT_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
