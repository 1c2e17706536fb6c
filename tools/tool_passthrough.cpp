#include "tool_passthrough.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "control/protocol.h"

namespace nvmf::tools {

using nlohmann::json;

namespace {

struct Field {
  const char* key;
  std::uint32_t nvme::Sqe::* dword;
};
constexpr Field kFields[] = {
    {"nsid", &nvme::Sqe::nsid},   {"cdw2", &nvme::Sqe::cdw2},   {"cdw3", &nvme::Sqe::cdw3},
    {"cdw10", &nvme::Sqe::cdw10}, {"cdw11", &nvme::Sqe::cdw11}, {"cdw12", &nvme::Sqe::cdw12},
    {"cdw13", &nvme::Sqe::cdw13}, {"cdw14", &nvme::Sqe::cdw14}, {"cdw15", &nvme::Sqe::cdw15}};

}  // namespace

json passthrough_args(const host::PassthroughCommand& command) {
  json args = {{"io", command.io},
               {"opcode", command.sqe.opcode},
               {"flags", command.sqe.flags},
               {"mptr", command.sqe.mptr},
               {"metadata_bytes", command.metadata_bytes},
               {"timeout_ms", command.timeout / std::chrono::milliseconds(1)}};
  for (const Field& field : kFields) args[field.key] = command.sqe.*field.dword;
  return args;
}

Result<host::PassthroughCommand> parse_passthrough(const json& args) {
  host::PassthroughCommand command;
  const auto io = args.find("io");
  if (io != args.end() && !io->is_boolean()) return fail("\"io\" is not true or false", EINVAL);
  command.io = io != args.end() && io->get<bool>();
  Error wrong;
  const auto number = [&](const char* key, std::uint64_t most) -> std::uint64_t {
    const auto value = control::unsigned_arg(args, key, most, 0);
    if (!value && wrong.message.empty()) wrong = value.error();
    return value.value_or(0);
  };
  if (!args.contains("opcode")) return fail("the command has no opcode", EINVAL);
  command.sqe.opcode = static_cast<std::uint8_t>(number("opcode", 0xff));
  command.sqe.flags = static_cast<std::uint8_t>(number("flags", 0xff));
  command.sqe.mptr = number("mptr", UINT64_MAX);
  for (const Field& field : kFields) {
    command.sqe.*field.dword = static_cast<std::uint32_t>(number(field.key, UINT32_MAX));
  }
  command.metadata_bytes = static_cast<std::uint32_t>(number("metadata_bytes", UINT32_MAX));
  const auto most_ms = kPassthroughTimeoutMax / std::chrono::milliseconds(1);
  command.timeout =
      std::chrono::milliseconds(number("timeout_ms", static_cast<std::uint64_t>(most_ms)));
  if (!wrong.message.empty()) return std::unexpected(std::move(wrong));
  return command;
}

json passthrough_answer(const host::CommandOutcome& outcome) {
  return {{"status", outcome.cqe.status.encode() >> 1}, {"result", outcome.cqe.result}};
}

Result<PassthroughAnswer> parse_passthrough_answer(const json& fields) {
  const auto status = control::unsigned_arg(fields, "status", 0x7fff, 0);
  const auto result = control::unsigned_arg(fields, "result", UINT64_MAX, 0);
  if (!status || !result || !fields.contains("status")) {
    return fail("the connection's process answered without a status", EBADMSG);
  }
  return PassthroughAnswer{.status = nvme::Status::decode(static_cast<std::uint16_t>(*status << 1)),
                           .result = *result};
}

}  // namespace nvmf::tools
