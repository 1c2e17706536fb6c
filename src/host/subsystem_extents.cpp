// RemoteSubsystem: where there is data, for its devices.
#include <utility>
#include <vector>

#include "host/extents.h"
#include "host/subsystem.h"

namespace nvmf::host {

/// From a reactor; everything else happens on the control loop.
void RemoteSubsystem::look_up(transport::Loop& home, std::uint32_t nsid, ExtentsRequest& request) {
  loops_[0]->post([this, &home, nsid, &request] { spawn(find_extents(home, nsid, request)); });
}

/// What is there is the disk, and nothing that was acknowledged is still to be written again to it.
bool RemoteSubsystem::tells_extents(std::uint32_t nsid) const {
  const std::size_t index = index_of(nsid);
  if (!live() || stop_asked_ || index == kNoIndex) return false;
  const NamespaceState& s = states_[index];
  return namespaces_[index]->tells_allocated && s.stopped.empty() && !s.must_replay && !s.replaying;
}

Task<void> RemoteSubsystem::find_extents(transport::Loop& home, std::uint32_t nsid,
                                         ExtentsRequest& request) {
  const Gate::Pass inside(tasks_);
  transport::Loop& loop = *loops_[0];
  const auto answer = [&home](ExtentsRequest& r) { home.post([&r] { r.complete(r); }); };
  ExtentsRequest* waiting = &request;
  bool asked = false;
  request.answer_data();
  // Whoever asks a controller that needs so long need not be kept waiting each time.
  transport::Timer patience(loop.timers(), [&] {
    extents_slow_ = extents_slow_ || asked;
    answer(*std::exchange(waiting, nullptr));
  });
  patience.arm(loop.now() + kExtentsPatience);
  const auto took = co_await extents_share_.take(loop.now() + kExtentsPatience);
  if (took != SlotShare::Took::yes) {
    patience.cancel();
    if (waiting != nullptr) answer(*waiting);
    co_return;
  }
  if (waiting != nullptr && !extents_slow_ && tells_extents(nsid)) {
    const std::uint64_t losses = losses_;
    const std::uint32_t shift = namespaces_[index_of(nsid)]->block_shift;
    const nvme::GetLbaStatus get = lba_status_for(request, nsid, shift);
    std::vector<std::byte> list(get.length_bytes);
    asked = true;
    const PassedThrough passed =
        co_await association_->ask(get.to_sqe(), list, params_.admin_timeout);
    const bool good = passed.outcome && passed.outcome->cqe.status.ok();
    if (waiting != nullptr && good && losses == losses_ && tells_extents(nsid)) {
      const auto received = std::span<const std::byte>(list).first(passed.outcome->received_bytes);
      answer_extents(request, nvme::LbaStatusList::decode(received), shift);
    }
  }
  extents_share_.give_back();
  patience.cancel();
  if (waiting != nullptr) answer(*waiting);
}

}  // namespace nvmf::host
