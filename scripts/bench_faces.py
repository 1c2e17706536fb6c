"""The second half of scripts/bench: what a program pays that goes through one of our faces, beside
what it pays for memory of nbdkit's: through NBD both, and through FUSE, where nbdfuse is in between.

fio asks; every contender runs each workload in turn, round after round. nbdkit serves from its own
process over a unix socket, we fetch from nvmf-target over NVMe/TCP: ours is the longer way."""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time

NQN = "nqn.2024-05.org.nvmf:faces"
SIZE = "64M"
START_LIMIT = 10
WORKLOADS = [(f"4 KiB random {what}, depth {depth}", f"rand{what}", depth)
             for depth in (1, 32) for what in ("read", "write")]
NEEDED = ("fio", "nbdkit", "nbdfuse", "fusermount3")


def lacking():
    """What there has to be and is not; empty: nothing."""
    missing = [name for name in NEEDED if not shutil.which(name)]
    return missing + ([] if os.access("/dev/fuse", os.R_OK | os.W_OK) else ["/dev/fuse"])


def wait_for(path):
    deadline = time.monotonic() + START_LIMIT
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path} did not appear")
        time.sleep(0.02)


class Contenders:
    """Everything that serves, and where fio finds each."""

    def __init__(self, programs):
        self._stack = contextlib.ExitStack()
        self._folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nvmf-faces-"))
        self._environment = {**os.environ, "NVMF_RUNTIME_DIR": self.path("run"),
                             "HOME": self._folder}
        try:
            self._start_ours(programs)
            self._start_nbdkit()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    def path(self, *names):
        return os.path.join(self._folder, *names)

    def _start(self, *argv, **named):
        process = subprocess.Popen(argv, env=self._environment, stderr=subprocess.DEVNULL, **named)

        def end():
            process.terminate()
            process.wait()
            if process.stdout:
                process.stdout.close()

        self._stack.callback(end)
        return process

    def _start_ours(self, programs):
        target = self._start(f"{programs}/nvmf-target", "--listen", "127.0.0.1:0", "--subsystem",
                             NQN, "--namespace", "memory:" + SIZE, stdout=subprocess.PIPE, text=True)
        uri = target.stdout.readline().strip()
        os.mkdir(self.path("ours"))
        connection = self._start(f"{programs}/nvmf-connect", uri, "--foreground", "--nbd",
                                 "unix:" + self.path("ours.sock"), "--fuse", self.path("ours"),
                                 stdout=subprocess.PIPE, text=True)
        if not connection.stdout.readline().startswith("nvmf0n1 "):
            raise RuntimeError("nvmf-connect did not serve")

    def _start_nbdkit(self):
        self._start("nbdkit", "-f", "-U", self.path("nbdkit.sock"), "-P", self.path("nbdkit.pid"),
                    "memory", SIZE)
        wait_for(self.path("nbdkit.pid"))
        os.mkdir(self.path("nbdfuse"))
        self._start("nbdfuse", "-P", self.path("nbdfuse.pid"), self.path("nbdfuse", "file"), "--unix",
                    self.path("nbdkit.sock"))
        wait_for(self.path("nbdfuse.pid"))
        self._stack.callback(subprocess.run, ["fusermount3", "-uzq", self.path("nbdfuse")],
                             check=False)

    def places(self):
        """fio's options for each; a row of ours is measured by the one after it."""
        def nbd(socket, export):
            return ["--ioengine=nbd", f"--uri=nbd+unix:///{export}?socket={self.path(socket)}"]

        def file(*names):
            return ["--ioengine=libaio", "--direct=1", "--filename=" + self.path(*names)]

        return [("nvmf-connect --nbd", nbd("ours.sock", "nvmf0n1")),
                ("nbdkit memory", nbd("nbdkit.sock", "")),
                ("nvmf-connect --fuse", file("ours", "nvmf0n1")),
                ("nbdfuse over it", file("nbdfuse", "file"))]


def fio(place, pattern, block, depth, *more):
    done = subprocess.run(["fio", "--name=faces", f"--rw={pattern}", f"--bs={block}",
                           f"--iodepth={depth}", f"--size={SIZE}", "--output-format=json", *place,
                           *more], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"fio {' '.join(place)}: {done.stderr.strip() or done.stdout.strip()}")
    # What libraries say stands before it.
    job = json.loads(done.stdout[done.stdout.index("{\n"):])["jobs"][0]
    figures = job["write" if "write" in pattern else "read"]
    return {"iops": figures["iops"],
            "p50_us": figures["clat_ns"].get("percentile", {}).get("50.000000", 0) / 1000,
            "p99_us": figures["clat_ns"].get("percentile", {}).get("99.000000", 0) / 1000}


def run_all(programs, rounds, seconds):
    """For each workload its rows: medians, and the median of the ratios to the contender below."""
    timed = ["--time_based", f"--runtime={max(int(seconds * 1000), 1)}ms"]
    results = {}
    with Contenders(programs) as contenders:
        places = contenders.places()
        for _, place in places:
            fio(place, "write", "1M", 4)  # no page is met for the first time later
        for title, pattern, depth in WORKLOADS:
            runs = [[] for _ in places]
            for _ in range(rounds):
                for of, (_, place) in zip(runs, places):
                    of.append(fio(place, pattern, "4k", depth, *timed))
            rows = results[title] = []
            for i, (name, _) in enumerate(places):
                row = {"contender": name}
                for key in ("iops", "p50_us", "p99_us"):
                    row[key] = statistics.median(one[key] for one in runs[i])
                if i % 2 == 0:
                    row["ratio"] = statistics.median(
                        ours["iops"] / theirs["iops"] for ours, theirs in zip(runs[i], runs[i + 1]))
                rows.append(row)
    return results


def table(results):
    out = ["# Through NBD and through FUSE", "",
           "fio's own figures; the ratio is to the row below in the same round. nbdkit serves its "
           "own memory over a unix socket, `nvmf-connect` that of `nvmf-target` over NVMe/TCP.", ""]
    for title, rows in results.items():
        out += [f"## {title}", "", "| | requests/s | × theirs | p50, us | p99, us |",
                "|---|--:|--:|--:|--:|"]
        for row in rows:
            ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
            out.append(f"| {row['contender']} | {row['iops']:,.0f} | {ratio} "
                       f"| {row['p50_us']:.0f} | {row['p99_us']:.0f} |")
        out.append("")
    return "\n".join(out)
