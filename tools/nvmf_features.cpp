// nvmf get-feature, nvmf set-feature.
#include "nvmf_features.h"

#include <fmt/format.h>

#include <cerrno>
#include <vector>

#include "nvme/admin.h"
#include "nvme/endian.h"
#include "nvme/features.h"
#include "nvmf_output.h"
#include "tool_data.h"
#include "tool_port.h"
#include "tool_program.h"

namespace nvmf::tools {

namespace {

using Bytes = std::vector<std::byte>;

constexpr std::uint8_t kPlacementEvents = 0x1e;
/// Of Flexible Data Placement events all that there can be are asked for, as by nvme-cli.
constexpr std::uint32_t kPlacementEventsAll = 0xffu << 16;
constexpr std::uint8_t kSelectMax = nvme::kSelectSupported;
/// The longest data of a feature that the specification has are 4096 bytes.
constexpr std::uint32_t kFeatureBytesMax = 1u << 20;
constexpr unsigned kFeatures = 256;

struct Answer {
  PortReply reply;
  Bytes data;
};

/// 0 counts as not given, as in nvme-cli; a feature of the controller then.
std::uint32_t feature_nsid(const CommandPort& port, const std::optional<std::uint32_t>& given) {
  if (given.value_or(0) != 0) return *given;
  return port.nsid().value_or(nvme::kNsidAll);
}

nvme::Sqe to_sqe(const CommandPort& port, const GetFeatureWords& words) {
  const std::uint32_t all = words.feature == kPlacementEvents ? kPlacementEventsAll : 0;
  auto sqe =
      nvme::get_features(static_cast<nvme::Feature>(words.feature), feature_nsid(port, words.nsid),
                         words.cdw11 | all, static_cast<nvme::FeatureSelect>(words.select));
  sqe.cdw14 = words.uuid_index;
  return sqe;
}

/// An Error only if there is no answer.
Result<Answer> ask(CommandPort& port, const GetFeatureWords& words) {
  std::size_t bytes = words.length_bytes;
  if (bytes == 0) bytes = nvme::feature_data_bytes(words.feature, words.cdw11);
  if (words.select == nvme::kSelectSupported) bytes = 0;
  Answer answer;
  answer.data.resize(bytes);
  const auto sqe = to_sqe(port, words);
  const auto direction =
      bytes == 0 ? transport::DataDirection::none : transport::DataDirection::from_controller;
  auto reply = port.execute({.sqe = sqe, .direction = direction, .data = answer.data});
  if (!reply) return std::unexpected(judge(port, sqe, true, reply).error());
  answer.reply = *reply;
  return answer;
}

/// As `select` says it, which is "changed" if only what is not as it was by default is shown.
int show_answer(const GetFeatureWords& words, const Answer& answer, std::uint8_t select) {
  if (words.format == OutputFormat::binary && !answer.data.empty()) return write_raw(answer.data);
  return show(nvme::print({.feature = words.feature,
                           .select = select,
                           .result = answer.reply.dw0(),
                           .data = answer.data},
                          words.detail));
}

bool same(const Answer& a, const Answer& b) {
  return a.reply.dw0() == b.reply.dw0() && a.data == b.data;
}

/// One feature. A bad status of the first Get is returned; nothing is said of it.
Result<nvme::Status> show_feature(CommandPort& port, GetFeatureWords words) {
  const std::uint8_t select = words.select;
  const bool changed = select == nvme::kSelectChanged;
  if (changed) words.select = static_cast<std::uint8_t>(nvme::FeatureSelect::current);
  const auto current = ask(port, words);
  if (!current) return std::unexpected(current.error());
  if (!current->reply.status.ok()) return current->reply.status;
  if (changed) {
    words.select = static_cast<std::uint8_t>(nvme::FeatureSelect::fallback);
    const auto fallback = ask(port, words);
    if (!fallback) return std::unexpected(fallback.error());
    if (fallback->reply.status.ok() && same(*current, *fallback)) return nvme::Status{};
  }
  show_answer(words, *current, select);
  return nvme::Status{};
}

/// The controller does not have the feature, or has it only for one namespace and none was named.
bool absent(nvme::Status status, std::uint32_t nsid) {
  return status.code() == nvme::StatusCode::invalid_field ||
         (status.code() == nvme::StatusCode::invalid_namespace && nsid == nvme::kNsidAll);
}

int refuse_status(const CommandPort& port, const GetFeatureWords& words, nvme::Status status) {
  const auto judged = judge(port, to_sqe(port, words), true, PortReply{.status = status});
  return refuse(judged.error());
}

/// Empty if the feature has none.
Result<Bytes> data_to_set(const SetFeatureWords& words) {
  std::size_t bytes = words.length_bytes;
  if (bytes == 0) {
    bytes = nvme::feature_data_bytes(words.feature, static_cast<std::uint32_t>(words.value));
  }
  Bytes data(bytes);
  if (bytes == 0) return data;
  const bool timestamp = words.feature == static_cast<std::uint8_t>(nvme::Feature::timestamp);
  if (timestamp && words.value != 0 && words.file.empty() && bytes >= sizeof(words.value)) {
    // Its value is the data: six bytes of milliseconds.
    store_le64(data.data(), words.value & 0xffffffffffffULL);
    return data;
  }
  // As in nvme-cli: zeroes behind the file's end.
  if (auto ok = read_data(words.file, data, std::byte{0}); !ok) {
    return std::unexpected(ok.error());
  }
  return data;
}

Result<void> check_length(std::uint32_t bytes) {
  if (bytes <= kFeatureBytesMax) return {};
  return fail(fmt::format("--data-len {} is more than {}, the most that a feature may have here",
                          bytes, kFeatureBytesMax),
              EINVAL);
}

}  // namespace

int get_feature(const GetFeatureWords& words) {
  if (words.select > kSelectMax && words.select != nvme::kSelectChanged) {
    return refuse({fmt::format("--sel {} is not known: 0 is the current value, 1 the default, 2 "
                               "the saved one, 3 what is supported, 8 what has changed",
                               words.select),
                   EINVAL});
  }
  if (auto ok = check_length(words.length_bytes); !ok) return refuse(ok.error());
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  if (words.feature != 0) {
    const auto status = show_feature(**port, words);
    if (!status) return refuse(status.error());
    return status->ok() ? kExitSuccess : refuse_status(**port, words, *status);
  }
  GetFeatureWords one = words;
  for (unsigned feature = 1; feature < kFeatures; ++feature) {
    one.feature = static_cast<std::uint8_t>(feature);
    const auto status = show_feature(**port, one);
    if (!status) return refuse(status.error());
    if (!status->ok() && !absent(*status, feature_nsid(**port, words.nsid)))
      return refuse_status(**port, one, *status);
  }
  return kExitSuccess;
}

int set_feature(const SetFeatureWords& words) {
  if (words.feature == 0) {
    return refuse({"name the feature: --feature-id 6, for example", EINVAL});
  }
  if (auto ok = check_length(words.length_bytes); !ok) return refuse(ok.error());
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  auto data = data_to_set(words);
  if (!data) return refuse(data.error());
  auto sqe = nvme::set_features(static_cast<nvme::Feature>(words.feature),
                                static_cast<std::uint32_t>(words.value),
                                feature_nsid(**port, words.nsid), words.save);
  sqe.cdw12 = words.cdw12;
  sqe.cdw14 = words.uuid_index;
  const auto direction =
      data->empty() ? transport::DataDirection::none : transport::DataDirection::to_controller;
  const auto reply = (*port)->execute({.sqe = sqe, .direction = direction, .data = *data});
  if (auto ok = judge(**port, sqe, true, reply); !ok) return refuse(ok.error());
  return show(nvme::print({.feature = words.feature,
                           .value = words.value,
                           .cdw12 = words.cdw12,
                           .save = words.save,
                           .result = reply->dw0(),
                           .data = *data}));
}

}  // namespace nvmf::tools
