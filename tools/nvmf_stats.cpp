// nvmf stats.
#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "nvmf_output.h"
#include "nvmf_verbs.h"
#include "stats_format.h"
#include "tool_connections.h"
#include "tool_control.h"
#include "tool_program.h"

namespace nvmf::tools {

namespace {

/// Statistics are in memory: a process that takes longer hangs or is stopped.
constexpr Duration kPatience{std::chrono::seconds(5)};

}  // namespace

int stats(const StatsWords& words) {
  const auto asked = find_connections(words.names, "stats");
  if (!asked) return refuse(asked.error());
  const auto answers = call_all(asked->sockets, "stats", nlohmann::json::object(), kPatience);
  std::vector<host::ConnectionStatistics> all;
  int status = kExitSuccess;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    auto one = answers[i].ok
                   ? parse_statistics(*answers[i].fields)
                   : Result<host::ConnectionStatistics>(std::unexpected(answers[i].ok.error()));
    if (one) {
      all.push_back(std::move(*one));
      continue;
    }
    // The others are shown all the same.
    complain("nvmf", fmt::format("{}: {}", asked->names[i], one.error().message));
    status = kExitFailure;
  }
  if (words.openmetrics) {
    fmt::print("{}", stats_openmetrics(all));
  } else if (words.format == OutputFormat::json) {
    fmt::print("{}", stats_json(all));
  } else if (all.empty() && status == kExitSuccess) {
    fmt::print("no connections\n");
  } else {
    fmt::print("{}", stats_text(all));
  }
  return status;
}

}  // namespace nvmf::tools
