"""What the programs refuse, and in which words: wrong command lines, targets that are not there or
are something else, files and directories that cannot be used."""

import json
import os
import re
import shutil
import signal
import socket

import cases
import programs
from cases import check
from scene import NQN


def nvme_cli_options(new):
    """Every option of nvme-cli's connect is served, accepted with a note, or refused with a reason."""
    with new(target=False) as scene:
        uri = "nvme+tcp://127.0.0.1:1/" + NQN
        for argv, says in ((["-S", "DHHC-1:00:x:"], "-S,--dhchap-secret is not possible yet"),
                           (["-C", "DHHC-1:00:x:"], "-C,--dhchap-ctrl-secret is not possible yet"),
                           (["--tls"], "--tls is not possible yet"),
                           (["--tls_key", "1"], "--tls_key is not possible yet"),
                           (["-J", "/etc/nvme/config.json"], "/etc/nvme/config.json cannot be read"),
                           (["-O"], "-O,--dump-config is not possible"),
                           (["-o", "xml"], "xml is not known: normal and json are")):
            scene.refused("nvmf-connect", uri, *argv, status=2, says=says)
        # Accepted: what is refused then is the connection.
        done = scene.run("nvmf-connect", uri, "-J", "none", "-o", "json", "-v", "-W", "1", "-P", "1",
                         "-c", "10", "--ctrl-loss-tmo", "-1", "-F", "5")
        check(done.status == 1 and done.err.count("no effect") == 2, f"{done}")
        check("is a target listening" in done.err, f"{done}")
        try:
            asked = scene.run("nvme", "connect", "--help")
        except cases.Lacking:
            return
        ours = scene.run("nvmf-connect", "--help").must_succeed().out
        spellings = re.findall(r"--([a-z-]+)(?:=<\w+>)?(?:, -(\w))?", asked.out + asked.err)
        check(len(spellings) > 20, f"nvme-cli's options were not understood: {asked}")
        for long, short in spellings:
            check(f"-{short},--{long} " in ours or not short, f"-{short}/--{long} is not known")


