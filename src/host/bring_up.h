// From parameters to a complete set of live queues, in one coroutine.
//
// Resolve, ICReq, Connect, properties, CC.EN and CSTS.RDY, Identify, features, namespaces, I/O
// queues: NVMe Base 2.1 §3.5 and §6.3, NVMe/TCP 1.0 §3.1. Each step that waits for a silent peer
// ends within ConnectParams::connect_timeout, all of it within bring_up_timeout; on any failure
// everything that was opened is ended, on its own loop, before the error is returned.
#pragma once

#include <memory>
#include <vector>

#include "host/association.h"
#include "host/params.h"
#include "host/task.h"

namespace nvmf::host {

/// The way to call off a bring-up from outside. Control loop.
class BringUpControl {
 public:
  /// Ends it soon with this reason; nothing happens if none is under way.
  void cancel(Error reason);
  /// For bring_up(): which association is being made, nullptr for none.
  void watch(Association* association);
  [[nodiscard]] const std::optional<Error>& cancelled() const { return reason_; }

 private:
  Association* association_ = nullptr;
  std::optional<Error> reason_;
};

/// What to do when the target has no controller free just now (kControllerBusy).
enum class WhenBusy : std::uint8_t {
  wait,  // again and again within bring_up_timeout: for a first connect, which has one attempt
  fail,  // for a reconnect, whose attempts have pauses of their own
};

/// Runs on loops[0]. `control` must live until it is done. The error names address, NQNs, queue and
/// reason, and what to try; connect_error.h says which are final after a loss. On a first connect
/// each is. ECONNREFUSED: nobody listens there. `counters`: see Association.
Task<Result<std::unique_ptr<Association>>> bring_up(
    ConnectParams params, std::vector<transport::Loop*> loops, BringUpControl& control,
    WhenBusy when_busy = WhenBusy::wait, std::shared_ptr<ConnectionCounters> counters = nullptr);

}  // namespace nvmf::host
