#!/usr/bin/env python3
"""What there is, and what becomes of it, as users look at it: many namespaces, ones that come and
go, rescans under I/O, generations of the discovery log, statuses on demand. Counterparts of
blktests' nvme group; tests/interop/README.md has the table. Prints `N passed, N failed`."""

import argparse
import contextlib
import json
import pathlib
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import cases  # noqa: E402
import programs  # noqa: E402
from cases import check  # noqa: E402

DISCOVERY_NQN = "nqn.2014-08.org.nvmexpress.discovery"
NQN = "nqn.2024-05.org.example:inspect"
SCRIPT_LIMIT = 560
MANY = 2000
CHANGES = 1100  # more than a Changed Namespace List can name
# Many times of what it takes, and less than it would if each cost something for all the others.
CONNECT_LIMIT = 120
LIST_LIMIT = 40
PATIENCE = 60
UUID = "6e766d66-0000-4000-8000-{:012x}"


class Orders:
    """The control socket of a target, held open: a thousand orders take no thousand processes."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(path)
        self._lines = self._socket.makefile("rb")

    def close(self):
        self._lines.close()
        self._socket.close()

    def give(self, verb, **args):
        request = {"version": 2, "verb": verb, "args": args}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        answer = json.loads(self._lines.readline())
        check(answer["ok"], f"{verb} {args}: {answer}")
        return answer


class Place:
    """A target with orders, and whatever is connected to it."""

    def __init__(self, bin_folder, io, namespaces=("memory:4M",), more=None):
        self.space = programs.Workspace(bin_folder, io)
        subsystems = {NQN: list(namespaces), **(more or {})}
        config = self.space.path("target.json")
        control = self.space.path("ctl")
        with open(config, "w") as out:
            json.dump({"listen": ["127.0.0.1:0"], "subsystems": [
                {"nqn": nqn, "namespaces": list(specs)} for nqn, specs in subsystems.items()]}, out)
        self.target = programs.Server(
            self.space, ["nvmf-target", "--config", config, "--control", control],
            r"nvme\+tcp://\S+:(\d+)/(\S+)$", len(subsystems), limit=CONNECT_LIMIT)
        self.port = int(self.target.matches[0][1])
        self.orders = Orders(control)
        self.uri = f"nvme+tcp://127.0.0.1:{self.port}/{NQN}"
        self.address = ("-a", "127.0.0.1", "-s", str(self.port))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.orders.close()
        self.target.kill()
        self.space.__exit__()

    def run(self, *argv, **named):
        return self.space.run(*argv, **named)

    def nvmf(self, *argv, **named):
        return self.run("nvmf", *argv, **named).must_succeed()

    def json(self, *argv, **named):
        return json.loads(self.nvmf(*argv, "-o", "json", **named).out)

    def connect(self, *options, uri=None, limit=60):
        """Names of the namespaces that there are then, to the URIs of their exports."""
        done = self.run("nvmf-connect", uri or self.uri, *options, limit=limit).must_succeed()
        return dict(programs.NAMESPACE_LINE.match(line).groups() for line in done.out.splitlines())

    def listed(self):
        """What `nvmf list` says. Where thousands of namespaces make an answer long, a machine that is
        busy just then may take longer for it than that waits."""
        def told():
            done = self.run("nvmf", "list", "-o", "json", limit=LIST_LIMIT)
            return json.loads(done.out) if done.status == 0 else None
        return cases.wait_until(told, PATIENCE, "an answer to `nvmf list`")

    def connection(self, name="nvmf0"):
        return next(c for c in self.listed()["Connections"] if c["name"] == name)

    def active(self, target):
        """Every NSID, page after page, as nvme-cli's scripts read them."""
        nsids, first = [], 1
        while True:
            page = [one["nsid"] for one in self.json("list-ns", target, "-n", first)["nsid_list"]]
            check(page == sorted(page) and (not page or page[0] >= first), f"{page}")
            nsids += page
            if len(page) < 1024:
                return nsids
            first = page[-1] + 1

    def events(self, kind):
        lines = self.nvmf("events", "nvmf0", "-o", "json").out.splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]


# The cases. blktests' number is in the name of each.


