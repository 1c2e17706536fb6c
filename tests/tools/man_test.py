#!/usr/bin/env python3
"""The manual pages tell of what there is: each page against --help of its program, against mandoc,
and its examples against what they print. Prints `N passed, N failed`.

usage: man_test.py --bin FOLDER REPOSITORY
"""

import argparse
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import cases  # noqa: E402
import examples  # noqa: E402
from cases import check  # noqa: E402

PROGRAMS = ("nvmf", "nvmf-bench", "nvmf-connect", "nvmf-target")
# Verbs that are another program: its options are told in its page.
OTHER_PROGRAMS = {"connect": "nvmf-connect"}
OTHER_PAGES = ("nvmf-control.7", "nvmf.conf.5")
REFUSED_GROUP = "Of nvme-cli, refused"
REFUSED_SECTION = "Options of nvme-cli that are refused"
EXAMPLE = '.\\" example: run'
# Not installed here, or mandoc's index of them is not there: says nothing about the page.
NOT_THE_PAGE = ("referenced manual not found", "outdated mandoc.db")
ESCAPES = {r"\(aq": "'", r"\e": "\\", r"\&": ""}


def run(*argv):
    return subprocess.run([str(word) for word in argv], text=True, capture_output=True, timeout=200,
                          check=False)


class Help:
    """What --help lists: options as (short, long, value), operands, verbs."""

    LINE = re.compile(r"  (-\w)?,?(--[\w-]+)?(?: ([A-Z][A-Z:]*))?(?: \.\.\.)?(?:\s|$)")

    def __init__(self, bin_folder, program, verb=None):
        done = run(bin_folder / program, *([verb] if verb else []), "--help")
        check(done.returncode == 0, f"{program} {verb or ''} --help failed: {done}")
        self.options, self.refused, self.operands, self.verbs = set(), set(), set(), []
        if verb in OTHER_PROGRAMS:
            there = run(bin_folder / OTHER_PROGRAMS[verb], "--help")
            check(done.stdout == there.stdout, f"{program} {verb} is not {OTHER_PROGRAMS[verb]}")
            self.operands.add("WORD")
            return
        group = ""
        for line in done.stdout.splitlines():
            if re.match(r"\S.*:$", line):
                group = line[:-1]
            elif group == "Subcommands" and re.match(r"  \S", line):
                self.verbs.append(line.split()[0])
            elif group == "Positionals" and re.match(r"  \S", line):
                self.operands.add(line.split()[1])
            elif line.startswith("  -"):
                option = self.LINE.match(line)
                check(option, f"{program} --help has a line that this test cannot read: {line!r}")
                into = self.refused if group == REFUSED_GROUP else self.options
                into.add(tuple(part or "" for part in option.groups()))
        if verb:
            self.options.discard(("-h", "--help", ""))


class Page:
    """A page's options by verb ("" for the program itself), operands, synopsis and examples."""

    def __init__(self, path, verbs):
        self.lines = path.read_text().splitlines()
        self.options, self.refused, self.operands = {}, set(), set()
        self.verbs = set()
        self.keys = set()
        self.variables = set()
        section = part = ""
        for line in self.lines:
            if line.startswith(".Sh "):
                section, part = line[4:], ""
            elif line.startswith(".Ss "):
                part = line[4:]
                if part in verbs:
                    self.verbs.add(part)
            elif line.startswith(".It Fl ") and section != "SYNOPSIS":
                scope = part if part in verbs else ""
                into = self.options.setdefault(scope, set())
                (self.refused if part == REFUSED_SECTION else into).add(self.option(line))
            elif line.startswith(".It Ar ") and part == "Operands":
                self.operands.add(line.split()[2])
            elif line.startswith(".It Li ") and section == "THE CONFIGURATION FILE":
                self.keys |= set(re.findall(r"\w+", line[7:]))
            elif line.startswith(".It Ev "):
                self.variables.add(line.split()[2])
        self.synopsis = self.read_synopsis()

    @staticmethod
    def option(line):
        """".It Fl t , Fl -transport Ar STR" """
        found = re.fullmatch(r"\.It(?: Fl (\w))?(?: ,)?(?: Fl (-[\w-]+))?(?: Ar (\S+))?", line)
        check(found, f"this is not how options are written: {line}")
        return tuple(("-" + part if part and i < 2 else part or "")
                     for i, part in enumerate(found.groups()))

    def read_synopsis(self):
        """By verb: every flag named, with its value."""
        if ".Sh SYNOPSIS" not in self.lines:  # the page of a protocol
            return {}
        begin = self.lines.index(".Sh SYNOPSIS") + 1
        end = next(i for i in range(begin, len(self.lines)) if self.lines[i].startswith(".Sh"))
        usages, verb = {}, ""
        for line in self.lines[begin:end]:
            if line == ".Nm":
                verb = ""
            elif line.startswith(".Cm "):
                verb = line.split()[1]
                check(verb not in usages, f"{verb} is twice in the SYNOPSIS")
            flags = usages.setdefault(verb, {}) if line != ".Nm" else {}
            for word, value in re.findall(r"\bFl (\S+)(?: Ar (\S+))?", line):
                names = [word] if word.startswith("-") else list(word)
                for name in names:
                    flags["-" + name] = value
        return usages

    def examples(self):
        """Lines of the literal displays that are marked, their escapes undone."""
        lines, wanted, literal = [], False, False
        for line in self.lines:
            if line == EXAMPLE:
                wanted = True
            elif line.startswith(".Bd"):
                literal = True
            elif line == ".Ed":
                wanted = literal = False
            elif wanted and literal:
                for escape, text in ESCAPES.items():
                    line = line.replace(escape, text)
                lines.append(line)
        check(not wanted, "an example is marked and has no display")
        return lines


