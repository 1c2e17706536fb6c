#!/usr/bin/env python3
"""Boots Debian's kernel in QEMU, without KVM, as an NVMe/TCP target (nvmet) or as a host (nvme-tcp
with nvme-cli), and runs commands inside. Used by the tests of this folder; by hand:

  tests/interop/vm.py target                    serve until Ctrl-C, print the URIs
  tests/interop/vm.py target --run 'COMMAND'    COMMAND on this machine, with $port set
  tests/interop/vm.py host --run-inside 'nvme discover -t tcp -a 10.0.2.2 -s 4420'
  tests/interop/vm.py exec CONTROL 'dmesg | tail'   in a machine that is running

Inside a host machine, programs on this machine's loopback are at 10.0.2.2.
NVMF_VM_ACCEL=kvm takes the place of emulation where KVM works."""

import argparse
import base64
import contextlib
import ctypes
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import cases
import initramfs
import kernel as kernels
import nvmet
import wire

# thread=multi has panicked in QEMU 7.2; a single thread never has, and is no slower.
DEFAULT_ACCEL = "tcg,thread=single"
BOOT_LIMIT = 180
RUN_LIMIT = 60  # for what takes a moment, in an emulated machine, on a busy one
MEMORY = 768
READY_LINE = "nvmf-vm: ready"
START_TRIES = 3
ANSWER_GRACE = 20  # emulated processors are slow to notice that a time limit is over
LIBC = ctypes.CDLL(None, use_errno=True)  # before any fork: another thread may hold the loader's lock
PR_SET_PDEATHSIG = 1
EPHEMERAL_FIRST = 32768  # at most; below it, the kernel gives out no port of its own accord
PORT_FIRST = 20000


class VmError(cases.Failed):
    """The machine did not start, died, or a command in it failed; carries the end of its log."""


def free_ports(count, address="127.0.0.1"):
    """Ports that nobody listens on, and that nobody else takes while nobody listens there: neither
    whoever asks for a free one, nor a connection. Held all at once, so that none is given twice."""
    with contextlib.ExitStack() as held:
        found = []
        while len(found) < count:
            port = random.randrange(PORT_FIRST, EPHEMERAL_FIRST)
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind((address, port))
                found.append(port)
        return found


