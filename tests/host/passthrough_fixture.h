// Commands of tools through a live association, in virtual time, against a target that does as it
// is told.
#pragma once

#include <list>
#include <string>
#include <vector>

#include "host/recovery_fixture.h"

namespace nvmf::test {

using host::PassthroughCommand;
using nvme::AdminOpcode;
using nvme::NvmOpcode;
using transport::DataDirection;

inline PassthroughCommand admin_command(AdminOpcode opcode, std::uint32_t nsid = 0) {
  PassthroughCommand c;
  c.sqe.opcode = static_cast<std::uint8_t>(opcode);
  c.sqe.nsid = nsid;
  return c;
}

inline PassthroughCommand io_command(nvme::Sqe sqe) {
  PassthroughCommand c;
  c.io = true;
  c.sqe = sqe;
  return c;
}

/// A command under way, and how it ended.
struct Passed {
  std::optional<Result<host::CommandOutcome>> result;
  std::vector<std::byte> data;
  [[nodiscard]] bool done() const { return result.has_value(); }
  [[nodiscard]] bool ok() const { return done() && *result && (*result)->cqe.status.ok(); }
  [[nodiscard]] int code() const { return done() && !*result ? result->error().code : 0; }
  [[nodiscard]] std::string why() const {
    return done() && !*result ? result->error().message : "";
  }
};

class Passthrough : public Recovery {
 protected:
  /// What is under way ends while what it writes to is there.
  ~Passthrough() override {
    target.intercept = {};
    if (!host_ || watcher.ended) return;
    host_->stop(true);
    loop.run_until([this] { return watcher.ended.has_value(); }, seconds(60));
    loop.run_for(seconds(1));
  }
  Passed& pass(PassthroughCommand command, std::size_t data_bytes = 0) {
    Passed& p = passed_.emplace_back();
    p.data.assign(data_bytes, std::byte{0x5a});
    command.data = p.data;
    if (data_bytes != 0) {
      command.direction = (command.sqe.opcode & 3) == 1 ? DataDirection::to_controller
                                                        : DataDirection::from_controller;
    }
    host::spawn(run_it(*host_, command, p));
    return p;
  }
  /// Runs it to its end.
  Passed& finish(PassthroughCommand command, std::size_t data_bytes = 0) {
    Passed& p = pass(command, data_bytes);
    EXPECT_TRUE(wait_for([&] { return p.done(); }, seconds(200)));
    return p;
  }
  Passed& identify() {
    PassthroughCommand c;
    c.sqe = nvme::identify(nvme::Cns::controller);
    return pass(c, nvme::kIdentifyBytes);
  }
  /// What a rescan says, when it has ended.
  std::optional<Result<host::RescanReport>> rescan(Duration most = seconds(30)) {
    std::optional<Result<host::RescanReport>> report;
    host::spawn(rescan_it(*host_, report));
    EXPECT_TRUE(wait_for([&] { return report.has_value(); }, most));
    return report;
  }
  void begin_rescan(std::optional<Result<host::RescanReport>>& out) {
    host::spawn(rescan_it(*host_, out));
  }
  /// Commands that the target has received and left without an answer.
  using Held = std::pair<FakeTarget::Connection*, ControllerCommand*>;
  void hold_if(std::function<bool(FakeTarget::Connection&, ControllerCommand&)> which) {
    target.intercept = [this, which](FakeTarget::Connection& at, ControllerCommand& c) {
      if (c.sqe.is_fabrics() || !which(at, c)) return false;
      held.emplace_back(&at, &c);
      return true;
    };
  }
  void hold_admin(std::uint8_t opcode) {
    hold_if([opcode](FakeTarget::Connection& at, ControllerCommand& c) {
      return at.qid == 0 && c.sqe.opcode == opcode;
    });
  }
  std::vector<Held> held;

 private:
  static host::Task<void> run_it(host::RemoteSubsystem& s, PassthroughCommand c, Passed& out) {
    out.result = co_await s.passthrough(c);
  }
  static host::Task<void> rescan_it(host::RemoteSubsystem& s,
                                    std::optional<Result<host::RescanReport>>& out) {
    out = co_await s.rescan();
  }
  std::list<Passed> passed_;
};

}  // namespace nvmf::test
