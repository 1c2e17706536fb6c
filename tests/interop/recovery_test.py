#!/usr/bin/env python3
"""The promises about a lost target, one by one, with real processes: old writes that are executed
late and the fence against them, how fast I/O goes on, the deadlines, an end in bounded time whatever
the state, kill -9, another disk in the old one's place, and nothing left after many connections."""

import argparse
import contextlib
import errno
import os
import signal
import statistics
import sys
import threading
import time

import cases
import programs
import trouble
import wire
from nbd_client import Client
from recovery_scene import BLOCK, NEW, OLD, OTHER, PATIENCE, Scene, hold_write

LIMIT = 560
RETURNS = 20  # of the target, for the median
RETURN_LIMIT = 0.2
END_LIMIT = 2.0
# A machine that does other things gets as much again for an end, and so much more for a timer.
BUSY = 2.0


# ---- old writes, executed late

def ghost(scene, fence):
    """The old write is executed some time after the loss. Whoever waits for it ends with the newer
    data; whoever does not has the old data back, and that is shown: there it comes late enough for
    a machine that is slow to write the newer data."""
    options = ("--cqt", "3") if fence else ("--cqt", "3", "--no-fence")
    with scene.served(*options) as (target, _, client):
        lost = time.monotonic()
        cookie = hold_write(target, client, 1000 if fence else 4000)
        # The old write is done again, and answered; only then the new one is sent.
        waited = client.answer_to(cookie).at - lost
        client.write(0, NEW)
        client.flush()
        cases.wait_until(lambda: target.shown()["counters"]["ghosts"] == 1, PATIENCE, "the old write")
        found = client.read(0, BLOCK)
        print(f"       done again after {waited:.2f} s; in the end there is "
              f"{ {NEW: 'the newer data', OLD: 'the old data'}.get(found, 'something else')}",
              flush=True)
        if fence:
            cases.check(waited >= 3, f"the write was done again after {waited:.2f} s, not 3.")
            cases.check(found == NEW, "the newer data is not there.")
        else:
            cases.check(found == OLD, "without a fence nothing was lost: this test shows nothing.")
            said = scene.workspace.run("nvmf", "list").must_succeed().out
            cases.check("--no-fence" in said, f"nvmf list does not say --no-fence:\n{said}")


def beside_the_fence(scene):
    """While one block waits for its old write, everything else goes on: reads, of that block too,
    and writes of others. `nvmf list` says what waits."""
    with scene.served("--cqt", "8") as (target, _, client):
        cookie = hold_write(target, client, 60_000)
        cases.check(client.read(0, BLOCK) == OTHER, "the fenced block reads as something else.")
        client.write(BLOCK, NEW)
        cases.check(client.read(BLOCK, BLOCK) == NEW, "the block beside it was not written.")
        client.flush()
        fences = scene.namespace()["fences"]
        cases.check(fences and fences[0]["offset_bytes"] <= 0 < fences[0]["length_bytes"],
                    f"nvmf list shows no fence of the block: {fences}.")
        answered = client.take(0)
        cases.check(answered is None, f"the fenced write was answered already: {answered}.")
        # The wait is over when it is: nothing else was answered in between.
        cases.check(client.answer_to(cookie).error == 0, "the fenced write failed.")
        cases.check(client.read(0, BLOCK) == OLD, "the fenced write was not done.")
        cases.check(not scene.namespace()["fences"], "the fence was not lifted.")


def fence_after_error(scene):
    """A write that ended with EIO is still fenced: what the application writes then is not undone.
    The policy changes on the way, or what waits for the fence would fail as soon as the first."""
    with scene.served("--cqt", "4", "-F", "0.2") as (target, _, client):
        target.ctl("late", "1500", "--hold", "1")
        cookie = client.ask_write(0, OLD)
        cases.wait_until(lambda: target.shown()["counters"]["held"] == 1, PATIENCE,
                         "the write's arrival")
        target.ctl("refuse", "3000")
        target.ctl("drop")
        reply = client.answer_to(cookie)
        cases.check(reply.error == errno.EIO, f"the write was answered with {reply.error}.")
        scene.workspace.run("nvmf", "policy", "disk", "-F", "-1").must_succeed()
        client.write(0, NEW)
        cases.wait_until(lambda: target.shown()["counters"]["ghosts"] == 1, PATIENCE, "the old write")
        cases.check(client.read(0, BLOCK) == NEW, "the old write has undone the newer one.")


