// What a command of nvmf works on: a running connection by its name, a namespace of it, or a URI,
// for which a connection is made and ended for that one command.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "host/params.h"
#include "nvme/result.h"

namespace nvmf::tools {

/// Words of the command line for a connection made from a URI.
struct TemporaryOptions {
  std::string hostnqn, hostid, host_traddr, host_iface;
  bool header_digest = false;
  bool data_digest = false;
};

struct Target {
  struct Running {
    std::string socket;  // its control socket
  };
  std::variant<Running, host::ConnectParams> at;
  /// Of the namespace that the text named, if it did.
  std::optional<std::uint32_t> nsid;

  /// "nvmf0", "nvmf0n1" or a URI. EINVAL for what cannot be meant, ENOENT for what is not there.
  static Result<Target> find(const std::string& text, const TemporaryOptions& options);
};

}  // namespace nvmf::tools
