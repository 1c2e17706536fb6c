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
  send_line(request_line(
      {.verb = std::string(verb), .payload_bytes = payload_.size(), .room_bytes = room_bytes_},
      args));
  send_payload(std::exchange(payload_, {}));
  deadline_.arm(loop_.now() + timeout);
  transport::ConnectOptions options;
  options.connect_timeout = timeout;
  attach(loop_.connect(at_, options, *this));
}

void Call::on_line(std::string_view line) {
  if (outcome_) return;
  if (following_) {
    json news;
    if (auto ok = parse_news(line, at_.to_string(), news); !ok) return end(ok);
    return news_(news);
  }
  const auto payload_bytes = parse_response(line, at_.to_string(), *fields_);
  if (!payload_bytes) return end(std::unexpected(payload_bytes.error()));
  if (*payload_bytes > room_bytes_) {
    return end(fail(fmt::format("{} answered with more bytes than were asked for", at_.to_string()),
                    EMSGSIZE));
  }
  if (*payload_bytes != 0) return expect_payload(*payload_bytes);
  if (!news_) return end({});
  following_ = true;
  deadline_.cancel();
  answer_(*fields_);
}

void Call::on_payload(std::vector<std::byte> payload) {
  payload_ = std::move(payload);
  end({});
}

void Call::on_line_too_long() {
  end(fail(fmt::format("{} gave an answer that is too long", at_.to_string()), EMSGSIZE));
}

void Call::on_end_of_lines() {
  if (following_) return end({});
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