def bad_input(new):
    with new() as scene:
        uri = scene.uri
        host, port = "127.0.0.1", scene.target.port
        scene.refused("nvmf-connect", "nvme+tcp://127.0.0.1:1/" + NQN, says="127.0.0.1:1")
        scene.refused("nvmf-connect", f"nvme+tcp://{host}:{port}/nqn.2024-05.org.example:no",
                      says="nqn.2024-05.org.example:no")
        scene.refused("nvmf-connect", "nvme+tcp://no.such.host.invalid/" + NQN,
                      says="give a numeric address")
        scene.refused("nvmf-connect", uri + "/9", says="no namespace 9; those that this host sees")
        for argv in ([], ["--frob", uri], [uri, "-c", "0"], ["nvme+rdma://h/" + NQN], [uri, "-a", "h"],
                     ["-a", host], ["-t", "rdma", "-a", host, "-n", NQN], [uri, "-i", "0"],
                     [uri, "-i", "x"], [uri, "-Q", "1"], [uri, "--nbd", "here"], [uri, "--name", "a/b"],
                     [uri, "-k", "99999999"], [uri, "-T", "300"], [uri, "-I", "nonsense"],
                     [f"nvme+tcp://{host}:{port}/"]):
            scene.refused("nvmf-connect", *argv, status=2)
        for argv in ([], ["frob"], ["disconnect"], ["disconnect", "a", "--all"], ["id-ctrl"],
                     ["list", "-o", "xml"], ["id-ctrl", "a b"], ["id-ns", uri]):
            scene.refused("nvmf", *argv, status=2)
        for argv, says in (([uri, "-i", "x"], '"x" is no value for --nr-io-queues'),
                           ([uri, "-i", "1000"], "(-i) is 1000 but must be from 1 to 128"),
                           ([uri, "-T", "300"], "type of service is 300 but must be from 0 to 255"),
                           ([uri, "--name"], "--name needs a value after it: NAME"),
                           ([uri, "--read-only=x"], "--read-only takes no value"),
                           ([uri, "b"], '"b" is one word too many'),
                           ([uri, "--name", "a", "--name", "b"], "--name is given more than once"),
                           ([uri, "-Q", "99999999999"], "99999999999 is too large for --queue-size"),
                           ([uri, "--name", "a.nbd"], "must not end in .nbd"),
                           ([uri, "-c", "0"], "-c,--reconnect-delay cannot be 0: it is the longest"),
                           ([uri, "-c", "-1"], '-c,--reconnect-delay cannot be "-1": give seconds'),
                           ([uri, "-c", "1e3"], '"1e3": give seconds from 0 to 86400, such as'),
                           ([uri, "-l", "-2"], '-l,--ctrl-loss-tmo cannot be "-2": give seconds '
                                               'from 0 to 86400, such as 10 or 0.5, or -1 for never'),
                           ([uri, "-l", "nan"], '-l,--ctrl-loss-tmo cannot be "nan"'),
                           ([uri, "-F", ""], "--fast_io_fail_tmo: what stands after it is empty"),
                           ([uri, "--cqt", "5000"], '--cqt cannot be "5000": give seconds from 0 to'),
                           ([uri, "--peer-close", "x"],
                            '--peer-close cannot be "x": give trusted or untrusted'),
                           ([uri, "--unflushed=maybe"],
                            '--unflushed cannot be "maybe": give trust or fail or replay'),
                           ([uri, "--run", ""], "--run: what stands after it is empty"),
                           ([uri, "--name", ""], "--name: what stands after it is empty"),
                           ([uri, "--nbd", "unix:/" + 110 * "x"], "choose a shorter one"),
                           ([uri, "--nbd-device", "/dev/sda"], '"/dev/sda" is no NBD device of the '
                                                               'kernel: give auto, or /dev/nbdN'),
                           ([uri, "--nbd-device", "/dev/nbd65536"], "with N up to 65535"),
                           ([uri, "--discovery", "--nbd-device", "auto"], "no namespaces to serve"),
                           ([f"nvme+tcp://{host}:{port}"], "The address names no subsystem"),
                           ([uri, "--connect-all"], "--connect-all needs a discovery controller"),
                           ([uri, "--discovery", "--run", "x"], "no namespaces to serve")):
            scene.refused("nvmf-connect", *argv, status=2, says=says)
        for argv, says in ((["frob"], "no such subcommand as frob: there are list"),
                           ([], "say what to do: list, list-subsys, disconnect"),
                           (["-x"], "no such option as -x"),
                           (["help", "frob"], "no such subcommand as frob: there are list"),
                           (["idctrl", "nvmf0"], "no such subcommand as idctrl: is id-ctrl meant?"),
                           (["help", "smartlog"], "no such subcommand as smartlog: is smart-log"),
                           (["get-feature", "nvmf0", "-f", "0x100"],
                            "0x100 is too large for --feature-id"),
                           (["id-ctrl", "--frob"], "no such option as --frob"),
                           (["id-ctrl"], "TARGET is missing: give a connection"),
                           (["id-ns", "-n", "x", "nvmf0"], '"x" is no value for --namespace-id'),
                           (["disconnect"], "`nvmf list` shows them"),
                           (["disconnect-all", "-r", "rdma"], "every connection here is tcp"),
                           (["policy"], "NAME is missing: give a connection"),
                           (["policy", "nvmf0", "-k", "5"], "cannot be changed while a connection"),
                           (["policy", "nvmf0", "-l", "x"], '-l,--ctrl-loss-tmo cannot be "x"'),
                           (["policy", "nvmf0", "-F", ""], "what stands after it is empty"),
                           (["reset"], "NAME is missing: give a connection"),
                           (["accept", "a b"], "use 1 to 64 letters")):
            scene.refused("nvmf", *argv, status=2, says=says)
        check(scene.run("nvmf", "help").must_succeed().out == scene.run("nvmf", "--help").out, "help")
        check("--all" in scene.run("nvmf", "help", "disconnect").must_succeed().out, "help VERB")
        for argv, says in ((["--frob"], "no such option as --frob"),
                           (["--listen"], "--listen needs a value after it: ADDR:PORT"),
                           (["--listen", "localhost:0"], "at least one --subsystem")):
            scene.refused("nvmf-target", *argv, status=2, says=says)
        for argv in (["policy", "nvmf7"], ["reset", "nvmf7"], ["accept", "nvmf7n1"]):
            scene.refused("nvmf", *argv, says="there is no connection nvmf7")
        refused = scene.run("nvmf-connect", f"{uri}:other")
        check("check the NQN" in refused.err, f"it said {refused.err!r}")
        for program in ("nvmf", "nvmf-connect", "nvmf-target"):
            scene.run(program, "--help").must_succeed()
            check(scene.run(program, "--version").must_succeed().out.startswith(program), "version")
        taken = scene.space.path("taken")
        with open(taken, "w") as file:
            file.write("keep me")
        scene.refused("nvmf-connect", uri, "--nbd", "unix:" + taken, says=taken)
        for options, says in (
                (["--nbd", "unix:/no/such/folder/s"], "/no/such/folder/s: No such file or directory "
                 "(ENOENT): its folder does not exist"),
                (["--nbd", "tcp:192.0.2.1:0"], "192.0.2.1:0: Cannot assign requested address "
                 "(EADDRNOTAVAIL): no interface of this machine has that address"),
                (["--nbd", f"tcp:{host}:{port}"], "choose another port, 0 picks a free one"),
                (["-w", "192.0.2.1"], "`ip address` shows those that there are"),
                (["-w", "localhost"], "'localhost' is not a numeric IPv4 or IPv6 address"),
                (["-f", "nosuch0"], "`ip link` shows the interfaces")):
            scene.refused("nvmf-connect", uri, *options, says=says)
        deep = scene.space.path("deep" + 40 * "x")
        done = scene.run("nvmf-connect", uri, "--name", 50 * "n",
                         environment={"NVMF_RUNTIME_DIR": deep})
        check(done.status == 1 and "give a shorter --name" in done.err, f"{done}")
        busy = scene.space.path("busy")
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(busy)
            other.listen(8)
            scene.refused("nvmf-connect", uri, "--nbd", "unix:" + busy, says=busy)
        os.unlink(busy)
        with open(taken) as file:
            check(file.read() == "keep me", "a file in the way must not be harmed")
        scene.nothing_left_but_the_target()


