#!/usr/bin/env python3
"""nvmf-target and nvmf-connect over loopback, served to NBD clients that others wrote: nbdinfo,
nbdcopy, qemu-img, qemu-io, fio; by unix and by TCP sockets; on io_uring and on epoll."""

import argparse
import contextlib
import json
import os
import sys

import cases
import programs
import vm

NQN = "nqn.2024-05.org.example:tools"
MEBIBYTES = 256
SIZE = MEBIBYTES << 20
LIMIT = 560
CONNECTIONS = 4
IN_PARALLEL = (f"--connections={CONNECTIONS}", f"--threads={CONNECTIONS}", "--requests=32")


class Tools:
    """A workspace whose programs use one kind of event loop, and the data that is copied."""

    def __init__(self, workspace, data):
        self.workspace = workspace
        self.data = data
        self.back = workspace.path("back")

    def run(self, *argv, limit=200):
        return self.workspace.run(*argv, limit=limit).must_succeed()

    @contextlib.contextmanager
    def served(self, *options, spaces=(f"memory:{MEBIBYTES}M",), nbd=None):
        """A target and a connection to it; both must end cleanly and leave nothing."""
        arguments = [word for space in spaces for word in ("--namespace", space)]
        with programs.Target(self.workspace, {NQN: arguments}) as target:
            with programs.Connection(self.workspace, target.uris[NQN], *options, nbd=nbd,
                                     namespaces=len(spaces)) as connection:
                yield connection
        self.workspace.check_nothing_left()

    def copy_out_and_compare(self, uri):
        self.run("nbdcopy", *IN_PARALLEL, uri, self.back)
        cases.check(programs.same_bytes(self.data, self.back), "nbdcopy read back other data.")
        os.unlink(self.back)


def nbdinfo(tools):
    """What negotiation tells: names, sizes, block sizes, flags; every name that is promised."""
    with tools.served("--name", "tools", spaces=("memory:256M,block=512",
                                                 "memory:1T,block=4096")) as connection:
        cases.check(set(connection.exports) == {"toolsn1", "toolsn2"},
                    f"exports are {sorted(connection.exports)}.")
        listed = json.loads(tools.run("nbdinfo", "--json", "--list", connection.export(1)).out)
        names = {export["export-name"]: export for export in listed["exports"]}
        cases.check({"toolsn1", "toolsn2"} <= set(names), f"nbdinfo --list: {sorted(names)}.")
        cases.check(listed["protocol"] == "newstyle-fixed", f"protocol {listed['protocol']}.")
        cases.check(listed["structured"], "no structured replies.")
        for nsid, size, block in ((1, 256 << 20, 512), (2, 1 << 40, 4096)):
            export = json.loads(tools.run("nbdinfo", "--json",
                                          connection.export(nsid)).out)["exports"][0]
            cases.check(export["export-size"] == size, f"size {export['export-size']}.")
            cases.check(not export["is_read_only"], "read-only, unasked.")
            for flag in ("can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero"):
                cases.check(export[flag], f"namespace {nsid} says not {flag}.")
            preferred = export.get("block_size_preferred", export.get("block_preferred", block))
            cases.check(preferred % block == 0, f"preferred block {preferred}.")
        # The bare NSID, and nothing for the first namespace.
        base = connection.export(2)
        for name, size in (("2", 1 << 40), ("1", 256 << 20), ("", 256 << 20)):
            told = tools.run("nbdinfo", "--size", base.replace("/toolsn2", "/" + name))
            cases.check(int(told.out) == size, f"export {name!r} has {told.out.strip()} bytes.")
        told = tools.workspace.run("nbdinfo", base.replace("/toolsn2", "/nowhere"))
        cases.check(told.status != 0, "an export that does not exist was given.")


def nbdcopy(tools, *options):
    with tools.served(*options) as connection:
        uri = connection.export(1)
        tools.run("nbdcopy", *IN_PARALLEL, "--flush", tools.data, uri)
        tools.copy_out_and_compare(uri)
        # From NBD to NBD, over itself, both directions at once.
        tools.run("nbdcopy", *IN_PARALLEL, uri, uri)
        tools.copy_out_and_compare(uri)


