#!/usr/bin/env python3
"""The verbs of nvmf that send I/O commands, and those that pass through what the user composed: over
a connection that runs, and over one of their own. Prints `N passed, N failed`."""

import argparse
import json
import os
import pathlib
import re
import signal
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import cases  # noqa: E402
import programs  # noqa: E402
from cases import check  # noqa: E402
from scene import RestartableTarget, Scene  # noqa: E402

SCRIPT_LIMIT = 560
BLOCK = 512
LIMIT = 1 << 20  # of nvmf-target, MDTS
NAMESPACES = ("memory:64M", "memory:32M,block=4096")
SUCCESS = "{} Command {} is Success and result: 0x00000000\n"
# Lengths in blocks at a first block, as blktests' nvme/029 has them.
LENGTHS = ((1, 1), (1, 7), (1, 511), (1, 512), (1, 513), (511, 1023), (511, 1024), (511, 1025))


class Place(Scene):
    """A target with --control, and a connection to it. `disk` is what the verbs are given for
    namespace 1: once the connection's, once a URI."""

    def __init__(self, bin_folder, io, shim, *connect_options, uri=False):
        super().__init__(bin_folder, io, namespaces=NAMESPACES, target=False)
        self.socket = self.space.path("ctl.sock")
        self._arguments += ["--control", self.socket]
        self.target = RestartableTarget(self.space, 0, self._arguments)
        self.shim = shim
        self.exports = {} if uri else self.connect(*connect_options)
        self.device = self.uri if uri else "nvmf0"
        self.disk = self.uri + "/1" if uri else "nvmf0n1"
        self.large = self.uri + "/2" if uri else "nvmf0n2"

    def nvmf(self, verb, target, *words):
        return self.run("nvmf", verb, target, *words)

    def order(self, *words):
        return self.run("nvmf-target", "ctl", self.socket, *words).must_succeed().out

    ctl = order

    def file(self, name, data=None):
        path = self.space.path(name)
        if data is not None:
            pathlib.Path(path).write_bytes(data)
        return path

    def bytes_of(self, name):
        return pathlib.Path(self.space.path(name)).read_bytes()

    def shell(self, text):
        return self.run("bash", "-c", text.replace("nvmf ", self.space.program("nvmf") + " "))


def both(new):
    """Over a connection that runs, and over a connection of the verb's own."""
    for uri in (False, True):
        with new(uri=uri) as place:
            yield place


def failed(place, verb, target, *words, status_line):
    """The command came back with a status: nvme-cli's line, then our sentence, and exit status 1."""
    done = place.nvmf(verb, target, *words)
    lines = done.err.splitlines()
    check(done.status == 1, f"{done}")
    check(any(line.startswith("NVMe status: " + status_line) for line in lines), f"{done.err}")
    check(lines[-1].startswith(f"nvmf: {target}: the controller answered "), f"{done.err}")
    return done


def read_and_write(new):
    """What is written is what is read, with blocks of both sizes; compare tells equal from unequal."""
    for place in both(new):
        for target, size in ((place.disk, 512), (place.large, 4096)):
            data = os.urandom(4 * size)
            where = ("-s", "8", "-c", "3", "-z", len(data))
            done = place.nvmf("write", target, *where, "-d", place.file("in", data), "-f", "-l")
            check(done.must_succeed().err == "write: Success\n" and done.out == "", f"{done}")
            done = place.nvmf("read", target, *where, "-d", place.file("out", b"x" * 99999))
            check(done.must_succeed().err == "read: Success\n" and done.out == "", f"{done}")
            check(place.bytes_of("out") == data, "what was read is not what was written")
            done = place.nvmf("compare", target, *where, "-d", place.file("in"))
            check(done.must_succeed().err == "compare: Success\n", f"{done}")
            failed(place, "compare", target, *where, "-d", place.file("other", data[::-1]),
                   status_line="Compare Failure: The command failed due to a miscompare during a "
                               "Compare command(0x")


