#include "nvme/lba_status.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "nvme/check.h"
#include "nvme/endian.h"

namespace nvmf::nvme {

Sqe GetLbaStatus::to_sqe() const {
  NVMF_CHECK(length_bytes >= 4 && length_bytes % 4 == 0 && length_bytes / 4 <= 1ull << 32);
  Sqe sqe;
  sqe.opcode = std::to_underlying(AdminOpcode::get_lba_status);
  sqe.nsid = nsid;
  sqe.set_slba(lba);
  sqe.cdw12 = static_cast<std::uint32_t>(length_bytes / 4 - 1);
  sqe.cdw13 = static_cast<std::uint32_t>(std::to_underlying(action)) << 24 | blocks;
  return sqe;
}

GetLbaStatus GetLbaStatus::from_sqe(const Sqe& sqe) {
  return {.nsid = sqe.nsid,
          .lba = sqe.slba(),
          .length_bytes = (std::uint64_t{sqe.cdw12} + 1) * 4,
          .action = static_cast<LbaStatusAction>(sqe.cdw13 >> 24),
          .blocks = static_cast<std::uint16_t>(sqe.cdw13)};
}

std::vector<std::byte> LbaStatusList::encode() const {
  std::vector<std::byte> out(kLbaStatusHeaderBytes + entries.size() * kLbaStatusEntryBytes);
  store_le32(out.data(), static_cast<std::uint32_t>(entries.size()));
  out[4] = static_cast<std::byte>(end);
  std::byte* p = out.data() + kLbaStatusHeaderBytes;
  for (const LbaStatusEntry& entry : entries) {
    NVMF_CHECK(entry.blocks >= 1 && entry.blocks <= kLbaStatusBlocksMax);
    store_le64(p, entry.lba);
    store_le32(p + 8, static_cast<std::uint32_t>(entry.blocks - 1));
    p[13] = static_cast<std::byte>(entry.status);
    p += kLbaStatusEntryBytes;
  }
  return out;
}

LbaStatusList LbaStatusList::decode(std::span<const std::byte> in) {
  std::array<std::byte, kLbaStatusHeaderBytes> header{};
  std::memcpy(header.data(), in.data(), std::min(in.size(), header.size()));
  LbaStatusList list;
  list.announced = load_le32(header.data());
  list.end = static_cast<LbaStatusEnd>(header[4]);
  in = in.subspan(std::min(in.size(), header.size()));
  const std::size_t count = std::min<std::size_t>(list.announced, in.size() / kLbaStatusEntryBytes);
  list.entries.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::byte* p = in.data() + i * kLbaStatusEntryBytes;
    list.entries.push_back({.lba = load_le64(p),
                            .blocks = std::uint64_t{load_le32(p + 8)} + 1,
                            .status = static_cast<std::uint8_t>(p[13])});
  }
  return list;
}

}  // namespace nvmf::nvme
