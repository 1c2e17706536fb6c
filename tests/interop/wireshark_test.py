#!/usr/bin/env python3
"""Whole sessions of nvmf-connect with nvmf-target, read by Wireshark's nvme-tcp dissector: bring-up,
identify, reads, writes in the capsule and by R2T, disconnect; without digests and with both.
Nothing may be malformed, every digest must be right, and the fields must be those we meant."""

import argparse
import collections
import os
import subprocess
import sys

import capture
import cases
import programs

NQN = "nqn.2024-05.org.example:wireshark"
LIMIT = 560
BLOCK = 512
MEBIBYTE = 1 << 20

ICREQ, ICRESP, COMMAND, RESPONSE, H2C, C2H, R2T = 0, 1, 4, 5, 6, 7, 9
FABRICS = 0x7F
PROPERTY_SET, CONNECT, PROPERTY_GET = 0, 1, 4
FIELDS = ("frame.number", "tcp.stream", "tcp.srcport", "nvme-tcp.type", "nvme-tcp.flags",
          "nvme-tcp.plen", "nvme-tcp.cmd.qid", "nvme-tcp.cmd.cid", "nvme.cmd.opc", "nvme.cmd.cid",
          "nvme.fabrics.cmd.opc", "nvme.fabrics.cmd.cid", "nvme.fabrics.cmd.fctype",
          "nvme.cqe.cid", "nvme-tcp.data.offset", "nvme-tcp.data.length", "nvme-tcp.r2t.offset",
          "nvme-tcp.r2t.length", "nvme-tcp.ttag")


class Dissector:
    def __init__(self, workspace, path):
        self._base = [workspace.program("tshark"), "-r", path, "-n",
                      "-d", "tcp.port==4420,nvme-tcp",
                      "-o", "nvme-tcp.check_hdgst:TRUE", "-o", "nvme-tcp.check_ddgst:TRUE"]
        self._workspace = workspace

    def run(self, *more):
        done = subprocess.run(self._base + list(more), capture_output=True, text=True, timeout=300,
                              env=dict(self._workspace.environment, LC_ALL="C"), check=False)
        cases.check(done.returncode == 0, f"tshark {' '.join(more)}: {done.stderr}")
        return done.stdout

    def frames(self, display_filter):
        """Numbers of the frames that a filter shows."""
        return [int(n) for n in
                self.run("-Y", display_filter, "-T", "fields", "-e", "frame.number").split()]

    def values(self, field, display_filter):
        """Every occurrence of a field in the frames shown, as text."""
        out = self.run("-Y", display_filter, "-T", "fields", "-e", field, "-E", "occurrence=a",
                       "-E", "aggregator=;")
        return [v for line in out.splitlines() for v in line.split(";") if v]

    def tree(self):
        return self.run("-V", "-O", "nvme-tcp,nvme")


def number(text):
    return int(text, 0)


def session(tools_workspace, *options):
    """Runs one session and gives the path of its capture, and what was written."""
    workspace = tools_workspace
    path = workspace.path("session.pcap")
    data = programs.random_file(workspace.path("data"), MEBIBYTE)
    small = programs.random_file(workspace.path("small"), 4096)
    with programs.Target(workspace, {NQN: ["--namespace", "memory:4M"]}) as target:
        with capture.Capture(target.port, path) as tap:
            uri = f"nvme+tcp://127.0.0.1:{tap.port}/{NQN}"
            with programs.Connection(workspace, uri, "-i", "1", "--name", "shark",
                                     *options) as connection:
                export = connection.export(1)
                # 4 KiB goes in the capsule; 1 MiB in requests of 256 KiB by R2T.
                workspace.run("nbdcopy", small, export).must_succeed()
                workspace.run("nbdcopy", "--request-size=262144", data, export).must_succeed()
                workspace.run("nbdcopy", "--request-size=262144", export,
                              workspace.path("back")).must_succeed()
                workspace.run("nvmf", "id-ctrl", "shark").must_succeed()
                workspace.run("nvmf", "disconnect", "shark").must_succeed()
                connection.wait(programs.STOP_LIMIT)
            tap.flush()
    with open(data, "rb") as one, open(workspace.path("back"), "rb") as other:
        cases.check(one.read() == other.read(MEBIBYTE), "other data was read back.")
    return path


