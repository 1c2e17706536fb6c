#!/usr/bin/env python3
"""nvmf-connect as a service: configuration files, and what a service manager hands to it and hears
of it. This script plays systemd; its own programs look at the units where they are installed.
Prints `N passed, N failed`."""

import argparse
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import cases  # noqa: E402
import nbd_client  # noqa: E402
import programs  # noqa: E402
import vm  # noqa: E402
from cases import check  # noqa: E402
from scene import NQN, Scene  # noqa: E402

SCRIPT_LIMIT = 560
PATIENCE = 40
WATCHDOG = 3  # seconds; the next word is due in half of that


class Manager:
    """The end of systemd's that hears: a datagram socket, and what came, by variable."""

    def __init__(self, space):
        self.path = space.path("notify.sock")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.heard = []  # (variable, value, time)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        os.unlink(self.path)

    def listen(self, seconds):
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                message = self.socket.recv(65536).decode()
            except (socket.timeout, TimeoutError):
                return
            for line in message.split("\n"):
                variable, _, value = line.partition("=")
                self.heard.append((variable, value, time.monotonic()))

    def values(self, variable):
        return [value for name, value, _ in self.heard if name == variable]

    def hears(self, variable, part=""):
        def come():
            self.listen(0.05)
            return any(part in value for value in self.values(variable))
        cases.wait_until(come, PATIENCE, f"{variable}=…{part}… (of {self.heard[-5:]})", 0)


class Service(Scene):
    """A target, and a folder of configuration files."""

    def __init__(self, bin_folder):
        super().__init__(bin_folder, None, namespaces=("memory:16M", "memory:16M"))
        self.folder = self.space.path("etc")
        os.makedirs(self.folder, exist_ok=True)
        self.environment = {"NVMF_CONFIG_DIR": self.folder}

    def config(self, name, *lines, folder=None, address=True):
        path = os.path.join(folder or self.folder, name + ".conf")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as out:
            out.write("".join(line + "\n" for line in
                              ([f"address = {self.uri}"] if address else []) + list(lines)))
        os.chmod(path, 0o644)
        return path

    def serve(self, *argv, lines=2, environment=None):
        return programs.Server(self.space, ["nvmf-connect", "--foreground", *argv],
                               programs.NAMESPACE_LINE.pattern, lines,
                               environment or self.environment)

    def refused(self, *argv, environment=None):
        told = self.space.run("nvmf-connect", "--foreground", *argv, limit=20,
                              environment=environment or self.environment)
        check(told.status == 2 and not told.out, f"`{told.command}` exited {told.status}")
        return told.err


def names_and_values(service):
    """The file's options are the connection's, and so is its name; a repeated key counts again."""
    first, second = service.space.path("one.sock"), service.space.path("two, and # more.sock")
    service.config("vol", "# a comment", "; another", "", f'nbd = unix:{first}', "read-only",
                   f'nbd = "unix:{second}"', "nr-io-queues=1", "verbose = false")
    with service.serve("--config", "vol") as served:
        check([match[1] for match in served.matches] == ["voln1", "voln2"], "other names")
        check(first in served.matches[0][2], served.matches[0][2])
        check(os.path.exists(second), "the second nbd line was not heard")
        told = service.space.run("nbdinfo", served.matches[0][2]).must_succeed().out
        check("is_read_only: true" in told, told)


def overridden(service):
    """The command line wins; an address there stands for all of the file's."""
    service.config("vol", "traddr = 192.0.2.1", "trsvcid = 1", "nqn = nqn.2024-05.org.example:no",
                   "name = other", "read-only = true", "nr-io-queues = 3", address=False)
    with service.serve(service.uri, "--config", "vol", "--name", "mine", "-i", "1") as served:
        check(served.matches[0][1] == "minen1", served.matches[0][1])
        told = service.space.run("nvmf", "list", "-o", "json").must_succeed().out
        check('"minen1"' in told or '"mine"' in told, told)
    host, port = service.uri.split("//")[1].split("/")[0].split(":")
    service.config("vol", "address = nvme+tcp://192.0.2.1/nqn.2024-05.org.example:no",
                   address=False)
    with service.serve("--config=vol", "-t", "tcp", "-a", host, "-s", port, "-n", NQN) as served:
        check(served.matches[0][1] == "voln1", served.matches[0][1])


def places_of_files(service):
    """A user's own, the system's, a path; and what is said where there is none."""
    home = service.space.environment["HOME"]
    own = {"NVMF_CONFIG_DIR": "", "XDG_CONFIG_HOME": ""}
    service.config("homely", folder=os.path.join(home, ".config/nvmf"))
    with service.serve("--config", "homely", environment=own) as served:
        check(served.matches[0][1] == "homelyn1", served.matches[0][1])
    xdg = service.space.path("xdg")
    service.config("there", folder=os.path.join(xdg, "nvmf"))
    with service.serve("--config", "there", environment=dict(own, XDG_CONFIG_HOME=xdg)):
        pass
    path = service.config("elsewhere", folder=service.space.path("else"))
    with service.serve("--config", path) as served:
        check(served.matches[0][1] == "nvmf0n1", served.matches[0][1])
    said = service.refused("--config", "nowhere", environment=own)
    check("/etc/nvmf/nowhere.conf" in said and ".config/nvmf/nowhere.conf" in said, said)
    check("No such file" in (said := service.refused("--config", "./nowhere.conf")), said)
    check("folder" in (said := service.refused("--config", service.folder + "/")), said)
    service.refused("--config", "a b")


