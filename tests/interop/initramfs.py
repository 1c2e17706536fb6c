"""The root file systems of the test machines: busybox, the kernel modules of a role, nvme-cli and
for the `host` and `disk` roles file system tools, with the libraries that they need; for the `service`
role systemd, too (service_root.py). Kept in the kernel cache under a name made from their content, so
that a second boot builds nothing."""

import glob
import hashlib
import os
import re
import stat
import subprocess
import tempfile

import cases
import kernel as kernels

MODULES_ALWAYS = ["virtio_pci", "virtio_net", "crc32c_intel", "crc32c_generic"]
# In the order in which they are loaded, with their options.
MODULES = {
    "target": MODULES_ALWAYS + ["configfs", "loop", "null_blk nr_devices=0", "nvmet", "nvmet_tcp",
                                "nvme_fabrics", "nvme_tcp"],
    "host": MODULES_ALWAYS + ["nvme_fabrics", "nvme_tcp", "nbd nbds_max=4", "ext4"],
    "disk": MODULES_ALWAYS + ["nbd nbds_max=4", "ext4", "xfs"],
    # Debian makes the nodes of fuse and loop before they are loaded, by programs not in here.
    "service": MODULES_ALWAYS + ["fuse", "loop"],
}
# There, and loaded by whoever needs them.
MODULES_AT_HAND = {"service": ["nbd", "ext4"]}
PROGRAMS = {
    "target": ["nvme"],  # the kernel's own host, beside ours, by loopback
    "host": ["nvme", "mkfs.ext4", "e2fsck", "nbd-client", "qemu-nbd"],
    "disk": ["mkfs.ext4", "e2fsck", "resize2fs", "mkfs.xfs", "xfs_repair", "nbd-client", "fio"],
    "service": ["mount", "umount", "fsck", "e2fsck", "systemctl", "journalctl", "udevadm",
                "systemd-tmpfiles", "nbd-client"],
}
CONFIG_FILES = {"host": ["/etc/mke2fs.conf"], "disk": ["/etc/mke2fs.conf"]}
# As Debian has them: one folder of programs and one of libraries, under every name.
MERGED = {"bin": "usr/bin", "sbin": "usr/bin", "usr/sbin": "usr/bin", "lib": "usr/lib",
          "lib64": "usr/lib64"}
KEPT_PER_ROLE = 4


def _plain(name):
    return name.replace("-", "_")


def _module_closure(kernel, wanted):
    """Paths below kernel.modules of the modules named and of all that they depend on. A module that
    the kernel has built in has no file."""
    path_of, needs = {}, {}
    with open(os.path.join(kernel.modules, "modules.dep")) as lines:
        for line in lines:
            path, _, rest = line.partition(":")
            name = _plain(re.sub(r"\.ko.*$", "", os.path.basename(path)))
            path_of[name] = path
            needs[name] = rest.split()
    with open(os.path.join(kernel.modules, "modules.builtin")) as lines:
        built_in = {_plain(os.path.basename(line.strip())[:-3]) for line in lines}
    paths = []
    for name in (_plain(entry.split()[0]) for entry in wanted):
        if name in built_in:
            continue
        if name not in path_of:
            raise cases.Lacking(f"kernel {kernel.release} has no module {name}.")
        for path in [path_of[name]] + needs[name]:
            if path not in paths:
                paths.append(path)
    return paths


def _libraries(program):
    """What ldd says that `program` loads. A static program, or a script, needs nothing."""
    done = subprocess.run([cases.find_program("ldd"), program], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, timeout=30)
    if done.returncode != 0:
        return []
    lost = re.findall(r"(\S+) => not found", done.stdout)
    if lost:
        raise cases.Lacking(f"{program} needs {', '.join(lost)}, which is not on this machine.")
    return re.findall(r"(?:=> )?(/\S+) \(0x", done.stdout)


class Link(str):
    """The contents of a file that is a symbolic link: where it leads."""


class _Archive:
    """A cpio archive in the `newc` form that the kernel unpacks."""

    def __init__(self):
        self._parts = []
        self._names = set()
        self._inode = 0

    def _add(self, name, mode, data):
        name = name.strip("/")
        if name in self._names:
            return
        self._names.add(name)
        self._inode += 1
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        self._parts += [head, b"\0" * (-len(head) % 4), data, b"\0" * (-len(data) % 4)]

    def folder(self, name):
        above = os.path.dirname(name.strip("/"))
        if above:
            self.folder(above)
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name, data, mode=0o755):
        self.folder(os.path.dirname(name))
        self._add(name, stat.S_IFREG | mode, data)

    def link(self, name, to):
        self.folder(os.path.dirname(name))
        self._add(name, stat.S_IFLNK | 0o777, to.encode())

    def entry(self, name, data):
        if isinstance(data, Link):
            self.link(name, data)
        else:
            # systemd wants its units not executable.
            self.file(name, data, 0o755 if data[:2] in (b"#!", b"\x7fE") else 0o644)

    def bytes(self):
        self._add("TRAILER!!!", 0, b"")
        return b"".join(self._parts)


