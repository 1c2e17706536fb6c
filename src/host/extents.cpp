#include "host/extents.h"

#include <algorithm>

namespace nvmf::host {
namespace {

// RL has 16 bits.
constexpr std::uint64_t kRangeBlocksMax = 0xffff;

/// Blocks [first, end) that a request touches.
struct Blocks {
  Blocks(const ExtentsRequest& r, std::uint32_t shift)
      : first(r.offset_bytes >> shift), end(((r.offset_bytes + r.length_bytes - 1) >> shift) + 1) {}
  std::uint64_t first;
  std::uint64_t end;
};

/// Fills in extents from the request's offset on.
class Answer {
 public:
  Answer(ExtentsRequest& request, std::uint32_t shift)
      : request_(request),
        shift_(shift),
        at_(request.offset_bytes),
        end_(request.offset_bytes + request.length_bytes) {
    request_.count = 0;
    request_.error = 0;
  }
  /// Up to block `lba` it is like this. False if there is no room for it.
  bool add(std::uint64_t lba, bool zeroes) {
    const std::uint64_t to = std::min(lba << shift_, end_);
    if (to <= at_) return true;
    const std::uint64_t length = to - at_;
    Extent* const last = request_.count == 0 ? nullptr : &request_.extents[request_.count - 1];
    if (last != nullptr && last->zeroes == zeroes) {
      last->length_bytes += length;
    } else if (request_.count == request_.extents.size()) {
      return false;
    } else {
      request_.extents[request_.count++] = {length, zeroes};
    }
    at_ = to;
    return true;
  }

 private:
  ExtentsRequest& request_;
  std::uint32_t shift_;
  std::uint64_t at_;
  std::uint64_t end_;
};

/// They rise, do not overlap, and are where they were asked for.
bool in_order(const nvme::LbaStatusList& list, std::uint64_t first) {
  std::uint64_t before = first;
  for (const nvme::LbaStatusEntry& entry : list.entries) {
    if (entry.lba < before || entry.blocks > ~std::uint64_t{0} - entry.lba) return false;
    before = entry.lba + entry.blocks;
  }
  return true;
}

}  // namespace

nvme::GetLbaStatus lba_status_for(const ExtentsRequest& request, std::uint32_t nsid,
                                  std::uint32_t block_shift) {
  const Blocks blocks(request, block_shift);
  const std::uint64_t count = blocks.end - blocks.first;
  const std::uint64_t bytes =
      nvme::kLbaStatusHeaderBytes + request.extents.size() * nvme::kLbaStatusEntryBytes;
  return {.nsid = nsid,
          .lba = blocks.first,
          .length_bytes = std::min(bytes, kExtentsListBytes) / 4 * 4,
          .action = nvme::LbaStatusAction::allocated,
          // Up to the end if it is more than that: the length of the list bounds it, too.
          .blocks = static_cast<std::uint16_t>(count <= kRangeBlocksMax ? count : 0)};
}

void answer_extents(ExtentsRequest& request, const nvme::LbaStatusList& list,
                    std::uint32_t block_shift) {
  const Blocks blocks(request, block_shift);
  if (!in_order(list, blocks.first)) return request.answer_data();
  Answer answer(request, block_shift);
  bool room = true;
  for (const nvme::LbaStatusEntry& entry : list.entries) {
    room = room && answer.add(std::min(entry.lba, blocks.end), true) &&
           answer.add(std::min(entry.lba + entry.blocks, blocks.end), false);
  }
  const bool all =
      list.end == nvme::LbaStatusEnd::complete && list.announced == list.entries.size();
  if (room && all) answer.add(blocks.end, true);
  if (request.count == 0) request.answer_data();
}

}  // namespace nvmf::host
