"""What the programs do when the target goes away, hangs or comes back, when a connection is killed,
and when somebody wants an end of it all meanwhile. Times are promises, with room for slow machines."""

import contextlib
import json
import os
import re
import signal
import socket
import time

import cases
import nbd_client
import programs
from cases import check
from scene import NQN, PATIENCE

MIB = 1 << 20
LOST = ("lost", "reconnecting")
# nvmf-connect and `nvmf disconnect` promise two seconds; a machine that does other things gets as
# much again.
END = 2 + 2
# Keep Alives come so seldom that a machine that is busy for a moment is no loss.
QUICK = ("-c", "0.2", "-k", "5", "--cqt", "0.2")


def qemu_io(scene, uri, *commands, limit=60):
    words = [word for command in commands for word in ("-c", command)]
    return scene.run("qemu-io", "-f", "raw", *words, uri, limit=limit)


def write(scene, uri, byte, limit=60):
    done = qemu_io(scene, uri, f"write -P {byte} 0 64k", limit=limit).must_succeed()
    check("failed" not in done.out + done.err, f"{done}")
    return done.seconds


def read(scene, uri, byte, limit=60):
    done = qemu_io(scene, uri, f"read -P {byte} 0 64k", limit=limit).must_succeed()
    check("failed" not in done.out + done.err and "erification" not in done.out, f"{done}")
    return done.seconds


def background(scene, *argv):
    """A program that goes on while we do other things."""
    words = " ".join(f"'{word}'" for word in (scene.space.program(argv[0]), *argv[1:]))
    return programs.Server(scene.space, ["sh", "-c", f"echo up; exec {words}"], "up", 1)


def said(scene):
    return scene.run("nvmf", "list").must_succeed().out


def wait_for_clients(scene, count, name="nvmf0"):
    """So many NBD clients are there, with the connection `name`. Starting one takes its time."""
    cases.wait_until(lambda: (scene.connection(name) or {}).get("nbd_clients", 0) >= count, PATIENCE,
                     f"{count} clients of {name}")


def target_restarted(new):
    """Killed and started again: requests wait, and go on, with the client that was there before."""
    with new(file=True) as scene:
        uri = scene.connect(*QUICK)["nvmf0n1"]
        write(scene, uri, 17)
        scene.kill_target()
        told = scene.wait_state(LOST)
        check(told["losses"] == 1 and told["last_loss"], f"{told}")
        check(0 < told["gone_in_ms"] <= 600_000 and told["io_fails_in_ms"] is None, f"{told}")
        check(told["model"] == "nvmf-target", f"what the target was like is still known: {told}")
        text = said(scene)
        for part in ("nvmf0 lost its target", "requests wait; the connection is given up in ",
                     "to connect again"):
            check(part in text, f"nvmf list said {text!r}")
        scene.refused("nvmf", "id-ctrl", "nvmf0", says="has lost its target and cannot ask it")
        scene.refused("nvmf", "reset", "nvmf0", says="looks for its target anyway")
        reading = background(scene, "qemu-io", "-f", "raw", "-c", "read -P 17 0 64k", uri)
        time.sleep(0.3)
        check(reading.process.poll() is None, f"a read must wait: {reading.errors()}")
        wait_for_clients(scene, 1)
        scene.restart_target()
        check(reading.wait(PATIENCE) == 0, f"the read that waited failed: {reading.errors()}")
        reading.kill()
        scene.wait_state(("live",))
        write(scene, uri, 18)
        read(scene, uri, 18)
        check("was lost 1 time and is live again" in said(scene), said(scene))
        log = scene.log("nvmf0")
        check("is lost: " in log and "is live again" in log, log)
        scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
        check(not scene.crash_records(), f"{scene.crash_records()}")
        scene.nothing_left_but_the_target()


def several_restarts(new):
    with new(file=True) as scene:
        connection = programs.Connection(scene.space, scene.uri, *QUICK)
        uri = connection.export(1)
        for byte in (1, 2, 3):
            write(scene, uri, byte)
            scene.kill_target()
            scene.restart_target()
            read(scene, uri, byte)
        connection.stop()
        check(connection.errors().count("is live again") == 3, connection.errors())
        scene.nothing_left_but_the_target()


