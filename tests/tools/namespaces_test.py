#!/usr/bin/env python3
"""Namespaces that come, grow and go under a running connection, as its NBD clients, nvmf list and
nvmf events see them. Prints `N passed, N failed`."""

import argparse
import errno
import functools
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import cases  # noqa: E402
import nbd_client  # noqa: E402
from cases import check  # noqa: E402
from scene import RestartableTarget, Scene  # noqa: E402

SCRIPT_LIMIT = 560
PATIENCE = 40
BLOCK = bytes([0x5A]) * 4096
UUID = "2ad58c2b-6f1b-4f4a-9b5e-{:012x}"


class Place(Scene):
    """A target that takes orders, with a file for each namespace of 1 MiB, and a connection."""

    def __init__(self, bin_folder, io, count=1, options=(), target_options=()):
        super().__init__(bin_folder, io, target=False)
        arguments = [word for n in range(1, count + 1) for word in ("--namespace", self.disk(n))]
        self.target = RestartableTarget(
            self.space, 0, [*arguments, "--control", self.space.path("ctl"), *target_options])
        self.exports = self.connect("-i", "2", *options)
        self.socket = nbd_client.socket_of(next(iter(self.exports.values())))

    def disk(self, number, mib=1):
        path = self.space.path(f"disk{number}.img")
        with open(path, "ab") as disk:
            disk.truncate(mib << 20)
        return f"file:{path},uuid={UUID.format(number)}"

    def ctl(self, *words):
        return self.run("nvmf-target", "ctl", self.space.path("ctl"), *words).must_succeed()

    def status(self):
        listed = json.loads(self.run("nvmf", "list", "-o", "json").must_succeed().out)
        return listed["Connections"][0]

    def shown(self):
        """Of each namespace, by its number: whether it is attached, its size, its places."""
        return {one["nsid"]: (one["attached"], one["size_bytes"], len(one["uris"]))
                for one in self.status()["namespaces"]}

    def wait_for(self, nsid, wanted):
        cases.wait_until(lambda: self.shown().get(nsid) == wanted, PATIENCE,
                         f"namespace {nsid} as {wanted}, not {self.shown().get(nsid)}")

    def client(self, name):
        return nbd_client.Client(self.socket, name).go()

    def events(self, kind):
        lines = self.run("nvmf", "events", "nvmf0", "-o", "json").must_succeed().out.splitlines()
        return [event["nsids"] for event in map(json.loads, lines) if event["event"] == kind]

    def wait_for_event(self, kind, nsids):
        """It has been told of once, and of no other of the kind."""
        cases.wait_until(lambda: self.events(kind), PATIENCE, f"an event {kind}")
        check(self.events(kind) == [nsids], f"{kind}: {self.events(kind)}, not {nsids}")

    def wait_read_only(self, export, wanted):
        """What clients that come now are told."""
        cases.wait_until(
            lambda: (self.run("nbdinfo", "--is", "read-only", export).status == 0) == wanted,
            PATIENCE, f"read-only being {wanted}")

    def has_export(self, name):
        try:
            self.client(name).close()
            return True
        except cases.Failed:
            return False


def one_is_added(new):
    with new() as place, place.client("") as old:
        old.write(0, BLOCK)
        place.ctl("ns-add", place.disk(2))
        place.wait_for(2, (True, 1 << 20, 1))
        with place.client("nvmf0n2") as client:
            client.write(8192, BLOCK)
            client.flush()
            check(client.read(8192, 4096) == BLOCK, "it does not hold what was written")
        size = place.run("nbdinfo", "--size", place.exports["nvmf0n1"].replace("0n1", "0n2", 1))
        check(int(size.must_succeed().out) == 1 << 20, size.out)
        check(old.read(0, 4096) == BLOCK, "the old client was disturbed")
        place.wait_for_event("namespace_added", [2])
        rows = place.run("nvmf", "list").must_succeed().out.splitlines()[2:4]
        check([row.split()[0] for row in rows] == ["nvmf0n1", "nvmf0n2"], f"{rows}")


def one_is_removed_and_comes_back(new):
    with new(count=2) as place:
        with place.client("nvmf0n2") as holder, place.client("nvmf0n1") as other:
            holder.write(0, BLOCK)
            place.ctl("ns-remove", "2")
            place.wait_for(2, (False, 1 << 20, 0))
            reply = holder.take_reply_to(holder.ask_read(0, 4096), PATIENCE)
            check(reply.error != 0, "a namespace that was removed was read")
            check(not place.has_export("nvmf0n2") and not place.has_export("2"), "it is offered")
            check(place.has_export("") and place.has_export("1"), "the other one is not")
            rows, sentences = place.run("nvmf", "list").must_succeed().out.split("\n\n")
            check("nvmf0n2" not in rows and "the controller has removed nvmf0n2;" in sentences,
                  f"{rows} {sentences}")
            place.wait_for_event("namespace_removed", [2])
            other.write(0, BLOCK)
            place.ctl("ns-add", place.disk(2), "--nsid", "2")
            place.wait_for(2, (True, 1 << 20, 1))
            check(holder.read(0, 4096) == BLOCK, "who had it open cannot go on")
            check(place.has_export("nvmf0n2"), "it is not offered again")


