#!/usr/bin/env python3
"""Our units and the lines for /etc/fstab of nvmf.conf(5) under Debian's systemd, as process 1 of a
machine with Debian's kernel: a file system on /dev/nbd0 is mounted at boot, goes on while the service
is killed and while it hangs, and is unmounted before the service ends. The target is outside."""

import argparse
import contextlib
import os
import re
import shutil
import sys

import cases
import kernel_nbd_test
import programs
import service_root
import trouble
import vm

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMIT = 560
PATIENCE = 120  # for what takes seconds
MEBIBYTES = 64
SERVICE, MOUNT, PLACE = "nvmf-connect@vol.service", "srv-vol.mount", "/srv/vol"
USER_NQN, FILES_NQN = "nqn.2024-05.org.example:mine", "nqn.2024-05.org.example:files"
HELLO = "from the image\n"
FILES_FOLDER = "d /run/files 0700 root root"  # as the manual says, in a sentence
WATCHDOG = 10  # 30 in the unit
# After a kill, writes wait for as long as the target may execute old ones; by default for 25 s.
HELD_SHORTLY = "keep-alive-tmo = 2\ncqt = 1\n"


def literal_behind(text, words):
    """The literal block of a manual page that follows `words`, as it is to be typed."""
    match = re.compile(re.escape(words) + r"\n\.Bd -literal[^\n]*\n(.*?)\n\.Ed", re.DOTALL).search(text)
    cases.check(match, f"nvmf.conf(5) has no block behind {words!r}.")
    return match[1].replace("\\&", "") + "\n"


def recipe(name, fstab, **values):
    """The configuration file `name` of the manual, with the target at hand in it, and the line for
    fstab that follows the words `fstab`."""
    with open(os.path.join(CHECKOUT, "man", "nvmf.conf.5")) as page:
        text = page.read()
    conf = literal_behind(text, f".Pa /etc/nvmf/{name}.conf :")
    for key, value in values.items():
        conf, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", conf, flags=re.MULTILINE)
        cases.check(count == 1, f"{key} is not in the manual's {name}.conf.")
    return conf, literal_behind(text, fstab + "\n.Pa /etc/fstab :")


class Scene:
    def __init__(self, workspace, machine, target, image, files):
        self.workspace = workspace
        self.machine = machine
        self.target = target
        self.image = image
        self.files = files
        self.run = machine.run
        self.mounted = None  # as the kernel has it: another mount has another number

    def shown(self, unit, *properties):
        told = self.run(f"systemctl show {' '.join('-p ' + name for name in properties)} {unit}", 60)
        return dict(line.split("=", 1) for line in told.splitlines() if line)

    def wait_for(self, condition, what):
        """`condition` is a command inside."""
        self.run(f"end=$(($(date +%s) + {PATIENCE})); until {condition}; do "
                 f"[ $(date +%s) -lt $end ] || {{ echo '{what}: not within {PATIENCE} s'; exit 1; }}; "
                 "sleep 0.5; done", 2 * PATIENCE)

    def wait_for_state(self, unit, state):
        self.wait_for(f'[ "$(systemctl is-active {unit})" = {state} ]', f"{unit} {state}")

    def restarts(self):
        return int(self.shown(SERVICE, "NRestarts")["NRestarts"])

    def wait_for_start(self, number):
        """The service has been started again by systemd `number` times, and is up."""
        self.wait_for(f'[ "$(systemctl show -p NRestarts --value {SERVICE})" -ge {number} ]',
                      f"restart {number}")
        self.wait_for_state(SERVICE, "active")

    def mount_line(self):
        return self.run(f"grep ' {PLACE} ' /proc/self/mountinfo; true").strip()

    def pid(self):
        return self.shown(SERVICE, "MainPID")["MainPID"]

    def journal(self, *units):
        return self.run("journalctl --sync; journalctl --no-pager -o cat "
                        + " ".join("-u " + unit for unit in units), 60)

    def check_log(self):
        kernel_nbd_test.Scene.check_log(self, "Connection timed out, retrying")

    def show(self):
        """After a failure: what systemd has to say, unless the machine has ended."""
        with contextlib.suppress(vm.VmError):
            print(self.machine.attempt(
                f"systemctl --no-pager status {SERVICE} {MOUNT} | cat; systemctl list-jobs; "
                "journalctl --no-pager -o short-monotonic | tail -n 40", 90)[1], flush=True)