# ---- how fast, how long

def back_at_once(scene):
    """From the target's listening again to the answer of a read that waits for it. Each time with a
    connection of its own: one whose targets come and go every second makes pauses. How fast the
    machine is can be seen by how long it takes to connect in the first place."""
    times, first = [], []
    with scene.target() as target:
        for turn in range(RETURNS):
            begin = time.monotonic()
            with scene.connect(target, "disk") as connection, \
                    Client.of(connection.export(1)) as client:
                client.read(0, BLOCK)
                first.append(time.monotonic() - begin)
                target.kill()
                time.sleep(0.05 + 0.05 * (turn % 10))
                cookie = client.ask_read(0, BLOCK)
                listening = target.start()
                reply = client.answer_to(cookie)
                cases.check(reply.error == 0, f"the read failed with {reply.error}.")
                times.append(reply.at - listening)
                client.close()
    scene.workspace.check_nothing_left()
    median, slow = statistics.median(times), statistics.median(first)
    print(f"       first I/O after the target listens again: median {median * 1000:.0f} ms, "
          f"most {max(times) * 1000:.0f} ms, of {RETURNS}; when connecting {slow * 1000:.0f} ms",
          flush=True)
    cases.check(median <= RETURN_LIMIT + slow, f"the median is {median * 1000:.0f} ms.")


class Deadline:
    """One connection whose target goes away for good while an NBD client waits for a read. What
    happens is noted when it does, whatever else this script is doing."""

    def __init__(self, scene, target, name, *options):
        self.scene = scene
        self.name = name
        self.connection = scene.connect(target, name, *options)
        self.client = Client.of(self.connection.export(1))
        self.client.write(0, OLD)
        self.lost_at = None
        self.doubt = 0
        self.reply = None
        self.cut_off = False
        self.gone_at = None

    def notice_loss(self):
        """Asks until the loss has been detected, and when that was: it may lie a little before
        lost_at, by the time that an answer takes."""
        asked = time.monotonic()
        lost_for = (self.scene.status(self.name) or {}).get("lost_for_ms")
        if lost_for is not None:
            self.lost_at = time.monotonic() - lost_for / 1000
            self.doubt = time.monotonic() - asked + 0.001

    def watch(self):
        """From now on."""
        for what in (self._take_reply, self._wait_for_end):
            threading.Thread(target=what, daemon=True).start()

    def answered(self):
        """The client was told something, if only that nobody is there any more."""
        return (self.reply and self.reply.error) or self.cut_off

    def _take_reply(self):
        try:
            self.reply = self.client.take(2 * PATIENCE)
        except (cases.Failed, OSError):
            self.cut_off = True

    def _wait_for_end(self):
        with contextlib.suppress(cases.Failed):
            self.connection.wait(2 * PATIENCE)
            self.gone_at = time.monotonic()

    def check(self, what, at, least):
        cases.check(at is not None, f"{self.name}: {what} never came.")
        after = at - self.lost_at
        print(f"       {self.name}: {what} {after:.2f} s after the loss", flush=True)
        cases.check(least - self.doubt <= after <= least + BUSY + self.scene.slack,
                    f"{self.name}: {what} {after:.2f} s after the loss.")


