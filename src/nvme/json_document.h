// JSON as nvme-cli 2.3 writes it, through a library that stays in .cpp files. For those of this
// room, which include the library themselves.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace nvmf::nvme {

using Json = nlohmann::ordered_json;

/// nvme-cli 2.3 hands 32-bit fields to json-c as int: those from 2^31 on come out negative. Scripts
/// that read its output expect those values.
inline std::int32_t as_int(std::uint32_t value) {
  return static_cast<std::int32_t>(value);
}

/// The whole document, indented. A peer's text need not be UTF-8: replaced rather than thrown
/// about.
std::string dump(const Json& json);

}  // namespace nvmf::nvme
