// nvmf admin-passthru, nvmf io-passthru.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>

#include "control/protocol.h"
#include "nvme/hex_dump.h"
#include "nvme/nvme_cli_opcodes.h"
#include "nvmf_io.h"
#include "nvmf_output.h"
#include "tool_data.h"
#include "tool_passthrough.h"
#include "tool_port.h"
#include "tool_program.h"

namespace nvmf::tools {

namespace {

using transport::DataDirection;

/// Bits 1:0 of an opcode: data goes to the controller. Base 2.3 §3.1.3.
constexpr std::uint8_t kOpcodeToController = 1;
constexpr std::uint8_t kIoReservationReport = 0x0e;

Result<void> check(const PassthruWords& words) {
  if (words.metadata_bytes != 0 || !words.metadata.empty()) {
    return fail(
        "--metadata-len and --metadata are refused: nvmf passes no metadata through, for NVMe/TCP "
        "has no separate metadata buffer",
        EINVAL);
  }
  if (words.data_bytes > control::kPayloadBytesMax) {
    return fail(
        fmt::format("--data-len={} is more than the {} bytes that nvmf moves in one command",
                    words.data_bytes, control::kPayloadBytesMax),
        EINVAL);
  }
  if (words.read && words.write) {
    return fail("give --read or --write: a command moves data in one direction only", EINVAL);
  }
  const auto most_ms = kPassthroughTimeoutMax / std::chrono::milliseconds(1);
  if (words.timeout_ms > most_ms) {
    return fail(fmt::format("--timeout={} is more than the {} ms that a command may be given",
                            words.timeout_ms, most_ms),
                EINVAL);
  }
  return {};
}

DataDirection direction_of(const PassthruWords& words) {
  if (words.data_bytes == 0) return DataDirection::none;
  if (words.read) return DataDirection::from_controller;
  const bool sends = words.write || (words.sqe.opcode & kOpcodeToController) != 0;
  return sends ? DataDirection::to_controller : DataDirection::from_controller;
}

/// What may change data waits for what killed connections have left; the host judges again.
PortUse use_of(const PassthruWords& words) {
  if (words.admin) {
    switch (static_cast<nvme::AdminOpcode>(words.sqe.opcode)) {
      case nvme::AdminOpcode::namespace_management:
      case nvme::AdminOpcode::format_nvm:
      case nvme::AdminOpcode::sanitize:
        return PortUse::io_writes;
      default:
        return PortUse::admin;
    }
  }
  switch (static_cast<nvme::NvmOpcode>(words.sqe.opcode)) {
    case nvme::NvmOpcode::flush:
    case nvme::NvmOpcode::read:
    case nvme::NvmOpcode::compare:
    case nvme::NvmOpcode::verify:
      return PortUse::io_reads;
    default:
      return words.sqe.opcode == kIoReservationReport ? PortUse::io_reads : PortUse::io_writes;
  }
}

/// As nvme-cli shows them.
void show_command(FILE* out, const nvme::Sqe& sqe, const PassthruWords& words,
                  std::span<const std::byte> data) {
  const auto line = [out](std::string_view name, std::uint32_t value) {
    fmt::print(out, "{:13}: {:08x}\n", name, value);
  };
  fmt::print(out, "opcode       : {:02x}\n", sqe.opcode);
  fmt::print(out, "flags        : {:02x}\n", sqe.flags);
  fmt::print(out, "rsvd1        : {:04x}\n", words.rsvd);
  line("nsid", sqe.nsid);
  line("cdw2", sqe.cdw2);
  line("cdw3", sqe.cdw3);
  line("data_len", words.data_bytes);
  line("metadata_len", 0);
  fmt::print(out, "addr         : {:x}\n", reinterpret_cast<std::uintptr_t>(data.data()));
  fmt::print(out, "metadata     : 0\n");
  line("cdw10", sqe.cdw10);
  line("cdw11", sqe.cdw11);
  line("cdw12", sqe.cdw12);
  line("cdw13", sqe.cdw13);
  line("cdw14", sqe.cdw14);
  line("cdw15", sqe.cdw15);
  line("timeout_ms", words.timeout_ms);
}

const char* kind_of(const PassthruWords& words) {
  return words.admin ? "Admin" : "IO";
}

/// What the user gave, or what the target names, of an I/O command.
nvme::Sqe command_of(const PassthruWords& words, const std::optional<std::uint32_t>& named) {
  nvme::Sqe sqe = words.sqe;
  if (!words.admin && sqe.nsid == 0) sqe.nsid = named.value_or(0);
  return sqe;
}

/// Nobody is connected to, but the target must be one.
int dry_run(const PassthruWords& words) {
  const auto found = Target::find(words.target, words.temporary);
  if (!found) return refuse(found.error());
  const std::vector<std::byte> data(words.data_bytes);
  show_command(stdout, command_of(words, found->nsid), words, data);
  return kExitSuccess;
}

Result<void> show_outcome(const PassthruWords& words, const PortReply& reply, DataSink& sink,
                          std::span<const std::byte> received) {
  fmt::print(stderr, "{} Command {} is Success and result: 0x{:08x}\n", kind_of(words),
             nvme::nvme_cli_opcode_name(words.sqe.opcode, words.admin), reply.dw0());
  if (received.empty()) return {};
  if (words.raw_binary || !sink.is_stdout()) return sink.write(received);
  show(nvme::hex_dump(received));
  return {};
}

Result<void> pass_through(CommandPort& port, const PassthruWords& words) {
  const DataDirection direction = direction_of(words);
  const bool receives = direction == DataDirection::from_controller;
  const auto most = port.transfer_bytes_max();
  if (!most) return std::unexpected(most.error());
  if (words.data_bytes > *most) {
    return fail(fmt::format("{}: --data-len={} is more than the {} bytes that one command may "
                            "transfer here; ask for less at a time",
                            port.target(), words.data_bytes, *most),
                EINVAL);
  }
  const nvme::Sqe sqe = command_of(words, port.nsid());
  std::vector<std::byte> data(words.data_bytes, std::byte{words.prefill.value_or(0)});
  Result<DataSink> sink = receives ? DataSink::open(words.file) : DataSink();
  if (!sink) return std::unexpected(sink.error());
  if (direction == DataDirection::to_controller) {
    const auto rest = words.prefill ? std::optional(std::byte{*words.prefill}) : std::nullopt;
    if (auto ok = read_data(words.file, data, rest); !ok) return ok;
  }
  // Not among the data.
  FILE* remarks = receives && words.raw_binary && words.file.empty() ? stderr : stdout;
  if (words.show) show_command(remarks, sqe, words, data);
  const auto begun = std::chrono::steady_clock::now();
  const auto reply = port.execute({.io = !words.admin,
                                   .sqe = sqe,
                                   .direction = direction,
                                   .data = data,
                                   .timeout = std::chrono::milliseconds(words.timeout_ms)});
  const auto took = (std::chrono::steady_clock::now() - begun) / std::chrono::microseconds(1);
  if (words.latency) {
    fmt::print(remarks, "{} Command {} latency: {} us\n", kind_of(words),
               nvme::nvme_cli_opcode_name(sqe.opcode, words.admin), took);
  }
  if (auto ok = judge(port, sqe, words.admin, reply); !ok) return ok;
  if (receives && reply->received_bytes < data.size()) {
    complain("nvmf", fmt::format("note: the controller sent {} of {} bytes", reply->received_bytes,
                                 data.size()));
  }
  return show_outcome(words, *reply, *sink,
                      std::span(data).first(receives ? reply->received_bytes : 0));
}

}  // namespace

int passthru(const PassthruWords& words) {
  if (auto ok = check(words); !ok) return refuse(ok.error());
  if (words.dry_run) return dry_run(words);
  auto port = CommandPort::open(words.target, words.temporary, use_of(words));
  if (!port) return refuse(port.error());
  const auto done = pass_through(**port, words);
  return done ? kExitSuccess : refuse(done.error());
}

}  // namespace nvmf::tools
