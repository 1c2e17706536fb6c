#!/usr/bin/env python3
"""nvmf-connect against nvmet, the target in Debian's kernel, in a machine of its own: bring-up,
identify, data through nbdcopy with every choice of digests, both block sizes, in-capsule and R2T
writes, four I/O queues, refusals; taken down and up under I/O (kernel_loss.py), and lost for good."""

import argparse
import contextlib
import json
import re
import sys
import time

import cases
import kernel_loss
import nvme_cli_compare
import nvmet
import programs
import vm
from programs import HOST_ID, HOST_NQN, Connection
from wiretap import Wiretap

MEBIBYTES = 64
LIMIT = 560
IO_QUEUES = 4
LOSS_LIMIT = 60
IN_PARALLEL = (f"--connections={IO_QUEUES}", f"--threads={IO_QUEUES}", "--requests=16")
# What nvmet writes when a host is not to its liking.
TROUBLE = re.compile(r"nvmet.*(error|fail|unexpected|invalid|bad|expired|digest|unsupported|"
                     r"timed? ?out|out of|bogus)|kernel BUG|BUG: |Oops|WARNING: |Call Trace",
                     re.IGNORECASE)


class Bench:
    """The target machine, a workspace, and two files of random data as large as a namespace."""

    def __init__(self, machine, workspace, loss_seconds):
        self.machine = machine
        self.loss_seconds = loss_seconds  # how long fio runs while the target comes and goes
        self.workspace = workspace
        self.files = [programs.random_file(workspace.path(name), MEBIBYTES << 20)
                      for name in ("data0", "data1")]
        self.holds = {}  # NSID to the file that was written to it last

    def uri(self, port, nqn=nvmet.OPEN_NQN):
        return f"nvme+tcp://127.0.0.1:{port}/{nqn}"

    def connect(self, port, *options, namespaces=2):
        return Connection(self.workspace, self.uri(port), *options, namespaces=namespaces)

    def copy(self, source, destination, *options):
        self.workspace.run("nbdcopy", *options, source, destination, limit=120).must_succeed()

    def check_holds(self, connection, nsid):
        """Reads the whole namespace with several NBD connections; it must be what was written."""
        back = self.workspace.path("back")
        self.copy(connection.export(nsid), back, *IN_PARALLEL)
        cases.check(programs.same_bytes(back, self.holds[nsid]),
                    f"namespace {nsid} reads back other data than was written.")

    def fill(self, connection, nsid):
        """Writes the whole namespace, with other data than it holds."""
        data = next(one for one in self.files if one != self.holds.get(nsid))
        self.copy(data, connection.export(nsid), *IN_PARALLEL, "--flush")
        self.holds[nsid] = data

    def check_log(self):
        log = self.machine.run("dmesg -c")
        bad = [line for line in log.splitlines() if TROUBLE.search(line)]
        cases.check(not bad, "the target's kernel complained:\n" + "\n".join(bad))


def transfers(bench, options, nsids):
    """What earlier options wrote reads the same under these; then new data is written and read."""
    with Wiretap(bench.machine.port) as tap:
        with bench.connect(tap.port, "-i", str(IO_QUEUES), *options) as connection:
            for nsid in nsids:
                if nsid in bench.holds:
                    bench.check_holds(connection, nsid)
                bench.fill(connection, nsid)
                bench.check_holds(connection, nsid)
        counts = tap.counts
    bench.check_log()
    cases.check(set(counts.queues) == set(range(IO_QUEUES + 1)),
                f"queues connected: {sorted(counts.queues)}, not 0 to {IO_QUEUES}.")
    cases.check(sum(1 for queue, commands in counts.commands.items() if queue and commands) > 1,
                f"only one I/O queue carried commands: {counts.commands}.")
    cases.check(counts.r2t > 0 and counts.h2c_data > 0, "the target sent no R2T.")
    if "-g" in options:
        cases.check(counts.header_digests > 0 and counts.without_header_digest == 0,
                    f"{counts.without_header_digest} PDUs went without a header digest.")
    else:
        cases.check(counts.header_digests == 0, "there were header digests, unasked.")
    cases.check((counts.data_digests > 0) == ("-G" in options),
                f"{counts.data_digests} PDUs had data digests.")


