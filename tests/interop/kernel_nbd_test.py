#!/usr/bin/env python3
"""nvmf-connect --nbd-device in a machine with Debian's kernel: /dev/nbdN with file systems on it, while
the target, outside, goes away and comes back, grows, and while nvmf-connect itself is killed."""

import argparse
import re
import sys
import time

import cases
import programs
import trouble
import vm

HOST_ADDRESS = "10.0.2.2"  # this machine's loopback, as seen from inside
MEBIBYTES = (192, 320)  # of the namespaces; xfs wants 300
GROWN = 256
LIMIT = 560
QUEUES = 4
# Writes are held for 7 s after a kill, and must not fail meanwhile: -l is longer.
FOUR = f"-i {QUEUES} -l 10 -k 2 --cqt 1"
ONE = "-i 1 -l 600 -k 2 --cqt 1"
BUSY = 40  # for what an emulated machine does besides
# What a killed process had been asked is asked again after -l, a fence and 45 s, or, with one
# connection, after 30 s and as long again (kernel_timeouts.h).
FOUR_ASKED_AGAIN = 10 + 7 + 45 + BUSY
ONE_ASKED_AGAIN = 2 * 30 + BUSY
TROUBLE = re.compile(r"EXT4-fs.*(error|warning)|XFS.*(error|corrupt|shutdown)|JBD2.*error|I/O error|"
                     r"kernel BUG|BUG: |Oops|WARNING: |Call Trace|timed out", re.IGNORECASE)


class Scene:
    """The machine, the target outside, and what has been connected inside."""

    def __init__(self, machine, target):
        self.machine = machine
        self.target = target
        self.run = machine.run
        self.uri = f"nvme+tcp://{HOST_ADDRESS}:{target.port}/{target.nqn}"

    def connect(self, options):
        return self.run(f"nvmf-connect {self.uri} -q {programs.HOST_NQN} -I {programs.HOST_ID} "
                        f"{options} 2>/tmp/said || {{ status=$?; cat /tmp/said; exit $status; }}",
                        120)

    def refused(self, *options):
        status, said = self.machine.attempt(
            f"nvmf-connect {self.uri} --duplicate-connect {' '.join(options)}")
        cases.check(status == 1, f"nvmf-connect {options} has status {status}: {said}")
        return said

    def check_log(self, allowed=None):
        """Reads and empties the kernel's log: no trouble in it."""
        bad = [line for line in self.run("dmesg -c").splitlines()
               if TROUBLE.search(line) and not (allowed and re.search(allowed, line))]
        cases.check(not bad, "the kernel complained:\n" + "\n".join(bad))

    def pid(self):
        return self.run("pidof nvmf-connect").strip()

    def kill_connect(self):
        """kill -9; it has let go of its name and of everything else when this returns."""
        self.run("pid=$(pidof nvmf-connect); kill -9 $pid; for i in $(seq 200); do "
                 "grep -qs '^State:.[^ZX]' /proc/$pid/task/*/status || exit 0; sleep 0.1; done; exit 1")

    def show(self):
        """After a failure: what our program had to say."""
        print(self.machine.attempt("tail -n 20 /run/nvmf/*.log; dmesg | tail -n 20")[1])


def connects(scene):
    said = scene.connect(FOUR + " --nbd-device auto")
    cases.check(said == "nvmf0n1 /dev/nbd0\nnvmf0n2 /dev/nbd1\n", f"nvmf-connect said {said!r}.")
    for device, mebibytes, block in (("nbd0", MEBIBYTES[0], 512), ("nbd1", MEBIBYTES[1], 4096)):
        about = scene.run(f"cd /sys/block/{device}; cat size ro queue/logical_block_size "
                          "queue/write_cache queue/fua; ls mq | wc -l; cat backend").splitlines()
        cases.check(about[:6] == [str(mebibytes * 2048), "0", str(block), "write back", "1",
                                  str(QUEUES)], f"{device} is {about}.")
        cases.check(scene.target.nqn in about[6] and "uuid=" in about[6],
                    f"the backend of {device} is {about[6]}.")
    guard = scene.run(f"cat /proc/{scene.pid()}/oom_score_adj; grep VmLck /proc/{scene.pid()}/status")
    cases.check(guard.startswith("-1000\n") and "VmLck:\t       0" not in guard, guard)
    cases.check(scene.run("cat /tmp/said") == "", "nvmf-connect complained: "
                + scene.run("cat /tmp/said"))
    scene.check_log()


