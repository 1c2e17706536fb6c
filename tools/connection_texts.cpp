#include "connection_texts.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string_view>

#include "tool_health.h"

namespace nvmf::tools {

using nlohmann::json;

namespace {

void add_line(std::string& text, std::string_view key, const std::string& value) {
  if (!value.empty()) text += fmt::format("{:<12}: {}\n", key, value);
}

}  // namespace

std::string state_text(const json& status) {
  std::string text;
  add_line(text, "name", text_of(status, "name"));
  add_line(text, "process", std::to_string(number_of(status, "pid")));
  add_line(text, "state", text_of(status, "state"));
  add_line(text, "subsystem", text_of(status, "subnqn"));
  add_line(text, "address", text_of(status, "address"));
  add_line(text, "host", text_of(status, "hostnqn"));
  add_line(text, "model", text_of(status, "model"));
  add_line(text, "serial", text_of(status, "serial"));
  add_line(text, "firmware", text_of(status, "firmware"));
  add_line(text, "controller", std::to_string(number_of(status, "cntlid")));
  add_line(text, "losses", std::to_string(number_of(status, "losses")));
  for (const std::string& sentence : about_connection(status)) add_line(text, "note", sentence);
  const auto namespaces = status.find("namespaces");
  if (namespaces == status.end() || !namespaces->is_array()) return text;
  for (const json& one : *namespaces) {
    const auto read_only = one.find("read_only");
    add_line(text, "namespace",
             fmt::format("{} {} bytes, blocks of {}{}", text_of(one, "name"),
                         number_of(one, "size_bytes"), number_of(one, "block_bytes"),
                         read_only != one.end() && *read_only == true ? ", read-only" : ""));
  }
  return text;
}

}  // namespace nvmf::tools