def deadlines(scene):
    """-F 3 and -l 5, with a target that was killed and with one in a black hole."""
    with contextlib.ExitStack() as stack:
        dead, hole = (stack.enter_context(scene.target()) for _ in range(2))
        failing = [Deadline(scene, target, f"{name}-F3", "-F", "3", "-l", "60", "-k", "1")
                   for target, name in ((dead, "dead"), (hole, "hole"))]
        ending = [Deadline(scene, target, f"{name}-l5", "-l", "5", "-k", "1", "-D")
                  for target, name in ((dead, "dead"), (hole, "hole"))]
        everything = failing + ending
        for one in everything:
            stack.callback(one.connection.kill)
            stack.callback(one.client.close)
        hole.ctl("blackhole", "60000")
        dead.kill()
        for one in everything:
            one.client.ask_read(0, BLOCK)
            one.watch()
        unnoticed = list(everything)
        deadline = time.monotonic() + PATIENCE
        while unnoticed:
            cases.check(time.monotonic() < deadline, f"no loss of {unnoticed[0].name}")
            for one in unnoticed:
                one.notice_loss()
            unnoticed = [one for one in unnoticed if one.lost_at is None]
        cases.wait_until(lambda: all(one.reply for one in failing) and
                         all(one.gone_at for one in ending), PATIENCE, "what is due")
        for one in failing:
            one.check("EIO", one.reply and one.reply.at, 3)
            cases.check(one.reply.error == errno.EIO, f"{one.name}: error {one.reply.error}.")
            check_fails_at_once(one)
        for one in ending:
            one.check("the end of the process", one.gone_at, 5)
            said = one.connection.errors().strip()
            cases.check(one.connection.process.returncode == 1,
                        f"{one.name}: status {one.connection.process.returncode}.")
            cases.check("--ctrl-loss-tmo" in said, f"{one.name} does not say why:\n{said}")
            cases.wait_until(one.answered, PATIENCE, f"{one.name}: an end of the client's waiting")
        dead.start()
        hole.ctl("clear")
        for one in failing:
            trouble.wait_for_state(scene.workspace, one.name, "live")
            cases.check(one.client.read(0, BLOCK) == OLD, "after all that it reads otherwise.")
            one.connection.stop()
        scene.check_only(dead, hole)
    scene.workspace.check_nothing_left()


def check_fails_at_once(one):
    cases.check(one.scene.status(one.name)["state"] == "failing", f"{one.name} is not failing.")
    asked = time.monotonic()
    reply = one.client.answer_to(one.client.ask_write(0, NEW))
    cases.check(reply.error == errno.EIO, f"{one.name}: a later write has error {reply.error}.")
    cases.check(reply.at - asked < BUSY + one.scene.slack, f"{one.name}: it took its time to fail.")


def no_endless_loop(scene):
    """A target that is gone, and one that accepts and hangs up: attempts are few."""
    with scene.served("-l", "60") as (target, connection, client):
        cookie = client.ask_read(0, BLOCK)
        client.answer(cookie)
        target.ctl("refuse")
        target.ctl("drop")
        before, begin = cpu_seconds(connection.process.pid), time.monotonic()
        time.sleep(2)
        hung_up = scene.status()["attempts"]
        first = time.monotonic()
        target.kill()
        time.sleep(2)
        refused = scene.status()["attempts"] - hung_up
        second = time.monotonic()
        used = cpu_seconds(connection.process.pid) - before
        print(f"       attempts: {hung_up} in {first - begin:.1f} s when hung up on, {refused} in "
              f"{second - first:.1f} s when refused; {used:.2f} s of CPU", flush=True)
        cases.check(1 <= hung_up <= 15 * (first - begin) and 1 <= refused <= 30 * (second - first),
                    "that is no pause between attempts.")
        cases.check(used < (second - begin) / 4 + scene.slack, f"{used:.2f} s of CPU.")
        target.start()
        client.read(0, BLOCK)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- the end, in every state

def make_live(_scene, _target, _client):
    pass


def make_busy(_scene, target, client):
    """Reads and a write are with the target, which takes its time."""
    target.ctl("delay", "60000")
    client.ask_write(0, OLD)
    client.ask_read(0, BLOCK)


def make_hung(_scene, target, client):
    target.hang()
    client.ask_write(0, OLD)


def make_hung_and_lost(scene, target, client):
    make_hung(scene, target, client)
    cases.wait_until(lambda: scene.status()["losses"] > 0, PATIENCE, "the loss")


def make_black_hole(_scene, target, client):
    target.ctl("blackhole", "60000")
    client.ask_write(0, OLD)


def make_black_hole_and_lost(scene, target, _client):
    """With nothing under way: only the keep-alive notices."""
    target.ctl("blackhole", "60000")
    cases.wait_until(lambda: scene.status()["losses"] > 0, PATIENCE, "the loss")


def make_dead(scene, target, client):
    target.kill()
    client.ask_write(0, OLD)
    cases.wait_until(lambda: scene.status()["losses"] > 0, PATIENCE, "the loss")


def make_fenced(_scene, target, client):
    hold_write(target, client, 60_000)
    client.ask_write(0, NEW)


