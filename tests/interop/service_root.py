"""What the `service` machine has beside busybox: Debian's systemd as process 1 with the few of its
units that a boot with a network file system needs, udev and its rules for disks, and our units, as
they are installed, with their program."""

import os
import re

import cases
from initramfs import Link, with_libraries

SYSTEMD = "/lib/systemd"
PROGRAMS = ("systemd", "systemd-journald", "systemd-fsck", "systemd-shutdown")
GENERATOR = "system-generators/systemd-fstab-generator"
# All targets, and these.
UNITS = {"system": ("systemd-journald.service", "systemd-journald.socket",
                    "systemd-journald-dev-log.socket", "systemd-udevd.service",
                    "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
                    "systemd-udev-trigger.service", "systemd-fsck@.service", "modprobe@.service",
                    "systemd-tmpfiles-setup.service", "systemd-poweroff.service"),
         "user": ("systemd-exit.service",)}
WANTED = {"sysinit.target": ("systemd-journald.service", "systemd-udevd.service",
                             "systemd-udev-trigger.service", "systemd-tmpfiles-setup.service"),
          "sockets.target": ("systemd-journald.socket", "systemd-journald-dev-log.socket",
                             "systemd-udevd-control.socket", "systemd-udevd-kernel.socket"),
          "multi-user.target": ("remote-fs.target",)}  # Debian has this one in /etc
RULES = ("50-udev-default.rules", "60-block.rules", "60-persistent-storage.rules",
         "80-drivers.rules", "99-systemd.rules")
# That the rules name.
GROUPS = ("tty", "disk", "kmem", "dialout", "input", "video", "render", "sgx", "audio", "lp", "cdrom",
          "tape", "kvm")
USER, USER_ID = "someone", 1000
ETC = {
    "passwd": f"root:x:0:0:root:/:/bin/sh\n{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:/bin/sh\n",
    "group": f"root:x:0:\n{USER}:x:{USER_ID}:\n"
             + "".join(f"{name}:x:{number}:\n" for number, name in enumerate(GROUPS, 5)),
    "machine-id": "6e766d660000400090000000000000a1\n",
    "hostname": "nvmf-vm\n",
    # What happens in which order is read from the console. A device may come late in emulation.
    "systemd/system.conf": "[Manager]\nShowStatus=yes\nStatusUnitFormat=name\n"
                           "DefaultTimeoutStartSec=5min\n",
    "systemd/journald.conf": "[Journal]\nStorage=volatile\n",
    # Debian's own wants PAM, and logind, which makes this folder.
    "systemd/system/user@.service":
        "[Service]\nUser=%i\nType=notify\nDelegate=pids memory\nKillMode=mixed\n"
        "ExecStartPre=+sh -c 'mkdir -p -m 0700 /run/user/%i && chown %i:%i /run/user/%i'\n"
        "Environment=XDG_RUNTIME_DIR=/run/user/%i\nExecStart=/lib/systemd/systemd --user\n",
}


def _file(path):
    try:
        with open(path, "rb") as source:
            return source.read()
    except OSError as problem:
        raise cases.Lacking(f"{problem}: install the packages systemd and udev "
                            "(scripts/deps does).") from None


def _of_systemd():
    for name in (*PROGRAMS, GENERATOR):
        path = os.path.join(SYSTEMD, name)
        _file(path)
        yield from with_libraries(path, path)
    yield f"{SYSTEMD}/systemd-udevd", Link("/bin/udevadm")
    for whose in ("system", "user"):
        folder = os.path.join(SYSTEMD, whose)
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and (name.endswith(".target") or name in UNITS[whose]):
                yield path, _file(path)
    yield f"{SYSTEMD}/system/default.target", Link("multi-user.target")
    for target, names in WANTED.items():
        for name in names:
            yield f"{SYSTEMD}/system/{target}.wants/{name}", Link(f"../{name}")
    for name in RULES:
        yield f"lib/udev/rules.d/{name}", _file(f"/lib/udev/rules.d/{name}")


def _ours(bin_folder, units_folder):
    program = None
    for whose in ("system", "user"):
        for name in sorted(os.listdir(os.path.join(units_folder, whose))):
            unit = _file(os.path.join(units_folder, whose, name))
            started = re.search(rb"^ExecStart=(\S+)", unit, re.MULTILINE)
            program = started[1].decode() if started else program
            yield f"usr/local/lib/systemd/{whose}/{name}", unit
    cases.check(program, f"no unit in {units_folder} starts a program.")
    yield from with_libraries(program, os.path.join(bin_folder, "nvmf-connect"))


def contents(bin_folder, units_folder, etc):
    """(name in the archive, bytes or Link), for initramfs.build(). `etc`: further files below /etc,
    name to text or Link; they win over those of this file."""
    for name, text in {**ETC, **etc}.items():
        yield os.path.normpath(f"etc/{name}"), text if isinstance(text, Link) else text.encode()
    yield f"home/{USER}/.keep", b""
    yield "var/run", Link("/run")
    yield "sbin/fsck.ext4", Link("/bin/e2fsck")
    yield from _of_systemd()
    yield from _ours(bin_folder, units_folder)
