// What the Identify command returns, as values in host byte order.
//
// Each structure has decode() from the bytes a controller sent and encode() into a buffer to send.
// Any bytes decode to a value: nothing is judged here, a field may hold what the specification
// forbids and whoever uses it checks it. encode() writes every byte of its output: what a structure
// does not name becomes 0. decode() needs a span of at least the structure's size (NVMF_CHECK).
// NVMe Base 2.1 §5.1.13 (Identify), NVM Command Set 1.2 §4.1.5.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nvme/command.h"
#include "nvme/result.h"
#include "nvme/uint128.h"

namespace nvmf::nvme {

inline constexpr std::size_t kIdentifyBytes = 4096;
inline constexpr std::size_t kLbaFormats = 64;
inline constexpr std::size_t kPowerStates = 32;

using Eui64 = std::array<std::byte, 8>;   // in wire order, as printed
using Nguid = std::array<std::byte, 16>;  // in wire order, as printed
using Uuid = std::array<std::byte, 16>;   // in wire order (big endian, RFC 4122), as printed

/// Controller or Namespace Structure: which data Identify returns. CDW10 bits 7:0.
enum class Cns : std::uint8_t {
  identify_namespace = 0x00,
  controller = 0x01,
  active_namespaces = 0x02,
  namespace_descriptors = 0x03,
  nvm_sets = 0x04,
  csi_namespace = 0x05,
  csi_controller = 0x06,
  csi_active_namespaces = 0x07,
  independent_namespace = 0x08,
  allocated_namespaces = 0x10,
  allocated_namespace = 0x11,
  namespace_controllers = 0x12,
  controllers = 0x13,
  primary_capabilities = 0x14,
  secondary_controllers = 0x15,
  namespace_granularity = 0x16,
  uuids = 0x17,
  domains = 0x18,
  endurance_groups = 0x19,
  command_sets = 0x1c,
};

/// Command Set Identifier.
enum class Csi : std::uint8_t { nvm = 0x00, key_value = 0x01, zoned = 0x02 };

/// CNTRLTYPE.
enum class ControllerType : std::uint8_t {
  not_reported = 0,
  io = 1,
  discovery = 2,
  administrative = 3,
};

/// CMIC.
inline constexpr std::uint8_t kCmicMultiPort = 1u << 0;
inline constexpr std::uint8_t kCmicMultiController = 1u << 1;
inline constexpr std::uint8_t kCmicAna = 1u << 3;
/// OAES. The same bits enable the events in Asynchronous Event Configuration (feature 0Bh).
inline constexpr std::uint32_t kOaesNamespaceAttributes = 1u << 8;
inline constexpr std::uint32_t kOaesFirmwareActivation = 1u << 9;
inline constexpr std::uint32_t kOaesAnaChange = 1u << 11;
inline constexpr std::uint32_t kOaesDiscoveryChange = 1u << 31;
/// CTRATT.
inline constexpr std::uint32_t kCtrattHostId128 = 1u << 0;
inline constexpr std::uint32_t kCtrattTbkas = 1u << 6;  // traffic based keep alive
/// OACS.
inline constexpr std::uint16_t kOacsSecurity = 1u << 0;
inline constexpr std::uint16_t kOacsFormat = 1u << 1;
inline constexpr std::uint16_t kOacsFirmware = 1u << 2;
inline constexpr std::uint16_t kOacsNamespaceManagement = 1u << 3;
/// Get LBA Status can tell which blocks may be unreadable (actions 10h and 11h), and there is what
/// belongs to that: notices, a log page and a feature.
inline constexpr std::uint16_t kOacsGetLbaStatus = 1u << 9;
/// FNA bit 3: Format NVM takes one namespace only, not NSID FFFFFFFFh.
inline constexpr std::uint8_t kFnaNoBroadcast = 1u << 3;
/// LPA.
inline constexpr std::uint8_t kLpaSmartPerNamespace = 1u << 0;
inline constexpr std::uint8_t kLpaEffects = 1u << 1;
inline constexpr std::uint8_t kLpaExtendedData = 1u << 2;  // NUMDU and offset in Get Log Page
inline constexpr std::uint8_t kLpaSupportedPages = 1u << 5;
/// ONCS. Of a command that has limits in IdentifyNvmController the bit says that these are advice;
/// without it a limit other than 0 binds, and says that the command is there. NVM 1.2 §4.1.5.4.
inline constexpr std::uint16_t kOncsCompare = 1u << 0;
inline constexpr std::uint16_t kOncsWriteUncorrectable = 1u << 1;
inline constexpr std::uint16_t kOncsDsm = 1u << 2;
inline constexpr std::uint16_t kOncsWriteZeroes = 1u << 3;
inline constexpr std::uint16_t kOncsSaveSelect = 1u << 4;
inline constexpr std::uint16_t kOncsReservations = 1u << 5;
inline constexpr std::uint16_t kOncsTimestamp = 1u << 6;
inline constexpr std::uint16_t kOncsVerify = 1u << 7;
inline constexpr std::uint16_t kOncsCopy = 1u << 8;
/// FUSES.
inline constexpr std::uint16_t kFusesCompareWrite = 1u << 0;
/// VWC: bit 0 a volatile write cache is present; bits 2:1 what Flush with NSID FFFFFFFFh does.
inline constexpr std::uint8_t kVwcPresent = 1u << 0;
inline constexpr std::uint8_t kVwcFlushAllRefused = 2u << 1;
inline constexpr std::uint8_t kVwcFlushAllSupported = 3u << 1;
/// SGLS. NVMe/TCP asks for SGLs without alignment, transport data blocks and in-capsule offsets.
inline constexpr std::uint32_t kSglsSupported = 1u << 0;     // bits 1:0 = 01b
inline constexpr std::uint32_t kSglsDwordAligned = 2u << 0;  // bits 1:0 = 10b
inline constexpr std::uint32_t kSglsKeyed = 1u << 2;         // keyed data block
inline constexpr std::uint32_t kSglsOffset = 1u << 20;       // address as offset, in capsule
inline constexpr std::uint32_t kSglsTransportDataBlock = 1u << 21;
/// FCATT bit 0: 0 is the dynamic controller model, 1 the static one.
inline constexpr std::uint8_t kFcattStatic = 1u << 0;
/// OFCS bit 0: the Disconnect command.
inline constexpr std::uint16_t kOfcsDisconnect = 1u << 0;

/// Version register values for VER and VS.
inline constexpr std::uint32_t kVersion13 = 0x00010300;
inline constexpr std::uint32_t kVersion14 = 0x00010400;
inline constexpr std::uint32_t kVersion20 = 0x00020000;

/// Power State Descriptor, 32 bytes.
struct PowerState {
  std::uint16_t mp = 0;     // maximum power, in 0.01 W, or 0.0001 W if kPowerStateMps
  std::uint8_t flags = 0;   // bit 0 MXPS, bit 1 NOPS
  std::uint32_t enlat = 0;  // microseconds
  std::uint32_t exlat = 0;  // microseconds
  std::uint8_t rrt = 0;
  std::uint8_t rrl = 0;
  std::uint8_t rwt = 0;
  std::uint8_t rwl = 0;
  std::uint16_t idlp = 0;
  std::uint8_t ips = 0;  // bits 7:6 the scale
  std::uint16_t actp = 0;
  std::uint8_t apws = 0;  // bits 7:6 the scale of actp, bits 2:0 the workload