STATES = (("live", make_live), ("requests under way", make_busy), ("target hangs", make_hung),
          ("target hangs, and was given up", make_hung_and_lost),
          ("black hole", make_black_hole), ("black hole, given up", make_black_hole_and_lost),
          ("target dead", make_dead), ("a fence", make_fenced))


def ended_in_time(scene, connection, name, way, status=0):
    """The connection ends by one of the ways within the limit; how long it took."""
    started = time.monotonic()
    if way == "SIGTERM":
        connection.process.terminate()
        got = connection.wait(PATIENCE)
        took = time.monotonic() - started
    else:
        options = ("--force",) if way == "force" else ()
        took = scene.workspace.run("nvmf", "disconnect", *options, name,
                                   limit=PATIENCE).must_succeed().seconds
        got = connection.wait(1)  # it has ended: that is what `nvmf disconnect` waits for
    cases.check(took <= END_LIMIT + BUSY + scene.slack, f"{way} took {took:.2f} s.")
    cases.check(got == status, f"after {way} its status is {got}: {connection.errors()}")
    return took


def end_in_state(scene, make):
    times = {}
    for way in ("disconnect", "force", "SIGTERM"):
        with scene.target() as target:
            connection = scene.connect(target, "disk", "-k", "1", "--cqt", "1")
            with contextlib.ExitStack() as stack:
                stack.callback(connection.kill)
                client = stack.enter_context(Client.of(connection.export(1)))
                make(scene, target, client)
                times[way] = ended_in_time(scene, connection, "disk", way)
                cases.check(client.is_cut_off(PATIENCE), "the NBD client was not told.")
            scene.check_only(*((target,) if target.runs() else ()))
        forget_crashes(scene)
    print("       " + ", ".join(f"{way} {took:.2f} s" for way, took in times.items()), flush=True)


def forget_crashes(scene):
    """The next case is not about what this one has left unanswered."""
    for name in os.listdir(scene.workspace.runtime):
        if name.endswith(".crash"):
            os.unlink(os.path.join(scene.workspace.runtime, name))


def end_while_connecting(scene):
    """The first connection is never made: the target takes it and says nothing."""
    for way in ("disconnect", "SIGTERM"):
        with wire.FakeTarget(wire.silent) as fake:
            argv = ["nvmf-connect", f"nvme+tcp://127.0.0.1:{fake.port}/{trouble.NQN}", "-q",
                    programs.HOST_NQN, "-I", programs.HOST_ID, "--foreground", "--name", "disk"]
            connection = programs.Server(scene.workspace, argv, "", 0)
            try:
                trouble.wait_for_state(scene.workspace, "disk", "connecting")
                took = ended_in_time(scene, connection, "disk", way, status=1)
                print(f"       {way} {took:.2f} s", flush=True)
            finally:
                connection.kill()
        scene.workspace.check_nothing_left()


def end_of_a_stopped_process(scene):
    """nvmf-connect itself hangs: only --force ends it."""
    with scene.target() as target:
        # In the runtime directory: what lies elsewhere is swept by the next one to serve there.
        connection = programs.Connection(
            scene.workspace, target.uri, "--name", "disk",
            nbd="unix:" + os.path.join(scene.workspace.runtime, "disk.nbd.sock"))
        try:
            programs.suspend(connection.process.pid)
            told = scene.workspace.run("nvmf", "disconnect", "--force", "disk",
                                         limit=PATIENCE)
            told.must_succeed()
            cases.check(told.seconds <= END_LIMIT + BUSY + scene.slack, f"{told.seconds:.2f} s.")
            cases.check(connection.wait(1) == -signal.SIGKILL, "it was not killed.")
        finally:
            connection.kill()
        scene.check_only(target)
        with scene.connect(target, "disk"):
            pass
    forget_crashes(scene)


