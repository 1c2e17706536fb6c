"""NBD servers of others: nbdkit and qemu-nbd."""

import contextlib
import os
import signal
import socket
import subprocess

import cases
import vm


class NbdServer:
    """nbdkit or qemu-nbd on a unix socket (or wherever `argv` says), that can be killed, stopped
    and started again. Its standard error is kept."""

    def __init__(self, workspace, name, *argv):
        self.workspace = workspace
        self.socket = workspace.path(f"{name}.sock")
        self.errors = workspace.path(f"{name}.err")
        self.argv = [word.replace("SOCKET", self.socket) for word in argv]
        self.process = None
        self.by_run = "--run" in argv  # then the socket is a file that says that it listens
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end(signal.SIGKILL)

    @property
    def uri(self):
        return f"nbd+unix:///?socket={self.socket}"

    def start(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        with open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(
                [self.workspace.program(self.argv[0]), *self.argv[1:]], stdin=subprocess.DEVNULL,
                stdout=errors, stderr=errors, cwd=self.workspace.folder,
                preexec_fn=vm.die_with_parent, env=self.workspace.environment)
        cases.wait_until(lambda: self.listens() or self.process.poll() is not None, 40,
                         f"`{self.argv[0]}` listening", 0.01)
        cases.check(self.process.poll() is None, f"`{' '.join(self.argv)}` ended: {self.said()}")

    def listens(self):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self.socket)
            return True
        return self.by_run and os.path.exists(self.socket)

    def end(self, number):
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(40)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)

    def said(self):
        with open(self.errors, errors="replace") as text:
            return text.read()


def nbdkit(workspace, name, *argv):
    return NbdServer(workspace, name, "nbdkit", "-f", "-U", "SOCKET", *argv)