def fio(scene, folder, mebibytes):
    """Random writes, direct, read back and verified."""
    scene.run(f"fio --name=v --directory={folder} --rw=randwrite --bsrange=4k-64k "
              f"--size={mebibytes}M "
              "--numjobs=2 --iodepth=8 --ioengine=libaio --direct=1 --verify=crc32c "
              "--verify_fatal=1 --minimal >/tmp/fio 2>&1 || { tail -n 5 /tmp/fio; exit 1; }", 100)


def ext4(scene):
    scene.run("mkfs.ext4 -q -F /dev/nbd0 && mount -t ext4 /dev/nbd0 /mnt", 60)
    fio(scene, "/mnt", 6)
    scene.run("rm /mnt/v.*; head -c 8000001 /dev/urandom >/mnt/kept && sha256sum /mnt/kept >/tmp/sum "
              "&& sync && echo 3 >/proc/sys/vm/drop_caches && sha256sum -c /tmp/sum", 60)
    trimmed = scene.run("fstrim -v /mnt", 60)
    cases.check(re.search(r" [1-9]\d{6,} bytes", trimmed), f"fstrim says {trimmed}")
    scene.check_log()


def xfs(scene):
    scene.run("mkfs.xfs -q -f /dev/nbd1 && mkdir -p /x && mount -t xfs /dev/nbd1 /x", 60)
    fio(scene, "/x", 3)
    scene.run("rm /x/v.*; fstrim /x && umount /x && xfs_repair -n /dev/nbd1 >/tmp/repair 2>&1 || "
              "{ tail /tmp/repair; exit 1; }", 90)
    scene.check_log()


def grows(scene):
    scene.target.ctl("ns-resize", "1", f"{GROWN}M")
    scene.run(f"for i in $(seq 100); do [ $(cat /sys/block/nbd0/size) = {GROWN * 2048} ] && exit 0; "
              "sleep 0.1; done; cat /sys/block/nbd0/size; exit 1")
    before = int(scene.run("stat -f -c %b /mnt"))
    scene.run("resize2fs /dev/nbd0 >/tmp/resize 2>&1 || { cat /tmp/resize; exit 1; }", 60)
    after = int(scene.run("stat -f -c %b /mnt"))
    cases.check(after > before * 1.2, f"the file system has {after} blocks, it had {before}.")
    scene.run("sha256sum -c /tmp/sum")
    scene.check_log()


WRITER = ("i=0; while [ ! -e /tmp/enough ]; do i=$((i + 1)); "
          "head -c 500000 /dev/urandom >/mnt/w$((i % 20)) && sync /mnt/w$((i % 20)) && "
          "sha256sum /mnt/w$((i % 20)) >/tmp/w$((i % 20)) || {{ echo failed $i >/tmp/wrong; exit; }};"
          " done; echo $i >/tmp/done")


def writes_begin(scene):
    scene.run("rm -f /tmp/enough /tmp/wrong /tmp/done /tmp/w[0-9]*\n"
              f"cat >/tmp/writer <<'END'\n{WRITER.replace('{{', '{').replace('}}', '}')}\nEND\n"
              "sh /tmp/writer >/tmp/writer.log 2>&1 & sleep 1.5")


def writes_end(scene, limit):
    """The writer has never failed, goes on, and everything that it was told to be there is."""
    scene.run(f"touch /tmp/enough; for i in $(seq {limit * 5}); do "
              "[ -e /tmp/wrong ] && { cat /tmp/wrong /tmp/writer.log; exit 1; }; "
              "[ -e /tmp/done ] && break; sleep 0.2; done; [ -e /tmp/done ] || "
              "{ echo it still waits; exit 1; }", limit + 20)
    scene.run("cat /tmp/w[0-9]* | sort -u -k 2 >/tmp/sums; sync; echo 3 >/proc/sys/vm/drop_caches; "
              "[ -s /tmp/sums ] && sha256sum -c /tmp/sums >/tmp/verdict; status=$?; "
              "grep -v OK /tmp/verdict; sha256sum -c /tmp/sum && exit $status", 60)


def target_killed(scene):
    writes_begin(scene)
    scene.target.kill()
    time.sleep(2)
    scene.target.start()
    writes_end(scene, 60)
    scene.check_log()


def connect_killed(scene):
    writes_begin(scene)
    before = scene.pid()
    scene.kill_connect()
    scene.run("cat /sys/block/nbd0/pid")
    said = scene.connect(FOUR + " --nbd-device auto")
    cases.check(said == "nvmf0n1 /dev/nbd0\nnvmf0n2 /dev/nbd1\n", f"the next one said {said!r}.")
    cases.check(scene.pid() != before, "it is the same process.")
    held = scene.run("cat /tmp/said")
    cases.check("writes to" in held and "are held" in held, f"it said {held!r}.")
    writes_end(scene, FOUR_ASKED_AGAIN)
    scene.run("umount /mnt && e2fsck -fn /dev/nbd0 >/tmp/fsck 2>&1 || { cat /tmp/fsck; exit 1; }", 60)
    scene.check_log("Connection timed out, retrying")