def another_disk_waits_to_be_accepted(new):
    with new(count=2) as place:
        place.ctl("ns-remove", "2")
        place.wait_for(2, (False, 1 << 20, 0))
        place.ctl("ns-add", place.disk(3, mib=2), "--nsid", "2")
        cases.wait_until(lambda: "nvmf accept nvmf0n2" in place.run("nvmf", "list").out, PATIENCE,
                         "the question")
        check(not place.has_export("nvmf0n2"), "another disk was offered under the same name")
        rows = place.run("nvmf", "list").out.splitlines()[2:4]
        check(" live " in rows[0] and " stopped " in rows[1], f"{rows}")
        place.run("nvmf", "accept", "nvmf0n2").must_succeed()
        place.wait_for(2, (True, 2 << 20, 1))
        check(place.has_export("nvmf0n2"), "it is not offered")


def one_grows(new):
    with new() as place, place.client("") as old:
        place.ctl("ns-swap", "1", place.disk(1, mib=3))
        place.wait_for(1, (True, 3 << 20, 1))
        size = place.run("nbdinfo", "--size", place.exports["nvmf0n1"]).must_succeed()
        check(int(size.out) == 3 << 20, size.out)
        old.write(0, BLOCK)
        with place.client("1") as client:
            client.write(2 << 20, BLOCK)


def one_is_protected(new):
    with new() as place, place.client("") as old:
        old.write(0, BLOCK)
        place.ctl("ns-protect", "1")
        place.wait_for_event("namespace_protected", [1])
        export = place.exports["nvmf0n1"]
        place.wait_read_only(export, True)
        reply = old.take_reply_to(old.ask_write(0, bytes(4096)), PATIENCE)
        check(reply.error == errno.EPERM, f"a protected namespace was written: {reply}")
        check(old.read(0, 4096) == BLOCK, "it was changed")
        place.ctl("ns-unprotect", "1")
        place.wait_for_event("namespace_writable", [1])
        place.wait_read_only(export, False)
        old.write(0, bytes(4096))


def one_is_not_ready(new):
    """What the controller refuses for a while is tried again, and the list says why it waits."""
    with new() as place, place.client("") as client:
        place.ctl("fail", "0x82", "--opcode", "read")
        handle = client.ask_read(0, 4096)
        text = cases.wait_until(
            lambda: next((line for line in place.run("nvmf", "list").out.splitlines()
                          if "refused" in line), None), PATIENCE, "the reason")
        check("1 request waits; the controller refused it, the latest with " in text
              and "Namespace Not Ready" in text, text)
        place.ctl("clear")
        check(client.take_reply_to(handle, PATIENCE).error == 0, "it was not tried again")


def what_came_while_the_target_was_away(new):
    with new(options=("-c", "1")) as place:
        place.ctl("restart", "500")
        place.ctl("ns-add", place.disk(2))
        place.wait_for(2, (True, 1 << 20, 1))
        with place.client("nvmf0n2") as client:
            client.write(0, BLOCK)


def only_what_was_asked_for(new):
    with new(count=2) as place:
        name = "only"
        place.run("nvmf-connect", place.uri + "/2", "-D", "--name", name).must_succeed()
        place.ctl("ns-add", place.disk(3))
        place.wait_for(3, (True, 1 << 20, 1))
        listed = json.loads(place.run("nvmf", "list", "-o", "json").must_succeed().out)
        only = [c for c in listed["Connections"] if c["name"] == name][0]
        check([one["nsid"] for one in only["namespaces"]] == [2], only["namespaces"])


def many_times(new):
    """Added and removed under the same number: the same disk each time, and nothing grows."""
    with new() as place:
        with place.client("") as client:
            place.ctl("ns-add", place.disk(2), "--nsid", "7")
            place.wait_for(7, (True, 1 << 20, 1))
            for _ in range(20):
                place.ctl("ns-remove", "7")
                place.ctl("ns-add", place.disk(2), "--nsid", "7")
                client.write(0, BLOCK)
            place.wait_for(7, (True, 1 << 20, 1))
        check(list(place.shown()) == [1, 7], f"{place.shown()}")
        for disk in range(3, 13):
            place.ctl("ns-add", place.disk(disk), "--nsid", str(disk + 10))
            place.wait_for(disk + 10, (True, 1 << 20, 1))
            place.ctl("ns-remove", str(disk + 10))
            place.wait_for(disk + 10, (False, 1 << 20, 0))
        text = place.run("nvmf", "list").must_succeed().out
        check(" and 2 more; what still uses them" in text, text)


ALL = (one_is_added, one_is_removed_and_comes_back, another_disk_waits_to_be_accepted, one_grows,
       one_is_protected, one_is_not_ready, what_came_while_the_target_was_away, only_what_was_asked_for, many_times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of the programs")
    parser.add_argument("--io", choices=("io_uring", "epoll"), default=None)
    parser.add_argument("--only", action="append", help="run cases whose name has this in it")
    words = parser.parse_args()
    counted = cases.Cases(words.only)

    def body():
        for case in ALL:
            counted.run(case.__name__, case, functools.partial(Place, words.bin, words.io))

    return cases.run_script(body, counted, SCRIPT_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
