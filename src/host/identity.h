// Who this host is: the NQN and the identifier that it gives to targets.
//
// A target may allow or refuse a host by its NQN, so it has to stay the same. In order: what the
// caller gives; what nvme-cli keeps in /etc/nvme; what this program keeps under ~/.config/nvmf,
// made when it is first needed.
#pragma once

#include <filesystem>
#include <string>

#include "nvme/fabrics.h"
#include "nvme/result.h"

namespace nvmf::host {

struct Identity {
  std::string hostnqn;
  nvme::HostId hostid{};
};

/// Where the files are.
struct IdentityPaths {
  std::filesystem::path system = "/etc/nvme";
  std::filesystem::path user;  // empty: nothing can be kept
  /// $XDG_CONFIG_HOME/nvmf or ~/.config/nvmf, by the environment.
  static IdentityPaths from_environment();
};

/// `hostnqn` and `hostid` are the user's words, or empty. The host ID belongs to the NQN: the one
/// in the file beside it, the UUID in it, or one that is derived from it. Fails if a name is
/// unusable, a file can't be read, or nothing is given and nothing can be kept.
Result<Identity> host_identity(const std::string& hostnqn, const std::string& hostid,
                               const IdentityPaths& paths);

}  // namespace nvmf::host
