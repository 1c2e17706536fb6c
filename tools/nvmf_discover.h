// The verbs of nvmf about discovery, each with the words it was given.
#pragma once

#include <string>
#include <vector>

#include "connect_options.h"
#include "nvmf_verbs.h"

namespace nvmf::tools {

/// One discovery controller that is to be asked.
struct DiscoverRequest {
  /// The connection to it, and, in `words`, those to what it knows.
  ConnectOptions connect;
  OutputFormat format = OutputFormat::normal;
  std::string raw_file;     // discover: where the log goes as it came; empty: it is shown
  bool persistent = false;  // a connection to it stays
  bool quiet = false;       // no notes about what is skipped
  bool force = false;       // a persistent one although there is one already
};

/// Shows the log of each. 1 if any does not answer.
int discover(const std::vector<DiscoverRequest>& requests);
/// Connects to everything that they know of. 1 if none answers, or a connection cannot be made.
int connect_all(const std::vector<DiscoverRequest>& requests);
/// nvmf-connect with these words, in the place of this process; returns only if that fails.
int connect(std::vector<std::string> words);

}  // namespace nvmf::tools