def block_4096(tools):
    with tools.served("-i", "2", spaces=(f"memory:{MEBIBYTES}M,block=4096",)) as connection:
        uri = connection.export(1)
        tools.run("nbdcopy", *IN_PARALLEL, tools.data, uri)
        tools.copy_out_and_compare(uri)


def over_tcp(tools):
    port = vm.free_ports(1)[0]
    with tools.served(nbd=f"tcp:127.0.0.1:{port}") as connection:
        uri = connection.export(1)
        cases.check(uri.startswith(f"nbd://127.0.0.1:{port}/"), f"the URI is {uri}.")
        tools.run("nbdcopy", *IN_PARALLEL, tools.data, uri)
        tools.copy_out_and_compare(uri)


def in_a_file(tools):
    """A namespace in a file: what a client wrote is there after both programs have ended."""
    path = tools.workspace.path("disk.img")
    with open(path, "wb") as disk:
        disk.truncate(SIZE)
    with tools.served(spaces=(f"file:{path}",)) as connection:
        tools.run("nbdcopy", *IN_PARALLEL, "--flush", tools.data, connection.export(1))
    cases.check(programs.same_bytes(path, tools.data), "the file holds other data.")
    with tools.served(spaces=(f"file:{path}",)) as connection:
        tools.copy_out_and_compare(connection.export(1))
    os.unlink(path)


def qemu_img(tools):
    with tools.served() as connection:
        uri = connection.export(1)
        told = json.loads(tools.run("qemu-img", "info", "--output=json", uri).out)
        cases.check(told["virtual-size"] == SIZE, f"qemu-img sees {told['virtual-size']} bytes.")
        tools.run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-m", "8", "-W",
                  tools.data, uri)
        tools.run("qemu-img", "compare", "-f", "raw", "-F", "raw", tools.data, uri)
        tools.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-m", "8", uri, tools.back)
        tools.run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", tools.data, tools.back)
        os.unlink(tools.back)


