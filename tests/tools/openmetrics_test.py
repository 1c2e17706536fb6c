#!/usr/bin/env python3
"""The OpenMetrics document of test_tools' example, read by Prometheus' own parser, which refuses
what the standard does not allow.

usage: openmetrics_test.py TEST_TOOLS
"""

import os
import subprocess
import sys
import tempfile

from prometheus_client.openmetrics import parser


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "metrics")
        subprocess.run([sys.argv[1], "--gtest_filter=StatsOpenMetrics.IsWhatTheStandardAsksFor"],
                       env=dict(os.environ, NVMF_STATS_EXAMPLE=path), check=True, timeout=200,
                       stdout=subprocess.DEVNULL)
        with open(path, encoding="utf-8") as document:
            families = {f.name: f for f in parser.text_string_to_metric_families(document.read())}
    assert families["nvmf_queue_read_bytes"].unit == "bytes", families
    assert families["nvmf_connection_losses"].type == "counter"
    latency = families["nvmf_command_latency_seconds"]
    assert (latency.type, latency.unit) == ("histogram", "seconds")
    counts = {(s.labels["connection"], s.labels["queue"], s.labels["kind"]): s.value
              for s in latency.samples if s.name.endswith("_count")}
    assert counts["nvmf0", "1", "read"] == 1000, counts
    print(f"{len(families)} families, {sum(len(f.samples) for f in families.values())} samples")


if __name__ == "__main__":
    main()
