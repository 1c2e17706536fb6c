#!/usr/bin/env python3
"""What becomes of data when the target is lost again and again: fio writes and verifies through NBD
while nvmf-target is killed with -9 and restarted, falls into a black hole, loses its network, closes
single queues, comes back with other limits, has a fatal controller, and while the connection is
reset. No I/O error, no wrong data; both kinds of event loop."""

import argparse
import contextlib
import itertools
import os
import random
import subprocess
import sys
import time

import cases
import programs
import trouble

LIMIT = 560
MINUTE = 60
DISK_MIB = 64
QUEUES = 3
CQT_MS = 200
# A loss is nothing that a policy of seconds gives up for.
PATIENT = ("-c", "1", "-l", "120")


class Loss:
    """A workspace, how long the trouble goes on, and what all cases share."""

    def __init__(self, workspace, seconds):
        self.workspace = workspace
        self.seconds = seconds

    @contextlib.contextmanager
    def served(self, *options, target_options=(), queues=QUEUES, space=None):
        """A target whose namespace is a file, and a connection to it. At the end both must end in
        order and leave nothing."""
        path = self.workspace.path("disk.img")
        with open(path, "wb") as disk:
            disk.truncate(DISK_MIB << 20)
        with trouble.RestartedTarget(self.workspace, [space or f"file:{path}"],
                                     ("--cqt", str(CQT_MS), *target_options)) as target:
            with programs.Connection(self.workspace, target.uri, "--name", "lossy",
                                     "-i", str(queues), *PATIENT, *options) as connection:
                yield target, connection
        self.workspace.check_nothing_left()

    def under_trouble(self, connection, period, do):
        """fio verifies for the time of the case while do() is called again and again, `period` seconds
        after the connection is live again. It must be lost each time."""
        times = 0
        with trouble.FioMeanwhile(self.workspace, connection.export(1),
                                  self.seconds) as fio:
            # Then fio is left alone: where writes are held for longer than a period, it would not end.
            end = time.monotonic() + self.seconds
            while fio.runs_for(period) and (times < 2 or time.monotonic() < end):
                before = trouble.losses(self.workspace, "lossy")
                do()
                times += 1
                trouble.wait_for_life_after(self.workspace, "lossy", before)
        status = trouble.status(self.workspace, "lossy")
        ios = sum(one["write"]["total_ios"] + one["read"]["total_ios"] for one in fio.accounts)
        print(f"       {times} times in {self.seconds:g} s, {status['losses']} losses, "
              f"{ios} I/Os; last: {status['last_loss']}", flush=True)
        cases.check(times >= 1, "there was no trouble: this shows nothing.")

    @contextlib.contextmanager
    def until_noticed(self):
        """After what is done here, the connection has noticed a loss, and for a moment yet there is
        no change."""
        before = trouble.losses(self.workspace, "lossy")
        yield
        trouble.wait_for_loss(self.workspace, "lossy", before)
        time.sleep(0.5)


def killed(loss):
    """kill -9 every two seconds; up again at once, or after a moment."""
    with loss.served() as (target, connection):
        pauses = itertools.cycle((0, 0.3, 0, 0.8))

        def kill():
            target.kill()
            time.sleep(next(pauses))
            target.start()
        loss.under_trouble(connection, 2, kill)


def other_queue_counts(loss):
    """Each time it is back, it grants another number of I/O queues, or shorter ones."""
    limits = itertools.cycle((("--max-queues", "1"), ("--max-queues", "8"),
                              ("--max-queues", "2", "--queue-size", "16"),
                              ("--max-queues", "3", "--in-capsule", "0")))
    with loss.served() as (target, connection):
        def replace():
            target.kill()
            target.start(*next(limits))
        loss.under_trouble(connection, 1.5, replace)
        granted = {len(trouble.status(loss.workspace, "lossy")["queues"])}
        for count in (1, QUEUES + 2):
            before = trouble.losses(loss.workspace, "lossy")
            target.kill()
            target.start("--max-queues", str(count))
            trouble.wait_for_life_after(loss.workspace, "lossy", before)
            granted.add(len(trouble.status(loss.workspace, "lossy")["queues"]))
        print(f"       queues seen: {sorted(granted)}", flush=True)
        cases.check(1 in granted and max(granted) == QUEUES, f"queues were {granted}.")


def black_hole(loss):
    """The target's machine answers for TCP, the target does not, until after the host has given it
    up: then it finds a host that has gone, and a new one."""
    with loss.served("-k", "1") as (target, connection):
        def swallow():
            with loss.until_noticed():
                target.ctl("blackhole")
            target.ctl("clear")
        loss.under_trouble(connection, 1.5, swallow)