def ctrl_loss(new):
    """Given up in time: the sentence, the status, nothing left; with -1 it is not."""
    with new() as scene:
        uri = scene.connect(*QUICK, "-l", "1")["nvmf0n1"]
        pid = scene.pid("nvmf0")
        patient = scene.connect(*QUICK, "-D", "-l", "-1")
        check(list(patient) == ["nvmf1n1"], f"{patient}")
        foreground = programs.Connection(scene.space, scene.uri, *QUICK, "-l", "1", "-D")
        warned = re.findall(r"-l,--ctrl-loss-tmo 1 s is shorter than the (\S+) s for which writes "
                            r"may be held .* Give -l (\d+) or more", foreground.errors())
        check(len(warned) == 1, f"it did not warn of -l 1: {foreground.errors()!r}")
        held, enough = map(float, warned[0])
        check(held < enough <= held + 1, f"-l {enough} is not right after {held} s")
        check("is shorter than" not in scene.log("nvmf1"), scene.log("nvmf1"))
        done = scene.run("nvmf", "policy", "nvmf1", "-l", "1").must_succeed()
        check("1 s is shorter than the" in done.err, f"{done}")
        done = scene.run("nvmf", "policy", "nvmf1", "-l", "-1").must_succeed()
        check("is shorter than" not in done.err, f"{done}")
        started = time.monotonic()
        scene.kill_target()
        reading = background(scene, "qemu-io", "-f", "raw", "-c", "read 0 64k", uri)
        check(foreground.wait(PATIENCE) == 1, "a connection that is lost for good must exit 1")
        check(time.monotonic() - started > 0.9, "it was given up too early")
        check(re.search(r"the connection nvmf2 to \S+ is lost for good: ", foreground.errors()),
              f"it said {foreground.errors()!r}")
        scene.wait_gone(pid)
        check("is lost for good" in scene.log("nvmf0"), scene.log("nvmf0"))
        check(reading.wait(PATIENCE) != 0, "a read that waited must end with an error")
        reading.kill()
        foreground.kill()
        told = scene.connection("nvmf1")
        check(told["state"] in LOST and told["gone_in_ms"] is None, f"{told}")
        check("is never given up" in said(scene), said(scene))
        done = scene.run("nvmf", "disconnect", "nvmf1").must_succeed()
        check(done.seconds < END, f"disconnect took {done.seconds:.1f} s")
        scene.target = None
        scene.nothing_left_but_the_target()


def fast_io_fail(new):
    with new(file=True) as scene:
        uri = scene.connect(*QUICK, "-F", "0.3")["nvmf0n1"]
        write(scene, uri, 5)
        scene.kill_target()
        told = scene.wait_state(("failing",))
        check(told["io_fails_in_ms"] == 0, f"{told}")
        check("requests fail with EIO until the target is back" in said(scene), said(scene))
        done = qemu_io(scene, uri, "read 0 64k")
        check("Input/output error" in done.out + done.err, f"{done}")
        check(done.seconds < 10, f"failing took {done.seconds:.1f} s")
        scene.restart_target()
        scene.wait_state(("live",))
        read(scene, uri, 5)
        scene.run("nvmf", "disconnect", "nvmf0").must_succeed()


def policy(new):
    """Shown and changed, while it lives and while it is lost."""
    with new() as scene:
        scene.connect(*QUICK)
        shown = scene.run("nvmf", "policy", "nvmf0").must_succeed().out
        check(shown.splitlines() == ["state            : live", "reconnect-delay  : 0.2 s",
                                     "ctrl-loss-tmo    : 10 min", "fast_io_fail_tmo : never"], shown)
        told = json.loads(scene.run("nvmf", "policy", "nvmf0", "-c", "0.1", "-F", "40", "-o", "json"
                                    ).must_succeed().out)
        check(told["policy"] == {"reconnect_delay_ms": 100, "ctrl_loss_ms": 600_000,
                                 "fast_io_fail_ms": 40_000}, f"{told}")
        scene.refused("nvmf", "policy", "nvmf0n1", says="say `nvmf policy nvmf0`")
        done = scene.run("nvmf", "policy", "nvmf0", "-F", "700").must_succeed()
        check("has no effect" in done.err, f"{done}")
        pid = scene.pid("nvmf0")
        scene.kill_target()
        scene.wait_state(LOST)
        told = json.loads(scene.run("nvmf", "policy", "nvmf0", "-l", "-1", "-F", "-1", "-o", "json"
                                    ).must_succeed().out)
        check(told["gone_in_ms"] is None and told["io_fails_in_ms"] is None, f"{told}")
        shown = scene.run("nvmf", "policy", "nvmf0", "-F", "60").must_succeed().out
        check("requests wait, and fail with EIO in " in shown, shown)
        scene.run("nvmf", "policy", "nvmf0", "-F", "0").must_succeed()
        scene.wait_state(("failing",))
        scene.run("nvmf", "policy", "nvmf0", "--ctrl-loss-tmo", "0.1").must_succeed()
        scene.wait_gone(pid)
        check("is lost for good" in scene.log("nvmf0"), scene.log("nvmf0"))
        scene.target = None
        scene.nothing_left_but_the_target()