def many_namespaces(new):
    """2,000 of them: connected to, listed, read in bounded time; more go than a log can say."""
    with new(namespaces=["memory:1M"] * MANY) as place:
        began = time.monotonic()
        # Longer than what goes while the host hears nothing takes to go: that is to be no loss.
        exports = place.connect("-i", "1", "-k", "120", limit=CONNECT_LIMIT)
        took = time.monotonic() - began
        check(set(exports) == {f"nvmf0n{n}" for n in range(1, MANY + 1)}, f"{len(exports)} exports")
        for target in ("nvmf0", place.uri):
            check(place.active(target) == list(range(1, MANY + 1)), "list-ns lacks some")
        began = time.monotonic()
        listed = place.listed()
        rows = place.nvmf("list", limit=LIST_LIMIT).out.splitlines()
        print(f"       {MANY} namespaces: connected in {took:.1f} s, listed twice in "
              f"{time.monotonic() - began:.1f} s")
        check(len(listed["Devices"]) == MANY and len(rows) == MANY + 2, f"{len(rows)} rows")
        check(place.json("id-ns", f"nvmf0n{MANY}")["nsze"] == 2048, "id-ns of the last one")
        size = place.run("nbdinfo", "--size", exports[f"nvmf0n{MANY}"]).must_succeed().out
        check(int(size) == 1 << 20, f"the last export has {size} bytes")
        # While the host hears nothing, more go than a Changed Namespace List has room for.
        place.orders.give("blackhole", queue=0, ms=120_000)
        for nsid in range(1, CHANGES + 1):
            place.orders.give("ns-remove", nsid=nsid)
        place.orders.give("clear")
        told = cases.wait_until(lambda: place.events("namespaces_changed"), PATIENCE, "news of it")
        check(any(event["overflow"] for event in told), f"no overflow: {told}")
        gone = f"nvmf0n{CHANGES}"

        def stopped():
            spaces = place.connection()["namespaces"]
            return sum(1 for one in spaces if one["stopped"]) == CHANGES
        cases.wait_until(stopped, PATIENCE, f"the end of {CHANGES} namespaces", interval=0.5)
        check(place.run("nvmf", "id-ns", gone).status == 1, f"{gone} is still there")
        check(place.active("nvmf0") == list(range(CHANGES + 1, MANY + 1)), "list-ns after it")
        again = place.json("ns-rescan", "nvmf0")
        check(again["active"] == list(range(CHANGES + 1, MANY + 1)), "ns-rescan")
        place.nvmf("disconnect", "nvmf0")


def as_many_as_we_take(new):
    """4,096 namespaces are what a connection serves: it can still be listed."""
    with new(namespaces=["memory:1M"] * 4096) as place:
        check(len(place.connect("-i", "1", limit=2 * CONNECT_LIMIT)) == 4096, "not all of them")
        told = place.connection()
        check(told["state"] == "live" and len(told["namespaces"]) == 4096, "not all are listed")
        place.nvmf("disconnect", "nvmf0")


def namespaces_come_and_go_016_017(new):
    """Made and removed by the hundred, in memory and in files, under a connection and discovery."""
    with new() as place:
        place.connect("-i", "1")
        disk = place.space.path("disk.img")
        with open(disk, "wb") as out:
            out.truncate(1 << 20)
        for turn in range(10):
            made = [place.orders.give("ns-add", namespace=spec)["nsid"]
                    for spec in ["memory:1M"] * 49 + [f"file:{disk}"]]
            check(place.active(place.uri) == [1, *made], f"turn {turn}: {place.active(place.uri)}")
            records = place.json("discover", *place.address)["records"]
            check([r["subnqn"] for r in records if r["subnqn"] != DISCOVERY_NQN] == [NQN], records)
            for nsid in made:
                place.orders.give("ns-remove", nsid=nsid)
        check(place.active("nvmf0") == [1], f"{place.active('nvmf0')}")
        def attached():
            return [one["nsid"] for one in place.connection()["namespaces"] if one["attached"]]
        cases.wait_until(lambda: attached() == [1], PATIENCE, "the host's being told of their end")
        told = place.connection()
        check((told["state"], told["losses"]) == ("live", 0), f"{told}")


def identifiers_004_026(new):
    """A namespace's UUID is what it was given, wherever it is shown."""
    names = [UUID.format(n) for n in (1, 2)]
    with new(namespaces=[f"memory:1M,uuid={uuid}" for uuid in names]) as place:
        place.connect("-i", "1")
        for nsid, uuid in enumerate(names, start=1):
            for target in (f"nvmf0n{nsid}", f"{place.uri}/{nsid}"):
                told = {one["type"]: one for one in place.json("ns-descs", target)["ns-descs"]}
                check(told["uuid"]["uuid"] == uuid and told["csi"]["csi"] == "0", f"{told}")
                check(place.json("id-ns", target)["nguid"] == told["nguid"]["nguid"], f"{told}")
                check(uuid in place.nvmf("ns-descs", target).out, "the text lacks it")
        check([one["uuid"] for one in place.connection()["namespaces"]] == names, "list")


