// Submission and completion queue entries as values, and the opcodes this project knows.
// NVMe Base 2.1 §4.1 (SQE), §4.2 (CQE), §5, §6; NVM Command Set 1.2 §3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "nvme/status.h"

namespace nvmf::nvme {

inline constexpr std::size_t kSqeBytes = 64;
inline constexpr std::size_t kCqeBytes = 16;
inline constexpr std::uint32_t kNsidAll = 0xffffffffu;

enum class AdminOpcode : std::uint8_t {
  delete_sq = 0x00,
  create_sq = 0x01,
  get_log_page = 0x02,
  delete_cq = 0x04,
  create_cq = 0x05,
  identify = 0x06,
  abort = 0x08,
  set_features = 0x09,
  get_features = 0x0a,
  async_event_request = 0x0c,
  namespace_management = 0x0d,
  keep_alive = 0x18,
  format_nvm = 0x80,
  sanitize = 0x84,
  get_lba_status = 0x86,
};

enum class NvmOpcode : std::uint8_t {
  flush = 0x00,
  write = 0x01,
  read = 0x02,
  write_uncorrectable = 0x04,
  compare = 0x05,
  write_zeroes = 0x08,
  dataset_management = 0x09,
  verify = 0x0c,
  copy = 0x19,
};

inline constexpr std::uint8_t kFabricsOpcode = 0x7f;

/// FCTYPE, byte 4 of a fabrics command. Base 2.1 §6.
enum class FabricsType : std::uint8_t {
  property_set = 0x00,
  connect = 0x01,
  property_get = 0x04,
  authentication_send = 0x05,
  authentication_receive = 0x06,
  disconnect = 0x08,
};

/// SGL descriptor, 16 bytes. NVMe/TCP 1.0 §3.3.2 uses two kinds, in `type` below.
struct Sgl {
  std::uint64_t address = 0;  // for in-capsule data: the offset, always 0 here
  std::uint32_t length_bytes = 0;
  std::uint8_t type = 0;  // type << 4 | subtype

  friend constexpr bool operator==(const Sgl&, const Sgl&) = default;
};

inline constexpr std::uint8_t kSglDataBlockOffset = 0x01;     // data block, offset: in capsule
inline constexpr std::uint8_t kSglTransportDataBlock = 0x5a;  // transport data block, Ah

/// A submission queue entry. Fields that a command does not define stay 0.
struct Sqe {
  std::uint8_t opcode = 0;
  /// FUSE bits 1:0, PSDT bits 7:6. A qpair sets PSDT 01b, in fabrics commands too: for these Base
  /// 2.2 §4.1.2 has 00b (no data) and 10b (data) only, but Linux's target wants 01b in all.
  std::uint8_t flags = 0;
  std::uint16_t cid = 0;   // set by the qpair
  std::uint32_t nsid = 0;  // for fabrics commands: FCTYPE in the low byte
  std::uint32_t cdw2 = 0;
  std::uint32_t cdw3 = 0;
  std::uint64_t mptr = 0;
  Sgl sgl;  // set by the qpair
  std::uint32_t cdw10 = 0;
  std::uint32_t cdw11 = 0;
  std::uint32_t cdw12 = 0;
  std::uint32_t cdw13 = 0;
  std::uint32_t cdw14 = 0;
  std::uint32_t cdw15 = 0;

  [[nodiscard]] constexpr bool is_fabrics() const { return opcode == kFabricsOpcode; }
  [[nodiscard]] constexpr FabricsType fabrics_type() const {
    return static_cast<FabricsType>(nsid & 0xff);
  }
  [[nodiscard]] constexpr std::uint64_t slba() const {
    return static_cast<std::uint64_t>(cdw11) << 32 | cdw10;
  }
  constexpr void set_slba(std::uint64_t lba) {
    cdw10 = static_cast<std::uint32_t>(lba);
    cdw11 = static_cast<std::uint32_t>(lba >> 32);
  }
  /// NLB of read, write, compare, write zeroes: 0's based on the wire, 1-based here.
  [[nodiscard]] constexpr std::uint32_t blocks() const { return (cdw12 & 0xffff) + 1; }

  void encode(std::span<std::byte, kSqeBytes> out) const;
  static Sqe decode(std::span<const std::byte, kSqeBytes> in);
  friend constexpr bool operator==(const Sqe&, const Sqe&) = default;
};

/// Bits of CDW12 of the NVM I/O commands.
inline constexpr std::uint32_t kCdw12Fua = 1u << 30;
inline constexpr std::uint32_t kCdw12LimitedRetry = 1u << 31;
inline constexpr std::uint32_t kCdw12Deac = 1u << 25;  // Write Zeroes: deallocate
/// Bit of CDW11 of Dataset Management: deallocate.
inline constexpr std::uint32_t kCdw11DsmDeallocate = 1u << 2;

struct Cqe {
  std::uint64_t result = 0;  // DW0 low, DW1 high
  std::uint16_t sqhd = 0;
  std::uint16_t sqid = 0;
  std::uint16_t cid = 0;
  Status status;

  [[nodiscard]] constexpr std::uint32_t dw0() const { return static_cast<std::uint32_t>(result); }
  void encode(std::span<std::byte, kCqeBytes> out) const;
  static Cqe decode(std::span<const std::byte, kCqeBytes> in);
  friend constexpr bool operator==(const Cqe&, const Cqe&) = default;
};

}  // namespace nvmf::nvme