def output_that_goes_nowhere(new):
    """A full disk is said; a reader that had enough is no news."""
    with new() as scene:
        nvmf = scene.space.program("nvmf")
        for words in ("list", f"id-ctrl {scene.uri} -o json", f"id-ctrl {scene.uri} -b", "help"):
            done = scene.run("sh", "-c", f"{nvmf} {words} > /dev/full")
            check(done.status == 1 and "No space left" in done.err, f"{done}")
        done = scene.run("bash", "-c", f"{nvmf} id-ctrl {scene.uri} -o json | true; "
                                       'exit "${PIPESTATUS[0]}"')
        check(done.status in (0, 1) and done.err == "", f"{done}")
        done = scene.run("sh", "-c", scene.space.program("nvmf-connect") + f" {scene.uri} > /dev/full")
        check(done.status == 0 and "No space left" in done.err, f"{done}")
        check(len(scene.listed()["Connections"]) == 1, "it serves all the same")


def runtime_directories(new):
    """The place of the sockets: made where it can be, refused with what to do elsewhere."""
    with new(target=False) as scene:
        def refused(says, **environment):
            done = scene.run("nvmf", "list", environment=environment)
            check(done.status == 1 and says in done.err and done.err.count("\n") == 1, f"{done}")
        file = scene.space.path("file")
        open(file, "w").close()
        refused("is no directory: set NVMF_RUNTIME_DIR", NVMF_RUNTIME_DIR=file)
        refused("cannot make the runtime directory /no/such", NVMF_RUNTIME_DIR="/no/such")
        shared = scene.space.path("shared")
        os.mkdir(shared)
        os.chmod(shared, 0o777)
        refused("give it mode 0700", NVMF_RUNTIME_DIR=shared)
        if os.geteuid() != 0:
            refused("belongs to another user (0)", NVMF_RUNTIME_DIR="/etc")
            refused("export NVMF_RUNTIME_DIR=", NVMF_RUNTIME_DIR="", XDG_RUNTIME_DIR="")
        else:
            os.chown(shared, 65534, 65534)
            os.chmod(shared, 0o700)
            refused("belongs to another user (65534)", NVMF_RUNTIME_DIR=shared)
            shutil.rmtree(shared)
        scene.run("nvmf", "list", environment={"NVMF_RUNTIME_DIR": shared + "2"}).must_succeed()
        check(os.stat(shared + "2").st_mode & 0o777 == 0o700, "a directory is made with mode 0700")