  friend constexpr bool operator==(const PowerState&, const PowerState&) = default;
};
inline constexpr std::uint8_t kPowerStateMps = 1u << 0;
inline constexpr std::uint8_t kPowerStateNops = 1u << 1;

/// Identify Controller, CNS 01h. Text fields are without their padding. Names are the
/// specification's, which are also nvme-cli's.
struct IdentifyController {
  std::uint16_t vid = 0;
  std::uint16_t ssvid = 0;
  std::string sn;  // at most 20 characters
  std::string mn;  // at most 40
  std::string fr;  // at most 8
  std::uint8_t rab = 0;
  std::uint32_t ieee = 0;  // 24 bits
  std::uint8_t cmic = 0;
  std::uint8_t mdts = 0;  // a power of two in units of the minimum page (CAP.MPSMIN); 0: no limit
  std::uint16_t cntlid = 0;
  std::uint32_t ver = 0;
  std::uint32_t rtd3r = 0;
  std::uint32_t rtd3e = 0;
  std::uint32_t oaes = 0;
  std::uint32_t ctratt = 0;
  std::uint16_t rrls = 0;
  ControllerType cntrltype = ControllerType::not_reported;
  std::array<std::byte, 16> fguid{};
  std::uint16_t crdt1 = 0;  // units of 100 ms, as are crdt2 and crdt3
  std::uint16_t crdt2 = 0;
  std::uint16_t crdt3 = 0;
  std::uint8_t nvmsr = 0;
  std::uint8_t vwci = 0;
  std::uint8_t mec = 0;
  std::uint16_t oacs = 0;
  std::uint8_t acl = 0;   // 0's based
  std::uint8_t aerl = 0;  // 0's based
  std::uint8_t frmw = 0;
  std::uint8_t lpa = 0;
  std::uint8_t elpe = 0;  // 0's based
  std::uint8_t npss = 0;  // 0's based
  std::uint8_t avscc = 0;
  std::uint8_t apsta = 0;
  std::uint16_t wctemp = 0;  // kelvins
  std::uint16_t cctemp = 0;  // kelvins
  std::uint16_t mtfa = 0;
  std::uint32_t hmpre = 0;
  std::uint32_t hmmin = 0;
  Uint128 tnvmcap;  // bytes
  Uint128 unvmcap;  // bytes
  std::uint32_t rpmbs = 0;
  std::uint16_t edstt = 0;
  std::uint8_t dsto = 0;
  std::uint8_t fwug = 0;
  std::uint16_t kas = 0;  // keep alive granularity, units of 100 ms; 0: not supported
  std::uint16_t hctma = 0;
  std::uint16_t mntmt = 0;
  std::uint16_t mxtmt = 0;
  std::uint32_t sanicap = 0;
  std::uint32_t hmminds = 0;
  std::uint16_t hmmaxd = 0;
  std::uint16_t nsetidmax = 0;
  std::uint16_t endgidmax = 0;
  std::uint8_t anatt = 0;  // seconds
  std::uint8_t anacap = 0;
  std::uint32_t anagrpmax = 0;
  std::uint32_t nanagrpid = 0;
  std::uint32_t pels = 0;
  std::uint16_t domainid = 0;  // DID in Base 2.1
  Uint128 megcap;
  std::uint16_t cqt = 0;  // command quiesce time, bytes 387:386, milliseconds; 0: not reported
  std::uint8_t sqes = 0;  // bits 3:0 the smallest, 7:4 the largest; a power of two
  std::uint8_t cqes = 0;
  std::uint16_t maxcmd = 0;
  std::uint32_t nn = 0;
  std::uint16_t oncs = 0;
  std::uint16_t fuses = 0;
  std::uint8_t fna = 0;
  std::uint8_t vwc = 0;
  std::uint16_t awun = 0;   // logical blocks, 0's based
  std::uint16_t awupf = 0;  // logical blocks, 0's based
  std::uint8_t icsvscc = 0;
  std::uint8_t nwpc = 0;
  std::uint16_t acwu = 0;
  std::uint16_t ocfs = 0;  // copy descriptor formats, CDFS in Base 2.1
  std::uint32_t sgls = 0;
  std::uint32_t mnan = 0;
  Uint128 maxdna;
  std::uint32_t maxcna = 0;
  std::uint32_t oaqd = 0;
  std::string subnqn;
  std::uint32_t ioccsz = 0;  // I/O command capsule, units of 16 bytes, at least 4
  std::uint32_t iorcsz = 0;  // I/O response capsule, units of 16 bytes
  std::uint16_t icdoff = 0;  // units of 16 bytes
  std::uint8_t fcatt = 0;
  std::uint8_t msdbd = 0;
  std::uint16_t ofcs = 0;
  std::uint8_t dctype = 0;
  std::array<PowerState, kPowerStates> psd{};
  std::array<std::byte, 1024> vs{};  // vendor specific, bytes 3072 to 4095

