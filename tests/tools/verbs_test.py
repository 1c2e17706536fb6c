#!/usr/bin/env python3
"""Every verb of nvmf as a new user tries it: with nothing, with an option that there is not, with a
name that is not there, a device of the kernel, a dead target, a connection that looks for its
target, a namespace that does not exist; and as it is meant, on a connection and on an address, which
must say the same. What verbs there are is read from --help. Prints `N passed, N failed`."""

import argparse
import json
import os
import pathlib
import re
import socket
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import cases  # noqa: E402
from cases import check  # noqa: E402
from scene import NQN, Scene  # noqa: E402

SCRIPT_LIMIT = 560
# Whatever is wrong is said within that time, on a busy machine, too; nothing is waited for.
BOUND = 9
NO_SUCH = "--no-such-option"

# What a verb needs beside its operand.
NEEDS = {
    "admin-passthru": ["--opcode=0x06", "--cdw10=0", "--data-len=4096", "--read"],
    "compare": ["--start-block=0", "--block-count=0", "--data-size=512", "--data=/dev/zero"],
    "dsm": ["--ad", "--slbs=0", "--blocks=1"],
    "get-feature": ["--feature-id=2"],
    "get-log": ["--log-id=2", "--log-len=512"],
    "get-property": ["--offset=0x8"],
    "io-passthru": ["--opcode=0"],
    "read": ["--start-block=0", "--block-count=0", "--data-size=512"],
    "set-feature": ["--feature-id=4", "--value=0x157"],
    "set-property": ["--offset=0x20", "--value=0x11"],
    "write": ["--start-block=0", "--block-count=0", "--data-size=512", "--data=/dev/zero"],
    "write-zeroes": ["--start-block=0", "--block-count=0"],
}
# Without anything these do something, or say what is missing in their own way.
WITHOUT_WORDS = {"list": 0, "list-subsys": 0, "events": 0, "stats": 0, "help": 0,
                 "disconnect-all": 0, "disconnect": 2, "connect": 2, "explain": 2,
                 "discover": 1, "connect-all": 1}
# Their operands are no connections.
NO_CONNECTION = {"connect", "connect-all", "discover", "disconnect-all", "explain", "help", "list"}
# They know what to say while the target is away.
WHILE_LOST = {"accept": 1, "disconnect": 0, "events": 0, "list-subsys": 0, "ns-rescan": 1,
              "policy": 0, "reset": 1, "stats": 0, "trace": 0}
# What nvmf-target does not have: an invalid field, or opcode.
ABSENT = {"id-domain", "id-ns-granularity", "id-nvmset", "id-uuid", "list-ctrl", "list-endgrp",
          "list-secondary", "primary-ctrl-caps", "self-test-log", "set-property", "verify",
          "write-uncor"}
# They begin with the number that -n gives, or show a list that is empty then.
ANY_NAMESPACE = {"list-ns", "list-ctrl", "list-secondary", "get-feature", "set-feature"}
# Their data go somewhere, or differ: other tests look at what they do.
NOT_COMPARED = {"admin-passthru", "compare", "dsm", "flush", "io-passthru", "read", "write",
                "write-zeroes"}
# A controller refuses what belongs to all of it for one namespace.
OF_CONTROLLERS = {"set-feature"}
# Every command that fails adds an entry, also those of this test: keys are compared.
KEYS_ONLY = {"error-log"}