def check_nothing_wrong(shark):
    wrong = shark.frames("_ws.malformed || _ws.expert.severity == error || nvme-tcp.unknown_data")
    cases.check(not wrong, f"Wireshark finds fault with frames {wrong[:10]}:\n"
                + (shark.run("-Y", f"frame.number=={wrong[0]}", "-V")[-3000:] if wrong else ""))
    broken = shark.frames("tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment")
    cases.check(not broken, f"the capture itself is broken at frames {broken[:10]}.")
    cases.check(not shark.frames("nvme-tcp.type == 2 || nvme-tcp.type == 3"), "there is a TermReq.")


def check_handshakes(shark, digests):
    for kind, field in ((ICREQ, "nvme-tcp.icreq"), (ICRESP, "nvme-tcp.icresp")):
        where = f"nvme-tcp.type == {kind}"
        cases.check(len(shark.frames(where)) == 2, f"not two of type {kind}: an admin queue and one "
                    f"for I/O have {shark.frames(where)}.")
        cases.check(set(map(number, shark.values(f"{field}.pfv", where))) == {0}, "PFV is not 0.")
        said = set(map(number, shark.values(f"{field}.digest", where)))
        cases.check(said == {3 if digests else 0}, f"digests {said} in type {kind}.")
    cases.check(set(map(number, shark.values("nvme-tcp.icreq.hpda", "nvme-tcp.icreq"))) == {0},
                "HPDA is not 0.")
    most = set(map(number, shark.values("nvme-tcp.icresp.maxdata", "nvme-tcp.icresp")))
    cases.check(min(most) >= 4096 and max(most) % 4 == 0, f"MAXH2CDATA {most}.")


def check_connects(shark):
    where = "nvme.fabrics.cmd.fctype == 1"
    names = set(shark.values("nvme.fabrics.cmd.connect.data.subnqn", where))
    cases.check(names == {NQN}, f"subsystem NQN {names}.")
    names = set(shark.values("nvme.fabrics.cmd.connect.data.hostnqn", where))
    cases.check(names == {programs.HOST_NQN}, f"host NQN {names}.")
    queues = list(map(number, shark.values("nvme.fabrics.cmd.connect.qid", where)))
    cases.check(queues == [0, 1], f"queues {queues}.")
    sizes = list(map(number, shark.values("nvme.fabrics.cmd.connect.sqsize", where)))
    cases.check(sizes == [31, 127], f"SQSIZE {sizes}.")
    given = set(map(number, shark.values("nvme.fabrics.cqe.connect.cntrlid",
                                         "nvme.fabrics.cqe.connect.cntrlid")))
    cases.check(len(given) == 1 and 1 <= min(given) <= 0xFFEF, f"controller IDs {given}.")
    asked = list(map(number, shark.values("nvme.fabrics.cmd.connect.data.cntrlid", where)))
    cases.check(asked == [0xFFFF, *given], f"controller IDs asked for: {asked}, given {given}.")
    properties = collections.Counter(
        map(number, shark.values("nvme.fabrics.cmd.prop_get_set.offset", "nvme.fabrics.cmd.opc")))
    cases.check(properties[0x14] >= 2 and properties[0x0] and properties[0x1C],
                f"property offsets {properties}: CC enabled and shut down, CAP and CSTS read.")


