"""What becomes of a connection to Debian's nvmet when that is taken down and up through configfs, its
queues become fewer, its namespaces are made again, and the connection is reset or ended under I/O:
cases of kernel_target_test.py. Many of them are those of blktests' nvme group, which README.md
names."""

import errno
import itertools
import re
import time

import cases
import nvmet
import trouble
from nbd_client import Client

BLOCK = 4096
OLD, NEW = b"\xaa" * BLOCK, b"\xbb" * BLOCK
NAME = "kernel"
# What blktests 061 asks for; a target that reports no CQT and has not been silent needs no more.
OPTIONS = ("--name", NAME, "-i", "3", "-k", "1", "-c", "1", "--cqt", "0.2", "-l", "120")
BROKEN = re.compile(r"kernel BUG|BUG: |Oops|WARNING: |Call Trace")


def opened():
    """The subsystem as the machine was set up with it."""
    return next(one for one in nvmet.standard_layout() if one.nqn == nvmet.OPEN_NQN)


class Scene:
    """The bench of the other cases, and a connection to it that outlives losses."""

    def __init__(self, bench):
        self.bench = bench
        self.workspace = bench.workspace

    def connect(self, *options):
        return self.bench.connect(self.bench.machine.port, *OPTIONS, *options)

    def inside(self, text):
        return self.bench.machine.run(text)

    def status(self):
        return trouble.status(self.workspace, NAME)

    def namespace(self, nsid):
        return next(one for one in self.status()["namespaces"] if one["nsid"] == nsid)

    def fio(self, connection):
        return trouble.FioMeanwhile(self.workspace, connection.export(2),
                                    self.bench.loss_seconds, jobs=2, mebibytes=4, depth=4)

    def check_over(self):
        self.workspace.check_nothing_left()
        bad = [line for line in self.inside("dmesg -c").splitlines() if BROKEN.search(line)]
        cases.check(not bad, "the target's kernel complained:\n" + "\n".join(bad))


def under_fio(scene, do, least=1):
    """do() again and again while fio verifies, and `least` times in any case; the connection must be
    lost each time, and live again before the next."""
    times = 0
    with scene.connect() as connection:
        with scene.fio(connection) as fio:
            # Then fio is left alone: where writes are held for longer than a second, it would not end.
            end = time.monotonic() + scene.bench.loss_seconds
            while (fio.runs_for(1) and time.monotonic() < end) or times < least:
                before = trouble.losses(scene.workspace, NAME)
                do()
                times += 1
                trouble.wait_for_life_after(scene.workspace, NAME, before)
        losses = scene.status()["losses"]
        ios = sum(one["write"]["total_ios"] + one["read"]["total_ios"] for one in fio.accounts)
        print(f"       {times} times, {losses} losses, {ios} I/Os; last: "
              f"{scene.status()['last_loss']}", flush=True)
    scene.check_over()


def down_and_up(bench):
    """Everything but the disk goes and comes back, with the same identifiers (blktests 061)."""
    scene = Scene(bench)
    subsystem, disks = opened(), (0, 1)

    def again():
        scene.inside(nvmet.take_down_commands(subsystem))
        scene.inside(nvmet.bring_back_commands(subsystem, disks))
    under_fio(scene, again)


def port_away(bench):
    """The port alone goes: nobody listens for a while."""
    scene = Scene(bench)

    def away():
        scene.inside(nvmet.unlink_commands())
        time.sleep(0.5)
        scene.inside(nvmet.link_commands((nvmet.OPEN_NQN, nvmet.CLOSED_NQN)))
    under_fio(scene, away)


def queue_count_changes(bench):
    """Fewer and more I/O queues at each reconnect (blktests 048)."""
    scene = Scene(bench)
    path = f"{nvmet.CONFIG}/nvmet/subsystems/{nvmet.OPEN_NQN}/attr_qid_max"
    if bench.machine.attempt(f"test -e {path}")[0] != 0:
        print("       left out: this kernel has no attr_qid_max", flush=True)
        return
    usual = scene.inside(f"cat {path}").strip()
    counts = itertools.cycle(("1", "2", usual))
    seen = set()

    def change():
        # Later kernels end the controllers by themselves when it changes.
        before = trouble.losses(scene.workspace, NAME)
        scene.inside(nvmet.unlink_commands() + f"echo {next(counts)} >{path}\n"
                     + nvmet.link_commands((nvmet.OPEN_NQN, nvmet.CLOSED_NQN)))
        trouble.wait_for_life_after(scene.workspace, NAME, before)
        seen.add(len(scene.status()["queues"]))
    try:
        under_fio(scene, change, 3)
    finally:
        scene.inside(f"echo {usual} >{path}")
    cases.check({1, 3} <= seen, f"the queue counts were {sorted(seen)}.")


def reset_under_io(bench):
    """blktests 005, 022, 040."""
    scene = Scene(bench)
    under_fio(scene, lambda: scene.workspace.run("nvmf", "reset", NAME, limit=20).must_succeed())