# What nvme-cli is asked to do, and we: the same commands must be sent.
SAME_COMMANDS = """
id-ctrl | id-ns -n 1 | id-ns -n 1 --force | list-ns | list-ns -n 5 | list-ns -y 2 | list-ns -a
list-ns -a -y 0 | ns-descs -n 1 | nvm-id-ctrl | nvm-id-ns -n 1 | nvm-id-ns -n 1 -U 3
cmdset-ind-id-ns -n 1 | id-iocs | id-iocs -c 3 | list-ctrl | list-ctrl -c 3 -n 1 | list-ctrl -c 4
list-endgrp -i 3 | id-nvmset -i 4 | id-uuid | id-domain | id-domain -d 2 | id-ns-granularity
primary-ctrl-caps -c 2 | list-secondary -c 2 | list-secondary -n 1 | get-log -i 2 -l 512
get-log -i 0x70 -l 4096 -s 3 -S 4 -r -U 2 -y 1 -n 1 | get-log -i 1 -l 64 -O -o 8 | get-log -a 0x30000
smart-log | smart-log -n 1 | error-log -e 1 | fw-log | effects-log -c 0 | changed-ns-list-log
ana-log | ana-log -g | self-test-log | supported-log-pages | get-feature -f 7
get-feature -f 4 -s 8 | get-feature -f 0x16 -s 1 -U 1 -n 1 | get-feature -f 0x81 -c 1
get-feature -f 0x81 | get-feature -f 3 -s 3 | get-feature -f 0x1e | set-feature -f 4 -v 0x157
set-feature -f 4 -v 0x157 -c 7 -s -U 2 -n 1 | set-feature -f 0xe -v 77 | set-feature -f 2 -v 1k
get-property -o 0x14 | get-property -o 0 | set-property -o 0x20 -v 0x11
"""
CONNECT = (0x7f, 1)
KEEP_ALIVE, EVENT_REQUEST = 0x18, 0x0c
GET_LOG, ANA_LOG = 0x02, 0x0c


class Verb:
    """What --help says of a verb."""

    def __init__(self, scene, name):
        told = scene.run("nvmf", name, "--help").must_succeed().out
        self.name = name
        self.asks = bool(re.search(r"^  \w+ TARGET REQUIRED", told, re.MULTILINE))
        self.names = bool(re.search(r"^  \w+ NAME\b", told, re.MULTILINE))
        self.required = bool(re.search(r"^  \w+ [A-Z]+ REQUIRED", told, re.MULTILINE))
        self.namespace = "--namespace-id" in told
        self.json = bool(re.search(r"--output-format.* json", told))
        self.needs = NEEDS.get(name, [])


def verbs(scene):
    told = scene.run("nvmf", "--help").must_succeed().out
    section = told.split("Subcommands:")[1].split("\n\n")[0]
    found = [Verb(scene, line.split()[0]) for line in section.splitlines()
             if re.match(r"  \S", line)]
    check(len(found) > 40, f"--help lists {[verb.name for verb in found]}")
    return found


def helpful(done, status, says):
    """One sentence, perhaps below nvme-cli's line or above where usage is found."""
    check(done.status == status, f"`{done.command}` exited {done.status}, not {status}: {done.err}")
    check(done.seconds < BOUND, f"`{done.command}` took {done.seconds:.1f} s")
    lines = [line for line in done.err.splitlines()
             if not line.startswith(("NVMe status: ", "Run nvmf"))]
    check(len(lines) == 1 and re.match(r"nvmf(-connect)?: \S", lines[0]),
          f"`{done.command}` said {done.err!r}")
    check(says in lines[0], f"`{done.command}` said {lines[0]!r} instead of …{says}…")
    check("NVMe status" not in done.err or done.err.startswith("NVMe status: "), f"{done.err!r}")


def wrong_option(scene, all_verbs):
    for verb in all_verbs:
        helpful(scene.run("nvmf", verb.name, NO_SUCH), 2, NO_SUCH)


def no_words(scene, all_verbs):
    for verb in all_verbs:
        done = scene.run("nvmf", verb.name)
        if verb.required:
            helpful(done, 2, "is missing")
            continue
        check(verb.name in WITHOUT_WORDS, f"{verb.name} is new: say in WITHOUT_WORDS what it does")
        status = WITHOUT_WORDS[verb.name]
        check(done.status == status, f"`{done.command}` exited {done.status}: {done.err}")
        if status != 0:
            helpful(done, status, "")


def about_connections(all_verbs):
    return [verb for verb in all_verbs
            if (verb.asks or verb.names) and verb.name not in NO_CONNECTION]


def not_there(scene, all_verbs):
    for verb in about_connections(all_verbs):
        helpful(scene.run("nvmf", verb.name, "nvmf7", *verb.needs), 1, "no connection nvmf7")
        helpful(scene.run("nvmf", verb.name, "/dev/nvme0", *verb.needs), 2, "type a name")
        helpful(scene.run("nvmf", verb.name, "a b", *verb.needs), 2, "letters")


def dead_target(scene, all_verbs):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"nvme+tcp://127.0.0.1:{probe.getsockname()[1]}/{NQN}/1"
        for verb in about_connections(all_verbs):
            done = scene.run("nvmf", verb.name, uri, *verb.needs)
            if verb.asks:
                helpful(done, 1, "refused")
            else:
                helpful(done, 2, "is an address")
        for name in ("discover", "connect-all"):
            helpful(scene.run("nvmf", name, uri.rsplit("/", 2)[0]), 1, "refused")


