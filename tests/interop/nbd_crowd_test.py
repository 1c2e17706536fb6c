#!/usr/bin/env python3
"""Crowds of NBD clients in front of nvmf-connect, through raw sockets: many at once, thousands that
come and go at every point of a session, and some that do not read or do not send. Afterwards memory
and file descriptors are what they were, and an idle nvmf-connect is small."""

import argparse
import contextlib
import os
import sys
import time

import cases
import programs
from nbd_client import DISCONNECT, FLUSH, READ, WRITE, ZEROES, Client, go_option

LIMIT = 560
NQN = "nqn.2024-05.org.example:crowd"
MIB = 1 << 20
DISK = 256 * MIB
IDLE_MIB = 20  # resident, of an nvmf-connect that has nothing to do
GROWTH_MIB = 4  # what the allocator may keep
AT_ONCE = 200
VISITS = 10_000
PATIENCE = 40  # for what takes a moment


class Scene:
    """A target, a connection, and the state of the latter's process before anything happened."""

    def __init__(self, workspace, stack):
        self.target = stack.enter_context(programs.Target(
            workspace, {NQN: ["--namespace", f"memory:{DISK}"]}))
        self.connection = stack.enter_context(programs.Connection(
            workspace, self.target.uris[NQN]))
        self.path = workspace.path("nbd.sock")
        self.pid = self.connection.process.pid
        # Code and libraries are there once each thing has been done once.
        for _ in range(8):
            with Client(self.path) as client:
                everything_small(client.go(), 0)
        self.files = self._files_when_quiet()
        self.memory = self.resident()
        print(f"idle: {self.memory:.1f} MiB resident, {self.files} files", flush=True)

    def resident(self):
        with open(f"/proc/{self.pid}/status") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) / 1024
        raise cases.Failed("nvmf-connect has gone")

    def open_files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def _files_when_quiet(self):
        """When it has noticed that everybody has gone: nothing has changed for a second."""
        seen = [self.open_files()]

        def quiet():
            seen.append(self.open_files())
            return len(seen) > 20 and len(set(seen[-20:])) == 1
        cases.wait_until(quiet, PATIENCE, "quiet")
        return seen[-1]

    def is_as_before(self, sanitized):
        cases.wait_until(lambda: self.open_files() <= self.files, PATIENCE, "the end of all sockets")
        if not sanitized:
            allowed = min(IDLE_MIB, self.memory + GROWTH_MIB)
            with contextlib.suppress(cases.Failed):
                cases.wait_until(lambda: self.resident() < allowed, PATIENCE, "memory", 0.2)
            now = self.resident()
            cases.check(now < allowed, f"idle again it has {now:.1f} MiB resident; "
                        f"before, {self.memory:.1f} MiB, and {allowed:.1f} MiB would be right")
        print(f"idle again: {self.resident():.1f} MiB, {self.open_files()} files", flush=True)


def everything_small(client, place):
    """A few requests on 64 KiB of the disk that are this client's own."""
    base = place * 65536
    data = place.to_bytes(4, "big") * 1024
    client.write(base, data)
    client.write(base + 5000, data)
    client.ask(FLUSH, 7)
    client.answer(7)
    cases.check(client.read(base, 4096) == data, f"client {place} read what it did not write")
    cases.check(client.read(base + 5000, 4096) == data, f"client {place} read something else")
    client.ask(ZEROES, 8, base + 5000, 4096)
    client.answer(8)
    cases.check(client.read(base + 5000, 4096) == bytes(4096), "zeroes are not zero")