def mounted_at_boot(scene):
    """The target comes after the machine. Then what the manual's lines describe is there."""
    scene.run("dmesg -c >/dev/null")
    scene.wait_for(f'[ "$(systemctl show -p NRestarts --value {SERVICE})" -ge 1 ]', "a second try")
    cases.check(scene.mount_line() == "", "something is mounted already.")
    scene.target.start()
    scene.wait_for_state(MOUNT, "active")
    cases.check(scene.run(f"cat {PLACE}/hello") == HELLO, "the file has another text.")
    service = scene.shown(SERVICE, "Type", "ActiveState", "StatusText",
                          "ActiveEnterTimestampMonotonic")
    cases.check(service["ActiveState"] == "active" and service["Type"] == "notify" and
                service["StatusText"].startswith(f"vol to {scene.target.nqn} at ") and
                service["StatusText"].endswith(": live"), f"the service is {service}.")
    mount = scene.shown(MOUNT, "ActiveEnterTimestampMonotonic")
    cases.check(int(mount["ActiveEnterTimestampMonotonic"]) >
                int(service["ActiveEnterTimestampMonotonic"]), f"{mount} and {service}")
    cases.check("/dev/nbd0: clean" in scene.journal("systemd-fsck@dev-nbd0.service"),
                "the file system was not checked.")
    # The same host as when root calls it by hand, not one that is made up each time.
    scene.run("grep -q ^nqn /root/.config/nvmf/hostnqn")
    scene.mounted = scene.mount_line()
    scene.check_log()


def goes_on(scene, fault, word):
    """After this command, which makes the service fail, the file system is served again."""
    before = scene.restarts()
    scene.run(fault)
    scene.wait_for_start(before + 1)
    cases.check(scene.mount_line() == scene.mounted,
                f"it was {scene.mounted!r}, it is {scene.mount_line()!r}.")
    scene.run(f"[ $(cat {PLACE}/dirty) = {word} ] && head -c 3000000 /dev/urandom >{PLACE}/{word} && "
              f"sync && sha256sum {PLACE}/{word} >/run/sum && echo 3 >/proc/sys/vm/drop_caches && "
              f"sha256sum -c /run/sum && [ $(cat {PLACE}/dirty) = {word} ]", PATIENCE)
    cases.check("Unmounting" not in scene.journal(MOUNT), "systemd wanted to unmount it.")
    scene.check_log()


def killed(scene):
    """With something to write just then: unmounting it would have to wait."""
    goes_on(scene, f"sync; echo killed >{PLACE}/dirty; kill -9 {scene.pid()}", "killed")


def hangs(scene):
    # What it would be asked meanwhile, the kernel asks the next one only a minute later.
    goes_on(scene, f"echo hung >{PLACE}/dirty; sync; kill -STOP {scene.pid()}", "hung")
    cases.check("Watchdog timeout" in scene.journal(SERVICE), "it was not the watchdog.")


def stopped_by_hand(scene):
    """And started again by what needs it."""
    scene.run(f"echo stopped >{PLACE}/dirty; systemctl stop {SERVICE}", PATIENCE)
    state = scene.run(f"systemctl is-active {SERVICE} {MOUNT}; true").split()
    cases.check(state == ["inactive", "inactive"] and scene.mount_line() == "",
                f"they are {state}, and {scene.mount_line()!r}.")
    order = scene.journal(SERVICE, MOUNT).splitlines()
    cases.check(order.index(next(line for line in order if line.startswith("Unmounted"))) <
                len(order) - 1 and order[-1].startswith(("Stopped", f"{SERVICE}: Consumed")),
                f"the order was {order[-6:]}.")
    scene.run("for i in $(seq 60); do [ -e /sys/block/nbd0/pid ] || exit 0; sleep 0.5; done; exit 1")
    scene.check_log()
    scene.run(f"systemctl start {MOUNT} && [ $(cat {PLACE}/dirty) = stopped ]", PATIENCE)
    cases.check(scene.shown(SERVICE, "ActiveState")["ActiveState"] == "active", "it is not up.")
    scene.check_log()


def by_loop_device(scene):
    """The manual's other line: a file system in a file that --fuse shows. At boot the target was not
    there, which no device unit waits for."""
    mount, place = "srv-files.mount", "/srv/files"
    scene.run(f"systemctl start {mount} && echo files >{place}/dirty && "
              f"grep -q '^/dev/loop.* {place} ext4' /proc/mounts && cat {place}/hello", PATIENCE)
    state = scene.run("systemctl stop nvmf-connect@files.service; "
                      f"systemctl is-active {mount} nvmf-connect@files.service; losetup -a; "
                      "grep -E '/dev/loop|/run/files' /proc/mounts; true", PATIENCE)
    cases.check(state.split() == ["inactive", "inactive"], f"it is {state}.")
    scene.check_log()
    last = scene.workspace.run("debugfs", "-R", "cat /dirty", scene.files).out
    checked = scene.workspace.run("e2fsck", "-fn", scene.files)
    cases.check(last == "files\n" and checked.status == 0, f"{last!r}, {checked.out}{checked.err}")