def no_such_namespace(scene, all_verbs):
    for verb in all_verbs:
        if not verb.asks or not verb.namespace or verb.name in ABSENT | ANY_NAMESPACE:
            continue
        for words in (["nvmf0", "--namespace-id=99"], [scene.uri, "--namespace-id=99"]):
            done = scene.run("nvmf", verb.name, *words, *verb.needs)
            helpful(done, 1, "")
            check("amespace" in done.err or "Invalid Field" in done.err, f"{done}")


def same(text, place):
    """The output without what belongs to the place it was asked of."""
    text = text.replace(place, "PLACE")
    return re.sub(r'(cntlid"?\s*: )\w+', r"\1N", text)


def keys(text):
    """The structure of a document."""
    def shape(value):
        if isinstance(value, dict):
            return {key: shape(one) for key, one in value.items()}
        return [shape(one) for one in value] if isinstance(value, list) else 0
    return shape(json.loads(text))


def as_meant(scene, all_verbs):
    for verb in all_verbs:
        if not verb.asks or verb.name in NOT_COMPARED:
            continue
        whole = verb.name in OF_CONTROLLERS
        name, uri = ("nvmf0", scene.uri) if whole else ("nvmf0n1", scene.uri + "/1")
        for form in [[]] + ([["-o", "json"]] if verb.json else []):
            by_name = scene.run("nvmf", verb.name, name, *verb.needs, *form)
            by_uri = scene.run("nvmf", verb.name, uri, *verb.needs, *form)
            if verb.name in ABSENT:
                for done in (by_name, by_uri):
                    helpful(done, 1, "Invalid ")
                    check(done.err.startswith("NVMe status: Invalid ") and done.out == "", f"{done}")
                continue
            by_name.must_succeed()
            by_uri.must_succeed()
            check(by_name.err == "" and by_uri.err == "", f"it said {by_name.err!r} {by_uri.err!r}")
            if verb.name in KEYS_ONLY:
                check(not form or keys(by_name.out) == keys(by_uri.out), f"{verb.name} differs")
                continue
            texts = same(by_name.out, name), same(by_uri.out, uri)
            check(texts[0] == texts[1], f"{verb.name} says {texts[0]!r} and {texts[1]!r}")
            check(texts[0] or verb.name == "changed-ns-list-log", f"{verb.name} says nothing")
            if form:
                json.loads(by_name.out)


def raw_bytes(scene):
    """--raw-binary gives what the structures have, through either way."""
    sizes = {"id-ctrl": 4096, "id-ns": 4096, "ns-descs": 4096, "smart-log": 512, "fw-log": 512,
             "effects-log": 4096, "changed-ns-list-log": 4096, "error-log": 64}
    for name, size in sizes.items():
        for place in ("nvmf0n1", scene.uri + "/1"):
            path = scene.space.path("raw")
            entries = ["-e", "1"] if name == "error-log" else []
            words = " ".join([scene.space.program("nvmf"), name, place, "-b", *entries])
            scene.run("sh", "-c", f"{words} > {path}").must_succeed()
            check(os.path.getsize(path) == size, f"{name} {place} wrote {os.path.getsize(path)}")


