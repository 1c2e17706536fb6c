// Where there is data in a namespace: from the controller's Get LBA Status to extents of bytes.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "host/block_device.h"
#include "nvme/lba_status.h"
#include "transport/loop.h"

namespace nvmf::host {

/// Get LBA Status commands of a connection at a time. They share admin slots with passthrough,
/// which are at least as many in nearly all cases; Keep Alive has its own.
inline constexpr std::uint32_t kExtentsCommandsMax = 2;
/// Requests that wait for one of these. More are told that all of it is data.
inline constexpr std::size_t kExtentsWaitersMax = 1024;
/// Whoever asks gets an answer within this: then all of it is data, while the command goes on.
inline constexpr Duration kExtentsPatience = std::chrono::seconds(10);
/// A list as long as this is asked for at most: 255 descriptors, a page.
inline constexpr std::uint64_t kExtentsListBytes = 4096;

/// Who can ask the controller: the owner of the association.
class ExtentsSource {
 public:
  /// From the thread of `home`: `request` is in the range of namespace `nsid`. Its `complete`
  /// follows there.
  virtual void look_up(transport::Loop& home, std::uint32_t nsid, ExtentsRequest& request) = 0;

 protected:
  ~ExtentsSource() = default;
};

/// The command for a request; its `length_bytes` is at most kExtentsListBytes.
nvme::GetLbaStatus lba_status_for(const ExtentsRequest& request, std::uint32_t nsid,
                                  std::uint32_t block_shift);

/// Answers the request with what the controller said to that command. Zeroes are only what lies
/// between allocated ranges, where the controller says that it has looked; with a list that
/// contradicts itself, all of it is data.
void answer_extents(ExtentsRequest& request, const nvme::LbaStatusList& list,
                    std::uint32_t block_shift);

}  // namespace nvmf::host
