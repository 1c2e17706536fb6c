#include "nvme/explain.h"

#include <fmt/format.h>

#include "nvme/status_words.h"

namespace nvmf::nvme {
namespace {

StatusMeaning meaning_of(const StatusWords& words, std::string_view commands) {
  return {.commands = commands,
          .name = words.name,
          .symbol = words.symbol,
          .meaning = words.meaning,
          .hint = words.hint,
          .reserved = is_reserved(words)};
}

std::string_view commands_of(Status status, StatusContext context) {
  if (status.sct != 1 || status.sc >= kCodeVendor) return "all";
  if (status.sc < kCodeCommandSet) return "admin";
  if (context == StatusContext::fabrics) return "fabrics";
  if (status.sc == kAuthenticationRequired) return "all";
  if (status.sc == kDiscoverRestart && context == StatusContext::admin) return "admin";
  return "I/O";
}

/// The limits of a range of the same number for different commands: 80h to BFh.
bool depends_on_command(Status status) {
  return status.sct == 1 && status.sc >= kCodeCommandSet && status.sc < kCodeVendor;
}

}  // namespace

std::vector<StatusMeaning> status_meanings(Status status, std::optional<StatusContext> context) {
  if (context || !depends_on_command(status)) {
    const StatusContext of = context.value_or(StatusContext::nvm);
    return {meaning_of(status_words(status, of), commands_of(status, of))};
  }
  std::vector<StatusMeaning> all;
  // The row of the I/O commands by its table: status_words() prefers Authentication Required.
  if (const StatusWords* io = find_words(io_status_words(), status.sc); io != nullptr) {
    all.push_back(meaning_of(*io, "I/O"));
  }
  const StatusWords& fabrics = status_words(status, StatusContext::fabrics);
  if (all.empty() || !is_reserved(fabrics)) {
    const bool also_others = status.sc == kDiscoverRestart || status.sc == kAuthenticationRequired;
    const std::string_view commands = status.sc == kDiscoverRestart ? "admin"
                                      : also_others                 ? "all"
                                                                    : "fabrics";
    all.push_back(meaning_of(fabrics, commands));
  }
  return all;
}

std::string status_hint(Status status, StatusContext context) {
  const std::string_view hint = status_words(status, context).hint;
  return hint.empty() ? std::string() : fmt::format("try {}", hint);
}

std::string explain(Status status, StatusContext context) {
  const StatusWords& words = status_words(status, context);
  std::string text = fmt::format("{}: {}", describe(status, context), words.meaning);
  if (!words.hint.empty()) text += fmt::format("; try {}", words.hint);
  return text;
}

std::vector<std::string> retry_words(Status status, const RetryDelays* delays) {
  if (status.ok()) return {};
  std::vector<std::string> all;
  if (status.dnr) {
    all.emplace_back(
        "Do Not Retry is set: the controller would refuse the same command again, so something "
        "has to change first");
  } else if (status.crd == 0) {
    all.emplace_back("Do Not Retry is not set: the same command may succeed when it is sent again");
  } else if (delays != nullptr) {
    all.push_back(fmt::format(
        "Do Not Retry is not set: the same command may succeed when it is sent again after {} ms "
        "(CRDT{})",
        (*delays)[static_cast<std::size_t>(status.crd) - 1] * 100u, status.crd));
  } else {
    all.push_back(fmt::format(
        "Do Not Retry is not set: the same command may succeed when it is sent again after the "
        "time that CRDT{} of `nvmf id-ctrl` gives, in units of 100 ms",
        status.crd));
  }
  if (status.more) {
    all.emplace_back(
        "More is set: the controller has written details of this into its error log, which `nvmf "
        "error-log` shows");
  }
  return all;
}

std::uint16_t nvme_cli_status(Status status) {
  return static_cast<std::uint16_t>(status.encode() >> 1);
}

}  // namespace nvmf::nvme