def reset(new):
    with new() as scene:
        uri = scene.connect(*QUICK)["nvmf0n1"]
        write(scene, uri, 9)
        scene.run("nvmf", "reset", "nvmf0").must_succeed()
        told = scene.connection()
        check(told["state"] == "live", f"{told}")
        read(scene, uri, 9)
        check(write(scene, uri, 10) < 5, "an orderly end leaves no fence")
        scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
        check(not scene.crash_records(), f"{scene.crash_records()}")


def another_disk(new):
    """Memory is another disk after a restart: nothing goes on there until the user says so."""
    with new() as scene:
        uri = scene.connect(*QUICK)["nvmf0n1"]
        write(scene, uri, 3)
        scene.refused("nvmf", "accept", "nvmf0", says="no namespace of nvmf0 waits")
        scene.kill_target()
        scene.restart_target()
        def stopped():
            told = scene.connection()
            ns = told["namespaces"][0]
            return told if ns.get("stopped") else None
        told = cases.wait_until(stopped, PATIENCE, "the namespace being stopped")
        check(told["namespaces"][0]["acceptable"], f"{told}")
        check("nvmf0n1 does not go on: " in said(scene), said(scene))
        check("`nvmf accept nvmf0n1`" in said(scene), said(scene))
        waiting = background(scene, "qemu-io", "-f", "raw", "-c", "read -P 0 0 64k", uri)
        time.sleep(0.3)
        check(waiting.process.poll() is None, f"a read must wait: {waiting.errors()}")
        done = scene.run("nvmf", "accept", "nvmf0n1").must_succeed()
        check(done.out == "nvmf0n1 goes on with the disk that is there now\n", f"{done}")
        check(waiting.wait(PATIENCE) == 0, f"{waiting.errors()}")
        waiting.kill()
        write(scene, uri, 4)
        read(scene, uri, 4)
        scene.run("nvmf", "disconnect", "nvmf0").must_succeed()


def killed_connection_holds_writes(new):
    """kill -9: the next connection serves reads at once, and writes when nothing of the killed one
    can be executed any more; a second kill meanwhile changes nothing."""
    with new(file=True) as scene:
        slow = ("-k", "1", "--cqt", "4")
        uri = scene.connect(*slow)["nvmf0n1"]
        write(scene, uri, 1)
        check(scene.crash_records() == ["nvmf0.crash"], f"{scene.crash_records()}")
        path = os.path.join(scene.space.runtime, "nvmf0.crash")
        check(os.stat(path).st_mode & 0o777 == 0o600, "the record is its owner's alone")
        with open(path) as file:
            record = json.load(file)
        check(record["subnqn"] == NQN and not record["clean"] and record["bound_ms"] >= 6000,
              f"{record}")
        for _ in range(2):
            pid = scene.pid("nvmf0")
            killed_at = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            scene.wait_gone(pid)
            done = scene.run("nvmf-connect", scene.uri, *slow).must_succeed()
            check(done.out.startswith("nvmf0n1 "), f"the name is free again: {done}")
            check(re.search(r"note: writes to \S+ are held for [0-9.]+ s because the connection "
                            r"nvmf0 was killed, and something may still be executed that it had "
                            r"sent; reads are served at once\n", done.err), f"{done}")
            check(read(scene, uri, 1) < 4, "reads must not wait")
            told = scene.connection()
            check(told["writes_held_for_ms"] > 0, f"{told}")
            check("all writes are held for another" in said(scene), said(scene))
        write(scene, uri, 2)
        held = time.monotonic() - killed_at
        check(held >= 5.5, f"a write went through {held:.1f} s after the kill")
        read(scene, uri, 2)
        check(write(scene, uri, 3) < 4, "nothing is held any more")
        scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
        check(not scene.crash_records(), f"{scene.crash_records()}")