  /// Bytes of in-capsule data that an I/O command may carry, 0 if IOCCSZ leaves room for none.
  /// IOCCSZ below 4 is a broken controller and also gives 0.
  [[nodiscard]] std::uint64_t in_capsule_bytes() const;
  /// The most bytes one command may transfer, nothing if unlimited. mpsmin is CAP.MPSMIN.
  /// A value too large for 64 bits counts as unlimited.
  [[nodiscard]] std::optional<std::uint64_t> max_transfer_bytes(std::uint8_t mpsmin) const;

  void encode(std::span<std::byte, kIdentifyBytes> out) const;
  static IdentifyController decode(std::span<const std::byte> in);
  friend bool operator==(const IdentifyController&, const IdentifyController&) = default;
};

/// LBA Format, 4 bytes.
struct LbaFormat {
  std::uint16_t ms = 0;    // metadata bytes per block
  std::uint8_t lbads = 0;  // the block is 2^lbads bytes; below 9: format not available
  std::uint8_t rp = 0;     // bits 1:0 relative performance, 0 best to 3 degraded

  friend constexpr bool operator==(const LbaFormat&, const LbaFormat&) = default;
};

/// NSFEAT.
inline constexpr std::uint8_t kNsfeatThin = 1u << 0;
inline constexpr std::uint8_t kNsfeatAtomic = 1u << 1;
inline constexpr std::uint8_t kNsfeatDeallocatedError = 1u << 2;
inline constexpr std::uint8_t kNsfeatUidReuse = 1u << 3;  // NGUID and EUI64 are never reused
/// OPTPERF, bits 5:4. With bit 4 NPWG, NPWA, NPDG, NPDA and NOWS hold. In NVM 1.2 bit 5 without it
/// says that all of these but NPDG do, so who looks at bit 4 alone only misses advice.
inline constexpr std::uint8_t kNsfeatOptimal = 1u << 4;
/// NMIC.
inline constexpr std::uint8_t kNmicShared = 1u << 0;
/// DLFEAT: bits 2:0 what a deallocated block reads as, bit 3 Write Zeroes takes DEAC.
inline constexpr std::uint8_t kDlfeatReadMask = 7;
inline constexpr std::uint8_t kDlfeatReadsZero = 1;
inline constexpr std::uint8_t kDlfeatReadsOnes = 2;
inline constexpr std::uint8_t kDlfeatWriteZeroesDeac = 1u << 3;
/// NSATTR.
inline constexpr std::uint8_t kNsattrWriteProtected = 1u << 0;

/// Identify Namespace, CNS 00h. All zero: the NSID is inactive.
struct IdentifyNamespace {
  std::uint64_t nsze = 0;  // logical blocks
  std::uint64_t ncap = 0;
  std::uint64_t nuse = 0;
  std::uint8_t nsfeat = 0;
  std::uint8_t nlbaf = 0;  // 0's based
  std::uint8_t flbas = 0;  // bits 3:0 and 6:5 the index, bit 4 metadata at the end of the data
  std::uint8_t mc = 0;
  std::uint8_t dpc = 0;
  std::uint8_t dps = 0;  // bits 2:0 the type of protection information, 0: none
  std::uint8_t nmic = 0;
  std::uint8_t rescap = 0;
  std::uint8_t fpi = 0;
  std::uint8_t dlfeat = 0;
  std::uint16_t nawun = 0;
  std::uint16_t nawupf = 0;
  std::uint16_t nacwu = 0;
  std::uint16_t nabsn = 0;
  std::uint16_t nabo = 0;
  std::uint16_t nabspf = 0;
  std::uint16_t noiob = 0;
  Uint128 nvmcap;
  std::uint16_t npwg = 0;  // 0's based, logical blocks; as are npwa npdg npda nows
  std::uint16_t npwa = 0;
  std::uint16_t npdg = 0;
  std::uint16_t npda = 0;
  std::uint16_t nows = 0;
  std::uint16_t mssrl = 0;
  std::uint32_t mcl = 0;
  std::uint8_t msrc = 0;
  std::uint8_t nulbaf = 0;
  std::uint32_t anagrpid = 0;
  std::uint8_t nsattr = 0;
  std::uint16_t nvmsetid = 0;
  std::uint16_t endgid = 0;
  Nguid nguid{};
  Eui64 eui64{};
  std::array<LbaFormat, kLbaFormats> lbaf{};
  std::array<std::byte, 3712> vs{};  // vendor specific, bytes 384 to 4095