def one_connection_killed(scene):
    """The kernel asks again soon, whatever -l is."""
    scene.run("nvmf disconnect nvmf0")
    scene.check_log("shutting down sockets")
    scene.connect(ONE + " --nbd-device /dev/nbd2")
    scene.run("mount -t ext4 /dev/nbd2 /mnt")
    writes_begin(scene)
    scene.kill_connect()
    said = scene.connect(ONE + " --nbd-device auto")
    cases.check(said == "nvmf0n1 /dev/nbd2\nnvmf0n2 /dev/nbd3\n", f"the next one said {said!r}.")
    writes_end(scene, ONE_ASKED_AGAIN)
    scene.check_log("Possible stuck request")


def refusals(scene):
    said = scene.refused("--name other --nbd-device /dev/nbd2")
    cases.check(re.search(r"/dev/nbd2 is in use, by process \d+", said), said)
    scene.run("grep -q nobody /etc/passwd || echo nobody:x:99:99::/tmp:/bin/sh >>/etc/passwd; "
              "mkdir -p /tmp/n && chown 99 /tmp/n")
    status, said = scene.machine.attempt(
        f"su nobody -c 'HOME=/tmp/n NVMF_RUNTIME_DIR=/tmp/n/run nvmf-connect {scene.uri} "
        "--nbd-device auto'")
    cases.check(status == 1 and "need root" in said and "--fuse" in said, f"{status}: {said}")


def disconnects(scene):
    """With a file system mounted: it says which, and leaves no device behind."""
    said = scene.run("nvmf disconnect nvmf0 2>&1")
    cases.check("/dev/nbd2 is still held by the file system at /mnt" in said, f"it said {said!r}.")
    scene.run("[ -z \"$(pidof nvmf-connect)\" ]; umount /mnt; for i in $(seq 200); do "
              "[ -e /sys/block/nbd2/pid ] || exit 0; sleep 0.1; done; exit 1")
    left = scene.run("cat /sys/block/nbd*/size; ls -d /sys/block/nbd*/pid 2>/dev/null; true")
    cases.check(set(left.split()) == {"0"}, f"devices are left: {left}")
    scene.run("dmesg -c >/dev/null")


def without_module(scene):
    scene.run("rmmod nbd")
    said = scene.refused("--nbd-device auto")
    cases.check("modprobe nbd" in said, said)


def run_all(scene, counted):
    counted.after_failure = scene.show
    counted.run("/dev/nbd0 and /dev/nbd1 with 4 connections", connects, scene)
    counted.run("ext4: fio verifies, fstrim", ext4, scene)
    counted.run("xfs with blocks of 4096: fio verifies, fstrim, xfs_repair", xfs, scene)
    counted.run("grows under a mounted ext4, resize2fs", grows, scene)
    counted.run("target killed under a mounted ext4", target_killed, scene)
    counted.run("nvmf-connect killed with -9 under a mounted ext4", connect_killed, scene)
    counted.run("the same with one connection", one_connection_killed, scene)
    counted.run("refused: device in use, no root", refusals, scene)
    counted.run("disconnect names who holds it, and leaves no device", disconnects, scene)
    counted.run("refused: no module", without_module, scene)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/release/bin", help="folder with our programs")
    parser.add_argument("--only", action="append", help="only cases whose names contain this")
    options = parser.parse_args()
    counted = cases.Cases(options.only)

    def body():
        with programs.Workspace(options.bin) as workspace:
            spaces = []
            for number, (mebibytes, block) in enumerate(((GROWN, 512), (MEBIBYTES[1], 4096)), 1):
                path = workspace.path(f"disk{number}")
                with open(path, "wb") as disk:
                    disk.truncate(mebibytes << 20)
                spaces.append(f"file:{path},block={block}")
            inside = [workspace.stripped(name) for name in ("nvmf-connect", "nvmf")]
            with trouble.RestartedTarget(workspace, spaces, address="127.0.0.1") as target, \
                    vm.Vm("disk", programs=inside, processors=QUEUES, memory=640) as machine:
                machine.run("dmesg -c >/dev/null")
                target.ctl("ns-resize", "1", f"{MEBIBYTES[0]}M")
                run_all(Scene(machine, target), counted)

    return cases.run_script(body, counted, LIMIT)


if __name__ == "__main__":
    sys.exit(main())
