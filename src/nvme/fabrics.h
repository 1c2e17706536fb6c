// Fabrics commands and the properties of a controller. NVMe Base 2.1 §6 (commands), §3.1.4
// (properties), §3.3 (association).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "nvme/command.h"
#include "nvme/result.h"

namespace nvmf::nvme {

inline constexpr std::size_t kConnectDataBytes = 1024;
/// CNTLID in Connect data: any controller (dynamic model) and any static one.
inline constexpr std::uint16_t kCntlidDynamic = 0xffff;
inline constexpr std::uint16_t kCntlidStatic = 0xfffe;

using HostId = std::array<std::byte, 16>;  // in wire order

/// Connect data. Base 2.1 §6.3, figure "Connect Command – Data".
struct ConnectData {
  HostId hostid{};
  std::uint16_t cntlid = kCntlidDynamic;
  std::string subnqn;
  std::string hostnqn;

  void encode(std::span<std::byte, kConnectDataBytes> out) const;
  /// Fails if an NQN is not ended by a NUL within its 256 bytes. Whether it is a good one is for
  /// valid_nqn() to say.
  static Result<ConnectData> decode(std::span<const std::byte> in);
  friend bool operator==(const ConnectData&, const ConnectData&) = default;
};

/// CATTR bits.
inline constexpr std::uint8_t kCattrDisableSqFlowControl = 1u << 2;
/// SQHD in every response of a queue whose SQ flow control is off.
inline constexpr std::uint16_t kSqhdFlowControlOff = 0xffff;

/// The Connect command, apart from its data.
struct ConnectCommand {
  std::uint16_t recfmt = 0;
  std::uint16_t qid = 0;
  std::uint32_t queue_entries = 0;  // 1-based here; SQSIZE on the wire is 0's based
  std::uint8_t cattr = 0;
  std::uint32_t kato_ms = 0;  // of the admin queue only

  /// queue_entries 1 to 65536 (NVMF_CHECK).
  [[nodiscard]] Sqe to_sqe() const;
  static ConnectCommand from_sqe(const Sqe& sqe);
  friend bool operator==(const ConnectCommand&, const ConnectCommand&) = default;
};

/// DW0 of a successful Connect response.
struct ConnectResponse {
  std::uint16_t cntlid = 0;
  bool authentication_required = false;  // AUTHREQ.ATR: in-band authentication
  bool secure_channel_required = false;  // AUTHREQ.ASCR: after a secure channel

  [[nodiscard]] std::uint64_t encode() const;  // Cqe::result
  static ConnectResponse decode(std::uint64_t result);
  friend bool operator==(const ConnectResponse&, const ConnectResponse&) = default;
};

/// DW0 of a Connect refused with Connect Invalid Parameters: where the wrong parameter begins.
struct ConnectInvalidParameter {
  bool in_data = false;      // IATTR bit 0: in the Connect data, else in the SQE
  std::uint16_t offset = 0;  // IPO, bytes

  [[nodiscard]] std::uint64_t encode() const;  // Cqe::result
  static ConnectInvalidParameter decode(std::uint64_t result);
  /// The field in words: "the host NQN (HOSTNQN), byte 512 of the Connect data".
  [[nodiscard]] std::string describe() const;
  /// What to do about it, to go on after "try "; never empty.
  [[nodiscard]] std::string_view hint() const;
  friend bool operator==(const ConnectInvalidParameter&, const ConnectInvalidParameter&) = default;
};
/// Byte offsets to report in ConnectInvalidParameter.
inline constexpr std::uint16_t kConnectSqeRecfmt = 40;
inline constexpr std::uint16_t kConnectSqeQid = 42;
inline constexpr std::uint16_t kConnectSqeSqsize = 44;
inline constexpr std::uint16_t kConnectSqeCattr = 46;
inline constexpr std::uint16_t kConnectSqeKato = 48;
inline constexpr std::uint16_t kConnectSqeNvmsetid = 52;
inline constexpr std::uint16_t kConnectDataHostid = 0;
inline constexpr std::uint16_t kConnectDataCntlid = 16;
inline constexpr std::uint16_t kConnectDataSubnqn = 256;
inline constexpr std::uint16_t kConnectDataHostnqn = 512;

/// Property offsets. Base 2.1 §3.1.4.
enum class Property : std::uint32_t {
  cap = 0x00,  // 8 bytes
  vs = 0x08,   // 4, as all below
  cc = 0x14,
  csts = 0x1c,
  nssr = 0x20,
  nssd = 0x64,
  crto = 0x68,
};

/// Property Get and Property Set.
struct PropertyCommand {
  std::uint32_t offset = 0;
  bool eight_bytes = false;  // ATTRIB.SIZE: 001b is 8 bytes, 000b is 4
  std::uint64_t value = 0;   // Set only