def end_under_io(bench):
    """Requests are under way when the connection ends (blktests 040)."""
    scene = Scene(bench)
    with scene.connect() as connection:
        with Client.of(connection.export(1)) as client:
            for place in range(64):
                client.ask_write(place * BLOCK, NEW)
            took = scene.workspace.run("nvmf", "disconnect", NAME).must_succeed().seconds
            # Two seconds are promised; a machine that does other things gets as much again.
            cases.check(took <= 4, f"nvmf disconnect took {took:.2f} s.")
            cases.check(client.is_cut_off(20), "the NBD client was not told.")
    scene.check_over()


def made_again(bench):
    """A namespace that is made again without identifiers gets new ones from nvmet: it may be any
    disk, so nothing is written until the user says so."""
    scene = Scene(bench)
    subsystem = opened()
    with scene.connect() as connection:
        with Client.of(connection.export(1)) as client:
            client.write(0, OLD)
            scene.inside(nvmet.remove_namespace_commands(subsystem, 1))
            scene.inside(nvmet.plain_namespace_commands(subsystem, 1, 0))
            cases.wait_until(lambda: scene.namespace(1)["acceptable"], 60, "a namespace to accept")
            told = scene.workspace.run("nvmf", "list").must_succeed().out
            cases.check("nvmf accept" in told, f"nvmf list does not say what to do:\n{told}")
            print("       " + next(line for line in told.splitlines() if "nvmf accept" in line))
            # It is over with what comes now; or it waits. It is not written.
            cookie = client.ask_write(0, NEW)
            early = client.take(1)
            cases.check(early is None or early.error == errno.EIO, f"it was answered: {early}.")
            first = scene.inside("dd if=/dev/disk0 bs=4096 count=1 2>/dev/null | od -An -tx1 -N1"
                                 " || dd if=/dev/nullb0 bs=4096 count=1 2>/dev/null | od -An -tx1"
                                 " -N1")
            cases.check(first.strip() == "aa", f"the disk begins with {first.strip()!r}.")
            scene.workspace.run("nvmf", "accept", f"{NAME}n1").must_succeed()
            if early is None:
                cases.check(client.answer_to(cookie).error == 0, "what waited was not written.")
            client.write(0, NEW)
            cases.check(client.read(0, BLOCK) == NEW, "it reads as something else.")
    scene.inside(nvmet.remove_namespace_commands(subsystem, 1))
    scene.inside(nvmet.make_namespace_commands(subsystem, 1, 0))
    scene.check_over()


def disabled(bench):
    """Writes just after a namespace was disabled fail when -F says so and do not hang; enabled again,
    it goes on (blktests 055). nvmet calls it a path error, which may pass."""
    scene = Scene(bench)
    switch = f"{nvmet.CONFIG}/nvmet/subsystems/{nvmet.OPEN_NQN}/namespaces/1/enable"
    with scene.connect("-F", "2") as connection:
        with Client.of(connection.export(1)) as client:
            client.write(0, OLD)
            scene.inside(f"echo 0 >{switch}")
            reply = client.take_reply_to(client.ask_write(0, NEW), 40)
            cases.check(reply.error != 0, "a write to a disabled namespace succeeded.")
            scene.inside(f"echo 1 >{switch}")
            cases.wait_until(lambda: not scene.namespace(1)["stopped"], 60, "the namespace's return")
            cases.check(client.read(0, BLOCK) == OLD, "it reads as something else.")
            client.write(0, NEW)
    scene.check_over()


def renamed(bench):
    """The namespace has other identifiers, again and again, and its own in the end: I/O waits until
    then (blktests 058)."""
    scene = Scene(bench)
    subsystem = opened()
    with scene.connect() as connection:
        with Client.of(connection.export(1)) as client:
            client.write(0, OLD)
            for number in (901, 902, 903):
                scene.inside(nvmet.rename_namespace_commands(subsystem, 1, number))
            cases.wait_until(lambda: scene.namespace(1)["acceptable"], 60, "a namespace to accept")
            asked = client.ask_write(0, NEW)
            reply = client.take(0.5)
            cases.check(reply is None or reply.error, f"another disk was written: {reply}.")
            scene.inside(nvmet.rename_namespace_commands(subsystem, 1, 1))
            cases.wait_until(lambda: not scene.namespace(1)["stopped"], 60, "going on by itself")
            if reply is None:
                reply = client.take_reply_to(asked)
            left = OLD if reply.error else NEW
            cases.check(client.read(0, BLOCK) == left, "its own disk reads as something else.")
    scene.check_over()


def run_all(bench, counted):
    counted.run("taken down and up under fio", down_and_up, bench)
    counted.run("port away under fio", port_away, bench)
    counted.run("queue count changes under fio", queue_count_changes, bench)
    counted.run("nvmf reset under fio", reset_under_io, bench)
    counted.run("ended under I/O", end_under_io, bench)
    counted.run("namespace made again without identifiers", made_again, bench)
    # Behind it: Linux 6.1 refuses (EBUSY) to make a namespace again that was disabled and enabled.
    counted.run("namespace with other identifiers", renamed, bench)
    counted.run("namespace disabled", disabled, bench)
