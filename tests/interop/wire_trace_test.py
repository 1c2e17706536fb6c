#!/usr/bin/env python3
"""What `nvmf-connect --pcap` writes, read by Wireshark's nvme-tcp dissector: a whole session with a
reconnect, and one traced from its middle on; with io_uring and with epoll. Prints `N passed, N
failed`."""

import argparse
import json
import os
import socket
import sys
import time

import cases
import programs
import wireshark_test

NQN = "nqn.2024-05.org.example:trace"
LIMIT = 560
MEBIBYTE = 1 << 20
QUEUES = 2


class Shark(wireshark_test.Dissector):
    def __init__(self, workspace, path, port):
        super().__init__(workspace, path)
        self._base[self._base.index("tcp.port==4420,nvme-tcp")] = f"tcp.port=={port},nvme-tcp"


def ask(workspace, verb, **arguments):
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(os.path.join(workspace.runtime, "traced.sock"))
        request = {"version": 1, "verb": verb, "args": arguments}
        link.sendall(json.dumps(request).encode() + b"\n")
        with link.makefile() as lines:
            answer = json.loads(lines.readline())
    cases.check(answer["ok"], f"{verb}: {answer}")
    return answer


def wait_for_life(workspace, lives):
    until = time.monotonic() + 60
    while ask(workspace, "health")["lives"] < lives:
        cases.check(time.monotonic() < until, "it is not live again.")
        time.sleep(0.05)


def session(workspace, target, whole, late):
    data = programs.random_file(workspace.path("data"), MEBIBYTE)
    uri = f"nvme+tcp://127.0.0.1:{target.port}/{NQN}"
    with programs.Connection(workspace, uri, "-i", str(QUEUES), "--name", "traced", "--pcap",
                             whole) as connection:
        export = connection.export(1)

        def copy():
            workspace.run("nbdcopy", "--request-size=262144", data, export).must_succeed()
            workspace.run("nbdcopy", "--request-size=262144", export,
                          workspace.path("back")).must_succeed()

        copy()
        ask(workspace, "reset")
        wait_for_life(workspace, 2)
        copy()
        cases.check(ask(workspace, "trace")["on"], "the trace is not on.")
        ended = ask(workspace, "trace", file=None)
        cases.check(not ended["on"] and ended["packets"] > 100 and ended["dropped"] == 0
                    and ended["error"] == "", f"the trace ended with {ended}.")
        copy()
        ask(workspace, "trace", file=late)
        copy()
        workspace.run("nvmf", "disconnect", "traced").must_succeed()
        connection.wait(programs.STOP_LIMIT)


def check_whole(shark):
    wireshark_test.check_nothing_wrong(shark)
    for kind in (wireshark_test.ICREQ, wireshark_test.ICRESP):
        found = len(shark.frames(f"nvme-tcp.type == {kind}"))
        cases.check(found == 2 * (1 + QUEUES), f"{found} of type {kind} for two associations.")
    queues = list(map(int, (v for v in shark.values("nvme.fabrics.cmd.connect.qid",
                                                    "nvme.fabrics.cmd.fctype == 1"))))
    cases.check(queues == [0, 1, 2, 0, 1, 2], f"queues {queues}.")
    cases.check(shark.frames("tcp.flags.fin == 1 || tcp.flags.reset == 1"), "no connection ends.")


def check_answers(shark, least):
    """Every command of I/O queues has one answer: a response, or the SUCCESS flag."""
    where = "nvme.cmd.opc && nvme-tcp.cmd.qid != 0"
    asked = len(shark.values("nvme.cmd.cid", where))
    responses = len(shark.values("nvme.cqe.cid", "nvme.cqe.cid && nvme-tcp.cmd.qid != 0"))
    flagged = len([v for v in shark.values("nvme-tcp.flags.pdu.data_success",
                                           "nvme-tcp.type == 7 && nvme-tcp.cmd.qid != 0")
                   if v in ("1", "True")])
    connects = len(shark.values("nvme.fabrics.cmd.connect.qid",
                                "nvme.fabrics.cmd.connect.qid != 0"))
    cases.check(asked >= least, f"{asked} commands only.")
    cases.check(asked + connects == responses + flagged, f"{asked} commands, {connects} Connects, "
                f"{responses} responses, {flagged} SUCCESS flags.")
    sent = sum(map(int, shark.values("nvme-tcp.data.length", "nvme-tcp.type == 6")))
    cases.check(sent % MEBIBYTE == 0 and sent > 0, f"H2CData PDUs carry {sent} bytes.")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/release/bin",
                        help="the folder with nvmf-target and the others")
    arguments = parser.parse_args()
    suite = cases.Cases()

    def body():
        for io in ("io_uring", "epoll"):
            with programs.Workspace(arguments.bin, io) as workspace:
                whole, late = workspace.path("whole.pcapng"), workspace.path("late.pcapng")
                with programs.Target(workspace, {NQN: ["--namespace", "memory:1M"]}) as target, \
                        suite.case(f"{io}: a session is traced"):
                    session(workspace, target, whole, late)
                    all_of_it = Shark(workspace, whole, target.port)
                    suite.run(f"{io}: nothing malformed", check_whole, all_of_it)
                    suite.run(f"{io}: commands and answers", check_answers, all_of_it, 16)
                    rest = Shark(workspace, late, target.port)
                    suite.run(f"{io}: from the middle on: nothing malformed",
                              wireshark_test.check_nothing_wrong, rest)
                    suite.run(f"{io}: from the middle on: commands and answers", check_answers,
                              rest, 8)

    return cases.run_script(body, suite, LIMIT)


if __name__ == "__main__":
    sys.exit(main())