def bad_target(new):
    """nvmf-target with what it cannot use: a sentence, never a crash."""
    with new() as scene:
        config = scene.space.path("target.json")
        subsystem = ["--subsystem", NQN, "--namespace"]
        listen = ["--listen", "127.0.0.1:0"]
        for text, says in (('{"listen": [\n"127.0.0.1:0",\n', "is not JSON from line 3 on"),
                           ("[]", "must be one JSON object"), ("", "is not JSON from line 1 on"),
                           ('{"cqt": 1e999}', "a number that is too large"),
                           ('{"listenn": []}', 'not "listenn"'),
                           ('{"listen": "127.0.0.1:0"}', '"listen" must be a list of strings')):
            with open(config, "w") as file:
                file.write(text)
            scene.refused("nvmf-target", "--config", config, status=2, says=says)
        scene.refused("nvmf-target", "--config", scene.space.folder, status=2, says="Is a directory")
        scene.refused("nvmf-target", "--config", scene.space.path("no"), status=2, says="No such file")
        for argv, says in ((["--listen", "192.0.2.1:0", *subsystem, "memory:1M"],
                            "no interface of this machine has that address"),
                           (["--listen", f"127.0.0.1:{scene.target.port}", *subsystem, "memory:1M"],
                            "choose another port, 0 picks a free one"),
                           (["--listen", "some.host:0", *subsystem, "memory:1M"], "`getent hosts"),
                           ([*listen, *subsystem, "file:/no/such/file"], "make it first"),
                           ([*listen, *subsystem, "file:/"], "name a file in it")):
            scene.refused("nvmf-target", *argv, says=says)


def refused_host(new):
    with new(options=("--host", "nqn.2024-05.org.example:friend")) as scene:
        scene.refused("nvmf-connect", scene.uri, "-q", "nqn.2024-05.org.example:stranger", "-I",
                      programs.HOST_ID, says="nqn.2024-05.org.example:stranger")
        scene.connect("-q", "nqn.2024-05.org.example:friend", "-I", programs.HOST_ID)


def other_protocol(new):
    """Peers that speak something else, or nothing."""
    with new(target=False) as scene, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        uri = f"nvme+tcp://127.0.0.1:{listener.getsockname()[1]}/{NQN}"
        pid = os.fork()
        if pid == 0:
            peer, _ = listener.accept()
            peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 20)
            while True:  # a second try is allowed after a bare close
                silent, _ = listener.accept()
                silent.close()
        try:
            scene.refused("nvmf-connect", uri, says="127.0.0.1:")
            scene.refused("nvmf-connect", uri, says="127.0.0.1:")
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        # Accepted by the kernel's backlog, never answered.
        done = scene.refused("nvmf-connect", uri, within=25)
        check("127.0.0.1:" in done.err, done.err)
        scene.nothing_left_but_the_target()


def no_namespaces(new):
    with new(target=False) as scene:
        config = scene.space.path("target.json")
        with open(config, "w") as file:
            json.dump({"listen": ["127.0.0.1:0"],
                       "subsystems": [{"nqn": NQN, "namespaces": []}]}, file)
        scene.target = programs.Server(scene.space, ["nvmf-target", "--config", config],
                                       r"(nvme\+tcp://\S+)$", 1)
        scene.refused("nvmf-connect", scene.target.matches[0][1], says="no namespace")


ALL = [nvme_cli_options, bad_input, output_that_goes_nowhere, runtime_directories,
       bad_target, refused_host, other_protocol, no_namespaces]
