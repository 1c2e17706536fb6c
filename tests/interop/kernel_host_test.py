#!/usr/bin/env python3
"""Debian's kernel as NVMe/TCP host, with Debian's nvme-cli, in a machine of its own, against
nvmf-target on this machine's loopback. With --peer nvmet the target is the kernel's own, in a
second machine: that tries these tests themselves, without any program of ours."""

import argparse
import contextlib
import hashlib
import json
import re
import signal
import sys
import time

import cases
import nvme_cli_compare
import nvmet
import programs
import vm
from nbd_servers import NbdServer, nbdkit
from wiretap import Wiretap

HOST_ADDRESS = "10.0.2.2"  # this machine's loopback, as seen from inside
MEBIBYTES = 128
LIMIT = 560
DISCOVERY_NQN = "nqn.2014-08.org.nvmexpress.discovery"
# What the kernel writes when something about a controller or its disks is not to its liking.
TROUBLE = re.compile(
    r"nvme.*(error|fail|time.?out|invalid|unable|unsupported|not supported|bogus|stuck|reset|"
    r"reconnect|duplicate|ignor|mismatch|disagree|digest)|I/O error|EXT4-fs.*(error|warning)|"
    r"JBD2.*error|kernel BUG|BUG: |Oops|WARNING: |Call Trace|blocked for more than", re.IGNORECASE)


class Host:
    """The host machine, and the target that it is pointed at."""

    def __init__(self, machine, port, ours):
        self.machine = machine
        self.port = port
        self.ours = ours  # nvmf-target, rather than the kernel's own target
        self.disks = {}  # NSID to device path

    def nvme(self, text, limit=vm.RUN_LIMIT):
        return self.machine.run("nvme " + text, limit)

    def json(self, text):
        output = self.nvme(text + " -o json")
        try:
            return json.loads(output)
        except ValueError:
            raise cases.Failed(f"`nvme {text} -o json` printed no JSON:\n{output}") from None

    def check_log(self):
        """Reads and empties the kernel's log; nothing in it may be trouble."""
        log = self.machine.run("dmesg -c")
        bad = [line for line in log.splitlines() if TROUBLE.search(line)]
        cases.check(not bad, "the kernel complained:\n" + "\n".join(bad))
        return log

    def connect(self, options="", port=None, nqn=nvmet.OPEN_NQN):
        self.machine.run("dmesg -c >/dev/null")
        self.nvme(f"connect -t tcp -a {HOST_ADDRESS} -s {port or self.port} -n {nqn} "
                  f"-q {nvmet.ALLOWED_HOST} -I {programs.HOST_ID} {options}")
        # Namespaces appear a moment after nvme-cli returns.
        self.machine.run("for i in $(seq 300); do [ -b /dev/nvme0n1 ] && [ -b /dev/nvme0n2 ] && "
                         "exit 0; sleep 0.1; done; echo no disk appeared; dmesg | tail; exit 1")

    def disconnect(self, nqn=nvmet.OPEN_NQN):
        self.nvme(f"disconnect -n {nqn}")
        self.machine.run("for i in $(seq 50); do [ ! -e /dev/nvme0 ] && exit 0; sleep 0.1; done; "
                         "echo /dev/nvme0 is still there; exit 1")

    @contextlib.contextmanager
    def connected(self, options=""):
        """Connects through a wiretap; always disconnects; the kernel may not complain meanwhile."""
        with Wiretap(self.port) as tap:
            self.connect(options, tap.port)
            try:
                yield tap
            except BaseException:
                self.machine.attempt("umount /mnt; nvme disconnect-all")
                raise
            self.disconnect()
            self.check_log()