def held_writes_waived(new):
    with new(file=True) as scene:
        scene.connect("-k", "0")
        check("for good" in scene.run("nvmf-connect", scene.uri, "-D", "-k", "0").must_succeed().err,
              "-k 0 is pointed out")
        for name in ("nvmf0", "nvmf1"):
            pid = scene.pid(name)
            os.kill(pid, signal.SIGKILL)
            scene.wait_gone(pid)
        done = scene.run("nvmf-connect", scene.uri, *QUICK).must_succeed()
        check("are held for good because the connection nvmf" in done.err, f"{done}")
        check("connect again with --no-fence" in done.err, f"{done}")
        check("all writes are held for good" in said(scene), said(scene))
        scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
        check(scene.crash_records() == ["nvmf0.crash"], f"{scene.crash_records()}")
        done = scene.run("nvmf-connect", scene.uri, *QUICK, "--no-fence").must_succeed()
        check("are not held, although the connection nvmf0 has ended" in done.err, f"{done}")
        uri = done.out.split()[1]
        check(write(scene, uri, 6) < 5, "what was waived does not hold writes")
        told = scene.connection()
        check(told["fence"] is False and "--no-fence is on" in said(scene), f"{told}")
        scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
        check(not scene.crash_records(), f"{scene.crash_records()}")


def unflushed(new):
    """Writes that nobody flushed, and a target that loses its power: counted, told, and what is
    done about them. nbdcopy does not flush."""
    data = bytes([7]) * 65536
    for mode, survives, flush_fails in (("trust", False, False), ("fail", False, True),
                                        ("replay", True, False)):
        with new(namespaces=("memory:1M,cache=volatile",), orders=True) as scene:
            uri = scene.connect(*QUICK, f"--unflushed={mode}")["nvmf0n1"]
            with open(scene.space.path("data"), "wb") as file:
                file.write(data)
            scene.run("nbdcopy", scene.space.path("data"), uri).must_succeed()
            told = scene.connection()
            check(told["unflushed_mode"] == mode and told["namespaces"][0]["unflushed"] > 0, f"{told}")
            check("answered since the last flush" in said(scene), said(scene))
            scene.order("power-loss", "100")
            cases.wait_until(lambda: scene.connection()["losses"] == 1, PATIENCE, "the loss")
            scene.wait_state(("live",))
            scene.run("nbdcopy", uri, scene.space.path("back")).must_succeed()
            with open(scene.space.path("back"), "rb") as file:
                check((file.read(len(data)) == data) == survives, f"--unflushed={mode}: what is there")
            done = qemu_io(scene, uri, "flush")
            check((done.status != 0) == flush_fails, f"--unflushed={mode}, the flush after the loss: {done}")
            qemu_io(scene, uri, "flush").must_succeed()  # once is enough
            scene.run("nvmf", "disconnect", "nvmf0").must_succeed()


def run_goes_on(new):
    """A command's I/O waits for the target; its status is that of the command."""
    with new(file=True) as scene:
        mark = scene.space.path("mark")
        qemu = scene.space.program("qemu-io") + " -f raw"
        connection = programs.Server(
            scene.space,
            ["nvmf-connect", scene.uri, *QUICK, "--run",
             f'echo up; while [ ! -e {mark} ]; do sleep 0.05; done; '
             f'{qemu} -c "read 0 64k" "$uri" && exit 7'], "up", 1)
        scene.kill_target()
        scene.wait_state(LOST)
        with open(mark, "w"):
            pass
        time.sleep(0.3)
        check(connection.process.poll() is None, f"it must wait: {connection.errors()}")
        scene.restart_target()
        check(connection.wait(PATIENCE) == 7, f"{connection.errors()}")
        connection.kill()
        scene.nothing_left_but_the_target()


def ends_in_time(new):
    """`nvmf disconnect` and SIGTERM, with a client that waits: the target is stopped, or dead."""
    for stop in (True, False):
        with new(orders=True) as scene, contextlib.ExitStack() as writers:
            options = ("-c", "0.2", "-k", "1", "--cqt", "30", "-D")
            uri = scene.connect(*options)["nvmf0n1"]
            foreground = programs.Connection(scene.space, scene.uri, *options)
            scene.order("delay", "60000", "--opcode", "write")
            for place in (uri, foreground.export(1)):
                writer = writers.enter_context(nbd_client.Client.of(place))
                writer.ask_write(0, bytes(4096))
            scene.wait_delayed(2)
            if stop:
                programs.suspend(scene.target.process.pid)
            else:
                scene.kill_target()
            try:
                clients = [background(scene, "qemu-io", "-f", "raw", "-c", f"write 0 {n}M", place)
                           for n in (1, 8) for place in (uri, foreground.export(1))]
                # In silence: once before it is noticed, if that is soon, and once after.
                for name in ("nvmf0", "nvmf1"):
                    wait_for_clients(scene, 3, name)
                time.sleep(0.2)
                done = scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
                check(done.seconds < END, f"disconnect took {done.seconds:.1f} s")
                scene.wait_state(LOST, name="nvmf1")
                started = time.monotonic()
                foreground.process.terminate()
                check(foreground.wait(20) == 0, f"{foreground.errors()}")
                took = time.monotonic() - started
                check(took < END, f"SIGTERM took {took:.1f} s")
                for client in clients:
                    client.wait(PATIENCE)
                    client.kill()
                foreground.kill()
                kept = scene.crash_records()
                check(not stop or kept, "unanswered writes that may be executed leave a record")
            finally:
                if stop:
                    scene.target.process.send_signal(signal.SIGCONT)
                else:
                    scene.target = None
            scene.nothing_left_but_the_target()