def looked_at_021_023_025(new):
    """list, smart-log and effects-log of a memory and of a file namespace, in every form."""
    with new() as place:
        disk = place.space.path("disk.img")
        with open(disk, "wb") as out:
            out.truncate(1 << 20)
        place.orders.give("ns-add", namespace=f"file:{disk},block=4096")
        place.connect("-i", "1")
        nodes = [line.split()[0] for line in place.nvmf("list").out.splitlines()[2:]]
        check(nodes == ["nvmf0n1", "nvmf0n2"], f"{nodes}")
        sizes = [(d["SectorSize"], d["PhysicalSize"]) for d in place.json("list")["Devices"]]
        check(sizes == [(512, 4 << 20), (4096, 1 << 20)], f"{sizes}")
        for target in ("nvmf0", "nvmf0n1", "nvmf0n2", place.uri):
            smart = place.json("smart-log", target)
            check(smart["critical_warning"] == 0 and smart["avail_spare"] == 100, f"{smart}")
            check("Data Units Read" in place.nvmf("smart-log", target).out, "no counters")
            effects = place.json("effects-log", target, "--csi=0")
            check(effects[0]["io_cmd_set"] and effects[0]["admin_cmd_set"], f"{effects}")
            for text in (("effects-log", target, "-H"), ("smart-log", target, "-b")):
                check(place.run("nvmf", *text).status == 0, f"{text}")


def rescan_027(new):
    """ns-rescan says what there is now; what is gone and what is not served."""
    with new(namespaces=["memory:1M"] * 3) as place:
        place.connect("-i", "1")
        check(place.json("ns-rescan", "nvmf0")["active"] == [1, 2, 3], "at first")
        place.orders.give("ns-add", namespace="memory:1M")
        place.orders.give("ns-remove", nsid=2)
        told = place.json("ns-rescan", "nvmf0")
        check((told["active"], told["not_served"]) == ([1, 3, 4], []), f"{told}")
        said = place.nvmf("ns-rescan", "nvmf0").out
        check("nvmf0 has 3 namespaces\n" in said and "nvmf0n2 does not go on" in said, said)
        lost = place.run("nvmf", "ns-rescan", "nvmf7")
        check(lost.status == 1 and "there is no connection nvmf7" in lost.err, f"{lost}")


def rescan_under_io_053(new):
    """fio verifies what it writes while the connection is asked to look again, all the time."""
    with new(namespaces=["memory:64M"]) as place:
        uri = place.connect("-i", "2")["nvmf0n1"]
        rescans = 0
        while rescans < 10:  # on a slow machine fio ends after fewer
            fio = programs.Server(place.space, [
                "fio", "--name=x", "--ioengine=nbd", "--uri=" + uri, "--rw=randrw", "--bs=4k",
                "--size=64M", "--iodepth=8", "--time_based", "--runtime=6", "--verify=crc32c",
                "--verify_fatal=1", "--eta=never", "--output=" + place.space.path("fio.out")], "$", 0)
            while fio.process.poll() is None:
                check(place.json("ns-rescan", "nvmf0")["active"] == [1], "the namespace went away")
                rescans += 1
            with open(place.space.path("fio.out")) as text:
                check(fio.wait(20) == 0, text.read())
            fio.kill()
        told = place.connection()
        check((told["state"], told["losses"]) == ("live", 0), f"{told}")


def subsystems_028(new):
    """list-subsys: a subsystem once, every connection to it, nothing once they have gone."""
    other = NQN + ":other"
    with new(more={other: ["memory:1M"]}) as place:
        place.connect("-i", "1")
        place.connect("-i", "1", "-D")
        place.connect("-i", "1", uri=place.uri.replace(NQN, other))
        found = [one for host in place.json("list-subsys") for one in host["Subsystems"]]
        paths = {one["NQN"]: [path["Name"] for path in one["Paths"]] for one in found}
        check(sorted(paths[NQN]) == ["nvmf0", "nvmf1"] and paths[other] == ["nvmf2"], f"{paths}")
        text = place.nvmf("list-subsys").out
        check(text.count(f"NQN={NQN}\n") == 1 and text.count(" live") == 3, text)
        check(f" +- nvmf2 tcp traddr=127.0.0.1,trsvcid={place.port} live" in text, text)
        place.nvmf("disconnect-all")
        check(place.nvmf("list-subsys").out.strip() == "", "something is left")