def die_with_parent():
    """For preexec_fn: the child ends even when this script is killed with SIGKILL."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Control:
    """The remote control of a machine: its second serial port. Serves one client at a time."""

    def __init__(self, path):
        self._link = socket.socket(socket.AF_UNIX)
        self._link.settimeout(5)
        try:
            self._link.connect(path)
        except BaseException:
            self._link.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._link.close()

    def send(self, text, limit):
        """Runs `text` as a shell script inside. Returns (exit status, output); a command over its
        limit is killed inside and has status 137. Raises TimeoutError if the machine itself does
        not answer."""
        identifier = secrets.token_hex(8)
        script = base64.b64encode(text.encode()).decode()
        begin, end = f"@begin {identifier}\n".encode(), f"@end {identifier} ".encode()
        deadline = time.monotonic() + limit + ANSWER_GRACE
        self._link.sendall(f"{identifier} {int(limit)} {script}\n".encode())
        received = b""
        while True:
            position = received.find(end)
            if position >= 0 and b"\n" in received[position:]:
                break
            self._link.settimeout(max(0.1, deadline - time.monotonic()))
            piece = self._link.recv(65536)
            if not piece:
                raise ConnectionError("the machine ended while it ran a command")
            received += piece
        body = received[received.index(begin) + len(begin):position]
        status = int(received[position + len(end):].split(b"\n")[0])
        return status, base64.b64decode(body).decode(errors="replace")


class Vm:
    """One machine. `with Vm("host") as vm:` boots it and always ends it."""

    def __init__(self, role, forward=(), programs=(), memory=MEMORY, processors=1, more=()):
        self._role = role
        self._more = tuple(more)  # files, as initramfs.build() takes them
        self._forward = tuple(forward)
        self._programs = tuple(programs)
        self._memory = memory
        self._processors = processors  # the kernel's host makes no more I/O queues than these
        self._process = None
        self._folder = None
        self._link = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def pid(self):
        return self._process.pid if self._process else None

    @property
    def control(self):
        """The socket that `vm.py exec` takes; it serves one client at a time: see release()."""
        return os.path.join(self._folder, "control")

    @property
    def log_path(self):
        return os.path.join(self._folder, "console.log")

    def log(self):
        try:
            with open(self.log_path, errors="replace") as text:
                return text.read()
        except OSError:
            return ""

    def _command_line(self, kernel, archive):
        network = "user,id=net0"
        if self._forward:
            network += ",restrict=on"  # a target has no business outside
        for port in self._forward:
            network += f",hostfwd=tcp:127.0.0.1:{port}-127.0.0.1:{port}"
        accel = os.environ.get("NVMF_VM_ACCEL") or DEFAULT_ACCEL
        return [
            cases.find_program("qemu-system-x86_64"), "-accel", accel, "-cpu", "max",
            "-m", str(self._memory), "-smp", str(self._processors), "-nodefaults",
            "-no-user-config", "-display", "none",
            "-monitor", "none", "-no-reboot", "-kernel", kernel.image, "-initrd", archive,
            "-append", "console=ttyS0 panic=-1 tsc=unstable quiet loglevel=4",
            "-serial", f"file:{self.log_path}",
            "-chardev", f"socket,id=control,path={self.control},server=on,wait=off",
            "-serial", "chardev:control",
            "-netdev", network, "-device", "virtio-net-pci,netdev=net0,romfile=",
            "-object", "rng-random,id=rng0,filename=/dev/urandom",
            "-device", "virtio-rng-pci,rng=rng0",
        ]

    def start(self):
        kernel = kernels.find_kernel()
        archive = initramfs.build(self._role, kernel, self._programs, self._more)
        self._folder = tempfile.mkdtemp(prefix="nvmf-vm-")
        with open(os.path.join(self._folder, "qemu.err"), "wb") as errors:
            self._process = subprocess.Popen(
                self._command_line(kernel, archive), stdin=subprocess.DEVNULL, stdout=errors,
                stderr=errors, preexec_fn=die_with_parent)
        deadline = time.monotonic() + BOOT_LIMIT
        while READY_LINE not in self.log():
            self._check_alive()
            if time.monotonic() > deadline:
                raise VmError(f"the {self._role} machine was not up after {BOOT_LIMIT} s.\n"
                              + self.last_words())
            time.sleep(0.05)
        self.run("true")

    def last_words(self):
        with open(os.path.join(self._folder, "qemu.err"), errors="replace") as errors:
            said = errors.read().strip()
        return "\n".join(([said] if said else []) + self.log().splitlines()[-25:])

    def _check_alive(self):
        if self._process.poll() is not None:
            raise VmError(f"the {self._role} machine ended with status "
                          f"{self._process.returncode}.\n{self.last_words()}")

    def attempt(self, text, limit=RUN_LIMIT):
        """Runs `text` inside; returns (exit status, output) whatever the status."""
        self._check_alive()
        try:
            if self._link is None:
                self._link = Control(self.control)
            return self._link.send(text, limit)
        except OSError as problem:
            self._check_alive()
            raise VmError(f"the {self._role} machine gave no answer to `{text.strip()}` within "
                          f"{limit} s: {problem}.\n{self.last_words()}") from problem

    def run(self, text, limit=RUN_LIMIT):
        """Runs `text` inside; returns its output, raises VmError unless it exits 0."""
        status, output = self.attempt(text, limit)
        if status != 0:
            reason = f"took over {limit} s" if status == 137 else f"exited {status}"
            raise VmError(f"in the {self._role} machine, `{text.strip()}` {reason}:\n{output}")
        return output

    def release(self):
        """Lets go of the control socket, so that somebody else may use it."""
        if self._link:
            self._link.close()
            self._link = None

    def wait_ended(self, limit):
        """The machine ends by itself within the limit; its log can still be read."""
        self.release()
        try:
            self._process.wait(limit)
        except subprocess.TimeoutExpired:
            raise VmError(f"the {self._role} machine did not end within {limit} s.\n"
                          + self.last_words()) from None

    def stop(self):
        self.release()
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


class TargetVm(Vm):
    """A machine whose kernel serves `subsystems` by NVMe/TCP. `port` offers the kernel's own
    in-capsule size, `small_port` only SMALL_IN_CAPSULE bytes of it."""

    # nvmet cannot take the data of Connect (1024 bytes) with less.
    SMALL_IN_CAPSULE = 1024

    def __init__(self, subsystems=None, ports=None):
        self._subsystems = subsystems or nvmet.standard_layout()
        self._asked_ports = ports
        super().__init__("target")

    def start(self):
        for attempt in range(1, START_TRIES + 1):
            self.port, self.small_port = self._asked_ports or free_ports(2)
            self._forward = (self.port, self.small_port)
            try:
                super().start()
                break
            except VmError as problem:
                # Between choosing a port and QEMU's listening, somebody else may take it.
                self.stop()
                if "host forwarding" not in str(problem) or attempt == START_TRIES:
                    raise
        names = tuple(subsystem.nqn for subsystem in self._subsystems)
        ports = (nvmet.Port(self.port, names),
                 nvmet.Port(self.small_port, names, self.SMALL_IN_CAPSULE))
        self.run(nvmet.setup_commands(self._subsystems, ports))
        # A forwarded port accepts before the guest listens: only an ICResp is proof.
        for port in self._forward:
            cases.wait_until(lambda: wire.answers_icreq("127.0.0.1", port), RUN_LIMIT,
                             f"an ICResp from the kernel's target on port {port}")

    def uri(self, nqn, port=None):
        return f"nvme+tcp://127.0.0.1:{port or self.port}/{nqn}"


def _serve_by_hand(vm, options):
    started = time.monotonic()
    with vm:
        print(f"up after {time.monotonic() - started:.1f} s; control socket {vm.control}; "
              f"console {vm.log_path}", flush=True)
        vm.release()
        environment = dict(os.environ, control=vm.control)
        if isinstance(vm, TargetVm):
            environment.update(port=str(vm.port), small_port=str(vm.small_port))
            for nqn in (nvmet.OPEN_NQN, nvmet.CLOSED_NQN):
                print(vm.uri(nqn), flush=True)
        if options.run_inside:
            status, output = vm.attempt(options.run_inside, options.limit)
            print(output, end="")
            return status
        if options.run:
            return subprocess.run(options.run, shell=True, env=environment).returncode
        while True:
            vm._check_alive()
            time.sleep(0.5)


def _parse():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for role in ("target", "host"):
        verb = verbs.add_parser(role, help=f"boot a machine in the role of {role}")
        verb.add_argument("--run", help="a shell command on this machine, instead of waiting")
        verb.add_argument("--run-inside", help="a shell command inside, instead of waiting")
        verb.add_argument("--limit", type=int, default=120, help="seconds for --run-inside")
        if role == "target":
            verb.add_argument("--port", type=int, nargs=2, metavar=("PORT", "SMALL"),
                              help="TCP ports: usual and 1024 bytes of in-capsule data")
            verb.add_argument("--size", type=int, default=64, help="MiB per namespace")
        else:
            verb.add_argument("--program", action="append", default=[],
                              help="a program to put into /usr/bin of the machine (repeatable)")
    verb = verbs.add_parser("exec", help="run a command in a machine that is running")
    verb.add_argument("control", help="the control socket that the machine was started with")
    verb.add_argument("command")
    verb.add_argument("--limit", type=int, default=60, help="seconds")
    return parser.parse_args()


def main():
    options = _parse()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    try:
        if options.verb == "exec":
            with Control(options.control) as link:
                status, output = link.send(options.command, options.limit)
            print(output, end="")
            return status
        if options.verb == "target":
            vm = TargetVm(nvmet.standard_layout(options.size), options.port)
        else:
            vm = Vm("host", programs=options.program)
        return _serve_by_hand(vm, options)
    except KeyboardInterrupt:
        return 0
    except (cases.Failed, cases.Lacking, OSError) as problem:
        print(f"vm: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