def details(scene):
    """-H and -v say more; lists begin where they are told to; logs are read in pieces."""
    def out(*words):
        return scene.run("nvmf", *words).must_succeed().out
    for name, option in (("id-ctrl", "-H"), ("id-ctrl", "-v"), ("id-ns", "-H"), ("id-ns", "-v"),
                         ("nvm-id-ns", "-v"), ("cmdset-ind-id-ns", "-H"), ("smart-log", "-H"),
                         ("effects-log", "-H"), ("supported-log-pages", "-v"), ("show-regs", "-H")):
        check(len(out(name, "nvmf0n1", option)) > len(out(name, "nvmf0n1")), f"{name} {option}")
    check(out("list-ns", "nvmf0") == "[   0]:0x1\n[   1]:0x2\n", "both namespaces")
    check(out("list-ns", "nvmf0", "-n", "2") == "[   0]:0x2\n", "from the second on")
    check(json.loads(out("list-ns", "nvmf0", "-y", "0", "-o", "json")) ==
          {"nsid_list": [{"nsid": 1}, {"nsid": 2}]}, "of the NVM command set")
    helpful(scene.run("nvmf", "list-ns", "nvmf0", "-n", "0"), 2, "no namespace has the number 0")
    whole = out("get-log", "nvmf0", "-i", "5", "-l", "0x1000")
    check(out("get-log", "nvmf0", "-i", "5", "-l", "4096", "-x", "4096") == whole, "the same log")
    tail = out("get-log", "nvmf0", "-i", "5", "-l", "16", "-o", "1K").splitlines()[2]
    check(tail[6:] in whole, f"the log at 1 KiB is {tail}")
    long = out("get-log", scene.uri, "-i", "1", "-l", "8192", "-x", "4096")
    check(len(long.splitlines()) == 2 + 8192 // 16, "a log in two pieces")
    by_event = out("get-log", "nvmf0", "-a", "0x20000").splitlines()
    check("log-id:2 " in by_event[0] and len(by_event) == 2 + 4096 // 16, f"{by_event[0]}")
    helpful(scene.run("nvmf", "get-log", "nvmf0", "-i", "2"), 2, "--log-len")
    helpful(scene.run("nvmf", "get-log", "nvmf0", "-i", "2", "-l", "8", "-o", "3"), 2, "multiple of 4")
    check(out("id-ns", "nvmf0n1", "-n", "2") == out("id-ns", "nvmf0n2"), "-n wins")
    helpful(scene.run("nvmf", "id-ns", "nvmf0"), 2, "name a namespace")


def features(scene):
    def out(*words):
        return scene.run("nvmf", *words).must_succeed().out
    first = "get-feature:0x04 (Temperature Threshold), "
    changed = out("set-feature", "nvmf0", "-f", "4", "-v", "0x158")
    check(changed == "set-feature:0x04 (Temperature Threshold), value:0x00000158, cdw12:00000000, "
          "save:0\n", changed)
    check(out("get-feature", "nvmf0", "-f", "4") == first + "Current value:0x00000158\n", "as set")
    check(out("get-feature", "nvmf0", "-f", "4", "-s", "8") == first + "Changed value:0x00000158\n",
          "it is not the default")
    check(out("get-feature", "nvmf0", "-f", "2", "-s", "8") == "", "it is the default")
    check("(344 Kelvin)" in out("get-feature", "nvmf0", "-f", "4", "-H"), "in words")
    everything = out("get-feature", "nvmf0")
    check(all(f"get-feature:{fid:#04x} " in everything for fid in (1, 2, 4, 7, 0xb)), everything)
    check(out("get-feature", "nvmf0", "-s", "8").startswith(first), "of all, what is not the default")
    for words, status, says in ((["-f", "7", "-v", "1"], 1, "--nr-io-queues"),
                                (["-v", "1"], 2, "--feature-id"),
                                (["-f", "0x1ff", "-v", "1"], 2, "--feature-id")):
        helpful(scene.run("nvmf", "set-feature", "nvmf0", *words), status, says)
    helpful(scene.run("nvmf", "get-feature", "nvmf0", "-f", "2", "-s", "5"), 2, "--sel 5")
    helpful(scene.run("nvmf", "get-feature", "nvmf0", "-f", "0x50"), 1, "Invalid Field")
    helpful(scene.run("nvmf", "set-property", "nvmf0", "-o", "0x14", "-v", "1"), 1, "nvmf reset")
    helpful(scene.run("nvmf", "get-property", "nvmf0"), 2, "--offset 0x14")


def comparable(command):
    """How long the ANA log is depends on the controller. Debian's nvme-cli clears the event that goes
    with it, by mistake (its source says otherwise); a connection needs that event."""
    opcode, nsid, cdw10, *rest = command
    if opcode == GET_LOG and cdw10 & 0xff == ANA_LOG:
        return (opcode, nsid, cdw10 & 0x7fff)
    return command


def traced(path):
    """Admin commands in a trace: opcode, NSID, dwords 10 to 15, length of the data."""
    found, at = [], 0
    data = pathlib.Path(path).read_bytes()
    while (at := data.find(b"\x04", at)) >= 0:
        sqe = data[at + 8:at + 72]
        # A command capsule: HLEN 72, and PSDT 01b, which every command has.
        if len(sqe) < 64 or data[at + 2] != 72 or sqe[1] != 0x40:
            at += 1
            continue
        length, = struct.unpack_from("<I", sqe, 32)
        command = (sqe[0], struct.unpack_from("<I", sqe, 4)[0],
                   *struct.unpack_from("<6I", sqe, 40), length)
        if command[:2] != CONNECT and command[0] not in (KEEP_ALIVE, EVENT_REQUEST):
            found.append(comparable(command))
        at += 72
    return found


def commands_of_nvme_cli(scene, shim):
    """Debian's nvme-cli sends the same, field by field; what it asks of is answered by zeroes."""
    if not shim or "version 2.3 " not in scene.run("nvme", "version").out:
        print("note: nvme-cli 2.3 is not here: what it sends is not compared")
        return
    lines = [line.split() for row in SAME_COMMANDS.split("\n") for line in row.split("|")
             if line.strip()]
    log, trace = scene.space.path("sent"), scene.space.path("sent.pcapng")
    judge = {"LD_PRELOAD": os.path.abspath(shim), "NVMF_SHIM_LOG": log,
             "NVMF_SHIM_DATA": "/dev/zero", "NVMF_SHIM_PROPERTIES": "/dev/zero"}
    for verb, *options in lines:
        scene.run("nvme", verb, "/dev/null", *options, environment=judge)
    expected = [comparable(tuple(int(word, 16) for word in line.split()))
                for line in pathlib.Path(log).read_text().splitlines()]
    check(len(expected) >= len(lines), f"nvme-cli sent {len(expected)} for {len(lines)}")
    scene.run("nvmf", "id-ctrl", "nvmf0").must_succeed()
    scene.run("nvmf", "trace", "nvmf0", trace).must_succeed()
    for verb, *options in lines:
        scene.run("nvmf", verb, "nvmf0", *options)
    scene.run("nvmf", "trace", "nvmf0", "--off").must_succeed()
    sent = traced(trace)
    for ours, theirs in zip(sent, expected):
        check(ours == theirs, f"nvmf sends {[hex(n) for n in ours]}, nvme {[hex(n) for n in theirs]}")
    check(len(sent) == len(expected), f"{len(sent)} commands instead of {len(expected)}")


def while_lost(scene, all_verbs):
    scene.kill_target()
    scene.wait_state(("lost", "reconnecting"))
    trace = {"trace": [scene.space.path("trace.pcapng")]}
    for verb in about_connections(all_verbs):
        if verb.name == "disconnect":
            continue
        done = scene.run("nvmf", verb.name, "nvmf0", *verb.needs, *trace.get(verb.name, []),
                         *(["--namespace-id=1"] if verb.asks and verb.namespace else []))
        if verb.asks:
            helpful(done, 1, "lost its target")
            continue
        check(verb.name in WHILE_LOST, f"{verb.name} is new: say in WHILE_LOST what it does")
        status = WHILE_LOST[verb.name]
        check(done.status == status, f"`{done.command}` exited {done.status}: {done.err}")
        check(done.seconds < BOUND, f"`{done.command}` took {done.seconds:.1f} s")
        if status != 0:
            helpful(done, status, "")
    scene.run("nvmf", "disconnect", "nvmf0").must_succeed()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of the programs")
    parser.add_argument("--io", choices=("io_uring", "epoll"), default="epoll")
    parser.add_argument("--shim", help="what answers nvme-cli's ioctl(), to compare with it")
    parser.add_argument("--only", action="append", help="run cases whose name has this in it")
    words = parser.parse_args()
    counted = cases.Cases(words.only)

    def body():
        with Scene(words.bin, words.io, namespaces=("memory:64M", "memory:32M"),
                   options=("--ana", "2")) as scene:
            all_verbs = verbs(scene)
            for case in (wrong_option, no_words, not_there, dead_target):
                counted.run(case.__name__, case, scene, all_verbs)
            scene.connect()
            for case in (no_such_namespace, as_meant):
                counted.run(case.__name__, case, scene, all_verbs)
            for case in (raw_bytes, details, features):
                counted.run(case.__name__, case, scene)
            counted.run("commands_of_nvme_cli", commands_of_nvme_cli, scene, words.shim)
            counted.run("while_lost", while_lost, scene, all_verbs)

    return cases.run_script(body, counted, SCRIPT_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
