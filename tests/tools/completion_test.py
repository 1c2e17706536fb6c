#!/usr/bin/env python3
"""The completions for bash and zsh offer what there is: verbs, options, values, names. Prints
`N passed, N failed`.

usage: completion_test.py --bin FOLDER REPOSITORY
"""

import argparse
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import cases  # noqa: E402
from cases import check  # noqa: E402
from scene import Scene  # noqa: E402

LIMIT = 560
# What zsh's own completion system would do, said on stdout.
ZSH_STANDS_FOR = """
compadd() { shift; print -l -- ${(M)@:#${words[CURRENT]}*} }
_files() { print FILES }
"""


def bash(root, scene, words):
    script = (f"source {shlex.quote(str(root / 'completions/nvmf.bash'))}; "
              f"COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}; "
              "_nvmf; printf '%s\\n' \"${COMPREPLY[@]}\"")
    return answer(["bash", "-c", script], scene)


def zsh(root, scene, words):
    script = (f"{ZSH_STANDS_FOR} words=({' '.join(map(shlex.quote, words))}); "
              f"CURRENT={len(words)}; source {shlex.quote(str(root / 'completions/_nvmf'))}")
    return answer(["zsh", "-f", "-c", script], scene)


def answer(argv, scene):
    done = subprocess.run(argv, env=scene.space.environment, text=True, capture_output=True,
                          timeout=200, check=False)
    check(not done.stderr, f"{argv[0]} complained: {done.stderr}")
    return {line for line in done.stdout.splitlines() if line}


def offers(complete, scene):
    def words(*given):
        return complete([scene.space.program(given[0]), *given[1:]])

    told = scene.run("nvmf", "--help").must_succeed().out
    verbs = set(re.findall(r"^  ([a-z][\w-]+) ", told.split("Subcommands:")[1], re.MULTILINE))
    check(verbs <= words("nvmf", ""), f"verbs that are not offered: {verbs - words('nvmf', '')}")
    check(words("nvmf", "disc") == {"disconnect", "disconnect-all", "discover"}, words("nvmf", "disc"))
    check({"--nqn", "-n", "--force"} <= words("nvmf", "disconnect", "-"), "options of disconnect")
    check(words("nvmf", "disconnect", "--f") == {"--force"}, "--f of disconnect")
    check(words("nvmf", "id-ctrl", "-o", "j") == {"json"}, "formats")
    check(words("nvmf", "id-ns", "--namespace-id", "") == set(), "something for a number")
    check({"nvmf0", "nvmf0n1"} <= words("nvmf", "id-ctrl", ""), words("nvmf", "id-ctrl", ""))
    check(words("nvmf", "help", "smart") == {"smart-log"}, words("nvmf", "help", "smart"))
    check({"nvmf0"} == words("nvmf", "disconnect", "nvmf"), words("nvmf", "disconnect", "nvmf"))
    check({"nvmf0"} == words("nvmf", "stats", "nvmf"), words("nvmf", "stats", "nvmf"))
    check({"nvmf0", "nvmf0n1"} == words("nvmf", "accept", "nvmf"), words("nvmf", "accept", "nvmf"))
    check("--keep-alive-tmo" in words("nvmf-connect", "--keep"), "options of nvmf-connect")
    check("--subsystem" in words("nvmf-target", "--s"), "options of nvmf-target")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--only", action="append", help="run cases whose name has this in it")
    parser.add_argument("repository", type=pathlib.Path)
    words = parser.parse_args()
    counted = cases.Cases(words.only)
    root = words.repository.resolve()

    def body():
        with Scene(words.bin, "epoll") as scene:
            scene.connect()
            for shell, complete in (("bash", bash), ("zsh", zsh)):
                check(shutil.which(shell), f"{shell} is not installed")
                counted.run(shell, offers, lambda given, c=complete: c(root, scene, given), scene)

    return cases.run_script(body, counted, LIMIT)


if __name__ == "__main__":
    sys.exit(main())
