#!/usr/bin/env python3
"""A machine boots from a remote namespace: QEMU opens the NBD export of nvmf-connect, and its BIOS
loads what is on the disk. The boot record was made for this test: it reads a piece from the end of
the disk and writes it to the serial port."""

import argparse
import os
import subprocess
import sys

import cases
import programs
import vm

LIMIT = 560
MEBIBYTES = 64
NQN = "nqn.2024-05.org.example:boots"
PIECE_BYTES = 32 * 1024
WORDS = "booted from a remote namespace"
SECTOR = 512


def boot_record(lba, sectors):
    """Code for the BIOS, in 16 bits: loads `sectors` from `lba` on, and sends their text."""
    load = bytes.fromhex("fa31c08ed88ed0bc007cfbfc")  # segments 0, a stack below 7c00h, DF=0
    packet_at = 0x7C00 + 0x60
    read = b"\xbe" + packet_at.to_bytes(2, "little") + bytes.fromhex("b442cd13")  # int 13h, AH=42h
    send = bytes.fromhex("ac84c0741488c3"      # lodsb; until it is 0
                         "bafd03eca82074f8"    # wait until the port takes a byte
                         "88d8baf803eeebe9")   # send it
    failed = bytes.fromhex("b021baf803ee")      # '!'
    halt = bytes.fromhex("f4ebfd")
    start = b"\xbe\x00\x80"                    # from 8000h
    jump = b"\x72" + bytes([len(start) + len(send)])  # jc failed
    code = load + read + jump + start + send + failed + halt
    # Its `jz` is to go to halt, past `failed`.
    at = code.index(bytes.fromhex("84c074")) + 3
    code = code[:at] + bytes([len(code) - len(halt) - (at + 1)]) + code[at + 1:]
    packet = bytes([16, 0]) + sectors.to_bytes(2, "little") + (0x8000).to_bytes(2, "little") + \
        b"\0\0" + lba.to_bytes(8, "little")
    assert len(code) <= 0x60
    return code.ljust(0x60, b"\0") + packet.ljust(SECTOR - 0x60 - 2, b"\0") + b"\x55\xaa"


def disk(path):
    text = "\n".join(f"{n}: {WORDS}" for n in range(100_000))[:PIECE_BYTES - 1].encode() + b"\0"
    lba = (MEBIBYTES << 20) // SECTOR - PIECE_BYTES // SECTOR
    with open(path, "wb") as image:
        image.write(boot_record(lba, PIECE_BYTES // SECTOR))
        image.seek(lba * SECTOR)
        image.write(text)
    return text[:-1].decode()


class Machine:
    def __init__(self, workspace, uri):
        self.said_in = workspace.path("serial")
        self.process = subprocess.Popen(
            [cases.find_program("qemu-system-x86_64"), "-accel", "tcg,thread=single", "-m", "64",
             "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none",
             "-serial", f"file:{self.said_in}",
             "-drive", f"file={uri},format=raw,if=virtio"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=vm.die_with_parent)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def said(self):
        if self.process.poll() is not None:
            raise cases.Failed(f"qemu ended: {self.process.communicate()[0]}")
        if not os.path.exists(self.said_in):
            return ""
        with open(self.said_in, errors="replace") as text:
            return text.read()

    def boots(self, text, limit=200):
        cases.wait_until(lambda: text in self.said(), limit, "what the disk has to say")


def boots(workspace):
    image = workspace.path("image")
    text = disk(image)
    namespace = workspace.path("namespace")
    with open(namespace, "wb") as file:
        file.truncate(MEBIBYTES << 20)
    with programs.Target(workspace, {NQN: ["--namespace", f"file:{namespace}"]}) as target, \
            programs.Connection(workspace, target.uris[NQN], "-i", "2") as connection:
        workspace.run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image,
                      connection.export(1)).must_succeed()
        with Machine(workspace, connection.export(1)) as machine:
            machine.boots(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/release/bin", help="folder with our programs")
    parser.add_argument("--only", action="append", help="only cases whose names contain this")
    options = parser.parse_args()
    counted = cases.Cases(options.only)

    def body():
        for io in ("io_uring", "epoll"):
            with programs.Workspace(options.bin, io) as workspace:
                counted.run(f"{io}: a machine boots from the export", boots, workspace)

    return cases.run_script(body, counted, LIMIT)


if __name__ == "__main__":
    sys.exit(main())