def discover(host):
    entries = host.json(f"discover -t tcp -a {HOST_ADDRESS} -s {host.port} "
                        f"-q {nvmet.ALLOWED_HOST}")["records"]
    names = {entry["subnqn"] for entry in entries}
    for nqn in (nvmet.OPEN_NQN, nvmet.CLOSED_NQN):
        cases.check(nqn in names, f"the discovery log lacks {nqn}: {names}")
    entry = next(one for one in entries if one["subnqn"] == nvmet.OPEN_NQN)
    cases.check((entry["traddr"], entry["trsvcid"]) == ("127.0.0.1", str(host.port)),
                f"the discovery log names {entry['traddr']}:{entry['trsvcid']}, "
                f"not 127.0.0.1:{host.port}.")
    other = host.json(f"discover -t tcp -a {HOST_ADDRESS} -s {host.port} "
                      f"-q {nvmet.REFUSED_HOST}")["records"]
    cases.check(nvmet.CLOSED_NQN not in {entry["subnqn"] for entry in other},
                f"{nvmet.CLOSED_NQN} is shown to a host that may not use it.")
    host.check_log()


def list_disks(host):
    devices = {entry["DevicePath"]: entry for entry in host.json("list")["Devices"]}
    for path, block in (("/dev/nvme0n1", 512), ("/dev/nvme0n2", 4096)):
        cases.check(path in devices, f"nvme list lacks {path}: {list(devices)}")
        entry = devices[path]
        cases.check(entry["SectorSize"] == block, f"{path}: block size {entry['SectorSize']}.")
        cases.check(entry["PhysicalSize"] == MEBIBYTES << 20,
                    f"{path}: {entry['PhysicalSize']} bytes.")
        cases.check(entry["ModelNumber"].strip() != "" and entry["SerialNumber"].strip() != "",
                    f"{path} has an empty model or serial number.")


def identify(host):
    """Beside what a user reads, what Linux insists on in a fabrics controller."""
    control = host.json("id-ctrl /dev/nvme0")
    cases.check(control["subnqn"] == nvmet.OPEN_NQN, f"subnqn is {control['subnqn']!r}.")
    cases.check(1 <= control["cntlid"] <= 0xFFEF, f"cntlid is {control['cntlid']}.")
    cases.check((control["sqes"], control["cqes"]) == (0x66, 0x44),
                f"queue entry sizes {control['sqes']:#x} and {control['cqes']:#x}.")
    for name, least in (("kas", 1), ("ioccsz", 4), ("iorcsz", 1), ("sgls", 1), ("maxcmd", 1),
                        ("nn", 2)):
        cases.check(control[name] >= least, f"{name} is {control[name]}, less than {least}.")
    cases.check(control["icdoff"] == 0, f"icdoff is {control['icdoff']}.")
    seen = set()
    for nsid, shift in ((1, 9), (2, 12)):
        space = host.json(f"id-ns /dev/nvme0n{nsid}")
        form = space["lbafs"][space["flbas"] & 15]
        cases.check(form["ds"] == shift, f"namespace {nsid} has blocks of 2^{form['ds']} bytes.")
        cases.check(space["nsze"] << shift == MEBIBYTES << 20,
                    f"namespace {nsid} has {space['nsze']} blocks.")
        cases.check(int(space["nguid"], 16) != 0, f"namespace {nsid} has no NGUID.")
        seen.add(space["nguid"])
    cases.check(len(seen) == 2, "both namespaces have the same NGUID.")


def log_pages(host):
    smart = host.json("smart-log /dev/nvme0")
    cases.check(smart["critical_warning"] == 0, f"critical_warning {smart['critical_warning']}.")
    cases.check(int(smart["host_read_commands"]) > 0, "smart-log counts no reads.")
    for text in ("error-log /dev/nvme0 -e 1", "changed-ns-list-log /dev/nvme0",
                 "effects-log /dev/nvme0", "fw-log /dev/nvme0"):
        host.nvme(text)


def admin_commands(host):
    listed = host.nvme("list-ns /dev/nvme0")
    cases.check("0x1" in listed and "0x2" in listed, f"list-ns printed {listed!r}.")
    described = host.nvme("ns-descs /dev/nvme0n1")
    cases.check("uuid" in described or "nguid" in described, f"ns-descs printed {described!r}.")
    granted = host.nvme("get-feature /dev/nvme0 -f 7")
    cases.check("value" in granted, f"get-feature 7 printed {granted!r}.")
    # Not show-regs, which in nvme-cli 2.3 fails on fabrics controllers of any make.
    for text in ("get-property /dev/nvme0 -o 0", "get-property /dev/nvme0 -o 0x1c",
                 "get-feature /dev/nvme0 -f 0xf", "get-feature /dev/nvme0 -f 0xb",
                 "flush /dev/nvme0n1"):
        host.nvme(text)