def block_sizes(bench):
    """The exports say how large they and their blocks are, and that several may connect."""
    with bench.connect(bench.machine.port) as connection:
        for nsid, block in ((1, 512), (2, 4096)):
            told = bench.workspace.run("nbdinfo", "--json", connection.export(nsid)).must_succeed()
            export = json.loads(told.out)["exports"][0]
            cases.check(export["export-size"] == MEBIBYTES << 20,
                        f"namespace {nsid} has {export['export-size']} bytes.")
            cases.check(export["can_multi_conn"], f"namespace {nsid} does not offer multi-conn.")
            least = export.get("block_minimum", export.get("block_size_minimum"))
            cases.check(least in (None, 1, block), f"minimum block {least}, not 1 or {block}.")


def in_capsule(bench):
    """Small writes travel in the capsule, larger ones by R2T; up to what the target takes."""
    piece = programs.random_file(bench.workspace.path("piece"), 2 << 20)
    back = bench.workspace.path("back")

    def write_and_verify(port, request, nsid):
        with Wiretap(port) as tap:
            with bench.connect(tap.port, "-i", "2") as connection:
                bench.copy(piece, connection.export(nsid), f"--request-size={request}")
                bench.workspace.run("nbdcopy", connection.export(nsid), back).must_succeed()
            with open(piece, "rb") as sent, open(back, "rb") as got:
                cases.check(sent.read() == got.read(2 << 20), f"requests of {request} came back "
                            "as other data.")
            return tap.counts

    usual, small = bench.machine.port, bench.machine.small_port
    for nsid in (1, 2):
        bench.holds.pop(nsid, None)
        counts = write_and_verify(usual, 8192, nsid)
        cases.check(counts.longest_in_capsule == 8192 and counts.writes_by_r2t == 0,
                    f"of the writes of 8 KiB, {counts.writes_by_r2t} did not go in the capsule.")
        counts = write_and_verify(usual, 65536, nsid)
        cases.check(counts.writes_by_r2t > 0 and counts.longest_in_capsule <= 16384,
                    f"writes of 64 KiB: {counts.longest_in_capsule} bytes in a capsule.")
    counts = write_and_verify(small, 4096, 2)
    cases.check(counts.writes_in_capsule == 0 and counts.writes_by_r2t > 0,
                f"{counts.writes_in_capsule} writes of 4 KiB went in capsules of at most "
                f"{bench.machine.SMALL_IN_CAPSULE} bytes.")
    bench.check_log()


def zero_and_trim(bench):
    with bench.connect(bench.machine.port) as connection:
        for nsid in (1, 2):
            bench.holds.pop(nsid, None)
            told = bench.workspace.run(
                "qemu-io", "-f", "raw", "-c", "write -P 0xa5 1M 1M", "-c", "write -z 1M 512k",
                "-c", "read -P 0 1M 512k", "-c", "read -P 0xa5 1536k 512k", "-c", "flush",
                "-c", "discard 1536k 512k", "-c", "write -f -P 0x11 4096 4096",
                "-c", "read -P 0x11 4096 4096", connection.export(nsid))
            text = told.must_succeed().out
            cases.check("verification failed" not in text and "ailed" not in text, text)
    bench.check_log()


def short_queue_and_keep_alive(bench):
    """A queue of 16, no SQ flow control, idle for longer than the keep-alive time."""
    with Wiretap(bench.machine.port) as tap:
        with bench.connect(tap.port, "-Q", "16", "-d", "-k", "4", "-i", "2") as connection:
            bench.fill(connection, 1)
            time.sleep(10)
            bench.check_holds(connection, 1)
            cases.check(tap.counts.queues.get(1) == 15, f"SQSIZE by queue: {tap.counts.queues}.")
    bench.check_log()