def stopped_process(loss):
    """SIGSTOP: the same, with whatever was half done going on later."""
    with loss.served("-k", "1") as (target, connection):
        def stop():
            with loss.until_noticed():
                target.hang()
            target.go_on()
        loss.under_trouble(connection, 1.5, stop)


def queue_closed(loss):
    """One I/O queue's connection ends, the others and the admin queue live."""
    with loss.served() as (target, connection):
        ways = itertools.cycle(((), ("--fin",)))

        def close():
            target.ctl("close-queue", str(random.randint(1, QUEUES)), *next(ways))
        loss.under_trouble(connection, 1, close)


def dropped(loss):
    with loss.served() as (target, connection):
        loss.under_trouble(connection, 0.7, lambda: target.ctl("drop"))


def fatal(loss):
    with loss.served("-k", "1") as (target, connection):
        loss.under_trouble(connection, 1, lambda: target.ctl("cfs"))


def reset_on_request(loss):
    """`nvmf reset` in the middle of it all."""
    with loss.served() as (_, connection):
        loss.under_trouble(connection, 0.7, lambda: loss.workspace.run(
            "nvmf", "reset", "lossy").must_succeed())


def cable_pulled(loss):
    """All packets vanish and nobody says so. For a network of our own this script starts itself
    anew in a namespace, where no other test uses the loopback interface."""
    inside = [sys.executable, os.path.abspath(__file__), "--bin", loss.workspace.bin,
              "--seconds", str(int(loss.seconds)), "--inside",
              "--io", loss.workspace.environment.get("NVMF_IO", "io_uring")]
    told = subprocess.run(["unshare", "--user", "--map-root-user", "--net", *inside],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=loss.seconds + 300)
    print("       " + told.stdout.strip().replace("\n", "\n       "), flush=True)
    cases.check(told.returncode == 0, "it failed inside.")


def may_make_networks():
    return subprocess.run(["unshare", "--user", "--map-root-user", "--net", "true"],
                          stderr=subprocess.DEVNULL).returncode == 0


def cable_pulled_inside(loss):
    """Every other time the target is started anew meanwhile, and the host's connections are known to
    nobody any more (half-open)."""
    def interface(way):
        loss.workspace.run("ip", "link", "set", "lo", way).must_succeed()

    interface("up")
    with loss.served("-k", "1") as (target, connection):
        half_open = itertools.cycle((False, True))

        def pull():
            with loss.until_noticed():
                interface("down")
                if next(half_open):
                    time.sleep(0.5)
                    target.kill()
                    target.start()
            interface("up")
        loss.under_trouble(connection, 1.5, pull)


CASES = (
    ("killed every 2 s", killed),
    ("other queue counts after each restart", other_queue_counts),
    ("black hole", black_hole),
    ("stopped process", stopped_process),
    ("one queue closed every second", queue_closed),
    ("all connections dropped", dropped),
    ("fatal controller", fatal),
    ("nvmf reset", reset_on_request),
    ("cable pulled", cable_pulled),
)
# On both event loops, and for the whole time; the rest is about what is above the loop.
LONG = (killed,)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/release/bin", help="folder with our programs")
    parser.add_argument("--seconds", type=int, default=MINUTE,
                        help="how long fio runs in each case; if less than a minute, in the lesser "
                        "ones half of it")
    parser.add_argument("--io", action="append", choices=("io_uring", "epoll"),
                        help="only this event loop, for every case")
    parser.add_argument("--only", action="append", help="only cases whose names contain this")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    counted = cases.Cases(options.only)

    def body():
        for io in options.io or ("io_uring", "epoll"):
            with programs.Workspace(options.bin, io) as workspace:
                for name in ("nvmf-target", "nvmf-connect", "nvmf", "fio", "ip"):
                    workspace.program(name)
                counted.after_failure = workspace.sweep
                loss = Loss(workspace, options.seconds)
                if options.inside:
                    # The loopback interface answers to nobody else here.
                    counted.run(f"{io}: in a network of its own", cable_pulled_inside, loss)
                    continue
                for name, function in CASES:
                    if not (options.io or io == "io_uring" or function in LONG):
                        continue
                    long = function in LONG or options.seconds >= MINUTE
                    loss.seconds = options.seconds / (1 if long else 2)
                    if function is cable_pulled and not may_make_networks():
                        print(f"       {name}: left out, this user may not make networks")
                        continue
                    counted.run(f"{io}: {name}", function, loss)

    return cases.run_script(body, counted, LIMIT + 20 * options.seconds)


if __name__ == "__main__":
    sys.exit(main())
