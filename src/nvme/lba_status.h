// Get LBA Status, an admin command of the NVM command set, and what it returns. NVM 1.2 §4.2.1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nvme/command.h"

namespace nvmf::nvme {

/// ATYPE. The first is there if AOCS says so (kAocsReportsAllocated), the others if OACS does
/// (kOacsGetLbaStatus). NVM 1.2 §5.2.
enum class LbaStatusAction : std::uint8_t {
  allocated = 0x02,       // which blocks are allocated
  scan_untracked = 0x10,  // which may be unreadable, after a scan
  tracked = 0x11,         // which may be unreadable, as known
};

struct GetLbaStatus {
  std::uint32_t nsid = 0;
  std::uint64_t lba = 0;
  std::uint64_t length_bytes = 8;  // MNDW: a multiple of 4, 4 to 16 GiB
  LbaStatusAction action = LbaStatusAction::allocated;
  std::uint16_t blocks = 0;  // RL; 0: up to the namespace's end

  /// NVMF_CHECK: length_bytes is as it says.
  [[nodiscard]] Sqe to_sqe() const;
  static GetLbaStatus from_sqe(const Sqe& sqe);
  friend bool operator==(const GetLbaStatus&, const GetLbaStatus&) = default;
};

/// Byte 13 of a descriptor, bits 2:0: one or more of its blocks are allocated (LBARS).
inline constexpr std::uint8_t kLbaStatusAllocated = 2;

inline constexpr std::size_t kLbaStatusEntryBytes = 16;
struct LbaStatusEntry {
  std::uint64_t lba = 0;
  std::uint64_t blocks = 1;  // 1 to 2^32; 0's based on the wire
  std::uint8_t status = 0;
  friend bool operator==(const LbaStatusEntry&, const LbaStatusEntry&) = default;
};
inline constexpr std::uint64_t kLbaStatusBlocksMax = std::uint64_t{1} << 32;

/// CMPC.
enum class LbaStatusEnd : std::uint8_t {
  unsaid = 0,
  no_room = 1,   // there may be more in the range
  complete = 2,  // the whole range was looked at
};

inline constexpr std::size_t kLbaStatusHeaderBytes = 8;
struct LbaStatusList {
  std::vector<LbaStatusEntry> entries;
  /// NLSD: how many the controller says that there are. decode() leaves out those for which there
  /// were no bytes; encode() writes entries.size().
  std::uint32_t announced = 0;
  LbaStatusEnd end = LbaStatusEnd::unsaid;

  [[nodiscard]] std::vector<std::byte> encode() const;
  /// Any bytes decode; what is missing at the end is zero.
  static LbaStatusList decode(std::span<const std::byte> in);
};

}  // namespace nvmf::nvme
