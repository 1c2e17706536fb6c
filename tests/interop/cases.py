"""Counts the cases of one interoperability script and ends it the way every script here ends:
`N passed, N failed` alone on the last line, exit status 1 if anything failed."""

import contextlib
import os
import shutil
import signal
import sys
import time
import traceback

# Programs of Debian are found here even when an ordinary user's PATH leaves the sbin folders out.
SEARCH_PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"

PACKAGE_OF_PROGRAM = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "nvme": "nvme-cli",
    "nbd-client": "nbd-client",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "fusermount3": "fuse3",
    "resize2fs": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "xfs_repair": "xfsprogs",
    "nbdinfo": "libnbd-bin",
    "nbdcopy": "libnbd-bin",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "fio": "fio",
    "tshark": "tshark",
    "apt-get": "apt",
    "dpkg": "dpkg",
    "ldd": "libc-bin",
    "llvm-strip-19": "llvm-19",
}


class Lacking(Exception):
    """Something that the script needs is not on this machine; the message says what and how."""


class Failed(Exception):
    """A promise was broken; the message says which."""


class TooLong(Exception):
    """The whole script went over its time limit."""


def find_program(name):
    """The path of a program of Debian; Lacking names its package."""
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        package = PACKAGE_OF_PROGRAM.get(name, name)
        raise Lacking(f"{name} is missing: install the package {package} (scripts/deps does).")
    return path


def check(condition, message):
    if not condition:
        raise Failed(message)


def wait_until(condition, seconds, what, interval=0.05):
    """Polls `condition` until it gives something true, which is returned."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not happen within {seconds} s.")
        time.sleep(interval)


class Cases:
    """`with cases.case("name"):` runs and counts one case; a failing one does not stop the rest."""

    def __init__(self, only=None):
        self.passed = 0
        self.failed = 0
        self.after_failure = None  # called without arguments, to keep a failure from spreading
        self._only = only or []

    def wanted(self, name):
        return not self._only or any(word in name for word in self._only)

    @contextlib.contextmanager
    def case(self, name):
        started = time.monotonic()
        try:
            yield
        except (KeyboardInterrupt, TooLong):
            raise
        except Exception as problem:
            self.failed += 1
            print(f"FAILED {name} ({time.monotonic() - started:.1f} s)")
            known = isinstance(problem, (Failed, Lacking))
            text = str(problem) if known else traceback.format_exc()
            print("    " + text.rstrip().replace("\n", "\n    "), flush=True)
            if self.after_failure:
                self.after_failure()
        else:
            self.passed += 1
            print(f"ok     {name} ({time.monotonic() - started:.1f} s)", flush=True)

    def run(self, name, function, *arguments):
        """Runs `function(*arguments)` as a case, unless --only leaves it out."""
        if self.wanted(name):
            with self.case(name):
                function(*arguments)


def _stop_by_signal(number, _frame):
    if number == signal.SIGALRM:
        raise TooLong("the script's own time limit is over")
    raise KeyboardInterrupt


def run_script(body, cases, limit):
    """Runs `body()`, which reports into `cases`, for at most `limit` seconds; prints the closing
    line and returns the exit status. Signals become exceptions, so every `finally` cleans up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, _stop_by_signal)
    signal.alarm(limit)
    try:
        body()
    except (KeyboardInterrupt, TooLong) as stop:
        cases.failed += 1
        print(f"FAILED stopped before the end: {stop or 'interrupted'}")
    except (Failed, Lacking) as problem:
        cases.failed += 1
        print(f"FAILED {problem}")
    except Exception:
        cases.failed += 1
        print("FAILED outside of any case:")
        traceback.print_exc(file=sys.stdout)
    finally:
        signal.alarm(0)
    if cases.passed + cases.failed == 0:
        cases.failed = 1
        print("FAILED no case was run")
    print(f"{cases.passed} passed, {cases.failed} failed", flush=True)
    return 1 if cases.failed else 0
