"""A workspace with a target in it, for the tests of the programs."""

import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import cases  # noqa: E402
import programs  # noqa: E402
import vm  # noqa: E402
from cases import check  # noqa: E402

NQN = "nqn.2024-05.org.example:tools"
PATIENCE = 40  # for what takes a moment, or a pause between two attempts to connect


class RestartableTarget(programs.Server):
    """nvmf-target at a port that stays the same when it is killed and started again, and that nobody
    else takes meanwhile (0: at any such port)."""

    def __init__(self, space, port, arguments):
        port = port or vm.free_ports(1)[0]
        super().__init__(space, ["nvmf-target", "--listen", f"127.0.0.1:{port}", "--subsystem", NQN,
                                 *arguments], r"(nvme\+tcp://\S+:(\d+)/(\S+))$", 1)
        self.uris = {NQN: self.matches[0][1]}
        self.port = int(self.matches[0][2])


class Scene:
    """A workspace with a target in it. `file`: its namespace is a file, which survives it. `orders`:
    the target takes some."""

    # The path of a socket is short: in the folder where programs run.
    ORDERS = "orders.sock"

    def __init__(self, bin_folder, io, target=True, namespaces=("memory:64M",), options=(),
                 file=False, orders=False):
        self.space = programs.Workspace(bin_folder, io)
        self.target = None
        if file:
            with open(self.space.path("disk.img"), "wb") as disk:
                disk.truncate(64 << 20)
            namespaces = ("file:" + self.space.path("disk.img"),)
        self._arguments = [word for n in namespaces for word in ("--namespace", n)] + list(options)
        if orders:
            self._arguments += ["--control", self.ORDERS]
        if target:
            self.target = RestartableTarget(self.space, 0, self._arguments)

    def kill_target(self):
        """It is gone without a word, as after a power cut; restart_target() brings it back."""
        self.target.kill()

    def restart_target(self):
        port = self.target.port
        self.target = programs.when_port_is_free(
            lambda: RestartableTarget(self.space, port, self._arguments))

    def order(self, *words):
        return self.run("nvmf-target", "ctl", self.ORDERS, *words).must_succeed().out

    def wait_delayed(self, count):
        """So many commands have come to the target, which an order `delay` keeps unanswered."""
        cases.wait_until(lambda: json.loads(self.order("show"))["counters"]["delayed"] >= count,
                         PATIENCE, f"the arrival of {count} commands")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.target:
            self.target.kill()
        self.space.__exit__()

    @property
    def uri(self):
        return self.target.uris[NQN]

    def run(self, *argv, **named):
        return self.space.run(*argv, **named)

    def connect(self, *options):
        """A connection in the background: name of each namespace to its NBD URI."""
        done = self.run("nvmf-connect", self.uri, *options).must_succeed()
        lines = [programs.NAMESPACE_LINE.match(line) for line in done.out.splitlines()]
        check(lines and all(lines), f"nvmf-connect printed {done.out!r}")
        return {line[1]: line[2] for line in lines}

    def refused(self, *argv, status=1, says="", within=15):
        """The command must fail with that status and one clear sentence; the line that nvme-cli
        has for a controller's status may stand before it."""
        done = self.run(*argv)
        check(done.status == status, f"`{done.command}` exited {done.status}, not {status}: "
                                     f"{done.err}{done.out}")
        check(says in done.err, f"`{done.command}` said {done.err!r} instead of …{says}…")
        check(done.seconds < within, f"`{done.command}` took {done.seconds:.1f} s")
        sentences = [line for line in done.err.splitlines() if not line.startswith("NVMe status: ")]
        check(status != 1 or len(sentences) == 1, f"more than one sentence: {done.err!r}")
        return done

    def listed(self):
        return json.loads(self.run("nvmf", "list", "-o", "json").must_succeed().out)

    def connection(self, name="nvmf0"):
        """What `nvmf list` tells of one connection; nothing if it is not there."""
        for connection in self.listed()["Connections"]:
            if connection["name"] == name:
                return connection
        return None

    def wait_state(self, wanted, seconds=PATIENCE, name="nvmf0"):
        def reached():
            told = self.connection(name)
            return told if told and told["state"] in wanted else None
        return cases.wait_until(reached, seconds, f"{name} becoming {' or '.join(wanted)}")

    def crash_records(self):
        return sorted(n for n in os.listdir(self.space.runtime) if ".crash" in n)

    def pid(self, name):
        for connection in self.listed()["Connections"]:
            if connection["name"] == name:
                return connection["pid"]
        raise cases.Failed(f"{name} is not listed")

    def log(self, name):
        with open(os.path.join(self.space.runtime, name + ".log")) as text:
            return text.read()

    def wait_gone(self, pid, seconds=programs.LEAVE_LIMIT):
        cases.wait_until(lambda: not programs.running(pid), seconds, f"the end of process {pid}")

    def wait_all_gone(self):
        cases.wait_until(lambda: not self.space.processes(), programs.LEAVE_LIMIT,
                         "the end of all processes")

    def nothing_left_but_the_target(self):
        """Somebody's child that was killed may need a moment to be gone."""
        targets = {self.target.process.pid} if self.target else set()
        cases.wait_until(lambda: set(self.space.processes()) <= targets, programs.LEAVE_LIMIT,
                         "the end of all processes but the target")
        left = set(self.space.sockets()) - {self.ORDERS}
        check(not left, f"sockets are left: {left}")