def killed_connection(scene):
    """kill -9 of nvmf-connect under an NBD client: the next of that name works, serves reads at
    once, and holds writes for as long as those of the dead one may still be executed."""
    with scene.target() as target:
        options = ("-k", "2", "--cqt", "2")
        first = scene.connect(target, "disk", *options)
        with Client.of(first.export(1)) as client:
            client.write(0, OLD)
            target.ctl("late", "1500", "--hold", "1")
            client.ask_write(0, OTHER)
            cases.wait_until(lambda: target.shown()["counters"]["held"] == 1, PATIENCE, "the write")
            first.kill()
            cases.check(client.is_cut_off(PATIENCE), "the NBD client was not told.")
        with scene.connect(target, "disk", *options) as second:
            before = time.monotonic()
            left = scene.status()["writes_held_for_ms"] / 1000
            seen = time.monotonic()
            with Client.of(second.export(1)) as client:
                write = client.ask_write(0, NEW)
                cases.check(client.read(2 * BLOCK, BLOCK) == bytes(BLOCK), "a read is wrong.")
                done = client.answer_to(write).at
                print(f"       writes held for {done - seen:.2f} s, foretold {left:.2f} s", flush=True)
                cases.check(left > 2, f"writes are held for only {left:.2f} s.")
                # It was answered some time between `before` and `seen`.
                cases.check(done - before >= left - 0.1, f"held {done - before:.2f} s.")
                cases.check(done - seen <= left + BUSY + scene.slack, f"held {done - seen:.2f} s.")
                cases.wait_until(lambda: target.shown()["counters"]["ghosts"] == 1, PATIENCE,
                                 "the old write")
                cases.check(client.read(0, BLOCK) == NEW, "the dead one's write has won.")
            cases.check("held" in second.errors(), f"not a word of it: {second.errors()!r}")
        # After an orderly end nothing is held.
        with scene.connect(target, "disk", *options) as third:
            cases.check(not scene.status()["writes_held_for_ms"], "an orderly end was forgotten.")
            with Client.of(third.export(1)) as client:
                client.write(0, OLD)
    scene.workspace.check_nothing_left()


# ---- another disk, and no disk

def another_disk(scene):
    """After a restart another disk is there under the same number: nothing is written to it until
    the user says so. When the old one is back, I/O goes on by itself."""
    old, new = scene.disk(), scene.disk()
    with trouble.RestartedTarget(scene.workspace, [f"file:{old}"]) as target:
        with scene.connect(target, "disk", "-l", "60", "-c", "1", "--cqt", "0.2") as connection:
            with Client.of(connection.export(1)) as client:
                client.write(0, OLD)
                stopped_by(scene, target, client, new)
                check_block(new, bytes(BLOCK), "before anybody said so, the new disk was written.")
                target.kill()
                target.holds([f"file:{old}"])
                target.start()
                reply = client.take()
                cases.check(reply and reply.error == 0, f"on its own disk: {reply}.")
                check_block(old, NEW, "the write that waited was not done.")
                stopped_by(scene, target, client, new)
                scene.workspace.run("nvmf", "accept", "diskn1").must_succeed()
                reply = client.take()
                cases.check(reply and reply.error == 0, f"after `nvmf accept`: {reply}.")
                check_block(new, NEW, "what was accepted was not written.")
    scene.workspace.check_nothing_left()


def stopped_by(scene, target, client, path):
    """The target comes back with the disk in `path`; a write waits, and the reason is told."""
    target.kill()
    target.holds([f"file:{path}"])
    client.ask_write(0, NEW)
    target.start()
    trouble.wait_for_state(scene.workspace, "disk", "live")
    cases.wait_until(lambda: scene.namespace()["stopped"], PATIENCE, "a reason")
    said = scene.workspace.run("nvmf", "list").must_succeed().out
    cases.check("nvmf accept" in said, f"nvmf list does not say what to do:\n{said}")
    cases.check(client.take(0.5) is None, "a request was answered all the same.")


def check_block(path, data, message):
    with open(path, "rb") as disk:
        cases.check(disk.read(BLOCK) == data, message)


def remapped(scene):
    """The namespace is swapped for others while the connection lives, again and again: no write
    reaches any of them (blktests 058)."""
    with scene.served("-l", "60") as (target, _, client):
        others = [scene.disk() for _ in range(4)]
        client.write(0, OLD)
        for path in others:
            target.ctl("ns-swap", "1", f"file:{path}")
        cases.wait_until(lambda: scene.namespace()["stopped"], PATIENCE, "a reason")
        client.ask_write(0, NEW)
        cases.check(client.take(0.5) is None, "a request was answered all the same.")
        for path in others:
            check_block(path, bytes(BLOCK), "another disk was written.")