def ends_in_time_with_a_command(new):
    """A command that does not listen, and a target that does not either."""
    with new() as scene:
        connection = programs.Server(
            scene.space, ["nvmf-connect", scene.uri, "-k", "60", "--run",
                          "trap '' TERM; echo up; while :; do sleep 1; done"], "up", 1)
        programs.suspend(scene.target.process.pid)
        try:
            started = time.monotonic()
            done = scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
            check(done.seconds < END, f"disconnect took {done.seconds:.1f} s")
            check(connection.wait(5) == 137, "the command's status is that of its SIGKILL")
            check(time.monotonic() - started < END, "it took too long")
            connection.kill()
        finally:
            scene.target.process.send_signal(signal.SIGCONT)
        scene.nothing_left_but_the_target()


def ends_at_once(new):
    """A second signal, and --force. Whoever got one signal, and before, still waits then."""
    with new(orders=True) as scene, contextlib.ExitStack() as writers:
        scene.connect("-k", "60")
        patient, hurried = (
            programs.Connection(scene.space, scene.uri, "-k", "60", "-D",
                                nbd="unix:" + scene.space.path(name)) for name in ("one", "two"))
        scene.order("delay", "60000", "--opcode", "write")
        for one in (patient, hurried):
            writer = writers.enter_context(nbd_client.Client.of(one.export(1)))
            writer.ask_write(0, bytes(4096))
        scene.wait_delayed(2)
        programs.suspend(scene.target.process.pid)
        try:
            patient.process.terminate()
            programs.terminate(hurried.process)
            hurried.process.terminate()
            check(hurried.wait(20) == 0, f"{hurried.errors()}")
            check(patient.process.poll() is None, "the second SIGTERM hurried nothing")
            check(patient.wait(20) == 0, f"{patient.errors()}")
            for one in (patient, hurried):
                one.kill()
            done = scene.run("nvmf", "disconnect", "--force", "nvmf0").must_succeed()
            check(done.seconds < END and done.err == "", f"{done}")
        finally:
            scene.target.process.send_signal(signal.SIGCONT)
        scene.nothing_left_but_the_target()


def ends_while_connecting(new):
    """Somebody accepts and says nothing."""
    with new(target=False) as scene, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        uri = f"nvme+tcp://127.0.0.1:{listener.getsockname()[1]}/{NQN}"
        for force in ([], ["--force"]):
            connecting = background(scene, "nvmf-connect", "--foreground", uri)
            scene.wait_state(("connecting",))
            done = scene.run("nvmf", "disconnect", *force, "nvmf0").must_succeed()
            check(done.seconds < END, f"disconnect took {done.seconds:.1f} s")
            check(connecting.wait(5) == 1, "ended while connecting: exit 1")
            check("disconnected on request while connecting" in connecting.errors(),
                  connecting.errors())
            connecting.kill()
        check(not scene.crash_records(), f"{scene.crash_records()}")
        scene.nothing_left_but_the_target()


def process_that_hangs(new):
    """The connection itself is stopped: --force kills it, and says what that means."""
    with new() as scene:
        scene.connect(*QUICK)
        pid = scene.pid("nvmf0")
        programs.suspend(pid)
        scene.refused("nvmf", "disconnect", "nvmf0", says="`nvmf disconnect --force nvmf0` kills it")
        done = scene.run("nvmf", "disconnect", "--force", "nvmf0").must_succeed()
        check("did not end and was killed; what it had sent may still be executed" in done.err,
              f"{done}")
        check(done.seconds < END, f"it took {done.seconds:.1f} s")
        scene.wait_gone(pid)
        done = scene.run("nvmf-connect", scene.uri, *QUICK).must_succeed()
        check("are held for" in done.err, f"{done}")
        scene.run("nvmf", "disconnect", "nvmf0").must_succeed()
        scene.nothing_left_but_the_target()


ALL = [target_restarted, several_restarts, ctrl_loss, fast_io_fail, policy, reset, another_disk,
       killed_connection_holds_writes, held_writes_waived, unflushed, run_goes_on,
       ends_in_time, ends_in_time_with_a_command, ends_at_once,
       ends_while_connecting, process_that_hangs]
