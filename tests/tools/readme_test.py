#!/usr/bin/env python3
"""Runs the first example of README.md as a reader would and compares what it prints.

usage: readme_test.py --bin FOLDER README
"""
import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile


def example(path):
    """Commands (lines that begin with "$ ") and the output that the README shows for each."""
    text = open(path).read()
    block = text.split("readme_test.py", 1)[1].split("```\n", 2)[1]
    steps = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    return steps


def matches(shown, line):
    """Whether a printed line is the shown one; serial numbers differ from run to run."""
    if shown == "...":
        return True
    hexes = re.compile(r"\b[0-9a-f]{20}\b")
    squeeze = re.compile(r"[ -]+")
    same = [squeeze.sub(" ", hexes.sub("SERIAL", text)).strip() for text in (shown, line)]
    return same[0] == same[1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("readme")
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="nvmf-readme-") as folder:
        runtime = os.path.join(folder, "run")
        environment = dict(os.environ, NVMF_RUNTIME_DIR=runtime, HOME=folder,
                           PATH=os.path.abspath(options.bin) + ":" + os.environ["PATH"])
        background = []
        try:
            for command, shown in example(options.readme):
                command = command.replace("4420", port).replace("/run/nvmf", runtime)
                shown = [s.replace("4420", port).replace("/run/nvmf", runtime) for s in shown]
                if command.endswith("&"):
                    process = subprocess.Popen(command[:-1].split(), env=environment, text=True,
                                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                    background.append(process)
                    lines = [process.stdout.readline().rstrip("\n")]
                    status = 0
                else:
                    run = subprocess.run(["bash", "-c", command], env=environment, text=True,
                                         stdout=subprocess.PIPE, timeout=60)
                    status, lines = run.returncode, run.stdout.splitlines()
                if "..." in shown:
                    cut = shown.index("...")
                    shown, lines = shown[:cut], lines[:cut]
                good = status == 0 and len(lines) == len(shown) and all(map(matches, shown, lines))
                passed, failed = passed + good, failed + (not good)
                print(f"{'ok    ' if good else 'FAILED'} {command}")
                if not good:
                    print(f"    status {status}, printed {lines}, the README shows {shown}")
        finally:
            for process in background:
                process.terminate()
                process.wait(10)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