def block_commands(host):
    """Write Zeroes, DSM and Compare, as nvme-cli sends them: raw passthrough, no block layer."""
    disk = "/dev/nvme0n2"
    run = host.machine.run
    run("head -c 32768 /dev/urandom >/tmp/block")
    host.nvme(f"write {disk} -s 8 -c 7 -z 32768 -d /tmp/block")
    host.nvme(f"read {disk} -s 8 -c 7 -z 32768 -d /tmp/back")
    run("cmp /tmp/block /tmp/back")
    if host.ours:  # nvmet has no Compare
        host.nvme(f"compare {disk} -s 8 -c 7 -z 32768 -d /tmp/block")
        run("head -c 32768 /dev/urandom >/tmp/other")
        status, output = host.machine.attempt(
            f"nvme compare {disk} -s 8 -c 7 -z 32768 -d /tmp/other")
        cases.check(status != 0, "Compare with other data succeeded.")
        cases.check(re.search("compare", output, re.IGNORECASE), f"Compare said: {output}")
    host.nvme(f"write-zeroes {disk} -s 8 -c 3")
    host.nvme(f"read {disk} -s 8 -c 7 -z 32768 -d /tmp/back")
    run("(head -c 16384 /dev/zero; tail -c 16384 /tmp/block) | cmp - /tmp/back")
    host.nvme(f"dsm {disk} -d -s 8 -b 8")
    status, output = host.machine.attempt(f"nvme read {disk} -s {1 << 40} -c 0 -z 4096 -d /tmp/x")
    cases.check(status != 0, "a read far past the end succeeded.")
    host.machine.run("dmesg -c >/dev/null")  # the kernel logs the two failures that we asked for


def file_system(host, disk):
    """A file system made, written, unmounted, mounted, verified, checked and trimmed."""
    run = host.machine.run
    run(f"mkfs.ext4 -q -F {disk}", 60)
    run(f"mount -t ext4 {disk} /mnt")
    run("for i in 1 2 3 4 5 6 7 8; do head -c $((i * 300001)) /dev/urandom >/mnt/file$i; done\n"
        "mkdir /mnt/many && for i in $(seq 100); do echo $i >/mnt/many/$i; done\n"
        "cd /mnt && find . -type f | sort | xargs sha256sum >/tmp/sums && cp /tmp/sums /mnt/sums",
        120)
    run("rm -rf /mnt/many/5* && umount /mnt && sed -i '/many.5/d' /tmp/sums", 60)
    verify_files(host, disk)
    run(f"e2fsck -fn {disk}", 60)
    run(f"mount -t ext4 {disk} /mnt && fstrim -v /mnt; status=$?; umount /mnt; exit $status", 60)
    verify_files(host, disk)


def verify_files(host, disk):
    host.machine.run(
        f"echo 3 >/proc/sys/vm/drop_caches; mount -t ext4 -o ro {disk} /mnt && cd /mnt && "
        "sha256sum -c /tmp/sums >/tmp/verdict; status=$?; grep -v OK /tmp/verdict; cd /; "
        "umount /mnt || exit 9; exit $status", 120)


def direct_transfers(host, disk):
    """Past the page cache, so each size is one command: short ones, and ones of 1 MiB."""
    host.machine.run(
        "head -c 16777216 /dev/urandom >/tmp/data\n"
        "while read -r size count; do\n"
        f"  dd if=/tmp/data of={disk} bs=$size count=$count oflag=direct 2>/dev/null || exit 1\n"
        f"  dd if={disk} of=/tmp/back bs=$size count=$count iflag=direct 2>/dev/null || exit 2\n"
        "  head -c $((size * count)) /tmp/data | cmp - /tmp/back || exit 3\n"
        "done <<END\n4096 128\n65536 64\n1048576 16\nEND\n"
        "rm /tmp/data /tmp/back", 180)


