// One request to a control socket, on a Loop.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "control/line_stream.h"
#include "control/protocol.h"
#include "transport/loop.h"

namespace nvmf::control {

/// Connects, asks, reads one line. Everything on the loop's thread.
class Call final : public LineStream {
 public:
  /// The answer's fields, an object; or why there are none: refused by the process, not there, too
  /// late. Not called inside start(). The Call may be destroyed in here.
  using Done = std::function<void(const Result<void>& ok, const nlohmann::json& fields)>;

  Call(transport::Loop& loop, transport::Endpoint at, Done done);
  ~Call() override;  // before start(), or once `done` was called

  /// Once. `timeout` counts from now to the answer.
  void start(std::string_view verb, const nlohmann::json& args, Duration timeout);

  void on_closed(const Error& reason) override;

 private:
  void on_line(std::string_view line) override;
  void on_line_too_long() override;
  void on_end_of_lines() override;
  void on_all_sent() override {}
  void end(Result<void> outcome);

  transport::Loop& loop_;
  transport::Endpoint at_;
  Done done_;
  transport::Timer deadline_;
  std::optional<Result<void>> outcome_;
  std::unique_ptr<nlohmann::json> fields_;  // behind a pointer: its type is incomplete here
};

}  // namespace nvmf::control
