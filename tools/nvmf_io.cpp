// nvmf read, write, compare, write-zeroes, write-uncor, verify, dsm, flush.
#include "nvmf_io.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>

#include "nvme/admin.h"
#include "nvme/identify.h"
#include "nvmf_output.h"
#include "tool_data.h"
#include "tool_port.h"
#include "tool_program.h"

namespace nvmf::tools {

namespace {

using nvme::NvmOpcode;

// CDW12 of the I/O commands. NVM Command Set §3.3.
constexpr unsigned kPrinfoShift = 26;
constexpr std::uint32_t kStorageTagCheck = 1u << 24;
constexpr unsigned kDirectiveTypeShift = 20;
/// The 0's based number of blocks of one command is 16 bits wide.
constexpr std::uint64_t kBlocksMax = 0x10000;

/// PRACT of PRINFO: the controller makes protection information, and takes it away.
constexpr std::uint8_t kPract = 8;
constexpr std::uint16_t kProtectionBytes = 8;  // of the 16 bit guard's format

const char* verb_of(NvmOpcode opcode) {
  return opcode == NvmOpcode::read ? "read" : opcode == NvmOpcode::write ? "write" : "compare";
}

nvme::Sqe block_command(NvmOpcode opcode, std::uint32_t nsid, const BlockWords& words,
                        std::uint16_t blocks) {
  nvme::Sqe sqe;
  sqe.opcode = static_cast<std::uint8_t>(opcode);
  sqe.nsid = nsid;
  sqe.set_slba(words.start_block);
  sqe.cdw12 = static_cast<std::uint32_t>(blocks) |
              static_cast<std::uint32_t>(words.dir_type) << kDirectiveTypeShift |
              (words.storage_tag_check ? kStorageTagCheck : 0) |
              (words.deallocate ? nvme::kCdw12Deac : 0) |
              static_cast<std::uint32_t>(words.prinfo) << kPrinfoShift |
              (words.force_unit_access ? nvme::kCdw12Fua : 0) |
              (words.limited_retry ? nvme::kCdw12LimitedRetry : 0);
  sqe.cdw13 = static_cast<std::uint32_t>(words.dir_spec) << 16 | words.dsm;
  sqe.cdw14 = words.ref_tag;
  sqe.cdw15 = static_cast<std::uint32_t>(words.app_tag_mask) << 16 | words.app_tag;
  return sqe;
}

Result<void> refuse_metadata(const BlockWords& words) {
  if (words.metadata_bytes != 0 || !words.metadata.empty()) {
    return fail(
        "--metadata-size and --metadata are refused: nvmf passes no metadata through, for NVMe/TCP "
        "has no separate metadata buffer",
        EINVAL);
  }
  if (words.storage_tag != 0) {
    return fail("--storage-tag is refused: nvmf serves no namespace that has storage tags", EINVAL);
  }
  return {};
}

/// Bytes of a block of the namespace, as the controller says.
Result<std::uint32_t> block_bytes(CommandPort& port, std::uint32_t nsid, std::uint8_t prinfo) {
  std::vector<std::byte> data(nvme::kIdentifyBytes);
  const auto sqe =
      nvme::IdentifyCommand{.cns = nvme::Cns::identify_namespace, .nsid = nsid}.to_sqe();
  const auto reply = read_admin(port, sqe, data);
  if (auto ok = judge(port, sqe, true, reply); !ok) return std::unexpected(ok.error());
  const auto id = nvme::IdentifyNamespace::decode(data);
  if (!id.active()) {
    return fail(fmt::format("{}: there is no active namespace {}; `nvmf list` shows what there is",
                            port.target(), nsid),
                ENOENT);
  }
  const std::uint16_t metadata = id.format().ms;
  const bool inserted = (prinfo & kPract) != 0 && metadata == kProtectionBytes;
  if (metadata != 0 && !inserted) {
    return fail(
        fmt::format("namespace {} has {} bytes of metadata with each block, and nvmf passes "
                    "no metadata through",
                    nsid, metadata),
        EOPNOTSUPP);
  }
  if (id.block_bytes() != 0) return id.block_bytes();
  return fail(fmt::format("namespace {} has blocks of an impossible size", nsid), EBADMSG);
}

struct Extent {
  std::uint16_t blocks = 0;  // 0's based
  std::uint64_t bytes = 0;   // of these blocks
  std::uint64_t data = 0;    // of these: what is read from, or written to, the file
};

/// What is to be transferred, by what was given of the block count and the data's length.
Result<Extent> extent_of(const BlockWords& words, std::uint64_t block) {
  Extent extent;
  if (words.block_count) {
    extent.blocks = *words.block_count;
    extent.bytes = (*words.block_count + std::uint64_t{1}) * block;
    extent.data = words.data_bytes != 0 ? words.data_bytes : extent.bytes;
    if (extent.data <= extent.bytes) return extent;
    return fail(
        fmt::format("--data-size={} is more than the {} bytes of --block-count={}, which is "
                    "0's based; leave one of them out",
                    extent.data, extent.bytes, extent.blocks),
        EINVAL);
  }
  extent.data = words.data_bytes;
  const std::uint64_t blocks = extent.data / block + (extent.data % block != 0 ? 1 : 0);
  if (blocks > kBlocksMax) {
    return fail(fmt::format("--data-size={} are {} blocks of {} bytes, and one command has {} at "
                            "most",
                            extent.data, blocks, block, kBlocksMax),
                EINVAL);
  }
  extent.blocks = static_cast<std::uint16_t>(blocks - 1);
  extent.bytes = blocks * block;
  return extent;
}

Result<void> check_limit(CommandPort& port, std::uint64_t bytes, std::uint64_t block) {
  const auto most = port.transfer_bytes_max();
  if (!most) return std::unexpected(most.error());
  if (bytes <= *most) return {};
  return fail(fmt::format("{}: {} bytes are more than the {} that one command may transfer here; "
                          "ask for --block-count={} at most, and for the rest by further commands",
                          port.target(), bytes, *most,
                          *most / block == 0 ? 0 : std::min(*most / block, kBlocksMax) - 1),
              EINVAL);
}

/// As nvme-cli shows them.
void show_command(FILE* out, const nvme::Sqe& sqe, const BlockWords& words,
                  std::span<const std::byte> data) {
  fmt::print(out, "opcode       : {:02x}\n", sqe.opcode);
  fmt::print(out, "nsid         : {:02x}\n", sqe.nsid);
  fmt::print(out, "flags        : {:02x}\n", sqe.flags);
  fmt::print(out, "control      : {:04x}\n", sqe.cdw12 >> 16);
  fmt::print(out, "nblocks      : {:04x}\n", sqe.cdw12 & 0xffff);
  fmt::print(out, "metadata     : 0\n");
  fmt::print(out, "addr         : {:x}\n", reinterpret_cast<std::uintptr_t>(data.data()));
  fmt::print(out, "slba         : {:x}\n", sqe.slba());
  fmt::print(out, "dsmgmt       : {:08x}\n", sqe.cdw13);
  fmt::print(out, "reftag       : {:x}\n", words.ref_tag);
  fmt::print(out, "apptag       : {:04x}\n", words.app_tag);
  fmt::print(out, "appmask      : {:04x}\n", words.app_tag_mask);
  fmt::print(out, "storagetagcheck : {:04x}\n", words.storage_tag_check ? 1 : 0);
  fmt::print(out, "storagetag      : 0\npif             : 00\nsts             : 00\n");
}

/// Sends a command of the NVM command set, and says how it went.
Result<void> send(CommandPort& port, const nvme::Sqe& sqe, transport::DataDirection direction,
                  std::span<std::byte> data) {
  const auto reply = port.execute({.io = true, .sqe = sqe, .direction = direction, .data = data});
  return judge(port, sqe, false, reply);
}

/// A verb that has the outcome only.
int send_and_say(const std::string& target, const TemporaryOptions& temporary, PortUse use,
                 nvme::Sqe sqe, const std::optional<std::uint32_t>& nsid, std::span<std::byte> data,
                 const char* success) {
  auto port = CommandPort::open(target, temporary, use);
  if (!port) return refuse(port.error());
  const auto wanted = wanted_nsid(**port, nsid);
  if (!wanted) return refuse(wanted.error());
  sqe.nsid = *wanted;
  const auto direction =
      data.empty() ? transport::DataDirection::none : transport::DataDirection::to_controller;
  if (auto ok = send(**port, sqe, direction, data); !ok) return refuse(ok.error());
  return show(success);
}

/// From an open port to the outcome.
Result<void> move_blocks_through(CommandPort& port, NvmOpcode opcode, const BlockWords& words) {
  const auto nsid = wanted_nsid(port, words.nsid);
  if (!nsid) return std::unexpected(nsid.error());
  const auto block = block_bytes(port, *nsid, words.prinfo);
  if (!block) return std::unexpected(block.error());
  const auto extent = extent_of(words, *block);
  if (!extent) return std::unexpected(extent.error());
  if (auto ok = check_limit(port, extent->bytes, *block); !ok) return ok;
  if (extent->data < extent->bytes) {
    fmt::print(stderr, "Rounding data size to fit block count ({} bytes)\n", extent->bytes);
  }
  const bool reads = opcode == NvmOpcode::read;
  std::vector<std::byte> buffer(extent->bytes);  // what the data does not reach to is zeroes
  const std::span<std::byte> data = std::span(buffer).first(extent->data);
  const nvme::Sqe sqe = block_command(opcode, *nsid, words, extent->blocks);
  // Not among the data.
  FILE* remarks = reads && words.data.empty() && !words.dry_run ? stderr : stdout;
  if (words.show || words.dry_run) show_command(remarks, sqe, words, buffer);
  if (words.dry_run) return {};
  Result<DataSink> sink = reads ? DataSink::open(words.data) : DataSink();
  if (!sink) return std::unexpected(sink.error());
  if (!reads) {
    if (auto ok = read_data(words.data, data); !ok) return ok;
  }
  const auto begun = std::chrono::steady_clock::now();
  const auto sent = send(
      port, sqe,
      reads ? transport::DataDirection::from_controller : transport::DataDirection::to_controller,
      buffer);
  const auto took = (std::chrono::steady_clock::now() - begun) / std::chrono::microseconds(1);
  if (words.latency) fmt::print(remarks, " latency: {}: {} us\n", verb_of(opcode), took);
  if (!sent) return sent;
  if (reads) {
    if (auto ok = sink->write(data); !ok) return ok;
  }
  fmt::print(stderr, "{}: Success\n", verb_of(opcode));
  return {};
}

}  // namespace

int move_blocks(NvmOpcode opcode, const BlockWords& words) {
  if (auto ok = refuse_metadata(words); !ok) return refuse(ok.error());
  if (!words.block_count && words.data_bytes == 0) {
    return refuse({"data size not provided: give --data-size=BYTES or --block-count=N", EINVAL});
  }
  const bool writes = opcode == NvmOpcode::write && !words.dry_run;
  auto port = CommandPort::open(words.target, words.temporary,
                                writes ? PortUse::io_writes : PortUse::io_reads);
  if (!port) return refuse(port.error());
  const auto done = move_blocks_through(**port, opcode, words);
  return done ? kExitSuccess : refuse(done.error());
}

int treat_blocks(NvmOpcode opcode, const BlockWords& words) {
  if (auto ok = refuse_metadata(words); !ok) return refuse(ok.error());
  const char* success = opcode == NvmOpcode::write_zeroes ? "NVME Write Zeroes Success"
                        : opcode == NvmOpcode::verify     ? "NVME Verify Success"
                                                          : "NVME Write Uncorrectable Success";
  return send_and_say(words.target, words.temporary,
                      opcode == NvmOpcode::verify ? PortUse::io_reads : PortUse::io_writes,
                      block_command(opcode, 0, words, words.block_count.value_or(0)), words.nsid,
                      {}, success);
}

int dsm(const DsmWords& words) {
  if (words.starts.empty() && words.blocks.empty()) {
    return refuse({"No range definition provided: give --slbs and --blocks", EINVAL});
  }
  if (words.starts.size() != words.blocks.size() || words.attributes.size() > words.starts.size()) {
    return refuse({fmt::format("--slbs names {} ranges, --blocks {} and --ctx-attrs {}: each range "
                               "has a start and a number of blocks, and may have attributes",
                               words.starts.size(), words.blocks.size(), words.attributes.size()),
                   EINVAL});
  }
  if (words.starts.size() > nvme::kMaxDsmRanges) {
    return refuse({fmt::format("{} ranges are more than the {} that one command has",
                               words.starts.size(), nvme::kMaxDsmRanges),
                   EINVAL});
  }
  std::vector<nvme::DsmRange> ranges(words.starts.size());
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    ranges[i] = {.attributes = i < words.attributes.size() ? words.attributes[i] : 0,
                 .blocks = words.blocks[i],
                 .lba = words.starts[i]};
  }
  std::vector<std::byte> data = nvme::encode_dsm_ranges(ranges);
  return send_and_say(words.target, words.temporary, PortUse::io_writes,
                      nvme::dsm_command(0, ranges.size(), words.cdw11), words.nsid, data,
                      "NVMe DSM: success");
}

int flush(const FlushWords& words) {
  nvme::Sqe sqe;
  sqe.opcode = static_cast<std::uint8_t>(NvmOpcode::flush);
  return send_and_say(words.target, words.temporary, PortUse::io_reads, sqe, words.nsid, {},
                      "NVMe Flush: success");
}

}  // namespace nvmf::tools
