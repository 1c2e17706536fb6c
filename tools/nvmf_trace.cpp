// nvmf trace.
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "nvmf_output.h"
#include "nvmf_verbs.h"
#include "tool_connections.h"
#include "tool_control.h"
#include "tool_health.h"
#include "tool_program.h"

namespace nvmf::tools {

using nlohmann::json;

namespace {

/// What there is to be written when a trace is ended goes to a disk.
constexpr Duration kPatience{std::chrono::seconds(15)};

}  // namespace

int trace(const TraceWords& words) {
  const auto asked = find_connections({words.name}, "trace");
  if (!asked) return refuse(asked.error());
  json args = json::object();
  if (words.off) {
    args["file"] = nullptr;
  } else if (!words.file.empty()) {
    // The process has a working directory of its own.
    std::error_code failed;
    const auto path = std::filesystem::absolute(words.file, failed);
    if (failed) {
      return refuse({fmt::format("cannot tell where {} is: {}", words.file, failed.message()),
                     failed.value()});
    }
    args["file"] = path.string();
  }
  const ControlAnswer answer = call(asked->sockets.front(), "trace", args, kPatience);
  if (!answer.ok) {
    return refuse({fmt::format("{}: {}", words.name, answer.ok.error().message), EIO});
  }
  const json& told = *answer.fields;
  const auto on = told.find("on");
  const bool writes = on != told.end() && *on == true;
  if (!writes && !words.off) {
    fmt::print("{} writes no trace\n", words.name);
    return kExitSuccess;
  }
  fmt::print("{} {}: {} packets, {} bytes", words.name,
             writes ? "writes a trace" : "has ended its trace", number_of(told, "packets"),
             number_of(told, "bytes"));
  if (const std::uint64_t n = number_of(told, "dropped"); n != 0) {
    fmt::print(", {} packets dropped because the disk did not keep up", n);
  }
  fmt::print("\n");
  const std::string error = text_of(told, "error");
  if (error.empty()) return kExitSuccess;
  complain("nvmf", fmt::format("{}: the trace is not complete: {}", words.name, error));
  return kExitFailure;
}

}  // namespace nvmf::tools