def mistakes(service):
    """Each with the file and the line."""
    for line, words in (("ctrl_loss_tmo = 5", "there is no option \"ctrl_loss_tmo\""),
                        ("i = 1", "there is no option \"i\""),
                        ("config = other", "there is no option"),
                        ("help", "there is no option"),
                        ("--read-only", "there is no option"),
                        ("nr-io-queues = many", "many"),
                        ("read-only = perhaps", "true or false"),
                        ("nqn =", "no value"),
                        ("[connection]", "sections"),
                        ("nr-io-queues", ""),
                        ("nbd = unix", "no place for NBD")):
        path = service.config("wrong", "# first", line)
        said = service.refused("--config", "wrong")
        check(path in said and words in said, f"{line}: {said}")
        if "NBD" not in words:
            check(f"{path} line 3" in said, f"{line}: {said}")
    with open(service.config("binary"), "ab") as out:
        out.write(b"name = \xff\0\n")
    check("line 2" in (said := service.refused("--config", "binary")), said)
    with open(service.config("long"), "ab") as out:
        out.write(b"# \n" * 30000)
    check("longer than" in (said := service.refused("--config", "long")), said)
    check("no regular file" in (said := service.refused("--config", "/dev/zero")), said)
    if os.geteuid() == 0:
        os.chmod(service.config("open"), 0o666)
        check("others than root" in (said := service.refused("--config", "open")), said)


def told_to_the_manager(service):
    """READY when it serves, its state in words, WATCHDOG in time, STOPPING."""
    service.config("vol", "reconnect-delay = 1", "ctrl-loss-tmo = 60")
    with Manager(service.space) as manager:
        environment = dict(service.environment, NOTIFY_SOCKET=manager.path,
                           WATCHDOG_USEC=str(WATCHDOG * 1_000_000))
        with service.serve("--config", "vol", environment=environment) as served:
            manager.hears("READY", "1")
            manager.hears("STATUS", "live")
            check("NotifyAccess" not in served.errors(), served.errors())
            begin = time.monotonic()
            manager.listen(2 * WATCHDOG + 0.5)
            times = [at for name, _, at in manager.heard if name == "WATCHDOG" and at > begin]
            gaps = [b - a for a, b in zip([begin] + times, times)]
            check(len(times) >= 3 and max(gaps) < WATCHDOG, f"WATCHDOG came after {gaps}")
            service.kill_target()
            manager.hears("STATUS", "lost")
            service.restart_target()
            cases.wait_until(lambda: (manager.listen(0.05), "live" in manager.values("STATUS")[-1])[1],
                             PATIENCE, "the word that it is live again", 0)
            check(manager.values("READY") == ["1"], "READY came twice")
        manager.hears("STOPPING", "1")
        manager.listen(0.2)
        check(manager.values("STOPPING") == ["1"], f"{manager.heard[-5:]}")
        # One that cannot connect says so, and is never ready.
        service.config("gone", "address = nvme+tcp://127.0.0.1:1/" + NQN, address=False)
        manager.heard.clear()
        told = service.space.run("nvmf-connect", "--config", "gone", "--foreground",
                                 environment=environment)
        manager.listen(0.2)
        check(told.status == 1 and not manager.values("READY"), f"{told.status} {manager.heard}")


def manager_that_does_not_read(service):
    """It may wait for a disk that is served here: nothing waits for it."""
    with Manager(service.space) as manager:
        environment = dict(service.environment, NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="400000")
        service.config("vol", "reconnect-delay = 1")
        with service.serve("--config", "vol", environment=environment):
            time.sleep(4)  # its socket is full after ten messages
        manager.hears("READY", "1")
        manager.listen(0.2)
        check(manager.values("READY") == ["1"], f"{manager.heard}")