def generations_030(new):
    """GENCTR moves with whatever changes the log, and only then."""
    with new() as place:
        def generation():
            return place.json("discover", *place.address)["genctr"]
        before = generation()
        check(generation() == before, "it moved by itself")
        hidden = NQN + ":hidden"
        for verb, args in (("subsystem-add", {"nqn": hidden, "namespaces": ["memory:1M"]}),
                           ("referral-add", {"at": "tcp://127.0.0.1:1"}),
                           ("referral-remove", {"at": "tcp://127.0.0.1:1"}),
                           ("subsystem-remove", {"nqn": hidden})):
            place.orders.give(verb, **args)
            after = generation()
            check(after > before, f"{verb} left GENCTR at {after}")
            before = after
        # Namespaces are not in the log.
        place.orders.give("ns-add", namespace="memory:1M")
        check(generation() == before, "a namespace moved it")


def kept_alive_003(new):
    """A connection to a discovery controller outlives its keep-alive time, over and over."""
    with new() as place:
        place.run("nvmf-connect", f"nvme+tcp://127.0.0.1:{place.port}/{DISCOVERY_NQN}", "-k", "3",
                  "--name", "disc").must_succeed()
        time.sleep(7.5)
        told = place.connection("disc")
        check((told["state"], told["losses"]) == ("live", 0), f"{told}")
        check(told["keep_alive_ms"] == 3000, f"{told}")
        check(NQN in place.nvmf("discover", "disc").out, "it does not answer")


# What blktests' nvme/039 injects, and more: status, opcode of what fails, whether that is an admin
# command, what is run, and the name of the status in nvme-cli's words.
INJECTED = (
    (0x281, 0x02, False, ("read", "nvmf0n1", "-z", "512", "-d", "out"), "Unrecovered Read Error"),
    (0x375, 0x02, False, ("read", "nvmf0n1", "-z", "512", "-d", "out"), "unrecognized"),
    (0x280, 0x01, False, ("write", "nvmf0n1", "-z", "512", "-d", "in"), "Write Fault"),
    (0x285, 0x05, False, ("compare", "nvmf0n1", "-z", "512", "-d", "in"), "Compare Failure"),
    (0x286, 0x06, True, ("id-ctrl", "nvmf0"), "Access Denied"),
    (0x002, 0x0A, True, ("get-feature", "nvmf0", "-f", "1"), "Invalid Field in Command"),
    (0x375, 0x02, True, ("fw-log", "nvmf0"), "unrecognized"),
)


def statuses_in_words_039(new):
    """Each status that a target can think of is a sentence with its number, exit status 1, and one
    more entry in the error log; nothing is sent a second time, and nothing else fails."""
    with new() as place:
        place.connect("-i", "1")
        with open(place.space.path("in"), "wb") as out:
            out.write(bytes(512))
        for status, opcode, admin, words, name in INJECTED:
            before = int(place.json("smart-log", "nvmf0")["num_err_log_entries"])
            queue = {"queue": 0} if admin else {}
            place.orders.give("fail", status=status, opcode=opcode, count=1, dnr=True, **queue)
            done = place.run("nvmf", *words)
            lines = done.err.splitlines()
            check(done.status == 1 and done.seconds < 10 and len(lines) == 2, f"{done}")
            check(lines[0].startswith("NVMe status: ") and name in lines[0], lines[0])
            check(int(lines[0].rpartition("(0x")[2].rstrip(")"), 16) & 0x7FF == status, lines[0])
            check(lines[1].startswith(f"nvmf: {words[1]}: the controller answered ")
                  and f"(0x{status:03x}" in lines[1], lines[1])
            told = place.json("smart-log", "nvmf0")
            check(int(told["num_err_log_entries"]) == before + 1, f"not one error more: {told}")
            newest = place.json("error-log", "nvmf0", "-e", "1")["errors"][0]
            check(newest["status_field"] & 0x7FF == status, f"{newest}")
            check((newest["sqid"] == 0) == admin, f"{newest}")
            place.nvmf(*words)
        told = place.connection()
        check((told["state"], told["losses"]) == ("live", 0), f"{told}")


CASES = (many_namespaces, as_many_as_we_take, namespaces_come_and_go_016_017,
         identifiers_004_026, looked_at_021_023_025, rescan_027, rescan_under_io_053,
         subsystems_028, generations_030, kept_alive_003, statuses_in_words_039)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder with the programs")
    parser.add_argument("--io", default="io_uring", choices=("io_uring", "epoll"))
    parser.add_argument("--only", action="append", help="run cases whose name has this in it")
    words = parser.parse_args()
    counted = cases.Cases(words.only)

    @contextlib.contextmanager
    def new(**named):
        with Place(words.bin, words.io, **named) as place:
            yield place
            with contextlib.suppress(cases.Failed):
                place.run("nvmf", "disconnect-all")

    def body():
        for function in CASES:
            counted.run(function.__name__, function, new)

    return cases.run_script(body, counted, SCRIPT_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