def pipes(new):
    """stdin and stdout, as nvme-cli has them when no file is named; remarks are not among the data."""
    with new() as place:
        data = os.urandom(2 * BLOCK)
        place.file("in", data)
        done = place.shell(f"cat in | nvmf write {place.disk} -s 4 -c 1 -z 1024 && "
                           f"nvmf read {place.disk} -s 4 -c 1 -z 1024 -t -v > out").must_succeed()
        check(place.bytes_of("out") == data, "what came through the pipe is not what went in")
        check(re.search(r"^ latency: read: \d+ us$", done.err, re.M), done.err)
        check("slba         : 4\n" in done.err, done.err)
        done = place.shell(f"nvmf read {place.disk} -s 4 -c 1 -z 1024 | head -c 10").must_succeed()
        done = place.shell(f"head -c 100 in | nvmf write {place.disk} -s 4 -c 0 -z 512")
        check(done.status == 2 and "stdin has 100 bytes, and the command is to send 512: nothing was "
              "sent" in done.err, f"{done}")
        place.nvmf("compare", place.disk, "-s", "4", "-c", "1", "-z", "1024", "-d",
                   place.file("in")).must_succeed()
        done = place.nvmf("read", place.disk, "-z", "512", "-t", "-d", place.file("out"))
        check(re.fullmatch(r" latency: read: \d+ us\n", done.must_succeed().out), f"{done}")


def lengths(new):
    """Many blocks and odd numbers of them; a count without a length, a length without a count."""
    for place in both(new):
        for start, blocks in LENGTHS:
            data = os.urandom(blocks * BLOCK)
            place.nvmf("write", place.disk, f"--start-block={start}", f"--block-count={blocks - 1}",
                       f"--data-size={len(data)}", "--data=" + place.file("in", data)).must_succeed()
            place.nvmf("read", place.disk, f"--start-block={start}", f"--block-count={blocks - 1}",
                       f"--data-size={len(data)}", "--data=" + place.file("out")).must_succeed()
            check(place.bytes_of("out") == data, f"{blocks} blocks at {start} came back changed")
        place.nvmf("read", place.disk, "-s", "511", "-c", "9", "-d", place.file("out")).must_succeed()
        check(place.bytes_of("out") == data[:10 * BLOCK], "the length must follow from the count")
        place.nvmf("read", place.disk, "-s", "511", "-z", "5k", "-d", place.file("out")).must_succeed()
        check(place.bytes_of("out") == data[:5120], "the count must follow from the length")