def without_digests(host, counted):
    with host.connected("-i 2") as tap:
        counted.run("nvme list", list_disks, host)
        counted.run("nvme id-ctrl, id-ns", identify, host)
        counted.run("nvme smart-log and other log pages", log_pages, host)
        counted.run("nvme list-ns, ns-descs, get-feature, get-property", admin_commands, host)
        counted.run("nvme write, read, compare, write-zeroes, dsm", block_commands, host)
        for disk, block in (("/dev/nvme0n2", 4096), ("/dev/nvme0n1", 512)):
            counted.run(f"direct transfers, blocks of {block}", direct_transfers, host, disk)
            counted.run(f"ext4, blocks of {block}", file_system, host, disk)
        smart = host.json("smart-log /dev/nvme0")
        cases.check(int(smart["host_write_commands"]) > 0, "smart-log counts no writes.")
        host.machine.run("blkdiscard /dev/nvme0n2", 60)
        cases.check(set(tap.counts.queues) == {0, 1, 2},
                    f"queues connected: {sorted(tap.counts.queues)}, not 0, 1 and 2.")
        cases.check(tap.counts.writes_in_capsule > 0, "no write had its data in the capsule.")
        cases.check(tap.counts.r2t > 0, "the target sent no R2T.")
        cases.check(tap.counts.header_digests == 0, "there were digests, unasked.")


def with_digests(host, options):
    """What was written without digests reads the same with them, and further writes succeed."""
    with host.connected(options) as tap:
        verify_files(host, "/dev/nvme0n1")
        direct_transfers(host, "/dev/nvme0n2")
        counts = tap.counts
        if "-g" in options:
            cases.check(counts.header_digests > 0 and counts.without_header_digest == 0,
                        f"{counts.without_header_digest} PDUs went without a header digest.")
        if "-G" in options:
            cases.check(counts.data_digests > 0, "no PDU had a data digest.")


def short_queue_and_keep_alive(host):
    """A queue of 16, no SQ flow control, and idle for longer than the keep-alive time."""
    with host.connected("-i 1 -Q 16 -d -k 4") as tap:
        direct_transfers(host, "/dev/nvme0n2")
        host.machine.run("sleep 10")
        verify_files(host, "/dev/nvme0n1")
        cases.check(tap.counts.queues.get(1) in (15, 16), f"SQSIZE: {tap.counts.queues}.")


def refused(host):
    """Refusals are plain to the user, and the target serves on."""
    attempt = host.machine.attempt
    base = f"nvme connect -t tcp -a {HOST_ADDRESS} -s {host.port}"
    for nqn, as_host in (("nqn.2024-05.org.example:nowhere", nvmet.ALLOWED_HOST),
                         (nvmet.CLOSED_NQN, nvmet.REFUSED_HOST)):
        status, output = attempt(f"{base} -n {nqn} -q {as_host} -I {programs.HOST_ID}")
        cases.check(status != 0, f"{as_host} could connect to {nqn}:\n{output}")
        log = host.machine.run("dmesg -c")
        cases.check("Connect" in log, f"the kernel does not name Connect as the reason:\n{log}")
    with host.connected("-i 1"):
        host.machine.run("blkdiscard /dev/nvme0n2", 60)


def looked_at_by_both(host, workspace, counted):
    """nvme-cli inside and nvmf outside, at the same target."""
    nvme_cli_compare.compare(
        counted, "nvme-cli and nvmf", workspace,
        lambda text: host.machine.attempt("nvme " + text),
        ((HOST_ADDRESS, host.port), ("127.0.0.1", host.port)), host.connected("-i 2 -k 5"))


NBD_NQN = "nqn.2024-05.org.example:doors"
NBD_MEBIBYTES = 32