def _read(path):
    with open(path, "rb") as source:
        return source.read()


def _merged(name):
    """The name of a file where MERGED holds."""
    name = name.strip("/")
    for folder, whole in MERGED.items():
        if name.startswith(folder + "/"):
            return whole + name[len(folder):]
    return name


def with_libraries(name, program):
    """`program` as `name`, and what it needs, as (name in the archive, bytes)."""
    yield name, _read(os.path.realpath(program))
    for library in _libraries(program):
        yield library, _read(os.path.realpath(library))


def _module_index(kernel, paths):
    """modules.dep and modules.alias of these modules alone, as depmod makes them; busybox reads the
    text, libkmod the other form."""
    with tempfile.TemporaryDirectory(prefix="nvmf-modules-") as root:
        base = os.path.join(root, "lib/modules", kernel.release)
        for path in paths:
            os.makedirs(os.path.dirname(os.path.join(base, path)), exist_ok=True)
            os.symlink(os.path.join(kernel.modules, path), os.path.join(base, path))
        for name in ("modules.builtin", "modules.order"):
            os.symlink(os.path.join(kernel.modules, name), os.path.join(base, name))
        done = subprocess.run([cases.find_program("depmod"), "-b", root, kernel.release],
                              stderr=subprocess.PIPE, text=True, timeout=60)
        if done.returncode != 0:
            raise cases.Lacking(f"depmod failed: {done.stderr.strip()}")
        return {name: _read(os.path.join(base, name))
                for index in ("modules.dep", "modules.alias", "modules.symbols")
                for name in (index, index + ".bin")}


def _contents(role, kernel, programs, more):
    """Everything that goes in, as (name in the archive, bytes or Link)."""
    here = os.path.dirname(os.path.abspath(__file__))
    yield "init", _read(os.path.join(here, "guest_init.sh"))
    yield "bin/busybox", _read(cases.find_program("busybox"))
    yield "etc/modules", ("\n".join(MODULES[role]) + "\n").encode()
    paths = _module_closure(kernel, MODULES[role] + MODULES_AT_HAND.get(role, []))
    base = f"lib/modules/{kernel.release}"
    for path in paths:
        yield f"{base}/{path}", _read(os.path.join(kernel.modules, path))
    for name, data in _module_index(kernel, paths).items():
        yield f"{base}/{name}", data
    for path in CONFIG_FILES.get(role, ()):
        if os.path.exists(path):
            yield path, _read(path)
    wanted = [cases.find_program(name) for name in PROGRAMS[role]] + list(programs)
    for program in wanted:
        yield from with_libraries(f"usr/bin/{os.path.basename(program)}", program)
    # The kernel itself calls this one, by this name, when it wants a module.
    yield "sbin/modprobe", Link("/bin/busybox")
    yield from more
    yield "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n"  # unless there is one by now


def build(role, kernel, programs=(), more=()):
    """The path of the archive for `role`; `programs` are paths of further programs to put in, `more`
    are (name, bytes or Link). Where a name is given twice, the first counts."""
    contents = list(_contents(role, kernel, programs, more))
    merged = role == "service"
    if merged:
        contents = ([(name, Link("/" + to)) for name, to in MERGED.items()]
                    + [(_merged(name), data) for name, data in contents])
    digest = hashlib.sha256()
    for name, data in contents:
        data = data.encode() if isinstance(data, Link) else data
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    folder = kernels.cache_folder()
    path = os.path.join(folder, f"initramfs-{role}-{digest.hexdigest()[:16]}.cpio")
    if os.path.exists(path):
        os.utime(path)
        return path
    archive = _Archive()
    for name, data in contents:
        archive.entry(name, data)
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as fresh:
        fresh.write(archive.bytes())
    os.rename(fresh.name, path)
    known = sorted(glob.glob(os.path.join(folder, f"initramfs-{role}-*.cpio")),
                   key=os.path.getmtime)
    for old in known[:-KEPT_PER_ROLE]:
        os.unlink(old)
    return path
