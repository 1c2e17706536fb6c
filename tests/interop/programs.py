"""Runs nvmf-target, nvmf-connect and nvmf as a user would, each in a workspace of its own: runtime
directory, home, files. Whatever a test leaves running or lying about is found and ended here."""

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass

import cases
import vm

START_LIMIT = 40
STOP_LIMIT = 10
LEAVE_LIMIT = 20  # for what ends at once, where the machine is busy
PORT_LIMIT = 20
# Given everywhere, so that no test depends on this machine's /etc/nvme.
HOST_NQN = "nqn.2024-05.org.example:host:interop"
HOST_ID = "6e766d66-0000-4000-9000-000000000001"
NAMESPACE_LINE = re.compile(r"^(\S+n\d+) (nbd\S+)$")


@dataclass(frozen=True)
class Result:
    command: str
    status: int  # negative: the signal that ended it
    out: str
    err: str
    seconds: float

    def must_succeed(self):
        cases.check(self.status == 0, f"`{self.command}` exited {self.status}:\n{self.err}"
                    + (f"\n{self.out[-2000:]}" if self.out else ""))
        return self


def _threads_are(pid, states):
    """Whether each thread of the process is in one of these states, or has gone. The state of the
    process alone is that of its first thread."""
    def is_so(task):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), \
                open(f"/proc/{pid}/task/{task}/stat", "rb") as status:
            return status.read().rpartition(b") ")[2][:1] in states
        return True
    return all(map(is_so, os.listdir(f"/proc/{pid}/task")))


def running(pid):
    """Whether the process is there and not a zombie that nobody has waited for yet."""
    try:
        return not _threads_are(pid, b"ZX")
    except OSError:
        return False


def suspend(pid):
    """SIGSTOP; none of its threads runs any more when this returns. The signal alone only asks for
    that: threads on other CPUs answer a request or two more."""
    os.kill(pid, signal.SIGSTOP)
    cases.wait_until(lambda: _threads_are(pid, b"TtZX"), 20, f"SIGSTOP of process {pid}", 0.001)


def terminate(process):
    """SIGTERM, and it has been taken note of when this returns: a second one that comes while the
    first is pending would not count."""
    def noted():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), \
                open(f"/proc/{process.pid}/status") as status:
            pending = next((line for line in status if line.startswith("ShdPnd:")), "ShdPnd: 0")
            return not int(pending.split()[1], 16) >> (signal.SIGTERM - 1) & 1
        return True
    process.terminate()
    cases.wait_until(noted, LEAVE_LIMIT, "taking note of SIGTERM", 0.001)


def when_port_is_free(start):
    """What start() gives: a server at the port of one that was killed. The kernel lets go of an
    io_uring's sockets a while after its process has gone."""
    deadline = time.monotonic() + PORT_LIMIT
    while True:
        try:
            return start()
        except cases.Failed as problem:
            taken = "EADDRINUSE" in str(problem) or "another process serves" in str(problem)
            if not taken or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class Workspace:
    """A folder and an environment. The folder's name in the environment marks every process that
    was started from here, daemons too, so that a leftover is told from anybody else's process."""

    def __init__(self, bin_folder, io=None):
        self.bin = os.path.abspath(bin_folder)
        self.folder = tempfile.mkdtemp(prefix="nvmf-interop-")
        self.runtime = self.path("run")
        os.mkdir(self.path("home"))
        self.environment = dict(os.environ, NVMF_RUNTIME_DIR=self.runtime,
                                HOME=self.path("home"), TMPDIR=self.folder)
        self.environment.pop("XDG_CONFIG_HOME", None)
        self.environment.pop("NVMF_IO", None)
        if io:
            self.environment["NVMF_IO"] = io

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sweep()
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def program(self, name):
        """Our own program of this build, or Debian's."""
        if not name.startswith("nvmf"):
            return cases.find_program(name)
        path = os.path.join(self.bin, name)
        if not os.access(path, os.X_OK):
            raise cases.Lacking(f"{path} is missing: build it first.")
        return path

    def stripped(self, name):
        """A copy of our own program without what debuggers want, which is most of it: for machines
        whose files are all in memory."""
        folder = self.path("stripped")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, name)
        subprocess.run([cases.find_program("llvm-strip-19"), "-o", path, self.program(name)],
                       check=True, timeout=60)
        return path

    def run(self, *argv, limit=60, environment=None):
        """Runs a program to its end. Output goes through files, not pipes: a daemon that it leaves
        behind can then not hold us up. Over the limit is a failure, and ends it."""
        command = [self.program(argv[0])] + [str(word) for word in argv[1:]]
        shown = " ".join([argv[0]] + command[1:])
        started = time.monotonic()
        with tempfile.TemporaryFile(dir=self.folder) as out, \
                tempfile.TemporaryFile(dir=self.folder) as err:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                       cwd=self.folder, preexec_fn=vm.die_with_parent,
                                       env=dict(self.environment, **(environment or {})))
            try:
                process.wait(limit)
            except BaseException as problem:
                process.kill()
                process.wait()
                if not isinstance(problem, subprocess.TimeoutExpired):
                    raise
                err.seek(0)
                raise cases.Failed(f"`{shown}` was still running after {limit} s:\n"
                                   + err.read().decode(errors="replace")) from None
            out.seek(0)
            err.seek(0)
            return Result(shown, process.returncode, out.read().decode(errors="replace"),
                          err.read().decode(errors="replace"), time.monotonic() - started)

    def processes(self):
        """Pids that run, were started from this workspace, and are not this script."""
        mark = f"NVMF_RUNTIME_DIR={self.runtime}".encode()
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            try:
                with open(f"/proc/{name}/environ", "rb") as environ:
                    ours = mark in environ.read().split(b"\0")
            except OSError:
                continue
            if ours and running(int(name)):
                found.append(int(name))
        return found

    def sockets(self):
        """Unix sockets that lie in the workspace."""
        found = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    if os.lstat(path).st_mode & 0o170000 == 0o140000:
                        found.append(os.path.relpath(path, self.folder))
                except OSError:
                    pass
        return found

    def sweep(self):
        """Ends every process that was started from here and removes its sockets."""
        deadline = time.monotonic() + LEAVE_LIMIT
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        for name in self.sockets():
            with contextlib.suppress(FileNotFoundError):  # its own process was faster
                os.unlink(self.path(name))

    def check_nothing_left(self):
        """No process and no socket; a process that is just ending gets a moment for it."""
        cases.wait_until(lambda: not self.processes(), LEAVE_LIMIT,
                         "the end of every process started")
        cases.check(not self.sockets(), f"sockets were left behind: {', '.join(self.sockets())}")