def identify(bench):
    """`nvmf id-ctrl` of a URI and of a connection's name, as text and as JSON."""
    run = bench.workspace.run
    by_uri = json.loads(run("nvmf", "id-ctrl", bench.uri(bench.machine.port), "-q", HOST_NQN, "-I",
                            HOST_ID, "-o", "json").must_succeed().out)
    with bench.connect(bench.machine.port, "--name", "k0"):
        by_name = json.loads(run("nvmf", "id-ctrl", "k0", "-o", "json").must_succeed().out)
        text = run("nvmf", "id-ctrl", "k0").must_succeed().out
    for told in (by_uri, by_name):
        cases.check(told["mn"].strip() == "Linux", f"mn is {told['mn']!r}.")
        cases.check(told["sn"].strip() == "NVMFOPEN", f"sn is {told['sn']!r}.")
        cases.check(told["subnqn"] == nvmet.OPEN_NQN, f"subnqn is {told['subnqn']!r}.")
    cases.check(re.search(r"^mn\s*:\s*Linux", text, re.MULTILINE), f"id-ctrl printed:\n{text}")
    differing = {key for key in by_uri if by_uri[key] != by_name.get(key)} - {"cntlid"}
    cases.check(not differing, f"by URI and by name differ in {', '.join(differing)}.")
    bench.check_log()


@contextlib.contextmanager
def host_inside(bench):
    """The kernel's own host is connected to the kernel's target, by the machine's loopback."""
    run = bench.machine.run
    run(f"nvme connect -t tcp -a 127.0.0.1 -s {bench.machine.port} -n {nvmet.OPEN_NQN} "
        f"-q {nvmet.ALLOWED_HOST} -I {HOST_ID} -i 2 -k 5")
    try:
        run("for i in $(seq 300); do [ -b /dev/nvme0n1 ] && [ -b /dev/nvme0n2 ] && exit 0; "
            "sleep 0.1; done; echo no disk appeared; dmesg | tail; exit 1")
        yield
    finally:
        bench.machine.attempt("nvme disconnect-all")
    bench.check_log()


def looked_at_by_both(bench, counted):
    """nvme-cli inside and nvmf outside, at the same target."""
    address = ("127.0.0.1", bench.machine.port)
    nvme_cli_compare.compare(
        counted, "nvme-cli and nvmf", bench.workspace,
        lambda text: bench.machine.attempt("nvme " + text), (address, address), host_inside(bench))


def background(bench):
    """Ready when the command returns, listed, disconnected by name, and nothing is left."""
    run = bench.workspace.run
    told = run("nvmf-connect", bench.uri(bench.machine.port), "-q", HOST_NQN, "-I", HOST_ID,
               "--name", "bg0").must_succeed()
    exports = dict(match.groups() for match in map(programs.NAMESPACE_LINE.match,
                                                   told.out.splitlines()) if match)
    cases.check(set(exports) == {"bg0n1", "bg0n2"}, f"nvmf-connect printed:\n{told.out}")
    for uri in exports.values():
        run("nbdinfo", uri).must_succeed()
    listed = run("nvmf", "list").must_succeed().out
    cases.check("bg0" in listed, f"nvmf list printed:\n{listed}")
    run("nvmf", "disconnect", "bg0").must_succeed()
    bench.workspace.check_nothing_left()
    bench.check_log()


def while_command_runs(bench):
    """--run serves while the command runs, and ends with its status."""
    base = ("nvmf-connect", bench.uri(bench.machine.port), "-q", HOST_NQN, "-I", HOST_ID, "--run")
    told = bench.workspace.run(*base, 'nbdinfo --size "$uri"').must_succeed()
    cases.check(str(MEBIBYTES << 20) in told.out, f"printed {told.out!r}.")
    status = bench.workspace.run(*base, "exit 7").status
    cases.check(status == 7, f"`exit 7` became status {status}.")
    bench.workspace.check_nothing_left()


