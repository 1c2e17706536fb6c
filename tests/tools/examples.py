"""Examples in documents, run as their readers would run them.

An example is lines of text: "$ " before a command, below it what it prints. A command that ends in
" &" stays and prints the lines shown. "..." stands for any more lines, and at the end of a line for
its rest. A command with <<'END' goes on to END. The ports 4420 to 4422 stand for free ones,
/run/nvmf for a runtime directory of its own, $PWD for the folder where it all happens.
"""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile

LIMIT = 200
SQUEEZE = re.compile(r"[ -]+")
SERIAL = re.compile(r"\b[0-9a-f]{20}\b")


def steps(lines):
    """Commands and what is shown for each."""
    found = []
    here = None  # ends a here document
    for line in lines:
        if here is not None:
            found[-1][0] += "\n" + line
            here = None if line == here else here
        elif line.startswith("$ "):
            found.append([line[2:], []])
            begun = re.search(r"<<'(\w+)'", line)
            here = begun[1] if begun else None
        else:
            found[-1][1].append(line)
    return found


def matches(shown, line):
    """Whether a printed line is the shown one; serial numbers and widths differ from run to run."""
    if shown.endswith("..."):
        return line.startswith(shown[:-3])
    same = [SQUEEZE.sub(" ", SERIAL.sub("SERIAL", text)).strip() for text in (shown, line)]
    return same[0] == same[1]


def free_port():
    """Below those that the kernel gives to whoever connects: nobody takes it in the meantime."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return str(port)
            except OSError:
                continue


class Place:
    """A folder, a runtime directory, ports and whatever is started in the background."""

    def __init__(self, bin_folder):
        self.folder = tempfile.mkdtemp(prefix="nvmf-example-")
        self.runtime = os.path.join(self.folder, "run")
        self.ports = {}
        self.background = []
        for shown in ("4420", "4421", "4422"):
            self.ports[shown] = free_port()
        self.environment = dict(os.environ, NVMF_RUNTIME_DIR=self.runtime, HOME=self.folder,
                                PATH=os.path.abspath(bin_folder) + ":" + os.environ["PATH"])
        self.environment.pop("XDG_CONFIG_HOME", None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["nvmf", "disconnect", "--all"], env=self.environment, check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for process in self.background:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(40)
            process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def here(self, text):
        for shown, port in self.ports.items():
            text = re.sub(rf"\b{shown}\b", port, text)
        return text.replace("/run/nvmf", self.runtime).replace("$PWD", self.folder)

    def run(self, command, shown):
        """Nothing, or what is wrong."""
        command = self.here(command)
        shown = [self.here(line) for line in shown]
        if command.endswith(" &"):
            process = subprocess.Popen(["bash", "-c", "exec " + command[:-2]], cwd=self.folder,
                                       env=self.environment, text=True, start_new_session=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self.background.append(process)
            status, lines = 0, [process.stdout.readline().rstrip("\n") for _ in shown]
        else:
            done = subprocess.run(["bash", "-c", command], cwd=self.folder, env=self.environment,
                                  text=True, stdout=subprocess.PIPE, timeout=LIMIT, check=False)
            status, lines = done.returncode, done.stdout.splitlines()
        if "..." in shown:
            shown = shown[:shown.index("...")]
            lines = lines[:len(shown)]
        if status == 0 and len(lines) == len(shown) and all(map(matches, shown, lines)):
            return None
        return f"status {status}, printed {lines}, the text shows {shown}"


def run_all(bin_folder, examples):
    """Runs examples of one text, in order, in one place. Prints a line for each command. Returns how
    many went well, and how many did not."""
    passed = failed = 0
    with Place(bin_folder) as place:
        for command, shown in examples:
            wrong = place.run(command, shown)
            passed, failed = passed + (wrong is None), failed + (wrong is not None)
            print(f"{'FAILED' if wrong else 'ok    '} {command.splitlines()[0]}", flush=True)
            if wrong:
                print(f"    {wrong}", flush=True)
    return passed, failed
