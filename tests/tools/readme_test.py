#!/usr/bin/env python3
"""Runs the examples of README.md that are marked as a reader would, and compares what they print.

usage: readme_test.py --bin FOLDER README
"""
import argparse
import os
import re
import sys

import examples


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("readme")
    options = parser.parse_args()
    with open(options.readme) as readme:
        marked = readme.read().split("readme_test.py")[1:]
    passed = failed = 0
    for text in marked:
        needed = re.match(r"[^\n]*where there is (\S+)", text)
        if needed and not os.path.exists(needed[1]):
            print(f"not run without {needed[1]}")
            continue
        block = text.split("```\n", 2)[1]
        counts = examples.run_all(options.bin, examples.steps(block.splitlines()))
        passed, failed = passed + counts[0], failed + counts[1]
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