def extents(tools, how):
    """Where there is data: as nbdinfo and qemu-img see it; copies that keep the holes."""
    path = tools.workspace.path("sparse.img")
    if how == "file":
        with open(path, "wb") as disk:
            disk.truncate(SIZE)
    space = f"file:{path}" if how == "file" else f"memory:{MEBIBYTES}M"
    with tools.served(spaces=(space,)) as connection:
        uri = connection.export(1)

        def mapped():
            """[offset, end) of what nbdinfo says is data."""
            told = json.loads(tools.run("nbdinfo", "--json", "--map", uri).out)
            cases.check(sum(e["length"] for e in told) == SIZE, f"nbdinfo --map: {told}")
            for extent in told:
                cases.check(extent["type"] in (0, 3), f"nbdinfo --map: {extent}")
            return [(e["offset"], e["offset"] + e["length"]) for e in told if e["type"] == 0]

        cases.check(mapped() == [], f"of an empty disk nbdinfo says: {mapped()}")
        tools.run("qemu-io", "-f", "raw", "-c", "write -P 1 1M 1M", "-c", "write -P 2 100M 64k",
                  "-c", "write -P 3 255M 1M", uri)
        there = [(1 << 20, 2 << 20), (100 << 20, (100 << 20) + 65536), (255 << 20, 256 << 20)]
        cases.check(mapped() == there, f"nbdinfo says: {mapped()}")
        # A context is to be asked for; totals; what qemu makes of it.
        cases.check(tools.run("nbdinfo", "--list", uri).out.count("base:allocation") == 1,
                    "nbdinfo --list shows no context.")
        totals = tools.run("nbdinfo", "--map", "--totals", uri).out
        cases.check(str((2 << 20) + 65536) in totals, totals)
        told = json.loads(tools.run("qemu-img", "map", "-f", "raw", "--output=json", uri).out)
        data = [(e["start"], e["start"] + e["length"]) for e in told if e["data"]]
        cases.check(data == there, f"qemu-img map: {told}")
        # Copies that leave out the holes are the same, and as small.
        tools.run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, tools.back)
        tools.run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, tools.back)
        cases.check(os.stat(tools.back).st_blocks * 512 < 8 << 20, "the copy has no holes.")
        os.unlink(tools.back)
        tools.run("nbdcopy", *IN_PARALLEL, uri, tools.back)
        tools.run("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, tools.back)
        cases.check(os.stat(tools.back).st_blocks * 512 < 8 << 20, "the copy has no holes.")
        os.unlink(tools.back)
        # What is discarded or zeroed away is a hole again.
        tools.run("qemu-io", "-f", "raw", "-d", "unmap", "-c", "discard 1M 1M",
                  "-c", "write -z -u 255M 1M", uri)
        cases.check(mapped() == there[1:2], f"nbdinfo says: {mapped()}")
    if how == "file":
        os.unlink(path)


def qemu_io(tools, block):
    """Zeroes, discards, FUA, several requests in flight, parts of blocks."""
    with tools.served(spaces=(f"memory:{MEBIBYTES}M,block={block}",)) as connection:
        uri = connection.export(1)
        steps = ["write -P 0xa5 1M 4M", "write -z 2M 1M", "read -P 0 2M 1M", "read -P 0xa5 3M 2M",
                 "write -f -P 0x11 64k 4k", "discard 3M 1M", "read 3M 1M", "flush",
                 "write -P 0x22 1001k 3k", "read -P 0x22 1001k 3k", "read -P 0x11 64k 4k",
                 "aio_write -P 0x33 16M 8M", "aio_write -P 0x44 32M 8M", "aio_flush",
                 "read -P 0x33 16M 8M", "read -P 0x44 32M 8M",
                 "write -P 0x55 700 33", "read -P 0x55 700 33"]
        argv = ["qemu-io", "-f", "raw"]
        for step in steps:
            argv += ["-c", step]
        told = tools.run(*argv, uri)
        cases.check("ailed" not in told.out + told.err, told.out + told.err)


def fio_verify(tools):
    """Random sizes, several jobs at once, each block with a checksum that fio itself verifies."""
    with tools.served("-i", "4") as connection:
        common = ["fio", "--output-format=json", "--ioengine=nbd", f"--uri={connection.export(1)}",
                  "--verify=crc32c", "--verify_state_save=0", "--verify_fatal=1", "--group_reporting", "--numjobs=4",
                  "--iodepth=16", "--size=24M", "--offset_increment=32M"]
        report = tools.workspace.path("fio.json")
        tools.run(*common, "--name=mixed", "--rw=randwrite", "--do_verify=1",
                  "--bsrange=4k-256k", "--blockalign=4k", f"--output={report}")
        with open(report) as text:
            lines = text.read()
        job = json.loads(lines[lines.index("{"):])["jobs"][0]
        cases.check(job["error"] == 0, f"fio reports error {job['error']}.")
        cases.check(job["write"]["io_bytes"] >= 4 * (24 << 20) * 0.9,
                    f"fio wrote {job['write']['io_bytes']} bytes.")
        cases.check(job["read"]["io_bytes"] > 0, "fio read nothing back.")
        tools.run(*common, "--name=seq", "--rw=write", "--bs=1M", "--do_verify=1",
                  "--fsync=8")


def read_only(tools):
    with tools.served("--read-only") as connection:
        uri = connection.export(1)
        export = json.loads(tools.run("nbdinfo", "--json", uri).out)["exports"][0]
        cases.check(export["is_read_only"], "the export does not say that it is read-only.")
        told = tools.workspace.run("qemu-io", "-f", "raw", "-c", "write 0 4k", uri)
        cases.check(told.status != 0 or "ailed" in told.out + told.err, "a write succeeded.")


def in_the_background(tools):
    """`nvmf-connect` returns when the export is ready, letting go of its caller's pipes."""
    with programs.Target(tools.workspace, {NQN: ["--namespace", "memory:64M"]}) as target:
        command = [tools.workspace.program("nvmf-connect"), target.uris[NQN],
                   "-q", programs.HOST_NQN, "-I", programs.HOST_ID]
        script = 'set -e; line=$("$@"); echo "$line"; nbdinfo --size "${line#* }"'
        told = tools.run("bash", "-c", script, "bash", *command, limit=60)
        cases.check(told.out.startswith("nvmf0n1 nbd+unix:///nvmf0n1?socket="), told.out)
        cases.check(str(64 << 20) in told.out, told.out)
        mode = os.stat(tools.workspace.runtime).st_mode & 0o777
        cases.check(mode == 0o700, f"the runtime directory has mode {mode:o}.")
        told = tools.run("nvmf", "list")
        cases.check("nvmf0" in told.out, f"nvmf list printed:\n{told.out}")
        tools.run("nvmf", "disconnect", "nvmf0")
    tools.workspace.check_nothing_left()


def while_command_runs(tools):
    with programs.Target(tools.workspace, {NQN: ["--namespace", "memory:64M"]}) as target:
        base = ["nvmf-connect", target.uris[NQN], "-q", programs.HOST_NQN, "-I",
                programs.HOST_ID, "--run"]
        told = tools.run(*base, 'nbdinfo --size "$uri"')
        cases.check(told.out.strip().endswith(str(64 << 20)), told.out)
        status = tools.workspace.run(*base, "exit 7").status
        cases.check(status == 7, f"`exit 7` became status {status}.")
    tools.workspace.check_nothing_left()


def run_all(tools, counted, io):
    everything = [
        ("nbdinfo", nbdinfo, ()),
        (f"nbdcopy, {CONNECTIONS} connections, unix socket", nbdcopy, ("-i", "4")),
        ("nbdcopy, digests", nbdcopy, ("-g", "-G")),
        ("nbdcopy, one I/O queue, no SQ flow control", nbdcopy, ("-i", "1", "-d")),
        ("nbdcopy, blocks of 4096", block_4096, ()),
        ("nbdcopy, TCP socket", over_tcp, ()),
        ("nbdcopy, namespace in a file", in_a_file, ()),
        ("qemu-img info, convert, compare", qemu_img, ()),
        ("where there is data, in memory", extents, ("memory",)),
        ("where there is data, in a file", extents, ("file",)),
        ("qemu-io, blocks of 512", qemu_io, (512,)),
        ("qemu-io, blocks of 4096", qemu_io, (4096,)),
        ("fio --verify=crc32c", fio_verify, ()),
        ("--read-only", read_only, ()),
        ("in the background", in_the_background, ()),
        ("--run", while_command_runs, ()),
    ]
    for name, function, arguments in everything:
        counted.run(f"{io}: {name}", function, tools, *arguments)


def check_fio():
    """Debian's fio has the nbd engine; one built by hand may not."""
    with os.popen(f"{cases.find_program('fio')} --enghelp") as told:
        if "nbd" not in told.read().split():
            raise cases.Lacking("this fio has no nbd engine: install Debian's package fio.")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/release/bin", help="folder with our programs")
    parser.add_argument("--io", action="append", choices=("io_uring", "epoll"),
                        help="only this event loop")
    parser.add_argument("--only", action="append", help="only cases whose names contain this")
    options = parser.parse_args()
    counted = cases.Cases(options.only)

    def body():
        check_fio()
        for io in options.io or ("io_uring", "epoll"):
            with programs.Workspace(options.bin, io) as workspace:
                for name in ("nvmf-target", "nvmf-connect", "nvmf", "nbdinfo", "nbdcopy",
                             "qemu-img", "qemu-io", "fio"):
                    workspace.program(name)
                counted.after_failure = workspace.sweep
                data = programs.random_file(workspace.path("data"), SIZE)
                run_all(Tools(workspace, data), counted, io)

    return cases.run_script(body, counted, LIMIT)


if __name__ == "__main__":
    sys.exit(main())
