"""Targets that can be killed and come back in the same place, what becomes of a connection to them,
and fio that runs meanwhile."""

import contextlib
import json
import os
import random
import signal
import threading
import time

import cases
import programs
import vm

NQN = "nqn.2024-05.org.example:trouble"
FIO_GRACE = 120


def lasting_address(fixed=None):
    """(address, port) that nobody else takes while nobody listens there: neither another test that
    asks for a free port, nor our own connection attempts, which come from 127.0.0.1. With a `fixed`
    address the port alone has to be enough."""
    address = fixed or ".".join(["127"] + [str(random.randint(1, 254)) for _ in range(3)])
    return address, vm.free_ports(1, address)[0]


class RestartedTarget:
    """nvmf-target in one place for as long as the test runs, whatever happens to the process.
    `namespaces`: what follows --namespace; a file keeps its data when the process is killed."""

    def __init__(self, workspace, namespaces, options=(), nqn=NQN, address=None):
        self.workspace = workspace
        self.nqn = nqn
        self.address, self.port = lasting_address(address)
        self.control = workspace.path(f"target-{self.port}.sock")
        self.options = list(options)
        self.holds(namespaces)
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.runs():
            self.go_on()
        if kind is None and self.runs():
            self._process.stop()
        self.kill()

    def runs(self):
        return self.process.poll() is None

    @property
    def uri(self):
        return f"nvme+tcp://{self.address}:{self.port}/{self.nqn}"

    @property
    def process(self):
        return self._process.process

    def holds(self, namespaces):
        """From the next start on."""
        self._arguments = [word for space in namespaces for word in ("--namespace", space)]

    def start(self, *more):
        """When it returns, the target accepts connections, since less than the time that it takes
        to read a line. That moment is returned."""
        argv = ["nvmf-target", "--listen", f"{self.address}:{self.port}", "--control", self.control,
                *self.options, *more, "--subsystem", self.nqn, *self._arguments]
        self._process = programs.when_port_is_free(
            lambda: programs.Server(self.workspace, argv, r"(nvme\+tcp://\S+)$", 1))
        return time.monotonic()

    def kill(self):
        """kill -9; it is gone when this returns."""
        self._process.kill()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.control)

    def hang(self):
        programs.suspend(self.process.pid)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def ctl(self, *words):
        """One fault, by `nvmf-target ctl`; what it printed."""
        return self.workspace.run("nvmf-target", "ctl", self.control, *words,
                                  limit=20).must_succeed().out

    def shown(self):
        return json.loads(self.ctl("show"))


def status(workspace, name):
    """What `nvmf list` tells about one connection; None if it is not there."""
    # "hanging" has status 1, and is an answer.
    told = workspace.run("nvmf", "list", "-o", "json", limit=20)
    for connection in json.loads(told.out or "{}").get("Connections", ()):
        if connection["name"] == name:
            return connection
    return None


def state(workspace, name):
    return (status(workspace, name) or {}).get("state")


def wait_for_state(workspace, name, wanted, limit=40):
    cases.wait_until(lambda: state(workspace, name) == wanted, limit, f"{name} being {wanted}")


def losses(workspace, name):
    return (status(workspace, name) or {}).get("losses", 0)


def wait_for_loss(workspace, name, before):
    """More losses than `before` have been noticed."""
    cases.wait_until(lambda: losses(workspace, name) > before, 40, f"the loss of {name}")


def wait_for_life_after(workspace, name, before):
    """Live again after a further loss: right after the end of a target a connection may say that it
    is live because it has not noticed yet."""
    def again():
        told = status(workspace, name)
        return told and told["losses"] > before and told["state"] == "live"
    cases.wait_until(again, 40, f"{name} being live again")


def fio_verifies(workspace, uri, seconds, jobs=2, mebibytes=16, depth=16):
    """Random writes of random sizes for so long, each block read back soon after and once more when
    all of a job's part has been written; fio itself compares checksums, and that no older block is
    there. Returns its account of each job; no error at all is allowed."""
    report = workspace.path(f"fio-{os.getpid()}-{time.monotonic_ns()}.json")
    told = workspace.run(
        "fio", "--name=trouble", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite",
        "--bsrange=4k-64k", "--blockalign=4k", f"--size={mebibytes}M",
        f"--offset_increment={mebibytes}M", f"--numjobs={jobs}", f"--iodepth={depth}",
        "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=64", "--verify_state_save=0",
        "--do_verify=1", "--time_based", f"--runtime={max(1, round(seconds))}", "--output-format=json",
        f"--output={report}", limit=seconds + FIO_GRACE)
    text = ""
    if os.path.exists(report):
        with open(report) as file:
            text = file.read()
        os.unlink(report)
    cases.check(told.status == 0, f"`{told.command}` exited {told.status}:\n{told.err}\n"
                f"{told.out[-1000:]}\n{text[:text.find('{')][-1000:]}")
    accounts = json.loads(text[text.index("{"):])["jobs"]
    for one in accounts:
        cases.check(one["error"] == 0, f"fio reports error {one['error']}.")
    for way in ("write", "read"):
        cases.check(any(one[way]["total_ios"] > 0 for one in accounts), f"fio did no {way}.")
    return accounts


class FioMeanwhile:
    """fio_verifies() in a thread while the block runs; judged at the end of the block. It is fio
    that has the thread, because processes die with the thread that started them (vm.py)."""

    def __init__(self, *arguments, **options):
        self._arguments = arguments
        self._options = options
        self._problem = None
        self.accounts = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._thread.join()
        if kind is None and self._problem:
            raise self._problem

    def runs_for(self, seconds):
        """Waits so long, or until fio has ended; whether it still runs."""
        self._thread.join(seconds)
        return self._thread.is_alive()

    def _run(self):
        try:
            self.accounts = fio_verifies(*self._arguments, **self._options)
        except Exception as problem:
            self._problem = problem
