// One request to a control socket, on a Loop: its answer, and the stream that may follow it.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "control/line_stream.h"
#include "control/protocol.h"
#include "transport/loop.h"

namespace nvmf::control {

/// Connects, asks, reads the answer. Everything on the loop's thread.
class Call final : public LineStream {
 public:
  /// The answer's fields, an object; or why there are none: refused by the process, not there, too
  /// late. Not called inside start(). The Call may be destroyed in here.
  using Done = std::function<void(const Result<void>& ok, const nlohmann::json& fields)>;

  /// A piece of news, an object; of a stream.
  using News = std::function<void(const nlohmann::json& news)>;

  Call(transport::Loop& loop, transport::Endpoint at, Done done);
  ~Call() override;  // before start(), or once `done` was called

  /// Before start(): the answer is given to `answer` and followed by news, each given to `news`.
  /// `done` is called when the stream has ended. `timeout` is for the answer alone. Neither may
  /// destroy the Call.
  void follow(News answer, News news) {
    answer_ = std::move(answer);
    news_ = std::move(news);
  }
  /// Before start(): what goes behind the request, and how much the answer may have.
  void attach_payload(std::vector<std::byte> payload, std::size_t room_bytes) {
    payload_ = std::move(payload);
    room_bytes_ = room_bytes;
  }
  /// Once. `timeout` counts from now to the answer.
  void start(std::string_view verb, const nlohmann::json& args, Duration timeout);
  /// In `done`: the answer's payload.
  [[nodiscard]] std::vector<std::byte> take_payload() { return std::move(payload_); }
  /// Ends a stream that was followed; `done` follows.
  void stop() { end({}); }

  void on_closed(const Error& reason) override;

 private:
  void on_line(std::string_view line) override;
  void on_line_too_long() override;
  void on_end_of_lines() override;
  void on_all_sent() override {}
  void on_payload(std::vector<std::byte> payload) override;
  void end(Result<void> outcome);

  transport::Loop& loop_;
  transport::Endpoint at_;
  Done done_;
  transport::Timer deadline_;
  std::optional<Result<void>> outcome_;
  News answer_;
  News news_;
  std::vector<std::byte> payload_;  // the request's, then the answer's
  std::size_t room_bytes_ = 0;
  bool following_ = false;
  std::unique_ptr<nlohmann::json> fields_;  // behind a pointer: its type is incomplete here
};

}  // namespace nvmf::control
