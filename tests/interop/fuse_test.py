#!/usr/bin/env python3
"""nvmf-connect --fuse over loopback, used by programs that know nothing of us: coreutils, fallocate,
mkfs.ext4, debugfs, e2fsck, qemu-img, fio. With --user, as a user without capabilities (the script
then makes itself a mount namespace in which /dev/fuse is everybody's). Exits 77 where there is no
FUSE to be had."""

import argparse
import errno
import json
import mmap
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import cases
import programs
from cases import check

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tools"))
import scene as scenes  # noqa: E402

SIZE = 64 << 20
LIMIT = 560
PATIENCE = 20  # for what takes a moment
SKIPPED = 77
NOBODY = 65534


class Mounted(scenes.Scene):
    """A target with one namespace of 64 MiB, and a directory to mount on."""

    def __init__(self, words, **named):
        super().__init__(words.bin, words.io, target=False, **named)
        self._arguments += ["--control", self.space.path("ctl")]
        self.target = scenes.RestartableTarget(self.space, 0, self._arguments)
        self.folder = self.space.path("mnt")
        os.mkdir(self.folder)
        self.file = os.path.join(self.folder, "nvmf0n1")

    def __exit__(self, *problem):
        self.run("nvmf", "disconnect", "--all")
        super().__exit__(*problem)
        for _ in range(3):
            if mounts(self.folder):
                subprocess.run(["fusermount3", "-uzq", self.folder], check=False)

    def mount(self, *options):
        done = self.run("nvmf-connect", self.uri, "--fuse", self.folder, *options).must_succeed()
        check(done.out == f"nvmf0n1 {self.file}\n", f"nvmf-connect printed {done.out!r}")
        return self

    def unmounted(self):
        check(not mounts(self.folder), "the mount is still there")
        check(os.listdir(self.folder) == [], "something is in the directory")

    def sh(self, command, limit=60):
        return self.run("bash", "-c", command, limit=limit)

    def ctl(self, *words):
        self.run("nvmf-target", "ctl", self.space.path("ctl"), *words).must_succeed()

    def soon(self, condition, what):
        cases.wait_until(condition, PATIENCE, what, interval=0.01)

    def read(self, offset, length):
        with open(self.file, "rb", buffering=0) as file:
            return os.pread(file.fileno(), length, offset)

    def pid(self):
        listed = json.loads(self.run("nvmf", "list", "-o", "json").must_succeed().out)
        return listed["Connections"][0]["pid"]


def mounts(folder):
    with open("/proc/self/mountinfo") as lines:
        return [line for line in lines if line.split()[4] == folder]


def ended(process, seconds):
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise cases.Failed(f"{process.args} did not end within {seconds} s") from None


def same(one, other):
    # cmp reads pages, and nobody reads ahead.
    check(programs.same_bytes(one, other), f"{one} and {other} differ")


def spoil(s):
    done = s.sh(f"dd if=/dev/urandom of={s.file} bs=1M")
    check(done.status != 0 and "No space left" in done.err, f"{done}")


def looks(words):
    """Names, size, mode, what df says, and what is not there."""
    with Mounted(words, namespaces=("memory:64M", "memory:1T,block=4096")) as s:
        done = s.run("nvmf-connect", s.uri, "--fuse", s.folder, "-o", "json").must_succeed()
        told = {one["name"]: one for one in json.loads(done.out)["namespaces"]}
        check(told["nvmf0n2"]["files"] == [os.path.join(s.folder, "nvmf0n2")], f"{told}")
        check(told["nvmf0n2"]["uris"] == [], "NBD, unasked")
        check(sorted(os.listdir(s.folder)) == [".nvmf", "nvmf0n1", "nvmf0n2"],
              f"{os.listdir(s.folder)}")
        for name, size in (("nvmf0n1", SIZE), ("nvmf0n2", 1 << 40)):
            st = os.stat(os.path.join(s.folder, name))
            check((st.st_size, st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_blocks * 512)
                  == (size, 0o600, os.getuid(), os.getgid(), size), f"{st}")
            check(st.st_blksize >= 4096, f"{st}")
        free = os.statvfs(s.folder)
        check(free.f_blocks * free.f_frsize == SIZE + (1 << 40) and free.f_bavail == 0, f"{free}")
        check(f"fuse.nvmf nvmf0 " in mounts(s.folder)[0], f"{mounts(s.folder)}")
        for command in ("touch new", "mkdir new", "rm -f nvmf0n1", "mv nvmf0n1 other",
                        "ln nvmf0n1 other", "ln -s nvmf0n1 other", "chmod 644 nvmf0n1"):
            done = s.sh(f"cd {s.folder} && {command}")
            check(done.status != 0 and re.search("not permitted|denied", done.err), f"{done}")
        s.sh(f"touch {s.file}").must_succeed()
        s.run("nvmf", "disconnect", "nvmf0").must_succeed()
        s.unmounted()