def differ(what, shown, there):
    missing, extra = sorted(there - shown), sorted(shown - there)
    check(not missing and not extra,
          f"{what}: the page lacks {missing}; it has {extra}, which there is not")


def check_options(page, program, helps):
    for verb, told in helps.items():
        differ(f"options of {program} {verb}", page.options.get(verb, set()), told.options)
    top = helps[""]
    differ("options refused", page.refused, top.refused)
    differ("verbs", page.verbs, set(top.verbs))
    differ("operands", page.operands, set().union(*(told.operands for told in helps.values())))


def check_synopsis(page, helps):
    verbs = {verb for verb in page.synopsis if verb}
    differ("verbs in the SYNOPSIS", verbs, set(helps[""].verbs))
    for verb, told in helps.items():
        expected = {(short or long, value) for short, long, value in told.options}
        # These two stand there in long form, for they have a line of their own.
        expected = {("--help", "") if name == "-h" else (name, value) for name, value in expected}
        differ(f"SYNOPSIS {verb}", set(page.synopsis.get(verb, {}).items()), expected)


def check_lint(path):
    done = run("mandoc", "-Tlint", "-Wstyle", path)
    found = [line for line in (done.stdout + done.stderr).splitlines()
             if not any(text in line for text in NOT_THE_PAGE)]
    check(not found, "\n".join(found))
    for name, part in re.findall(r"^\.Xr (nvmf\S*) (\d)", path.read_text(), re.MULTILINE):
        check((path.parent / f"{name}.{part}").exists(),
              f"{path} refers to {name}({part}), which is missing")


def check_version(bin_folder, program):
    done = run(bin_folder / program, "--version")
    check(done.returncode == 0 and re.fullmatch(rf"{program} \d+\.\d+\.\d+\n", done.stdout),
          f"{done}")


def check_examples(bin_folder, page):
    steps = examples.steps(page.examples())
    check(steps, "the page has no example that is run")
    passed, failed = examples.run_all(bin_folder, steps)
    check(failed == 0, f"{failed} of {passed + failed} commands of the examples went wrong")


def check_keys(bin_folder, page, folder):
    """The keys of the configuration file, as the program lists them when one is misspelt."""
    keys = set()
    for text in ('{"misspelt": 0}', '{"subsystems": [{"misspelt": 0}]}'):
        config = pathlib.Path(folder) / "config.json"
        config.write_text(text)
        done = run(bin_folder / "nvmf-target", "--config", config)
        told = re.search(r'must be ([\w, ]+), not "misspelt"', done.stderr)
        check(done.returncode == 2 and told, f"{done}")
        keys |= set(re.split(r", | or ", told[1]))
    differ("keys of the configuration file", page.keys, keys)


def check_variables(root, pages):
    """What the programs read from their environment is in a page, and the reverse."""
    read = {"device", "mountpoint", "uri"}  # of the command of --run
    for folder in ("src", "tools"):
        for path in (root / folder).rglob("*.cpp"):
            read |= set(re.findall(r'getenv\("(\w+)"', path.read_text()))
    read.discard("HOME")
    differ("environment variables", set().union(*(page.variables for page in pages)), read)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--only", action="append", help="run cases whose name has this in it")
    parser.add_argument("repository", type=pathlib.Path)
    words = parser.parse_args()
    counted = cases.Cases(words.only)

    def body():
        pages = []
        for name in OTHER_PAGES:
            path = words.repository / "man" / name
            counted.run(f"{name} lint", check_lint, path)
            counted.run(f"{name} examples", check_examples, words.bin, Page(path, []))
        for program in PROGRAMS:
            path = words.repository / "man" / f"{program}.1"
            helps = {"": Help(words.bin, program)}
            for verb in helps[""].verbs:
                helps[verb] = Help(words.bin, program, verb)
            page = Page(path, helps[""].verbs)
            pages.append(page)
            counted.run(f"{program} lint", check_lint, path)
            counted.run(f"{program} options", check_options, page, program, helps)
            counted.run(f"{program} synopsis", check_synopsis, page, helps)
            counted.run(f"{program} version", check_version, words.bin, program)
            counted.run(f"{program} examples", check_examples, words.bin, page)
            if program == "nvmf-target":
                with examples.Place(words.bin) as place:
                    counted.run(f"{program} keys", check_keys, words.bin, page, place.folder)
        counted.run("environment", check_variables, words.repository, pages)

    return cases.run_script(body, counted, 560)


if __name__ == "__main__":
    sys.exit(main())