class Server:
    """One of our programs that serves until told to stop. Ready when `lines` lines of its standard
    output match `pattern`; they are in `matches`."""

    def __init__(self, workspace, argv, pattern, lines, environment=None, limit=START_LIMIT):
        self.shown = " ".join(str(word) for word in argv)
        self.matches = []
        self._errors_path = tempfile.mkstemp(prefix="stderr-", dir=workspace.folder)[1]
        self._unread = b""
        with open(self._errors_path, "wb") as errors:
            self.process = subprocess.Popen(
                [workspace.program(argv[0])] + [str(word) for word in argv[1:]],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                cwd=workspace.folder, preexec_fn=vm.die_with_parent,
                env=dict(workspace.environment, **(environment or {})))
        try:
            self._wait_ready(re.compile(pattern), lines, time.monotonic() + limit, limit)
        except BaseException:
            self.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self.kill()

    def errors(self):
        with open(self._errors_path, errors="replace") as text:
            return text.read()

    def _wait_ready(self, pattern, lines, deadline, limit):
        output = self.process.stdout
        while len(self.matches) < lines:
            left = deadline - time.monotonic()
            readable, _, _ = select.select([output], [], [], max(0, left))
            piece = os.read(output.fileno(), 65536) if readable else b""
            if not piece:
                why = "ended" if readable else f"was not ready after {limit} s"
                raise cases.Failed(f"`{self.shown}` {why}: {self.errors().strip()} "
                                   f"(printed {len(self.matches)} of {lines} lines)")
            *whole, self._unread = (self._unread + piece).split(b"\n")
            for line in whole:
                match = pattern.match(line.decode(errors="replace").strip())
                if match:
                    self.matches.append(match)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def wait(self, limit):
        """Its exit status, if it ends by itself within the limit."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise cases.Failed(f"`{self.shown}` did not end within {limit} s.") from None

    def stop(self):
        """SIGTERM must end it, with status 0, in bounded time."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise cases.Failed(f"`{self.shown}` ignored SIGTERM for {STOP_LIMIT} s.") from None
        self.kill()
        cases.check(status == 0,
                    f"`{self.shown}` ended with status {status}: {self.errors().strip()}")


class Target(Server):
    """nvmf-target on a free port of 127.0.0.1. `subsystems`: NQN to arguments that follow it.
    `port`: one of vm.free_ports(), if nobody is to take it while the target does not listen."""

    def __init__(self, workspace, subsystems, options=(), address="127.0.0.1", port=0):
        argv = ["nvmf-target", "--listen", f"{address}:{port}", *options]
        for nqn, arguments in subsystems.items():
            argv += ["--subsystem", nqn, *arguments]
        super().__init__(workspace, argv, r"(nvme\+tcp://\S+:(\d+)/(\S+))$", len(subsystems))
        self.uris = {match[3]: match[1] for match in self.matches}
        self.port = int(self.matches[0][2])


class Connection(Server):
    """nvmf-connect in the foreground. `exports`: namespace name, such as nvmf0n1, to NBD URI."""

    def __init__(self, workspace, uri, *options, namespaces=1, nbd=None, environment=None):
        argv = ["nvmf-connect", uri, "-q", HOST_NQN, "-I", HOST_ID, "--foreground",
                "--nbd", nbd or "unix:" + workspace.path("nbd.sock"), *options]
        super().__init__(workspace, argv, NAMESPACE_LINE.pattern, namespaces, environment)
        self.exports = {match[1]: match[2] for match in self.matches}

    def export(self, nsid):
        for name, uri in self.exports.items():
            if name.endswith(f"n{nsid}"):
                return uri
        raise cases.Failed(f"namespace {nsid} is not among {', '.join(self.exports)}.")


def random_file(path, size):
    """Random bytes: no block of zeros that a copying program could leave out."""
    with open(path, "wb") as out:
        for _ in range(size // (1 << 20)):
            out.write(os.urandom(1 << 20))
        out.write(os.urandom(size % (1 << 20)))
    return path


def same_bytes(one, other):
    """Whether two files are equal; os-level compare in pieces of 1 MiB."""
    with open(one, "rb") as left, open(other, "rb") as right:
        while True:
            a, b = left.read(1 << 20), right.read(1 << 20)
            if a != b:
                return False
            if not a:
                return True
