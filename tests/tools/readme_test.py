#!/usr/bin/env python3
"""Runs the first example of README.md as a reader would and compares what it prints.

usage: readme_test.py --bin FOLDER README
"""
import argparse
import sys

import examples


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("readme")
    options = parser.parse_args()
    with open(options.readme) as readme:
        block = readme.read().split("readme_test.py", 1)[1].split("```\n", 2)[1]
    passed, failed = examples.run_all(options.bin, examples.steps(block.splitlines()))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