def large_copies(scene):
    """256 MiB there and back, in requests of every size, several under way."""
    with Client(scene.path) as client:
        client.go()
        offset = 0
        for size in (32 * MIB, 8 * MIB, MIB, 256 * 1024):
            data = os.urandom(MIB) * (size // MIB) if size >= MIB else os.urandom(size)
            for _ in range(64 * MIB // size):
                client.ask(WRITE, offset, offset, size, data)
                client.answer(offset)
                offset += size
            offset -= 64 * MIB
            places = range(offset, offset + 64 * MIB, size)
            under_way = min(16, len(places))
            for place in places[:under_way]:
                client.ask(READ, place, place, size)
            for number in range(len(places)):
                if number + under_way < len(places):
                    place = places[number + under_way]
                    client.ask(READ, place, place, size)
                reply = client.take()
                cases.check(reply and reply.error == 0, f"a read of {size} bytes: {reply}")
                cases.check(reply.data == data, f"{size} bytes came back changed")
            offset += 64 * MIB


def many_at_once(scene):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(scene.path)) for _ in range(AT_ONCE)]
        for client in clients:
            client.go()
        for _ in range(2):
            for place, client in enumerate(clients):
                everything_small(client, place)
        cases.check(scene.open_files() >= scene.files + AT_ONCE, "they are not connected at once")


def visit(path, point):
    """Comes, goes on to a point of the session, and hangs up there without a word."""
    with Client(path) as client:
        if point == 0:
            return
        if point <= 5:
            client.socket.sendall(go_option()[:point * 5])
        elif point == 6:
            client.socket.sendall(go_option())
        elif point == 7:
            client.socket.sendall(bytes(100))
        else:
            client.go()
        if point == 9:
            client.ask(READ, 1, 0, MIB)
        elif point == 10:
            client.ask(WRITE, 1, 0, 200_000, bytes(100_000))
        elif point == 11:
            client.socket.sendall(b"\x25\x60")
        elif point == 12:
            client.ask(FLUSH, 1)
        elif point == 13:
            everything_small(client, 300)
            client.ask(DISCONNECT, 0)


def comings_and_goings(scene):
    lost = 0
    for number in range(VISITS):
        try:
            visit(scene.path, number % 14)
        except (BrokenPipeError, ConnectionResetError):
            # Nonsense is answered with a reset, sometimes while it is still being said.
            lost += 1
    cases.check(lost < VISITS // 10, f"{lost} of {VISITS} visits were broken off")
    with Client(scene.path) as client:
        everything_small(client.go(), 0)


def stalled(scene):
    with contextlib.ExitStack() as stack:
        for number in range(30):
            client = stack.enter_context(Client(scene.path)).go()
            if number % 3 == 2:
                client.ask(WRITE, 1, 128 * MIB, 32 * MIB, bytes(2 * MIB))
            else:
                for _ in range(20):
                    client.ask(READ, 1, 0, 32 * MIB if number % 3 == 1 else MIB)
        time.sleep(1)
        for place in range(4):
            with Client(scene.path) as honest:
                honest.go()
                everything_small(honest, place)
                data = os.urandom(MIB) * 32
                honest.write(64 * MIB, data)
                cases.check(honest.read(64 * MIB, len(data)) == data, "32 MiB came back changed")


def run_all(workspace, options, counted):
    for io in options.io or ("io_uring", "epoll"):
        workspace.environment["NVMF_IO"] = io
        with contextlib.ExitStack() as stack:
            scene = Scene(workspace, stack)

            def case(name, body):
                def run():
                    body(scene)
                    scene.is_as_before(options.sanitized)
                counted.run(f"{io}: {name}", run)

            if not options.sanitized:
                counted.run(f"{io}: small when idle", lambda: cases.check(
                    scene.memory < IDLE_MIB, f"it has {scene.memory:.1f} MiB resident"))
            case("256 MiB there and back", large_copies)
            case(f"{AT_ONCE} clients at once", many_at_once)
            case(f"{VISITS} come and go", comings_and_goings)
            case("some do not read or do not send", stalled)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/release/bin", help="folder with our programs")
    parser.add_argument("--only", action="append", help="only cases whose names contain this")
    parser.add_argument("--io", action="append", help="io_uring, epoll; both if not given")
    parser.add_argument("--sanitized", action="store_true", help="memory says nothing here")
    options = parser.parse_args()
    counted = cases.Cases(options.only)

    def body():
        with programs.Workspace(options.bin) as workspace:
            counted.after_failure = None
            run_all(workspace, options, counted)

    return cases.run_script(body, counted, LIMIT)


if __name__ == "__main__":
    sys.exit(main())
