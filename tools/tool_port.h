// Where a command of nvmf goes: through a running connection, by its control socket, or through a
// connection of its own that lives as long as this object. One command at a time; each call blocks
// until it is known what became of it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "host/passthrough.h"
#include "nvme/command.h"
#include "tool_target.h"

namespace nvmf::tools {

/// What is needed of a connection that is made for the purpose.
enum class PortUse : std::uint8_t {
  admin,      // admin commands only
  io_reads,   // and I/O commands that change nothing
  io_writes,  // and others: what killed connections may have left under way is waited for first
};

/// What a controller answered; the status is data.
struct PortReply {
  nvme::Status status;
  std::uint64_t result = 0;
  std::uint32_t received_bytes = 0;

  [[nodiscard]] std::uint32_t dw0() const { return static_cast<std::uint32_t>(result); }
};

class CommandPort {
 public:
  virtual ~CommandPort() = default;

  /// Finds `target` (Target::find()), and connects if it is a URI. Errors are Target::find()'s,
  /// and what refused the connection.
  static Result<std::unique_ptr<CommandPort>> open(const std::string& target,
                                                   const TemporaryOptions& options, PortUse use);

  /// command.data and its direction included. An Error: not sent, or nobody knows what became of
  /// it, as its sentence says.
  virtual Result<PortReply> execute(const host::PassthroughCommand& command) = 0;
  /// The most that one command may transfer here: MDTS, and what the control socket carries.
  virtual Result<std::uint64_t> transfer_bytes_max() = 0;
  /// Of the namespace that the target named, if it did.
  [[nodiscard]] const std::optional<std::uint32_t>& nsid() const { return nsid_; }
  /// As it was given; for messages.
  [[nodiscard]] const std::string& target() const { return target_; }

 protected:
  CommandPort(std::string target, std::optional<std::uint32_t> nsid)
      : target_(std::move(target)), nsid_(nsid) {}

 private:
  std::string target_;
  std::optional<std::uint32_t> nsid_;
};

/// An admin command that brings `out.size()` bytes, all of them: fewer are an error.
Result<PortReply> read_admin(CommandPort& port, const nvme::Sqe& sqe, std::span<std::byte> out,
                             Duration timeout = {});

}  // namespace nvmf::tools