def odd_lengths(new):
    """What is not a whole number of blocks: as nvme-cli, and never beyond what was given."""
    for place in both(new):
        data = os.urandom(4 * BLOCK)
        place.nvmf("write", place.disk, "-c", "3", "-d", place.file("in", data)).must_succeed()
        for size in (1, 511, 513, 1023):
            blocks = -(-size // BLOCK)
            done = place.nvmf("read", place.disk, "-z", size, "-d", place.file("out")).must_succeed()
            check(done.err == f"Rounding data size to fit block count ({blocks * BLOCK} bytes)\n"
                              "read: Success\n", done.err)
            check(place.bytes_of("out") == data[:size], f"{size} bytes were not read")
        # The rest of the last block is written with zeroes, as nvme-cli does it, and says so.
        done = place.nvmf("write", place.disk, "-c", "0", "-z", "511", "-d", place.file("in"))
        check("Rounding data size to fit block count (512 bytes)" in done.must_succeed().err, f"{done}")
        place.nvmf("read", place.disk, "-c", "1", "-d", place.file("out")).must_succeed()
        check(place.bytes_of("out") == data[:511] + b"\0" + data[512:1024], "a neighbour was touched")
        for words, says in ((("-c", "0", "-z", "513"), "more than the 512 bytes of --block-count=0"),
                            ((), "data size not provided"), (("-z", "0"), "data size not provided"),
                            (("-z", "64M"), "65536 at most"), (("-c", "65536"), "from 0 to 65535"),
                            (("-z", "x"), '"x" is no value for --data-size'), (("-z", ""), "is no value"),
                            (("-p", "16", "-z", "512"), "from 0 to 15"),
                            (("-y", "8", "-z", "512"), "--metadata-size and --metadata are refused"),
                            (("-M", "x", "-z", "512"), "passes no metadata through"),
                            (("-g", "1", "-z", "512"), "--storage-tag is refused"),
                            (("-z", "512", "-d", "/nonexistent/x"), "/nonexistent/x: No such file")):
            place.refused("nvmf", "read", place.disk, *words, status=2, says=says)
        place.refused("nvmf", "write", place.disk, "-z", "512", "-d", "/nonexistent", status=2,
                      says="/nonexistent: No such file")
        place.refused("nvmf", "read", place.device, "-z", "512", status=2, says="name a namespace")
        failed(place, "read", place.disk, "-s", "0x20000", "-z", "512",
               status_line="LBA Out of Range")


def too_long(new):
    """More than one command may transfer: a sentence that names the limit, and nothing is sent."""
    for place in both(new):
        most = LIMIT // BLOCK
        place.refused("nvmf", "read", place.disk, "-c", most, status=2,
                      says=f"{LIMIT + BLOCK} bytes are more than the {LIMIT} that one command may "
                           f"transfer here; ask for --block-count={most - 1} at most")
        place.nvmf("read", place.disk, "-c", most - 1, "-d", place.file("out")).must_succeed()
        check(len(place.bytes_of("out")) == LIMIT, "as much as one command may transfer")
        place.refused("nvmf", "io-passthru", place.disk, "-o", "2", "-l", LIMIT + BLOCK, "-r",
                      f"--cdw12={most}", status=2, says=f"is more than the {LIMIT} bytes that one")
        place.refused("nvmf", "io-passthru", place.disk, "-o", "2", "-l", "0xffffffff", "-r", status=2,
                      says="more than the 4194304 bytes that nvmf moves in one command")


def without_data(new):
    """write-zeroes, dsm with several ranges, flush, verify, write-uncor."""
    for place in both(new):
        data = os.urandom(64 * BLOCK)
        place.nvmf("write", place.disk, "-c", "63", "-d", place.file("in", data)).must_succeed()
        done = place.nvmf("write-zeroes", place.disk, "-s", "2", "-c", "1", "-f", "-l", "-d")
        check(done.must_succeed().out == "NVME Write Zeroes Success\n", f"{done}")
        done = place.nvmf("dsm", place.disk, "-d", "-s", "8,0x20", "-b", "8,16", "-a", "1")
        check(done.must_succeed().out == "NVMe DSM: success\n", f"{done}")
        done = place.nvmf("flush", place.disk)
        check(done.must_succeed().out == "NVMe Flush: success\n", f"{done}")
        done = place.nvmf("flush", place.device, "-n", "1")
        check(done.must_succeed().out == "NVMe Flush: success\n", f"{done}")
        place.nvmf("read", place.disk, "-c", "63", "-d", place.file("out")).must_succeed()
        told = bytearray(data)
        for first, blocks in ((2, 2), (8, 8), (32, 16)):
            told[first * BLOCK:(first + blocks) * BLOCK] = bytes(blocks * BLOCK)
        check(place.bytes_of("out") == bytes(told), "other blocks than those were zeroed")
        for verb, says in (("verify", "NVME Verify Success\n"),
                           ("write-uncor", "NVME Write Uncorrectable Success\n")):
            done = place.nvmf(verb, place.disk, "-s", "5", "-c", "3")
            if done.status != 0:
                check("NVMe status: Invalid Command Opcode" in done.err, f"{done}")
            else:
                check(done.out == says, f"{done}")
        for words, says in ((("-d",), "No range definition provided"),
                            (("-d", "-s", "0,8", "-b", "8"), "--slbs names 2 ranges, --blocks 1"),
                            (("-s", "0,", "-b", "1,1"), "takes a number"),
                            (("-s", ",".join(["1"] * 257), "-b", ",".join(["1"] * 257)),
                             "257 ranges are more than the 256")):
            place.refused("nvmf", "dsm", place.disk, *words, status=2, says=says)
        failed(place, "write-zeroes", place.disk, "-s", "131072", status_line="LBA Out of Range")


def admin_passthru(new):
    """Identify by hand is id-ctrl; what is wrong comes back as a status, or is refused by name."""
    for place in both(new):
        identify = ("-o", "6", "-r", "-l", "4096", "--cdw10=1")
        done = place.nvmf("admin-passthru", place.device, *identify, "-b", "-i", place.file("raw"))
        check(done.must_succeed().err == SUCCESS.format("Admin", "Identify"), f"{done}")
        place.shell(f"nvmf id-ctrl {place.device} -b > id").must_succeed()
        raw, told = place.bytes_of("raw"), place.bytes_of("id")
        # CNTID is of each connection's own controller.
        check(len(raw) == 4096 and raw[:78] + raw[80:] == told[:78] + told[80:], "Identify differs")
        done = place.nvmf("admin-passthru", place.device, *identify, "-T").must_succeed()
        lines = done.out.splitlines()
        check(re.fullmatch(r"Admin Command Identify latency: \d+ us", lines[0]), lines[0])
        check(lines[1].split() == [f"{i:x}" for i in range(16)] and len(lines) == 258, f"{lines[:3]}")
        check(lines[2].split('"')[0].split()[1:] == [f"{b:02x}" for b in told[:16]], lines[2])
        failed(place, "admin-passthru", place.device, "-o", "0xc1",
               status_line="Invalid Command Opcode: A reserved coded value or an unsupported value in "
                           "the command opcode field(0x")
        refused = ((("-r",), "--opcode is missing"), (("-o", "256"), "from 0 to 255"),
                   (("-o", "6", "-m", "8"), "--metadata-len and --metadata are refused"),
                   (("-o", "6", "-M", "x"), "passes no metadata through"),
                   (("-o", "6", "-r", "-w"), "one direction only"),
                   (("-o", "6", "-t", "4294967295"), "more than the 43200000 ms"),
                   (("-o", "6", "-w", "-l", "8", "-i", place.file("raw")),
                    "Identify gets data from the controller"))
        for words, says in refused:
            place.refused("nvmf", "admin-passthru", place.device, *words, status=2, says=says)
        # What the connection itself lives by.
        place.refused("nvmf", "admin-passthru", place.device, "-o", "8", says="Abort is not passed")


def data_to_the_controller(new):
    """io-passthru writes and reads the same blocks as write and read do."""
    for place in both(new):
        data = os.urandom(BLOCK)
        done = place.nvmf("io-passthru", place.disk, "-o", "1", "-w", "-l", "512", "--cdw10=3",
                          "-i", place.file("in", data))
        check(done.must_succeed().err == SUCCESS.format("IO", "Write"), f"{done}")
        for words in (("-r",), ("-n", "1", "-b", "-t", "5000")):
            done = place.nvmf("io-passthru", place.disk, "-o", "2", "-l", "512", "--cdw10=3", *words,
                              "-i", place.file("out"))
            check(done.must_succeed().err == SUCCESS.format("IO", "Read"), f"{done}")
            check(place.bytes_of("out") == data, "io-passthru read other data than it wrote")
        place.nvmf("compare", place.disk, "-s", "3", "-z", "512", "-d", place.file("in")).must_succeed()
        # Short data is an error, unless it is said what the rest is.
        place.refused("nvmf", "io-passthru", place.disk, "-o", "1", "-w", "-l", "1024", "--cdw12=1",
                      "-i", place.file("in"), status=2, says="has 512 bytes, and the command is to "
                      "send 1024: nothing was sent")
        place.nvmf("io-passthru", place.disk, "-o", "1", "-w", "-l", "1024", "--cdw12=1", "-p", "0xa5",
                   "-i", place.file("in")).must_succeed()
        place.nvmf("read", place.disk, "-c", "1", "-d", place.file("out")).must_succeed()
        check(place.bytes_of("out") == data + b"\xa5" * 512, "the rest was not what --prefill says")
        done = place.nvmf("io-passthru", place.disk, "-o", "0")
        check(done.must_succeed().err == SUCCESS.format("IO", "Flush"), f"{done}")


def timeouts(new):
    """A command that is not answered in time: it is said, nobody else notices."""
    for place in both(new):
        place.ctl("delay", "20000", "--opcode", "read")
        done = place.nvmf("io-passthru", place.disk, "-o", "2", "-r", "-l", "512", "-t", "300")
        check(done.status == 1 and done.seconds < 15, f"{done}")
        check(re.search(r"Read.*0\.3 s|Abort", done.err), done.err)
        place.ctl("clear")
        place.nvmf("read", place.disk, "-z", "512", "-d", place.file("out")).must_succeed()


def lost_on_the_way(new):
    """The target is killed under a write: it may have been executed, and is not sent again."""
    with new() as place:
        place.ctl("delay", "20000", "--opcode", "write")
        place.file("in", os.urandom(BLOCK))
        told = []
        asker = threading.Thread(target=lambda: told.append(place.nvmf(
            "write", place.disk, "-z", "512", "-d", place.file("in"))))
        asker.start()
        place.wait_delayed(1)
        place.kill_target()
        asker.join(60)
        check(told and told[0].status == 1 and "may have been executed" in told[0].err, f"{told}")


def after_a_killed_connection(new):
    """What a killed connection has sent may still be executed: a write by a connection of its own
    waits for that, as it says."""
    with new("-k", "1") as place:
        place.file("in", os.urandom(BLOCK))
        with open(os.path.join(place.space.runtime, "nvmf0.crash")) as file:
            bound = json.load(file)["bound_ms"] / 1000
        pid = place.pid("nvmf0")
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        place.wait_gone(pid)
        done = place.nvmf("write", place.uri, "-n", "1", "-z", "512", "-d", place.file("in"))
        took = time.monotonic() - begin
        check(done.status == 0 and "this waits until then" in done.err, f"{done}")
        check(bound - 0.5 <= took <= bound + 5, f"it waited {took:.1f} s, not {bound}")
        check(not place.crash_records(), f"{place.crash_records()}")
    with new("-k", "0") as place:
        pid = place.pid("nvmf0")
        os.kill(pid, signal.SIGKILL)
        place.wait_gone(pid)
        for _ in range(2):
            place.refused("nvmf", "write-zeroes", place.uri, "-n", "1", says="nobody knows until when")


def read_only(new):
    """A connection that is read-only sends no command that may change data."""
    with new("--read-only") as place:
        place.file("in", bytes(BLOCK))
        for argv in (("write", place.disk, "-z", "512", "-d", place.file("in")),
                     ("write-zeroes", place.disk), ("dsm", place.disk, "-d", "-s", "0", "-b", "1"),
                     ("io-passthru", place.disk, "-o", "1", "-w", "-l", "512", "-i", place.file("in")),
                     ("admin-passthru", place.device, "-o", "0x80", "-n", "1")):
            place.refused("nvmf", *argv, says="read-only")
        place.nvmf("read", place.disk, "-z", "512", "-d", place.file("out")).must_succeed()
        place.nvmf("flush", place.disk).must_succeed()


def dry_runs(new):
    """--dry-run and --show-command print what nvme-cli 2.3 prints; a dry run sends nothing."""
    pointers = re.compile(r"^(addr +: )[0-9a-f]+$", re.M)
    passthru = ("-o", "6", "-l", "40", "-r", "--cdw10=1", "-t", "5000", "-n", "1", "-f", "0x80", "-R",
                "2", "-2", "3", "-3", "4", "-5", "5", "-6", "6", "-7", "7", "-8", "8", "-9", "9")
    with new() as place:
        data = os.urandom(BLOCK)
        place.nvmf("write", place.disk, "-z", "512", "-d", place.file("in", data)).must_succeed()
        before = place.ctl("show")
        shown = place.nvmf("admin-passthru", place.device, *passthru, "-d").must_succeed()
        check(place.ctl("show") == before, "a dry run of admin-passthru sent something")
        check("cdw15        : 00000009\ntimeout_ms   : 00001388\n" in shown.out, shown.out)
        done = place.nvmf("io-passthru", place.disk, "-o", "1", "-w", "-l", "512", "-d",
                          "-i", "/nonexistent").must_succeed()
        check("nsid         : 00000001\n" in done.out, done.out)
        check(place.ctl("show") == before, "a dry run of io-passthru sent something")
        where = ("-s", "1", "-c", "1", "-z", "1024", "-r", "5", "-m", "6", "-a", "7", "-C", "-T", "1",
                 "-S", "2", "-D", "3", "-p", "3", "-l", "-f")
        wrote = place.nvmf("write", place.disk, *where, "-w", "-d", "/nonexistent").must_succeed()
        place.nvmf("read", place.disk, "-z", "512", "-d", place.file("out")).must_succeed()
        check(place.bytes_of("out") == data, "a dry run of write wrote")
        if not place.shim or "version 2.3 " not in place.run("nvme", "version").out:
            return
        judge = {"LD_PRELOAD": place.shim,
                 "NVMF_SHIM_DATA": place.file("id", bytes(130) + b"\x09" + bytes(3965))}
        for ours, argv in ((shown, ("admin-passthru", "/dev/null", *passthru, "-d")),
                           (wrote, ("write", "/dev/null", "-n", "1", *where, "-v", "-w"))):
            theirs = place.run("nvme", *argv, environment=judge)
            check(pointers.sub(r"\1", theirs.out) == pointers.sub(r"\1", ours.out),
                  f"nvme-cli shows {theirs.out}, nvmf {ours.out}")


def letters(new):
    """Every option of nvme-cli's verbs is there, with its letter."""
    with new(target=False) as place:
        for verb in ("read", "write", "compare", "write-zeroes", "write-uncor", "verify", "dsm",
                     "flush", "admin-passthru", "io-passthru"):
            try:
                asked = place.run("nvme", verb, "--help")
            except cases.Lacking:
                return
            ours = place.run("nvmf", verb, "--help").must_succeed().out
            spellings = re.findall(r"--([a-z0-9-]+)(?:=<\w+>)?, -(\w) ", asked.out + asked.err)
            check(spellings, f"nvme-cli's options were not understood: {asked}")
            for long, short in spellings:
                check(f"-{short},--{long}" in ours, f"{verb}: -{short}/--{long} is not known")


CASES = (read_and_write, pipes, lengths, odd_lengths, too_long, without_data, admin_passthru,
         data_to_the_controller, timeouts, lost_on_the_way,
         after_a_killed_connection, read_only, dry_runs, letters)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder with the programs")
    parser.add_argument("--io", default="io_uring", choices=("io_uring", "epoll"))
    parser.add_argument("--shim", help="what answers nvme-cli's ioctl(), to compare with it")
    parser.add_argument("--only", action="append", help="run cases whose name has this in it")
    words = parser.parse_args()
    counted = cases.Cases(words.only)

    def new(*connect_options, target=True, **named):
        if not target:
            return Scene(words.bin, words.io, target=False)
        shim = words.shim and os.path.abspath(words.shim)
        return Place(words.bin, words.io, shim, *connect_options, **named)

    def body():
        for function in CASES:
            counted.run(function.__name__, function, new)

    return cases.run_script(body, counted, SCRIPT_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