def sum_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reads_while(host, device, trouble):
    """The checksum that the machine gets of a whole disk during which `trouble` is made."""
    host.machine.run(f"rm -f /tmp/sum; (for i in 1 2 3; do dd if={device} bs=1M iflag=direct "
                     f"2>/dev/null | sha256sum || exit; done >/tmp/sums; mv /tmp/sums /tmp/sum) & sleep 0.3")
    trouble()
    lines = host.machine.run("for i in $(seq 300); do [ -e /tmp/sum ] && break; sleep 0.2; done; "
                             "cat /tmp/sum", 120).split()
    sums = set(lines[::2])
    cases.check(len(lines) == 6 and len(sums) == 1, f"{device} has read as {sums}.")
    return sums.pop()


def behind_nbd(host, workspace):
    """What nbdkit and qemu-nbd serve, as namespaces of nvmf-target to the kernel; both servers are
    killed and started again meanwhile."""
    size = NBD_MEBIBYTES << 20
    data = programs.random_file(workspace.path("random"), size)
    image = workspace.path("disk.qcow2")
    workspace.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", data, image).must_succeed()
    with nbdkit(workspace, "pattern", "pattern", str(size)) as pattern, \
            NbdServer(workspace, "qcow2", "qemu-nbd", "-f", "qcow2", "-t", "-e", "8", "-k", "SOCKET",
                      image) as qcow2:
        spaces = [f"nbd:{server.uri}" for server in (pattern, qcow2)]
        expected = workspace.path("pattern")
        workspace.run("nbdcopy", pattern.uri, expected).must_succeed()
        with programs.Target(workspace, {NBD_NQN: ["--namespace", spaces[0],
                                                   "--namespace", spaces[1]]}) as target:
            def restart(server, number):
                def now():
                    server.end(number)
                    time.sleep(0.5)
                    server.start()
                return now
            host.connect("-i 2", target.port, NBD_NQN)
            try:
                for device, server, number, path in (
                        ("/dev/nvme0n1", pattern, signal.SIGKILL, expected),
                        ("/dev/nvme0n2", qcow2, signal.SIGKILL, data)):
                    cases.check(reads_while(host, device, restart(server, number)) == sum_of(path),
                                f"{device} is not what the NBD server serves.")
                host.machine.run("head -c 8388608 /dev/urandom >/tmp/new; dd if=/tmp/new "
                                 "of=/dev/nvme0n2 bs=64k oflag=direct conv=fsync 2>/dev/null", 60)
                qcow2.end(signal.SIGTERM)
                qcow2.start()
                host.machine.run("dd if=/dev/nvme0n2 bs=1M count=8 iflag=direct 2>/dev/null | "
                                 "cmp - /tmp/new && rm /tmp/new", 60)
                cases.check("is back after" in target.errors(), target.errors())
            finally:
                host.machine.attempt(f"nvme disconnect -n {NBD_NQN}")
            host.check_log()
    workspace.run("qemu-img", "check", "-q", image).must_succeed()


def on_device(host, workspace, attach, detach):
    """The kernel's NBD driver on what nvmf-connect exports by TCP: a file system on /dev/nbd0, and the
    same data outside. `attach` is a command, with {port} in it."""
    with programs.Target(workspace, {NBD_NQN: ["--namespace", f"memory:{NBD_MEBIBYTES}M"]}) as target, \
            programs.Connection(workspace, target.uris[NBD_NQN], nbd="tcp:127.0.0.1:0") as connection:
        uri = connection.export(1)
        port = re.search(r":(\d+)/", uri)[1]
        try:
            host.machine.run(f"{attach.format(port=port)} >/tmp/nbd 2>&1 || "
                             "{ cat /tmp/nbd; exit 1; }\n"
                             "for i in $(seq 200); do "
                             f"[ $(cat /sys/block/nbd0/size) = {NBD_MEBIBYTES * 2048} ] && exit 0; "
                             "sleep 0.2; done; cat /tmp/nbd; exit 1", 120)
            host.machine.run(
                "mkfs.ext4 -q -F /dev/nbd0 && mount -t ext4 -o discard /dev/nbd0 /mnt && "
                "head -c 5000001 /dev/urandom >/mnt/kept && sha256sum /mnt/kept >/tmp/kept && "
                "sync && echo 3 >/proc/sys/vm/drop_caches && sha256sum -c /tmp/kept && umount /mnt && "
                "e2fsck -f -n /dev/nbd0 >/dev/null", 90)
            inside = host.machine.run("sha256sum </dev/nbd0", 60).split()[0]
        finally:
            host.machine.attempt(f"umount /mnt; {detach}; for i in $(seq 50); do "
                                 "[ -e /sys/block/nbd0/pid ] || exit 0; sleep 0.2; done")
        back = workspace.path("back")
        workspace.run("nbdcopy", uri, back).must_succeed()
        cases.check(sum_of(back) == inside, "outside it reads otherwise than inside.")
    host.check_log()


