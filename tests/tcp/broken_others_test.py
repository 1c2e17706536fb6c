#!/usr/bin/env python3
"""Checks that every test which tests/README.md names exists.   usage: broken_others_test.py TESTS"""

import pathlib
import re
import sys

NAMED = re.compile(r"`([A-Z]\w+)\.(\w+)`")
DEFINED = re.compile(r"^TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\s*\)", re.MULTILINE)


def main():
    tests = pathlib.Path(sys.argv[1])
    table = (tests / "README.md").read_text()
    named = set(NAMED.findall(table))
    defined = set()
    for path in tests.glob("*/*.cpp"):
        defined.update(DEFINED.findall(path.read_text()))
    missing = sorted(f"{suite}.{name}" for suite, name in named - defined)
    for test in missing:
        print(f"tests/README.md names {test}, which no test file has")
    rows = [line for line in table.splitlines() if line.startswith("| ") and "---" not in line]
    bare = [row for row in rows if not NAMED.search(row) and "what broke others" not in row]
    for row in bare:
        print(f"no test is named for: {row}")
    if len(named) < 60:
        print(f"only {len(named)} tests are named: was the table lost?")
    return 1 if missing or bare or len(named) < 60 else 0


if __name__ == "__main__":
    sys.exit(main())