def removed(scene):
    """Writes when the namespace has gone fail, and do not hang (blktests 055)."""
    with scene.served("-l", "60") as (target, _, client):
        client.write(0, OLD)
        target.ctl("ns-remove", "1")
        reply = client.take_reply_to(client.ask_write(0, NEW), PATIENCE)
        cases.check(reply.error != 0, "a write to a namespace that is not there succeeded.")
        asked = time.monotonic()
        reply = client.take_reply_to(client.ask_read(0, BLOCK), PATIENCE)
        cases.check(reply.error != 0, "a read of a namespace that is not there succeeded.")
        print(f"       errors {reply.error}, after {reply.at - asked:.2f} s", flush=True)


# ---- many connections

def churn(scene, rounds):
    """Connected and ended at once, again and again: nothing is left at either end."""
    with scene.target() as target:
        def visit(turn):
            told = scene.workspace.run("nvmf-connect", target.uri, "-q", programs.HOST_NQN, "-I",
                                       programs.HOST_ID, "--name", f"visit{turn % 3}")
            told.must_succeed()
            scene.workspace.run("nvmf", "disconnect", f"visit{turn % 3}").must_succeed()

        for turn in range(3):
            visit(turn)
        before = footprint(target)
        for turn in range(rounds):
            visit(turn)
        scene.check_only(target)
        def forgotten():
            shown = target.shown()
            return not shown["connections"] and not shown["controllers"]
        cases.wait_until(forgotten, PATIENCE, "the target's forgetting of everybody")
        cases.wait_until(lambda: footprint(target)[0] <= before[0], PATIENCE, "the end of all sockets")
        after = footprint(target)
        print(f"       target: {before[0]} files, {before[1]} KiB; after {rounds} connections "
              f"{after[0]} files, {after[1]} KiB", flush=True)
        cases.check(scene.slack or after[1] <= before[1] + 4096, "the target's memory grows.")
        left = [name for name in os.listdir(scene.workspace.runtime) if name.endswith(".crash")]
        cases.check(not left, f"crash records were left: {left}.")


def footprint(target):
    """(open files, KiB resident)."""
    pid = target.process.pid
    with open(f"/proc/{pid}/status") as status:
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return len(os.listdir(f"/proc/{pid}/fd")), resident


def run_all(scene, counted):
    counted.run("an old write executed late, with the fence", ghost, scene, True)
    counted.run("an old write executed late, --no-fence", ghost, scene, False)
    counted.run("reads and other writes beside a fence", beside_the_fence, scene)
    counted.run("the fence outlives EIO", fence_after_error, scene)
    counted.run(f"first I/O after the target is back, {RETURNS} times", back_at_once, scene)
    counted.run("-F 3 and -l 5: dead, and black hole", deadlines, scene)
    counted.run("no endless loop", no_endless_loop, scene)
    for name, make in STATES:
        counted.run(f"end: {name}", end_in_state, scene, make)
    counted.run("end: while connecting", end_while_connecting, scene)
    counted.run("end: nvmf-connect stopped", end_of_a_stopped_process, scene)
    counted.run("kill -9 of nvmf-connect", killed_connection, scene)
    counted.run("another disk in its place", another_disk, scene)
    counted.run("namespace swapped again and again", remapped, scene)
    counted.run("namespace removed", removed, scene)
    counted.run("connected and ended, 40 times", churn, scene, 40)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/release/bin", help="folder with our programs")
    parser.add_argument("--only", action="append", help="only cases whose names contain this")
    parser.add_argument("--sanitized", action="store_true",
                        help="slow programs: a second more everywhere, no bounds on memory")
    options = parser.parse_args()
    counted = cases.Cases(options.only)

    def body():
        with programs.Workspace(options.bin) as workspace:
            for name in ("nvmf-target", "nvmf-connect", "nvmf"):
                workspace.program(name)
            scene = Scene(workspace, 1.0 if options.sanitized else 0.0)

            def after_failure():
                workspace.sweep()
                forget_crashes(scene)

            counted.after_failure = after_failure
            run_all(scene, counted)

    return cases.run_script(body, counted, LIMIT)


if __name__ == "__main__":
    sys.exit(main())
