"""What the cases of recovery_test.py happen in: targets in one place, connections to them, and old
writes that are executed late."""

import contextlib
import os

import cases
import programs
import trouble
from nbd_client import Client

DISK_MIB = 16
PATIENCE = 40  # for what takes a moment
BLOCK = 4096
OLD, NEW, OTHER = b"\xaa" * BLOCK, b"\xbb" * BLOCK, b"\xcc" * BLOCK


class Scene:
    """A workspace with targets and connections; `slack` seconds are added to every upper bound."""

    def __init__(self, workspace, slack):
        self.workspace = workspace
        self.slack = slack
        self._disks = 0

    def disk(self):
        self._disks += 1
        path = self.workspace.path(f"disk{self._disks}.img")
        with open(path, "wb") as disk:
            disk.truncate(DISK_MIB << 20)
        return path

    def target(self, *options):
        return trouble.RestartedTarget(self.workspace, [f"file:{self.disk()}"], options)

    def connect(self, target, name, *options):
        return programs.Connection(self.workspace, target.uri, "--name", name, "-i", "2",
                                   *options,
                                   nbd="unix:" + self.workspace.path(f"{name}.nbd.sock"))

    @contextlib.contextmanager
    def served(self, *options, target_options=()):
        with self.target(*target_options) as target:
            with self.connect(target, "disk", *options) as connection:
                with Client.of(connection.export(1)) as client:
                    yield target, connection, client
        self.workspace.check_nothing_left()

    def status(self, name="disk"):
        return trouble.status(self.workspace, name)

    def namespace(self, name="disk"):
        return self.status(name)["namespaces"][0]

    def check_only(self, *targets):
        """No process, no socket but those of the targets; what was found is said."""
        allowed = {target.process.pid for target in targets}
        cases.wait_until(lambda: set(self.workspace.processes()) <= allowed, programs.LEAVE_LIMIT,
                         "the end of every process but the target")
        expected = {os.path.relpath(target.control, self.workspace.folder) for target in targets}
        left = set(self.workspace.sockets()) - expected
        cases.check(not left, f"sockets were left behind: {', '.join(sorted(left))}")
        mounts = open("/proc/self/mounts").read()
        cases.check(self.workspace.folder not in mounts, "a mount was left behind.")


def hold_write(target, client, after_ms):
    """A write that the target has taken and neither executed nor answered, then the loss of its
    connection. The target will execute it `after_ms` later. Returns the write's cookie."""
    client.write(0, OTHER)
    target.ctl("late", str(after_ms), "--hold", "1")
    cookie = client.ask_write(0, OLD)
    cases.wait_until(lambda: target.shown()["counters"]["held"] == 1, PATIENCE, "the write's arrival")
    target.ctl("drop")
    return cookie