  [[nodiscard]] bool active() const { return nsze != 0; }
  /// The index of the LBA format in use: FLBAS bits 3:0 and, with more than 16 formats, 6:5.
  [[nodiscard]] std::size_t format_index() const;
  [[nodiscard]] const LbaFormat& format() const { return lbaf[format_index()]; }
  /// Bytes of a logical block without metadata; 0 if the format in use is out of sense
  /// (LBADS below 9 or above 31, an index above NLBAF and NULBAF).
  [[nodiscard]] std::uint32_t block_bytes() const;

  void encode(std::span<std::byte, kIdentifyBytes> out) const;
  static IdentifyNamespace decode(std::span<const std::byte> in);
  friend bool operator==(const IdentifyNamespace&, const IdentifyNamespace&) = default;
};

/// Most namespace identifiers that one list holds.
inline constexpr std::size_t kNamespaceListEntries = 1024;

/// CNS 02h, 07h, 10h: identifiers in rising order, ended by 0 or the end of the buffer.
/// decode() stops at the first 0. It fails if the order is not rising or an identifier is
/// FFFFFFFFh: such a list can make a reader that asks for "those above the last" loop for ever.
Result<std::vector<std::uint32_t>> decode_namespace_list(std::span<const std::byte> in);
/// At most kNamespaceListEntries (NVMF_CHECK).
void encode_namespace_list(std::span<const std::uint32_t> nsids,
                           std::span<std::byte, kIdentifyBytes> out);

/// CNS 03h: how a namespace is told from all others. Base 2.1 §5.1.13.2.3.
struct NamespaceDescriptors {
  std::optional<Eui64> eui64;
  std::optional<Nguid> nguid;
  std::optional<Uuid> uuid;
  std::optional<Csi> csi;