def refused(bench):
    """A refusal is one sentence that names what was refused; the allowed host gets in."""
    def attempt(nqn, host, suffix=""):
        told = bench.workspace.run("nvmf-connect", bench.uri(bench.machine.port, nqn) + suffix,
                                   "-q", host, "-I", HOST_ID)
        bench.workspace.check_nothing_left()
        cases.check(told.status == 1, f"`{told.command}` exited {told.status}: {told.err}")
        cases.check(len(told.err.strip().splitlines()) == 1, f"not one sentence:\n{told.err}")
        return told.err

    said = attempt(nvmet.CLOSED_NQN, nvmet.REFUSED_HOST)
    cases.check(nvmet.REFUSED_HOST in said, f"the host NQN is not named: {said}")
    unknown = "nqn.2024-05.org.example:nowhere"
    said = attempt(unknown, HOST_NQN)
    cases.check(unknown in said, f"the subsystem NQN is not named: {said}")
    said = attempt(nvmet.OPEN_NQN, HOST_NQN, "/77")
    cases.check("77" in said, f"the namespace is not named: {said}")
    allowed = bench.workspace.run("nvmf-connect", bench.uri(bench.machine.port, nvmet.CLOSED_NQN),
                                  "-q", nvmet.ALLOWED_HOST, "-I", HOST_ID, "--run", "true")
    allowed.must_succeed()


def target_lost(bench):
    """The machine is switched off for good: the process ends by itself, with the reason."""
    connection = bench.connect(bench.machine.port, "-k", "5", "-l", "3")
    try:
        bench.machine.stop()
        status = connection.wait(LOSS_LIMIT)
        said = connection.errors().strip()
        cases.check(status == 1, f"ended with status {status}: {said}")
        cases.check("127.0.0.1" in said or nvmet.OPEN_NQN in said,
                    f"names neither the address nor the subsystem: {said!r}")
    finally:
        connection.kill()
    bench.workspace.check_nothing_left()


def run_all(bench, counted):
    counted.run("exports of 512 and 4096", block_sizes, bench)
    for options, nsids in (((), (1, 2)), (("-g", "-G"), (1, 2)), (("-g",), (1,)), (("-G",), (2,))):
        name = " ".join(options) or "no digests"
        counted.run(f"{MEBIBYTES} MiB through nbdcopy, {IO_QUEUES} queues, {name}", transfers,
                    bench, options, nsids)
    counted.run("in-capsule and R2T writes", in_capsule, bench)
    counted.run("write zeroes, discard, flush, FUA", zero_and_trim, bench)
    counted.run("short queue, idle past the keep-alive time", short_queue_and_keep_alive, bench)
    counted.run("nvmf id-ctrl by URI and by name", identify, bench)
    looked_at_by_both(bench, counted)
    counted.run("in the background: list, disconnect", background, bench)
    counted.run("--run", while_command_runs, bench)
    counted.run("refused: host, subsystem, namespace", refused, bench)
    kernel_loss.run_all(bench, counted)
    counted.run("target switched off", target_lost, bench)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/release/bin", help="folder with nvmf-connect")
    parser.add_argument("--only", action="append", help="only cases whose names contain this")
    parser.add_argument("--seconds", type=int, default=7,
                        help="how long fio runs in each case in which the target comes and goes")
    options = parser.parse_args()
    counted = cases.Cases(options.only)

    def body():
        with programs.Workspace(options.bin) as workspace:
            workspace.program("nvmf-connect")
            workspace.program("nvmf")
            with vm.TargetVm(nvmet.standard_layout(MEBIBYTES)) as machine:
                counted.after_failure = workspace.sweep
                machine.run("dmesg -c >/dev/null")  # what booting had to say is not ours
                run_all(Bench(machine, workspace, options.seconds), counted)

    return cases.run_script(body, counted, LIMIT + 4 * options.seconds)


if __name__ == "__main__":
    sys.exit(main())
