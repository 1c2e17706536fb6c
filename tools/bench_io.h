// Load on the host library itself: no frontend, no other process of ours, just BlockDevices.
#pragma once

#include "bench_figures.h"
#include "host/params.h"
#include "nvme/result.h"

namespace nvmf::tools {

struct IoBench {
  Workload workload;
  host::ConnectParams params;  // names at most one namespace; queues and digests from the workload
  bool spin = false;           // reactors never sleep
  bool canned = false;         // against a canned responder, which then becomes the address
};

/// Before this process has started a thread. Connects, keeps `depth` requests under way on each
/// queue for `time`, disconnects.
Result<Figures> run_io(IoBench bench);

}  // namespace nvmf::tools
