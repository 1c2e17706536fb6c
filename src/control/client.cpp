#include "control/client.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace nvmf::control {

using nlohmann::json;

Call::Call(transport::Loop& loop, transport::Endpoint at, Done done)
    : LineStream(kLineBytesMax),
      loop_(loop),
      at_(std::move(at)),
      done_(std::move(done)),
      deadline_(loop.timers(),
                [this] {
                  end(fail(fmt::format("{} did not answer in time: its process is stopped or hangs",
                                       at_.to_string()),
                           ETIMEDOUT));
                }),
      fields_(std::make_unique<json>()) {}

Call::~Call() = default;

void Call::start(std::string_view verb, const json& args, Duration timeout) {
  send_line(request_line(verb, args));
  deadline_.arm(loop_.now() + timeout);
  transport::ConnectOptions options;
  options.connect_timeout = timeout;
  attach(loop_.connect(at_, options, *this));
}

void Call::on_line(std::string_view line) {
  end(parse_response(line, at_.to_string(), *fields_));
}

void Call::on_line_too_long() {
  end(fail(fmt::format("{} gave an answer that is too long", at_.to_string()), EMSGSIZE));
}

void Call::on_end_of_lines() {
  end(fail(fmt::format("{} hung up without an answer", at_.to_string()), ECONNRESET));
}

/// The first outcome stays; it is told when the stream has gone.
void Call::end(Result<void> outcome) {
  if (outcome_) return;
  deadline_.cancel();
  outcome_ = std::move(outcome);
  stream().reset({"the call is over", ECANCELED});
}

void Call::on_closed(const Error& reason) {
  deadline_.cancel();
  const Result<void> outcome = outcome_ ? *outcome_ : Result<void>(std::unexpected(reason));
  const std::unique_ptr<json> fields = std::move(fields_);
  Done done = std::move(done_);
  done(outcome, *fields);
}

}  // namespace nvmf::control
