// The verbs of nvmf that send one I/O command, or one that the user composed, each with the words
// it was given. They return the status to exit with. A command is never sent twice.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nvme/command.h"
#include "tool_target.h"

namespace nvmf::tools {

/// Of commands for a run of blocks. What a verb has no option for stays as it is here.
struct BlockWords {
  std::string target;
  std::optional<std::uint32_t> nsid;
  std::uint64_t start_block = 0;
  std::optional<std::uint16_t> block_count;  // 0's based, as in nvme-cli
  // Bits of the command.
  std::uint8_t prinfo = 0;  // PRACT and PRCHK, 4 bits
  bool limited_retry = false;
  bool force_unit_access = false;
  bool storage_tag_check = false;
  bool deallocate = false;  // Write Zeroes
  std::uint8_t dir_type = 0;
  std::uint16_t dir_spec = 0;
  std::uint8_t dsm = 0;
  std::uint32_t ref_tag = 0;
  std::uint16_t app_tag = 0;
  std::uint16_t app_tag_mask = 0;
  // Read, Write, Compare.
  std::uint64_t data_bytes = 0;  // 0: what the block count says
  std::string data;              // a file; empty: stdin, stdout
  bool show = false;
  bool dry_run = false;
  bool latency = false;
  // Refused.
  std::uint64_t metadata_bytes = 0;
  std::string metadata;
  std::uint64_t storage_tag = 0;
  TemporaryOptions temporary;
};
/// Read, Write and Compare. Without a block count it follows from the data's length, and the
/// reverse: what is transferred is always whole blocks, of the size that Identify tells.
int move_blocks(nvme::NvmOpcode opcode, const BlockWords& words);
/// Write Zeroes, Write Uncorrectable and Verify.
int treat_blocks(nvme::NvmOpcode opcode, const BlockWords& words);

struct DsmWords {
  std::string target;
  std::optional<std::uint32_t> nsid;
  std::vector<std::uint32_t> attributes;  // of each range; missing ones are 0
  std::vector<std::uint32_t> blocks;      // as many as `starts`
  std::vector<std::uint64_t> starts;
  std::uint32_t cdw11 = 0;  // the attributes of the command
  TemporaryOptions temporary;
};
int dsm(const DsmWords& words);

struct FlushWords {
  std::string target;
  std::optional<std::uint32_t> nsid;
  TemporaryOptions temporary;
};
int flush(const FlushWords& words);

/// A command as the user composed it.
struct PassthruWords {
  std::string target;
  bool admin = true;
  nvme::Sqe sqe;           // without CID and SGL; NSID 0: the one that the target names, of I/O
  std::uint16_t rsvd = 0;  // of nvme-cli's structure; no controller sees it
  std::uint32_t data_bytes = 0;
  std::uint32_t timeout_ms = 0;  // 0: the connection's own
  std::optional<std::uint8_t> prefill;
  bool read = false;  // neither: as the opcode says
  bool write = false;
  std::string file;  // the data's; empty: stdin, stdout
  bool raw_binary = false;
  bool show = false;
  bool dry_run = false;
  bool latency = false;
  // Refused.
  std::uint32_t metadata_bytes = 0;
  std::string metadata;
  TemporaryOptions temporary;
};
int passthru(const PassthruWords& words);

}  // namespace nvmf::tools
