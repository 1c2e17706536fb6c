// Configuration files of nvmf-connect: the options of one connection each, man/nvmf.conf.5. Read by
// CLI11's own parser, a line at a time, so that each mistake is told with its line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "nvme/result.h"

namespace CLI {
class App;
}

namespace nvmf::tools {

struct ConnectConfig {
  struct Entry {
    std::string key;
    std::string value;
    int line = 0;
  };
  std::string path;
  /// What it was asked for by, unless that was a path: the connection's name, if it has no other.
  std::string name;
  std::vector<Entry> entries;
};

/// A path, which has a slash in it, or the NAME of NAME.conf in $NVMF_CONFIG_DIR, or, without that,
/// in $XDG_CONFIG_HOME/nvmf (~/.config/nvmf) and /etc/nvmf; for root the other way round. The error
/// says where it looked, or which line is wrong. What root obeys may be written to by root only.
Result<ConnectConfig> read_connect_config(std::string_view file_or_name);

/// "--key=value" for each entry, the address as it is, without those whose options `app` has been
/// given on the command line. A key that is no option of `app`, and a value that is none, are
/// errors with file and line.
Result<std::vector<std::string>> words_of(const ConnectConfig& config, const CLI::App& app);

/// Where in the file an option stands that `sentence` speaks of: " (FILE line N)", or " (FILE)".
std::string place_of(const ConnectConfig& config, std::string_view sentence);

}  // namespace nvmf::tools