def copies(words):
    """Programs that truncate, seek, write oddly or directly leave what they should."""
    with Mounted(words) as s:
        s.mount()
        data = programs.random_file(s.space.path("data"), 5 << 20)
        expected = bytearray(SIZE)

        def put(offset, more):
            expected[offset:offset + len(more)] = more

        with open(data, "rb") as file:
            whole = file.read()
        s.sh(f"cat {data} > {s.file}").must_succeed()
        put(0, whole)
        s.sh(f"dd if={data} of={s.file} bs=1M seek=8 oflag=direct conv=notrunc").must_succeed()
        put(8 << 20, whole)
        s.sh(f"dd if={data} of={s.file} bs=777 seek=31337 count=99 oflag=dsync").must_succeed()
        put(777 * 31337, whole[:777 * 99])
        s.sh(f"dd if={data} of={s.file} bs=3M seek=10 conv=fsync,notrunc").must_succeed()
        put(30 << 20, whole)
        with open(s.file, "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"x" * 1000, SIZE - 500)
            put(SIZE - 500, b"x" * 500)
            try:
                os.pwrite(file.fileno(), b"x", SIZE)
                raise cases.Failed("a byte was written behind the end")
            except OSError as problem:
                check(problem.errno == errno.ENOSPC, f"{problem}")
            check(os.pread(file.fileno(), 100, SIZE) == b"", "there is something behind the end")
            check(os.lseek(file.fileno(), 0, os.SEEK_END) == SIZE, "another end")
            os.pwritev(file.fileno(), [b"now"], 4097, os.RWF_DSYNC)
            put(4097, b"now")
            view = mmap.mmap(file.fileno(), 8192, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
            check(view[4097:4100] == b"now", "a private mapping shows other data")
            view.close()
        check(os.path.getsize(s.file) == SIZE, "another size")
        with open(s.space.path("expected"), "wb") as file:
            file.write(expected)
        same(s.file, s.space.path("expected"))
        for mode in ("never", "always"):
            sparse = s.space.path("sparse")
            s.sh(f"rm -f {sparse}; truncate -s 64M {sparse}; "
                 f"dd if={data} of={sparse} bs=1M seek=20 conv=notrunc").must_succeed()
            s.sh(f"cp --sparse={mode} {sparse} {s.file}").must_succeed()
            same(s.file, sparse)
            spoil(s)
        s.sh(f"cp {s.file} {s.space.path('back')}").must_succeed()
        same(s.file, s.space.path("back"))


def holes(words):
    """fallocate makes zeroes and nothing else; a size is what it is."""
    with Mounted(words) as s:
        s.mount()
        s.sh(f"head -c 1M /dev/urandom > {s.file}").must_succeed()
        before = s.read(0, 1 << 20)
        s.run("fallocate", "-p", "-o", "1000", "-l", "10001", s.file).must_succeed()
        s.run("fallocate", "-z", "-o", "40960", "-l", "8192", s.file).must_succeed()
        s.run("fallocate", "-z", "-n", "-o", str(SIZE - 4096), "-l", "1M", s.file).must_succeed()
        after = s.read(0, 1 << 20)
        check(after[1000:11001] == bytes(10001) and after[40960:49152] == bytes(8192), "no zeroes")
        check(after[:1000] == before[:1000] and after[11001:40960] == before[11001:40960]
              and after[49152:] == before[49152:], "more than the range was zeroed")
        for argv, says in ((("fallocate", "-l", "4096"), "not supported"),
                           (("fallocate", "-z", "-o", str(SIZE), "-l", "1"), "No space"),
                           (("truncate", "-s", "32M"), "not permitted"),
                           (("truncate", "-s", "65M"), "not permitted"),
                           (("truncate", "-s", "0"), "not permitted")):
            done = s.run(*argv, s.file)
            check(done.status != 0 and says in done.err, f"{done}")
        s.run("truncate", "-s", str(SIZE), s.file).must_succeed()
        check(s.read(0, 1 << 20) == after, "something has changed")
        with open(s.file, "rb") as file:
            check(os.lseek(file.fileno(), 5, os.SEEK_DATA) == 5, "no data")
            at = 0
            while at < SIZE:  # what is said to be a hole reads as zeroes
                at = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                try:
                    end = os.lseek(file.fileno(), at, os.SEEK_DATA) if at < SIZE else SIZE
                except OSError as problem:
                    check(problem.errno == errno.ENXIO, f"{problem}")
                    end = SIZE
                check(not any(os.pread(file.fileno(), end - at, at)), f"data at {at}")
                at = end


def file_systems(words):
    """A file system in the file, made, filled and checked without mounting it; images of qemu's."""
    with Mounted(words) as s:
        s.mount()
        data = programs.random_file(s.space.path("data"), 3 << 20)
        s.run("mkfs.ext4", "-q", s.file).must_succeed()
        s.run("debugfs", "-w", "-R", f"write {data} data", s.file).must_succeed()
        back = s.space.path("back")
        s.run("debugfs", "-R", f"dump data {back}", s.file).must_succeed()
        check(programs.same_bytes(data, back), "debugfs read other data")
        s.run("e2fsck", "-fn", s.file).must_succeed()
        info = json.loads(s.run("qemu-img", "info", "--output=json", s.file).must_succeed().out)
        check(info["virtual-size"] == SIZE and info["format"] == "raw", f"{info}")
        image = s.space.path("image.qcow2")
        s.run("qemu-img", "convert", "-O", "qcow2", s.file, image).must_succeed()
        spoil(s)
        s.run("qemu-img", "convert", "-n", "-O", "raw", "-t", "none", "-T", "none", image,
              s.file).must_succeed()
        s.run("qemu-img", "compare", image, s.file).must_succeed()
        s.run("e2fsck", "-fn", s.file).must_succeed()


def verified(words):
    """16 jobs that write and verify, synchronously and not."""
    with Mounted(words) as s:
        s.mount()
        for engine, more in (("psync", ()), ("libaio", ("--iodepth=8",))):
            s.run("fio", "--name=v", f"--filename={s.file}", "--rw=randwrite",
                  "--bsrange=512-64k", "--blockalign=512", "--size=4M", "--io_size=1M",
                  "--offset_increment=4M", "--numjobs=16", "--verify=crc32c", "--direct=1",
                  "--thread", f"--ioengine={engine}", *more, limit=250).must_succeed()


def namespaces_change(words):
    """What the controller resizes, removes, puts back and adds is so at once, also where it is
    open."""
    with Mounted(words) as s:
        s.mount()
        with open(s.file, "r+b", buffering=0) as held:
            s.ctl("ns-resize", "1", "96M")
            s.soon(lambda: os.fstat(held.fileno()).st_size == 96 << 20, "the new size")
            check(os.pwrite(held.fileno(), b"more", 80 << 20) == 4, "there is no more room")
            s.ctl("ns-resize", "1", "128M")
            s.soon(lambda: os.stat(s.file).st_size == 128 << 20, "the next size")
            check(os.pread(held.fileno(), 8, (128 << 20) - 4) == bytes(4), "more than there is")
        disk = "file:" + s.space.path("disk.img")
        s.sh(f"truncate -s 8M {s.space.path('disk.img')}").must_succeed()
        s.ctl("ns-add", disk)
        second = os.path.join(s.folder, "nvmf0n2")
        s.soon(lambda: os.path.exists(second), "another name")
        check(os.path.getsize(second) == 8 << 20, "another size")
        s.sh(f"echo second > {second} && head -1 {second} | grep -x second").must_succeed()
        with open(second, "rb", buffering=0) as held:
            s.ctl("ns-remove", "2")
            s.soon(lambda: not os.path.exists(second), "the end of the name")
            check(sorted(os.listdir(s.folder)) == [".nvmf", "nvmf0n1"], f"{os.listdir(s.folder)}")
            for path in (second, f"/proc/self/fd/{held.fileno()}"):
                try:
                    with open(path, "rb", buffering=0) as again:
                        again.read(512)
                    raise cases.Failed("a namespace that has gone was read")
                except OSError:
                    pass
            check(len(s.read(0, 512)) == 512, "the other one is not there")
            s.ctl("ns-add", disk, "--nsid", "2")
            s.soon(lambda: os.path.exists(second), "the name's return")
            check(os.pread(held.fileno(), 6, 0) == b"second", "who had it open has something else")


def read_only(words):
    with Mounted(words) as s:
        s.mount("--read-only")
        check(os.stat(s.file).st_mode & 0o7777 == 0o400, "another mode")
        done = s.sh(f"echo x > {s.file}")
        check(done.status != 0 and re.search("Read-only|denied", done.err), f"{done}")
        check(len(s.read(0, 4096)) == 4096, "nothing is read")


def texts(words):
    """What .nvmf/ says, also when the target is lost."""
    with Mounted(words) as s:
        s.mount()
        folder = os.path.join(s.folder, ".nvmf")
        check(sorted(os.listdir(folder)) == ["identify", "state", "stats"], f"{os.listdir(folder)}")

        def text(name):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                return file.read()

        check(re.search(r"^state +: live$", text("state"), re.M)
              and f"nvmf0n1 {SIZE} bytes" in text("state"), text("state"))
        pid = int(re.search(r"^process +: (\d+)$", text("state"), re.M)[1])
        check(pid in s.space.processes(), f"{pid} is not its process")
        check(text("identify") == s.run("nvmf", "id-ctrl", "nvmf0").must_succeed().out,
              text("identify"))
        check("requests" in text("stats") and "nvmf0" in text("stats"), text("stats"))
        done = s.sh(f"echo x > {folder}/state")
        check(done.status != 0, "it could be written")
        s.kill_target()
        cases.wait_until(lambda: re.search(r"^state +: (?!live)", text("state"), re.M), PATIENCE,
                         "a loss")
        check("nvmf0" in text("stats") and "mn " in text("identify"), text("identify"))


def while_a_command_runs(words):
    with Mounted(words) as s:
        done = s.run("nvmf-connect", s.uri, "--fuse", "mnt", "--nbd", "unix:x.sock", "--run",
                     'stat -c %s "$mountpoint/nvmf0n1"; nbdinfo --size "$uri"; exit 7')
        check(done.status == 7 and done.out == f"{SIZE}\n{SIZE}\n", f"{done}")
        s.unmounted()


def refused(words):
    with Mounted(words) as s:
        full = s.space.path("full")
        os.mkdir(full)
        file = programs.random_file(os.path.join(full, "file"), 10)
        for folder, says in ((s.space.path("none"), "does not exist: make it first"),
                             (full, "is not empty (file is in it)"), (file, "not a directory")):
            s.refused("nvmf-connect", s.uri, "--fuse", folder, says=says)
        s.refused("nvmf-connect", s.uri, "--allow-other", status=2, says="--fuse DIR")
        if os.getuid() != 0:
            s.refused("nvmf-connect", s.uri, "--fuse", s.folder, "--allow-other",
                      says="user_allow_other")
        s.mount()
        s.refused("nvmf-connect", s.uri, "--fuse", s.folder, "-D",
                  says=f"{s.folder} has the namespaces of nvmf0 mounted on it")
        if os.getuid() == 0:
            done = s.run("setpriv", f"--reuid={NOBODY}", "--clear-groups", "cat", s.file)
            check(done.status != 0 and "denied" in done.err, f"{done}")


def unmounted_from_outside(words):
    """fusermount3 -u ends what has no other face, if nobody uses it."""
    with Mounted(words) as s:
        s.mount()
        pid = s.pid()
        with open(s.file, "rb"):
            done = s.run("fusermount3", "-u", s.folder)
            check(done.status != 0 and "busy" in done.err, f"{done}")
        s.run("fusermount3", "-u", s.folder).must_succeed()
        cases.wait_until(lambda: pid not in s.space.processes(), PATIENCE, "the end of nvmf-connect")
        s.unmounted()
        done = s.run("nvmf-connect", s.uri, "--fuse", s.folder, "--nbd",
                     "unix:" + s.space.path("nbd.sock")).must_succeed()
        check(done.out.startswith(f"nvmf0n1 {s.file} nbd+unix:"), f"{done}")
        s.run("fusermount3", "-u", s.folder).must_succeed()
        time.sleep(0.3)
        uri = done.out.split()[2]
        s.run("nbdinfo", "--size", uri).must_succeed()


def disconnected(words):
    """The end comes in time though files are open and the target is gone."""
    with Mounted(words) as s:
        s.mount()
        with open(s.file, "rb", buffering=0) as held:
            s.kill_target()
            reader = subprocess.Popen(["dd", f"if={s.file}", "of=/dev/null", "bs=4k", "count=1"],
                                      stderr=subprocess.PIPE)
            time.sleep(0.3)
            check(reader.poll() is None, "the reader did not wait")
            done = s.run("nvmf", "disconnect", "nvmf0").must_succeed()
            # Two seconds are promised; a machine that does other things gets as much again.
            check(done.seconds < 4 * words.slack, f"it took {done.seconds:.1f} s")
            check(ended(reader, PATIENCE) != 0, "the reader got data")
            reader.stderr.close()
            s.unmounted()
            try:
                os.pread(held.fileno(), 1, 0)
                raise cases.Failed("the file can still be read")
            except OSError as problem:
                check(problem.errno in (errno.ENOTCONN, errno.ECONNABORTED), f"{problem}")
        os.unlink(s.space.path("ctl"))  # the killed target's
        s.space.check_nothing_left()


def killed(words):
    """After kill -9, the next one mounts on the same directory."""
    with Mounted(words) as s:
        for _ in range(2):
            s.mount("--no-fence")
            pid = s.pid()
            os.kill(pid, signal.SIGKILL)
            s.wait_gone(pid)
            try:
                os.listdir(s.folder)
                raise cases.Failed("the mount was not left behind: nothing is tested")
            except OSError as problem:
                check(problem.errno in (errno.ENOTCONN, errno.ECONNABORTED), f"{problem}")
        s.mount("--no-fence")
        check(len(mounts(s.folder)) == 1, f"{mounts(s.folder)}")
        s.sh(f"echo hello > {s.file}").must_succeed()
        s.run("nvmf", "disconnect", "nvmf0").must_succeed()
        s.unmounted()


def waits(words):
    """A reader waits for a target that was killed, and goes on; a signal ends the wait."""
    with Mounted(words, file=True) as s:
        s.mount("-c", "1")
        s.sh(f"echo hello > {s.file}; sync {s.file}").must_succeed()
        s.kill_target()

        def start(*argv):
            return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

        reader = start("head", "-c", "5", s.file)
        doomed = start("head", "-c", "5", s.file)
        asked = start("head", "-c", "5", s.file)
        writer = start("bash", "-c", f"echo other | dd of={shlex.quote(s.file)} seek=100")
        time.sleep(0.5)
        for one in (reader, doomed, asked, writer):
            check(one.poll() is None, f"{one.args} did not wait")
        doomed.kill()
        asked.send_signal(signal.SIGINT)
        ended(doomed, PATIENCE)
        ended(asked, PATIENCE)
        writer.terminate()
        check(os.stat(s.file).st_size == SIZE, "nothing can be asked")
        s.restart_target()
        check(ended(reader, scenes.PATIENCE) == 0 and reader.stdout.read() == b"hello", "another end")
        for one in (reader, doomed, asked, writer):
            one.stdout.close()
            one.poll() is None and one.kill()
            one.wait()
        s.run("nvmf", "disconnect", "nvmf0").must_succeed()


def become_user(words):
    """This script again, in a mount namespace where /dev/fuse is everybody's, as nobody."""
    here = pathlib.Path(__file__).resolve()
    folder = subprocess.run(["mktemp", "-d", "--tmpdir", "nvmf-fuse-user-XXXXXX"], check=True,
                            capture_output=True, text=True).stdout.strip()
    # Where the tree lies may be closed to others: it is bound to a place that is not.
    script = f"""
        set -e
        cd {shlex.quote(folder)}
        mkdir bin tests tmp
        chmod 755 . bin tests
        chmod 1777 tmp
        mknod fuse c 10 229
        chmod 666 fuse
        mount --bind fuse /dev/fuse
        mount --bind {shlex.quote(os.path.abspath(words.bin))} bin
        mount --bind {shlex.quote(str(here.parent.parent))} tests
        exec env TMPDIR={folder}/tmp PYTHONDONTWRITEBYTECODE=1 \
          setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=-all \
          {sys.executable} tests/interop/{here.name} --bin bin --user "$@"
    """
    more = [word for only in words.only or [] for word in ("--only", only)]
    more += ["--io", words.io] if words.io else []
    more += ["--sanitized"] if words.slack > 1 else []
    try:
        return subprocess.run(["unshare", "--mount", "--propagation", "private", "bash", "-c", script,
                               "bash", *more], check=False).returncode
    finally:
        subprocess.run(["rm", "-rf", folder], check=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--io", choices=("epoll", "io_uring"))
    parser.add_argument("--only", action="append")
    parser.add_argument("--user", action="store_true")
    parser.add_argument("--sanitized", action="store_const", const=4, default=1, dest="slack",
                        help="upper bounds on time are four times as long")
    words = parser.parse_args()
    if not os.path.exists("/dev/fuse"):
        print("there is no /dev/fuse here: nothing is tested")
        return SKIPPED
    if words.user and os.getuid() == 0:
        return become_user(words)
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        print("/dev/fuse is not for this user: nothing is tested")
        return SKIPPED
    counted = cases.Cases(words.only)

    def body():
        for case in (looks, copies, holes, file_systems, verified, namespaces_change,
                     read_only, texts,
                     while_a_command_runs,
                     refused, unmounted_from_outside, disconnected, killed, waits):
            counted.run(case.__name__, case, words)

    return cases.run_script(body, counted, LIMIT)


if __name__ == "__main__":
    sys.exit(main())