def of_a_user(scene):
    """A user's socket, with a connection behind it that the first client starts."""
    user, number = service_root.USER, service_root.USER_ID
    path = f"/run/user/{number}/nvmf-connect/mine.sock"
    manager = f"su {user} -c 'XDG_RUNTIME_DIR=/run/user/{number} systemctl --user "
    scene.run(f"chown -R {number}:{number} /home/{user}; systemctl start user@{number}.service",
              PATIENCE)
    scene.run(f"{manager}enable --now nvmf-connect@mine.socket' 2>&1 && [ -S {path} ]", PATIENCE)
    state = f"{manager}is-active nvmf-connect@mine.service'; true"
    cases.check(scene.run(state, 60).strip() == "inactive", "it is up without a client.")
    scene.run(f"nbd-client -unix {path} -N minen1 /dev/nbd1 2>&1", PATIENCE)
    begin = scene.run(f"head -c {len(HELLO)} /dev/nbd1; nbd-client -d /dev/nbd1 >/run/said 2>&1", 60)
    cases.check(begin == HELLO, f"the disk begins with {begin!r}.")
    cases.check(scene.run(state, 60).strip() == "active", "it is not active.")
    owner = scene.run("ps | grep '[c]onfig mine'").split()[1]
    cases.check(owner == user, f"it belongs to {owner}.")
    scene.run(f"systemctl stop user@{number}.service; ! ps | grep '[c]onfig mine'", PATIENCE)
    scene.run("dmesg -c >/dev/null")  # that the client's device was disconnected


def shut_down(scene):
    """With something to write. What the target has then is whole."""
    scene.run(f"echo at last >{PLACE}/last; systemctl poweroff --no-block", 60)
    scene.machine.wait_ended(PATIENCE)
    lines = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", scene.machine.log()).splitlines()
    said = "\n".join(line for line in lines[-400:] if line.strip() and " running (" not in line)
    places = [said.rfind(words) for words in
              (f"Unmounted {MOUNT}", f"Stopped {SERVICE}", "Reached target poweroff.target")]
    cases.check(-1 not in places and places == sorted(places), f"{places}:\n{said}")
    cases.check(not kernel_nbd_test.TROUBLE.search(said), said)
    scene.target.kill()
    checked = scene.workspace.run("e2fsck", "-fn", scene.image)
    cases.check(checked.status == 0 and "recover" not in checked.out + checked.err,
                f"e2fsck says {checked.out}{checked.err}")
    last = scene.workspace.run("debugfs", "-R", "cat /last", scene.image).out
    cases.check(last == "at last\n", f"the last file is {last!r}.")


def run_all(scene, counted):
    counted.after_failure = scene.show
    with counted.case("mounted at boot, by a target that comes late"):
        mounted_at_boot(scene)
    if counted.failed:
        return  # the others could only wait in vain
    counted.run("killed with -9 under a mounted file system", killed, scene)
    counted.run("hangs, and the watchdog ends it", hangs, scene)
    counted.run("stopped by hand: unmounted first; started by the mount", stopped_by_hand, scene)
    counted.run("a loop device over FUSE, by the line for fstab", by_loop_device, scene)
    counted.run("a user's socket starts a connection", of_a_user, scene)
    counted.run("shut down: unmounted first, and clean", shut_down, scene)


def etc(target):
    """What is in /etc, and the user's file."""
    host = kernel_nbd_test.HOST_ADDRESS
    at = f"nvme+tcp://{host}:{target.port}/"
    vol, vol_mount = recipe("vol", "and its line in", traddr=host, trsvcid=target.port, nqn=target.nqn)
    files, files_mount = recipe("files", "and in", address=at + FILES_NQN)
    return {
        "nvmf/vol.conf": vol + HELD_SHORTLY,
        "nvmf/files.conf": files,
        "fstab": vol_mount + files_mount,
        "tmpfiles.d/files.conf": FILES_FOLDER + "\n",
        f"../home/{service_root.USER}/.config/nvmf/mine.conf": f"address = {at}{USER_NQN}\n",
        f"systemd/system/{SERVICE}.d/test.conf": f"[Service]\nWatchdogSec={WATCHDOG}\n",
    }


def disks(workspace):
    """Two with a file system, and one for the user."""
    image, files, content, plain = (workspace.path(name) for name in
                                    ("disk", "files", "content", "plain"))
    os.mkdir(content)
    for path in (os.path.join(content, "hello"), plain):
        with open(path, "w") as file:
            file.write(HELLO)
    os.truncate(plain, 1 << 20)
    with open(image, "wb") as disk:
        disk.truncate(MEBIBYTES << 20)
    workspace.run("mkfs.ext4", "-q", "-F", "-d", content, image).must_succeed()
    shutil.copyfile(image, files)
    return image, files, plain


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/release/bin", help="folder with our programs")
    parser.add_argument("--units", help="folder with our units (default: systemd beside --bin)")
    parser.add_argument("--only", action="append", help="only cases whose names contain this")
    options = parser.parse_args()
    units = options.units or os.path.join(os.path.dirname(os.path.abspath(options.bin)), "systemd")
    counted = cases.Cases(options.only)

    def body():
        with programs.Workspace(options.bin) as workspace:
            image, files, plain = disks(workspace)
            others = ["--subsystem", USER_NQN, "--namespace", f"file:{plain}",
                      "--subsystem", FILES_NQN, "--namespace", f"file:{files}"]
            with trouble.RestartedTarget(workspace, [f"file:{image}"], address="127.0.0.1",
                                         options=others) as target:
                more = service_root.contents(options.bin, units, etc(target))
                target.kill()
                with vm.Vm("service", more=more, memory=640) as machine:
                    run_all(Scene(workspace, machine, target, image, files), counted)

    return cases.run_script(body, counted, LIMIT)


if __name__ == "__main__":
    sys.exit(main())
