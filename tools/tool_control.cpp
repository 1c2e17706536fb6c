#include "tool_control.h"

#include <nlohmann/json.hpp>

#include "control/client.h"
#include "io/reactor.h"

namespace nvmf::tools {

using nlohmann::json;

std::vector<ControlAnswer> call_all(const std::vector<std::string>& sockets, std::string_view verb,
                                    const json& args, Duration timeout) {
  std::vector<ControlAnswer> answers(sockets.size());
  if (sockets.empty()) return answers;
  auto reactor = io::make_reactor();
  if (!reactor) {
    for (ControlAnswer& answer : answers) answer.ok = std::unexpected(reactor.error());
    return answers;
  }
  std::vector<std::unique_ptr<control::Call>> calls;
  std::size_t left = sockets.size();
  for (std::size_t i = 0; i < sockets.size(); ++i) {
    transport::Endpoint at;
    at.unix_path = sockets[i];
    calls.push_back(std::make_unique<control::Call>(
        **reactor, at, [&, i](const Result<void>& ok, const json& fields) {
          answers[i] = {ok, std::make_shared<json>(fields)};
          if (--left == 0) (*reactor)->stop();
        }));
    calls.back()->start(verb, args, timeout);
  }
  (*reactor)->run();
  return answers;
}

ControlAnswer call(const std::string& socket, std::string_view verb, const json& args,
                   Duration timeout) {
  return call_all({socket}, verb, args, timeout).front();
}

}  // namespace nvmf::tools
