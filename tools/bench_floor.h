// The floor: what the same bytes cost over one loopback connection with nothing in between.
//
// Two processes with blocking sockets. One sends as many bytes as a command capsule has and keeps
// `depth` of them under way; the other answers each with as many bytes as C2HData, data and
// response have, or takes a write's data in the capsule or after an R2T. Neither checks or stores
// anything. What it reaches is an upper bound for any NVMe/TCP pair on the same machine that waits
// for its socket to be readable.
#pragma once

#include <cstddef>

#include "bench_figures.h"
#include "nvme/result.h"

namespace nvmf::tools {

/// `buffer_bytes` is what a receive asks for. No mixed patterns: two ends that block would wait for
/// each other. One connection, whatever workload.queues says.
Result<Figures> run_floor(const Workload& workload, std::size_t buffer_bytes);

}  // namespace nvmf::tools
