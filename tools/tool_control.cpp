#include "tool_control.h"

#include <nlohmann/json.hpp>
#include <utility>

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

ControlAnswer call(const std::string& socket, std::string_view verb, const json& args,
                   Duration timeout, ControlPayload& payload) {
  ControlAnswer answer;
  auto reactor = io::make_reactor();
  if (!reactor) {
    answer.ok = std::unexpected(reactor.error());
    return answer;
  }
  transport::Endpoint at;
  at.unix_path = socket;
  std::unique_ptr<control::Call> asked;
  asked = std::make_unique<control::Call>(**reactor, at,
                                          [&](const Result<void>& ok, const json& fields) {
                                            answer = {ok, std::make_shared<json>(fields)};
                                            payload.bytes = asked->take_payload();
                                            (*reactor)->stop();
                                          });
  asked->attach_payload(std::exchange(payload.bytes, {}), payload.room_bytes);
  asked->start(verb, args, timeout);
  (*reactor)->run();
  return answer;
}

Result<void> follow_all(const std::vector<std::string>& sockets, std::string_view verb,
                        const json& args, Duration timeout, const StreamReader& user) {
  if (sockets.empty()) return {};
  auto reactor = io::make_reactor();
  if (!reactor) return std::unexpected(reactor.error());
  std::vector<std::unique_ptr<control::Call>> calls;
  std::size_t left = sockets.size();
  for (std::size_t i = 0; i < sockets.size(); ++i) {
    transport::Endpoint at;
    at.unix_path = sockets[i];
    calls.push_back(
        std::make_unique<control::Call>(**reactor, at, [&, i](const Result<void>& ok, const json&) {
          if (!ok) user.on_answer(i, {ok, std::make_shared<json>(json::object())});
          if (--left == 0) (*reactor)->stop();
        }));
    calls.back()->follow(
        [&, i](const json& fields) { user.on_answer(i, {{}, std::make_shared<json>(fields)}); },
        [&, i](const json& news) {
          if (!user.on_news(i, news)) (*reactor)->stop();
        });
    calls.back()->start(verb, args, timeout);
  }
  (*reactor)->run();
  // Streams that are still open end with the reactor; what they say of that is nobody's business.
  (*reactor)->end();
  return {};
}

}  // namespace nvmf::tools