def handed(service, sockets, *argv, lines=2):
    """nvmf-connect with descriptors from 3 on, as systemd starts it."""
    def place():
        vm.die_with_parent()
        kept = [os.dup2(one.fileno(), 100 + i) for i, one in enumerate(sockets)]
        for i, fd in enumerate(kept):
            os.dup2(fd, 3 + i, inheritable=True)
            os.close(fd)
    program = service.space.program("nvmf-connect")
    command = ["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$0" "$@"', program, "--foreground", *argv]
    environment = dict(service.space.environment, LISTEN_FDS=str(len(sockets)),
                       **service.environment)
    process = subprocess.Popen(command, env=environment, preexec_fn=place, close_fds=False,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    return process, [process.stdout.readline().split() for _ in range(lines)]


def listening(path):
    made = socket.socket(socket.AF_UNIX)
    made.bind(path)
    made.listen(16)
    return made


def socket_activation(service):
    """The manager's socket is served, and stays when the connection ends; clients that came before
    are served, too."""
    path, other = service.space.path("activated.sock"), service.space.path("other.sock")
    service.config("vol")
    tcp = socket.create_server(("127.0.0.1", 0))
    with listening(path) as unix, tcp:
        for _ in range(2):  # a second start gets the same socket
            early = nbd_client.Client(path, "voln1")
            process, lines = handed(service, [unix, tcp], "--config", "vol")
            try:
                check(lines and lines[0][:1] == ["voln1"], f"{lines} {process.poll()}")
                check(path in lines[0][1], f"{lines}")
                with early.go() as client:
                    client.write(0, b"x" * 512)
                uri = f"nbd://127.0.0.1:{tcp.getsockname()[1]}/voln2"
                service.space.run("nbdinfo", uri).must_succeed()
                found = [name for name in os.listdir(service.space.runtime) if "nbd" in name]
                check(not found, f"it also made {found}")
            finally:
                process.terminate()
                _, errors = process.communicate(timeout=20)
            check(process.returncode == 0, f"it ended with {process.returncode}: {errors}")
            check(os.path.exists(path), "the manager's socket was removed")
        process, _ = handed(service, [unix], "--config", "vol", "--nbd", f"unix:{other}")
        check(os.path.exists(other), "--nbd was not served beside the manager's socket")
        process.terminate()
        process.communicate(timeout=20)
        check(not os.path.exists(other) and os.path.exists(path), "the wrong socket was removed")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams, \
            socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0nvmf-service-test-{os.getpid()}")
        abstract.listen()
        for one, says in ((datagrams, "no listening stream socket"),
                          (abstract, "an abstract unix socket, which no NBD URI can name")):
            process, _ = handed(service, [one], "--config", "vol", lines=0)
            _, errors = process.communicate(timeout=20)
            check(process.returncode == 1 and says in errors, errors)


def activated_by_systemd(service):
    """The same by systemd's own hand, where it is installed."""
    program = shutil.which("systemd-socket-activate")
    if program is None:
        print("       left out, there is no systemd-socket-activate", flush=True)
        return
    path = service.space.path("by-systemd.sock")
    service.config("vol")
    passed = [f"--setenv={name}={value}" for name, value in
              dict(service.space.environment, **service.environment).items()
              if name.startswith(("NVMF", "HOME", "TMPDIR"))]
    process = subprocess.Popen(
        [program, "-l", path, *passed, service.space.program("nvmf-connect"), "--config", "vol",
         "--foreground"], env=dict(service.space.environment, **service.environment),
        preexec_fn=vm.die_with_parent, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    def come():
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):  # it does not listen yet
            return nbd_client.Client(path, "voln1")
        return None
    try:
        with cases.wait_until(come, PATIENCE, "somebody listening").go() as client:
            client.write(4096, b"y" * 512)
            check(client.read(4096, 512) == b"y" * 512, "other data")
    finally:
        process.terminate()
        check(process.wait(20) == 0, f"it ended with {process.returncode}")


def units(service, folder):
    """systemd's own opinion of the units."""
    program = shutil.which("systemd-analyze")
    if program is None:
        print("       left out, there is no systemd-analyze", flush=True)
        return
    for whose, count in (("system", 3), ("user", 2)):
        here = service.space.path(f"units-{whose}")
        os.makedirs(here)
        for name in os.listdir(os.path.join(folder, whose)):
            with open(os.path.join(folder, whose, name)) as unit:
                text = unit.read()
            with open(os.path.join(here, name.replace("@", "@vol")), "w") as out:
                out.write("\n".join("ExecStart=/bin/true" if line.startswith("ExecStart=") else line
                                    for line in text.split("\n")))
        names = sorted(os.path.join(here, name) for name in os.listdir(here))
        check(len(names) == count, f"{names}")
        told = service.space.run(program, "verify", "--man=no", f"--{whose}", *names,
                                 environment={"XDG_RUNTIME_DIR": service.space.folder})
        said = [line for line in told.err.splitlines() if "nvmf" in line]
        check(told.status == 0 and not said, f"{whose}: {told.status} {told.err}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--units", required=True, help="folder with the units of this build")
    parser.add_argument("--only", action="append", help="only cases whose names contain this")
    options = parser.parse_args()
    counted = cases.Cases(options.only)

    def body():
        with Service(options.bin) as service:
            counted.after_failure = lambda: None
            for name, function, *more in (
                    ("names and values", names_and_values), ("overridden", overridden),
                    ("places of files", places_of_files), ("mistakes", mistakes),
                    ("told to the manager", told_to_the_manager),
                    ("a manager that does not read", manager_that_does_not_read),
                    ("socket activation", socket_activation),
                    ("activated by systemd", activated_by_systemd),
                    ("units", units, options.units)):
                counted.run(name, function, service, *more)

    return cases.run_script(body, counted, SCRIPT_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