  [[nodiscard]] Sqe to_get() const;
  [[nodiscard]] Sqe to_set() const;
  /// Nothing if ATTRIB's size is neither 4 nor 8 bytes. For both types; a Get has value 0.
  static std::optional<PropertyCommand> from_sqe(const Sqe& sqe);
  friend bool operator==(const PropertyCommand&, const PropertyCommand&) = default;
};
/// The Get of a property of known size, and the Set (CC, NSSR: 4 bytes).
Sqe property_get(Property property);
Sqe property_set(Property property, std::uint32_t value);

/// Disconnect of an I/O queue, RECFMT 0. Base 2.1 §6.4.
Sqe disconnect_command();

/// CAP, Controller Capabilities.
struct ControllerCapabilities {
  std::uint16_t mqes = 0;  // largest queue, entries, 0's based
  bool cqr = false;        // contiguous queues required: always for fabrics
  std::uint8_t ams = 0;    // bit 0 weighted round robin, bit 1 vendor specific
  std::uint8_t to = 0;     // units of 500 ms: longest wait for CSTS.RDY to follow CC.EN
  std::uint8_t dstrd = 0;
  bool nssrs = false;    // subsystem reset supported
  std::uint8_t css = 0;  // bit 0 NVM, bit 6 one or more I/O command sets, bit 7 none
  bool bps = false;
  std::uint8_t cps = 0;
  std::uint8_t mpsmin = 0;  // smallest page 2^(12 + mpsmin)
  std::uint8_t mpsmax = 0;
  bool pmrs = false;
  bool cmbs = false;
  bool nsss = false;
  std::uint8_t crms = 0;  // bit 0 ready with media, bit 1 ready independent of media
  bool nsses = false;

  [[nodiscard]] std::uint64_t encode() const;
  static ControllerCapabilities decode(std::uint64_t value);
  friend bool operator==(const ControllerCapabilities&, const ControllerCapabilities&) = default;
};
inline constexpr std::uint8_t kCapCssNvm = 1u << 0;
inline constexpr std::uint8_t kCapCssIo = 1u << 6;
inline constexpr std::uint8_t kCapCssNone = 1u << 7;

/// CC, Controller Configuration.
struct ControllerConfiguration {
  bool en = false;
  std::uint8_t css = 0;  // 000b NVM, 110b all supported, 111b admin only
  std::uint8_t mps = 0;  // page 2^(12 + mps)
  std::uint8_t ams = 0;
  std::uint8_t shn = 0;     // 01b normal shutdown, 10b abrupt
  std::uint8_t iosqes = 0;  // power of two: 6
  std::uint8_t iocqes = 0;  // power of two: 4
  bool crime = false;

  [[nodiscard]] std::uint32_t encode() const;
  static ControllerConfiguration decode(std::uint32_t value);
  friend bool operator==(const ControllerConfiguration&, const ControllerConfiguration&) = default;
};
inline constexpr std::uint8_t kShnNone = 0;
inline constexpr std::uint8_t kShnNormal = 1;
inline constexpr std::uint8_t kShnAbrupt = 2;

/// CSTS, Controller Status.
struct ControllerStatus {
  bool rdy = false;
  bool cfs = false;       // fatal: only a reset helps
  std::uint8_t shst = 0;  // 00b none, 01b shutdown under way, 10b complete
  bool nssro = false;
  bool pp = false;
  bool st = false;  // shutdown type: of the subsystem

  [[nodiscard]] std::uint32_t encode() const;
  static ControllerStatus decode(std::uint32_t value);
  friend bool operator==(const ControllerStatus&, const ControllerStatus&) = default;
};
inline constexpr std::uint8_t kShstNone = 0;
inline constexpr std::uint8_t kShstInProgress = 1;
inline constexpr std::uint8_t kShstComplete = 2;

/// VS as text: "1.4", "2.0" or "1.2.1".
std::string version_text(std::uint32_t vs);

}  // namespace nvmf::nvme
