#!/usr/bin/env python3
"""Debian's kernel for the virtual machines of these tests: the installed one if it has what the
tests need, else the package that linux-image-amd64 depends on, unpacked (not installed) into a
cache folder: $NVMF_KERNEL_CACHE, by default build/kernel-cache in the checkout.

By hand: tests/interop/kernel.py [--fetch] prints the release, the kernel image and the modules."""

import argparse
import contextlib
import fcntl
import glob
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

import cases

META_PACKAGE = "linux-image-amd64"
# One module of each role: a kernel that has both (the cloud flavour lacks nvmet) has the rest.
NEEDED_MODULES = ("nvmet-tcp", "nvme-tcp")
DOWNLOAD_LIMIT = 600


@dataclass(frozen=True)
class Kernel:
    release: str
    image: str  # path of vmlinuz
    modules: str  # folder that holds kernel/ and modules.dep


def cache_folder():
    checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    folder = os.environ.get("NVMF_KERNEL_CACHE") or os.path.join(checkout, "build", "kernel-cache")
    os.makedirs(folder, exist_ok=True)
    return os.path.abspath(folder)


@contextlib.contextmanager
def cache_lock():
    """Two scripts started at once must not unpack into each other."""
    with open(os.path.join(cache_folder(), "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _kernels_below(root):
    """Usable kernels below `root`, newest last. A release counts once modules.dep is there: it is
    written last, so a half-unpacked cache never counts."""
    found = []
    for modules in glob.glob(os.path.join(root, "lib/modules/*")):
        release = os.path.basename(modules)
        image = os.path.join(root, "boot", "vmlinuz-" + release)
        names = os.path.join(modules, "modules.dep")
        if not (os.access(image, os.R_OK) and os.access(names, os.R_OK)):
            continue
        with open(names) as text:
            present = text.read()
        if all(f"/{name}.ko" in present for name in NEEDED_MODULES):
            found.append(Kernel(release, image, modules))
    return sorted(found, key=lambda k: [int(n) for n in re.findall(r"\d+", k.release)])


def _run(argv, folder=None):
    done = subprocess.run(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=DOWNLOAD_LIMIT)
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise cases.Lacking(f"`{' '.join(argv)}` failed: {' '.join(reason)}")
    return done.stdout


def current_package():
    """The one package that linux-image-amd64 stands for today."""
    cases.find_program("apt-get")
    pattern = r"Depends:\s+(linux-image-[0-9][^\s]*-amd64)\s*$"
    for refresh in (False, True):
        if refresh:
            _run(["apt-get", "update", "-q"])
        try:
            text = _run(["apt-cache", "depends", META_PACKAGE])
        except cases.Lacking:
            continue  # no package lists yet
        names = re.findall(pattern, text, re.MULTILINE)
        if names:
            return names[0]
    raise cases.Lacking(f"apt knows no package {META_PACKAGE}: is this Debian 12 on amd64, and "
                        "does /etc/apt name its archive?")


def _download(package, folder):
    have = glob.glob(os.path.join(folder, package + "_*.deb"))
    if have:
        return have[0]
    print(f"kernel: downloading {package} (about 70 MB, once)", file=sys.stderr)
    try:
        _run(["apt-get", "download", "-q", package], folder)
    except cases.Lacking:
        # The lists may name a version that the archive has replaced since.
        _run(["apt-get", "update", "-q"])
        _run(["apt-get", "download", "-q", package], folder)
    have = glob.glob(os.path.join(folder, package + "_*.deb"))
    if not have:
        raise cases.Lacking(f"apt-get download {package} left no .deb in {folder}.")
    return have[0]


def _unpack(deb, folder):
    fresh = folder + ".unpacking"
    shutil.rmtree(fresh, ignore_errors=True)
    _run(["dpkg", "-x", deb, fresh])
    release = os.path.basename(glob.glob(os.path.join(fresh, "lib/modules/*"))[0])
    # The package's own postinst would do this; without it there is no modules.dep.
    _run([cases.find_program("depmod"), "-b", fresh, release])
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(fresh, folder)


def find_kernel(fetch=True):
    """The kernel to boot. Raises cases.Lacking, which says what is missing, if there is none."""
    installed = _kernels_below("/")
    if installed:
        return installed[-1]
    with cache_lock():
        root = os.path.join(cache_folder(), "unpacked")
        cached = _kernels_below(root)
        if cached:
            return cached[-1]
        if not fetch:
            raise cases.Lacking(f"no kernel with {' and '.join(NEEDED_MODULES)} in /boot or "
                                f"{root}: tests/interop/kernel.py --fetch gets Debian's.")
        deb = _download(current_package(), cache_folder())
        _unpack(deb, root)
        os.unlink(deb)
        cached = _kernels_below(root)
        if not cached:
            raise cases.Lacking(f"{os.path.basename(deb)} lacks {' or '.join(NEEDED_MODULES)}.")
        return cached[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--fetch", action="store_true", help="download the package if needed")
    options = parser.parse_args()
    try:
        kernel = find_kernel(fetch=options.fetch)
    except (cases.Lacking, subprocess.TimeoutExpired) as problem:
        print(f"kernel: {problem}", file=sys.stderr)
        return 1
    print(f"{kernel.release}\n{kernel.image}\n{kernel.modules}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