def nbd_client(host, workspace):
    on_device(host, workspace, f"nbd-client {HOST_ADDRESS} {{port}} /dev/nbd0 -N nvmf0n1 -b 512",
              "nbd-client -d /dev/nbd0")


def qemu_nbd(host, workspace):
    """qemu's NBD client is ours, and its server the kernel's."""
    on_device(host, workspace, "mkdir -p /var/lock && qemu-nbd -c /dev/nbd0 -f raw --discard=unmap "
              f"nbd://{HOST_ADDRESS}:{{port}}/nvmf0n1", "qemu-nbd -d /dev/nbd0")


def run_all(host, workspace, counted):
    counted.run("nvme discover", discover, host)
    looked_at_by_both(host, workspace, counted)
    name = "connect -i 2, disconnect, an untroubled kernel log"
    if counted.wanted(name):
        with counted.case(name):
            without_digests(host, counted)
    for options in ("-g -G", "-g", "-G"):
        counted.run(f"connect {options}", with_digests, host, options)
    counted.run("short queue, idle past the keep-alive time", short_queue_and_keep_alive, host)
    if host.ours:
        counted.run("nbdkit and qemu-nbd behind nvmf-target", behind_nbd, host, workspace)
        counted.run("nbd-client on an export of nvmf-connect", nbd_client, host, workspace)
        counted.run("qemu-nbd -c on an export of nvmf-connect", qemu_nbd, host, workspace)
    counted.run("refused: unknown subsystem, host not allowed", refused, host)


@contextlib.contextmanager
def target(options, workspace):
    """The port of the target under test."""
    if options.peer == "nvmet":
        with vm.TargetVm(nvmet.standard_layout(MEBIBYTES)) as machine:
            yield machine.port
        return
    spaces = [f"memory:{MEBIBYTES}M,block=512", f"memory:{MEBIBYTES}M,block=4096"]
    subsystems = {
        nvmet.OPEN_NQN: ["--namespace", spaces[0], "--namespace", spaces[1]],
        nvmet.CLOSED_NQN: ["--namespace", spaces[0], "--host", nvmet.ALLOWED_HOST],
    }
    with programs.Target(workspace, subsystems) as server:
        yield server.port
        cases.check(server.process.poll() is None,
                    f"nvmf-target ended by itself: {server.errors()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/release/bin", help="folder with nvmf-target")
    parser.add_argument("--peer", choices=("nvmf-target", "nvmet"), default="nvmf-target")
    parser.add_argument("--only", action="append", help="only cases whose names contain this")
    options = parser.parse_args()
    counted = cases.Cases(options.only)

    def body():
        with programs.Workspace(options.bin) as workspace, contextlib.ExitStack() as serving:
            port = serving.enter_context(target(options, workspace))
            with vm.Vm("host", processors=2) as machine:
                machine.run("dmesg -c >/dev/null")  # what booting had to say is not ours
                run_all(Host(machine, port, options.peer == "nvmf-target"), workspace, counted)
            with counted.case("the target served to the end and ended cleanly"):
                serving.close()

    return cases.run_script(body, counted, LIMIT)


if __name__ == "__main__":
    sys.exit(main())