  /// Only what is present is written. 76 bytes at most.
  void encode(std::span<std::byte, kIdentifyBytes> out) const;
  /// Unknown types are skipped. Fails if a descriptor is longer than the buffer or a known type
  /// has a length of its own.
  static Result<NamespaceDescriptors> decode(std::span<const std::byte> in);
  friend bool operator==(const NamespaceDescriptors&, const NamespaceDescriptors&) = default;
};

/// AOCS: Get LBA Status can tell which blocks are allocated (action 02h).
inline constexpr std::uint16_t kAocsReportsAllocated = 1u << 0;

/// CNS 06h, CSI 00h: limits of the NVM command set that MDTS does not give. NVM 1.2 §4.1.5.4.
struct IdentifyNvmController {
  // As the limits are with the bits in ONCS set; what they are without is said at ONCS above.
  std::uint8_t vsl = 0;     // Verify: power of two in units of the minimum page, 0: no limit
  std::uint8_t wzsl = 0;    // Write Zeroes, likewise
  std::uint8_t wusl = 0;    // Write Uncorrectable, likewise
  std::uint8_t dmrl = 0;    // Dataset Management: ranges, 0: no limit
  std::uint32_t dmrsl = 0;  // Dataset Management: blocks in a range, 0: no limit
  std::uint64_t dmsl = 0;   // Dataset Management: blocks in a command, 0: no limit
  std::uint8_t kpiocap = 0;
  std::uint8_t wzdsl = 0;  // Write Zeroes with DEAC: instead of WZSL, 0: WZSL holds for it too
  std::uint16_t aocs = 0;
  std::uint32_t ver = 0;

  void encode(std::span<std::byte, kIdentifyBytes> out) const;
  static IdentifyNvmController decode(std::span<const std::byte> in);
  friend bool operator==(const IdentifyNvmController&, const IdentifyNvmController&) = default;
};

/// CNS 05h, CSI 00h: what the NVM command set adds to a namespace. NVM 1.2 §4.1.5.3.
struct IdentifyNvmNamespace {
  std::uint64_t lbstm = 0;
  std::uint8_t pic = 0;
  std::uint8_t pifa = 0;
  std::array<std::uint32_t, kLbaFormats> elbaf{};
  std::uint32_t npdgl = 0;

  void encode(std::span<std::byte, kIdentifyBytes> out) const;
  static IdentifyNvmNamespace decode(std::span<const std::byte> in);
  friend bool operator==(const IdentifyNvmNamespace&, const IdentifyNvmNamespace&) = default;
};

/// CNS 08h: a namespace whatever its command set. Base 2.1 §5.1.13.2.8.
struct IdentifyIndependentNamespace {
  std::uint8_t nsfeat = 0;
  std::uint8_t nmic = 0;
  std::uint8_t rescap = 0;
  std::uint8_t fpi = 0;
  std::uint32_t anagrpid = 0;
  std::uint8_t nsattr = 0;
  std::uint16_t nvmsetid = 0;
  std::uint16_t endgid = 0;
  std::uint8_t nstat = 0;  // bit 0: ready

  void encode(std::span<std::byte, kIdentifyBytes> out) const;
  static IdentifyIndependentNamespace decode(std::span<const std::byte> in);
  friend bool operator==(const IdentifyIndependentNamespace&,
                         const IdentifyIndependentNamespace&) = default;
};

/// CNS 1Ch: combinations of command sets, 64 bit vectors (bit n: CSI n), at most 512.
/// decode() drops the zero vectors at the end.
std::vector<std::uint64_t> decode_command_sets(std::span<const std::byte> in);
void encode_command_sets(std::span<const std::uint64_t> combinations,
                         std::span<std::byte, kIdentifyBytes> out);

/// Text in a fixed field: characters up to the first NUL, without spaces at the end where these
/// are the padding. (In a name that is ended by a NUL they are part of it.)
std::string load_text(std::span<const std::byte> field, char pad);
/// Writes text cut at the field's end, then `pad` (spaces for SN, MN, FR, NUL for an NQN).
void store_text(std::span<std::byte> field, std::string_view text, char pad);

}  // namespace nvmf::nvme
