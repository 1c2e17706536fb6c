#!/usr/bin/env python3
"""nvmf-bench and scripts/bench do what they say; how fast is not asked here.

usage: bench_test.py --bin FOLDER SOURCE
"""
import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile

NQN = "nqn.2024-05.org.nvmf:bench-test"
FAILED = []


def check(name, good, said=""):
    print(f"{'ok    ' if good else 'FAILED'} {name}" + ("" if good else f": {said}"))
    if not good:
        FAILED.append(name)


def run(programs, *words, io="io_uring"):
    return subprocess.run([f"{programs}/nvmf-bench", *words], capture_output=True, text=True,
                          timeout=200, check=False, env={**os.environ, "NVMF_IO": io})


def figures(name, done):
    """The lines of JSON, if it ended well."""
    if done.returncode != 0:
        check(name, False, done.stderr)
        return []
    return [json.loads(line) for line in done.stdout.splitlines()]


def good(one, **expected):
    return (one["commands"] > 0 and one["cpu_per_command_us"] > 0
            and one["latency_us"]["p50"] <= one["latency_us"]["p99.99"]
            and all(one[key] == value for key, value in expected.items()))


def measures(programs, uri):
    short = ["--time", "0.2", "-o", "json"]
    for words in (["--rw", "read"], ["--rw", "write"], ["--rw", "write", "--bs", "128K"],
                  ["--depth", "32"]):
        name = "floor " + " ".join(words)
        of = figures(name, run(programs, "floor", *words, *short))
        check(name, len(of) == 2 and all(good(one, kind="floor") for one in of), of)
    for io in ("io_uring", "epoll"):
        for where in (["--canned"], [uri, "--write"]):
            for words in (["--rw", "randread", "--depth", "32"],
                          ["--rw", "randrw", "--bs", "16K", "--depth", "8", "--queues", "2"],
                          ["--rw", "write", "--bs", "1M", "--depth", "2", "-g", "-G"],
                          ["--rw", "randread", "-g", "-G", "-d", "--spin"]):
                name = f"io {io} {where[0].split('/')[0]} {' '.join(words)}"
                of = figures(name, run(programs, "io", *where, *words, *short, io=io))
                check(name, len(of) == 1 and good(of[0], kind="io"), of)
    text = run(programs, "io", "--canned", "--time", "0.1").stdout
    check("io says its figures in words", "commands/s" in text and "CPU per command" in text, text)


def refuses(programs, uri):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = f"nvme+tcp://127.0.0.1:{probe.getsockname()[1]}/{NQN}"
        for name, words, status, says in (
                ("no verb", [], 2, "floor"),
                ("no address", ["io"], 2, "--canned"),
                ("address and --canned", ["io", uri, "--canned"], 2, "--canned"),
                ("writing without --write", ["io", uri, "--rw", "randwrite"], 2, "--write"),
                ("no such pattern", ["floor", "--rw", "trim"], 2, "randread"),
                ("mixed floor", ["floor", "--rw", "randrw"], 1, "mixed"),
                ("odd block size", ["io", uri, "--bs", "1000"], 1, "--bs"),
                ("block size of nothing", ["floor", "--bs", "0"], 2, "512"),
                ("no depth", ["floor", "--depth", "0"], 2, "1024"),
                ("no time", ["floor", "--time", "0"], 2, "more than 0"),
                ("no such format", ["floor", "-o", "xml"], 2, "json"),
                ("dead target", ["io", dead, "--time", "0.1"], 1, "127.0.0.1"),
                ("wrong NQN", ["io", uri + "x", "--time", "0.1"], 1, NQN)):
            done = run(programs, *words)
            check(f"refuses {name}", done.returncode == status and says in done.stderr,
                  f"{done.returncode} {done.stderr}")


def writes_a_table(programs, source):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([f"{source}/scripts/bench", "--bin", programs, "--out", folder,
                               "--rounds", "1", "--seconds", "0.1"],
                              capture_output=True, text=True, timeout=560, check=False)
        check("scripts/bench ends well", done.returncode == 0, done.stderr)
        if done.returncode != 0:
            return
        with open(f"{folder}/results.json", encoding="utf-8") as results:
            rows = json.load(results)
        with open(f"{folder}/RESULTS.md", encoding="utf-8") as table:
            text = table.read()
        check("its table has every workload",
              len(rows) == 5 and all(title in text for title in rows), text)
        if "nothing through NBD and FUSE" not in done.stdout:
            with open(f"{folder}/faces.json", encoding="utf-8") as faces:
                rows_of_faces = json.load(faces)
            ratios = [row["ratio"] for of in rows_of_faces.values() for row in of if "ratio" in row]
            check("it compares faces", len(ratios) == 8 and all(ratio > 0 for ratio in ratios)
                  and "nvmf-connect --fuse" in done.stdout, rows_of_faces)
        floors = [row["ratio_to_floor"] for of in rows.values() for row in of
                  if row["contender"].startswith("floor")]
        check("the better floor is 1", all(0 < ratio <= 1 for ratio in floors) and 1.0 in floors,
              floors)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("source")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["HOME"] = home
        with subprocess.Popen([f"{options.bin}/nvmf-target", "--listen", "127.0.0.1:0",
                               "--subsystem", NQN, "--namespace", "memory:64M"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True) as target:
            try:
                uri = target.stdout.readline().strip()
                measures(options.bin, uri)
                refuses(options.bin, uri)
            finally:
                target.terminate()
        writes_a_table(options.bin, options.source)
    print(f"{len(FAILED)} failed")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