def check_commands(shark):
    """Every command has one answer, and the commands are those we sent."""
    commands = collections.Counter()
    for field in ("nvme.cmd.cid", "nvme.fabrics.cmd.cid"):
        for line in shark.run("-Y", field, "-T", "fields", "-e", "tcp.stream", "-e", field, "-E",
                              "occurrence=a", "-E", "aggregator=;").splitlines():
            stream, cids = line.split("\t")
            commands.update((stream, number(cid)) for cid in cids.split(";"))
    answers = collections.Counter()
    for line in shark.run("-Y", "nvme.cqe.cid || nvme.fabrics.cqe", "-T", "fields", "-e",
                          "tcp.stream", "-e", "nvme.cqe.cid", "-E", "occurrence=a", "-E",
                          "aggregator=;").splitlines():
        stream, cids = line.split("\t")
        answers.update((stream, number(cid)) for cid in cids.split(";") if cid)
    cases.check(len(commands) > 20, f"{len(commands)} commands only.")
    cases.check(max(commands.values()) == 1, "a CID was used twice in so short a session.")
    events = len(shark.frames("nvme.cmd.opc == 0xc && tcp.stream == 0"))
    missing = set(commands) - set(answers)
    # Event requests wait for ever; a read may be answered by the SUCCESS flag.
    flagged = len(shark.values("nvme-tcp.flags.pdu.data_success",
                               "nvme-tcp.flags.pdu.data_success == 1"))
    # Our target ends its I/O queues when it is shut down. A host that hears of that before it has
    # looked at CSTS for the last time goes without the answer.
    cut_off = 1
    cases.check(len(missing) <= 4 * max(events, 1) + flagged + cut_off,
                f"commands without an answer: {sorted(missing)[:10]}.")
    cases.check(not set(answers) - set(commands), "an answer to no command.")
    cases.check(shark.frames("nvme.cmd.opc == 6 && tcp.stream == 0"), "no Identify is seen.")


def check_data(shark):
    """Data PDUs: lengths and offsets add up."""
    written = {}
    for line in shark.run("-Y", "nvme-tcp.r2t", "-T", "fields", "-e", "nvme-tcp.r2t.offset", "-e",
                          "nvme-tcp.r2t.length", "-E", "occurrence=a",
                          "-E", "aggregator=;").splitlines():
        offsets, lengths = (list(map(number, part.split(";"))) for part in line.split("\t"))
        for offset, length in zip(offsets, lengths, strict=True):
            written[offset] = written.get(offset, 0) + length
    cases.check(sum(written.values()) == MEBIBYTE, f"R2Ts ask for {written}, not for 1 MiB.")
    cases.check(0 in written, "no R2T begins at offset 0.")
    sent = sum(map(number, shark.values("nvme-tcp.data.length", "nvme-tcp.type == 6")))
    cases.check(sent >= MEBIBYTE, f"H2CData PDUs carry {sent} bytes.")
    tree = shark.tree()
    cases.check("Write" in tree and "Read" in tree, "no read or no write is seen.")


def check_digests(shark, digests):
    for field in ("hdgst", "ddgst"):
        states = set(shark.values(f"nvme-tcp.{field}.status", f"nvme-tcp.{field}.status"))
        if not digests:
            cases.check(not shark.frames(f"nvme-tcp.flags.pdu.{field} == 1"),
                        f"a {field} is there that nobody asked for.")
            continue
        # 1 is "good" in Wireshark's own enumeration of checksums.
        cases.check(states == {"1"}, f"{field} status {states}.")
    if digests:
        bare = shark.frames("nvme-tcp.flags.pdu.hdgst == 0 && nvme-tcp.type > 3")
        cases.check(not bare, f"frames {bare[:10]} have no header digest.")


def whole_session(workspace, suite, name, digests):
    options = ("-g", "-G") if digests else ()
    with suite.case(f"{name}: a session is captured"):
        shark = Dissector(workspace, session(workspace, *options))
        suite.run(f"{name}: nothing malformed", check_nothing_wrong, shark)
        suite.run(f"{name}: handshakes", check_handshakes, shark, digests)
        suite.run(f"{name}: connects and properties", check_connects, shark)
        suite.run(f"{name}: commands and answers", check_commands, shark)
        suite.run(f"{name}: data", check_data, shark)
        suite.run(f"{name}: digests", check_digests, shark, digests)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/release/bin",
                        help="the folder with nvmf-target and the others")
    parser.add_argument("--keep", help="copy the captures into this folder")
    arguments = parser.parse_args()
    suite = cases.Cases()

    def body():
        for name, digests in (("plain", False), ("digests", True)):
            with programs.Workspace(arguments.bin) as workspace:
                whole_session(workspace, suite, name, digests)
                if arguments.keep:
                    os.replace(workspace.path("session.pcap"),
                               os.path.join(arguments.keep, f"{name}.pcap"))

    return cases.run_script(body, suite, LIMIT)


if __name__ == "__main__":
    sys.exit(main())
