// A host that may lose its target, and ways to lose it. In virtual time, against a target that does
// as it is told.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "host/fixture.h"
#include "sim/byte_user.h"

namespace nvmf::test {

using host::BlockOp;
using host::ConnectionState;
using transport::ControllerCommand;

inline constexpr std::uint64_t kBlock = 512;

struct Watcher final : host::SubsystemEvents {
  void on_live() override { ++live; }
  void on_lost(const Error& reason) override {
    ++lost;
    why = reason.message;
  }
  void on_live_again() override { ++again; }
  void on_event(const host::HostEvent& event) override { events.push_back(event); }
  void on_namespace_attached(std::uint32_t nsid) override { tell("attached", nsid); }
  void on_namespace_detached(std::uint32_t nsid) override { tell("detached", nsid); }
  void on_namespace_changed(std::uint32_t nsid) override { tell("changed", nsid); }
  void on_ended(const Error& reason) override { ended = reason; }
  void tell(const char* what, std::uint32_t nsid) {
    users_told.push_back(what + (" " + std::to_string(nsid)));
  }
  std::vector<std::string> users_told;
  std::vector<host::HostEvent> events;
  int live = 0;
  int lost = 0;
  int again = 0;
  std::string why;
  std::optional<Error> ended;
};

class Recovery : public HostTest {
 protected:
  Recovery() {
    target.add_namespace(1, 1024).descriptors.uuid = uuid(1);
    target.add_namespace(2, 1024).descriptors.uuid = uuid(2);
    params.cqt_unreported = seconds(2);
    params.jitter_seed = 1;
  }
  ~Recovery() override {
    target.intercept = {};
    refuse(false);
    if (host_ && !watcher.ended) {
      host_->stop(true);
      loop.run_until([this] { return watcher.ended.has_value(); }, seconds(60));
    }
    loop.run_for(seconds(1));
  }

  static nvme::Uuid uuid(unsigned n) {
    nvme::Uuid u{};
    u[0] = std::byte{7};
    u[15] = static_cast<std::byte>(n);
    return u;
  }
  void go(std::size_t reactors = 1) {
    host_ = std::make_unique<host::RemoteSubsystem>(
        params, std::vector<transport::Loop*>(reactors, &loop), watcher);
    host_->start();
    ASSERT_TRUE(loop.run_until([this] { return watcher.live != 0; }, seconds(30)));
  }
  void refuse(bool on) {
    loop.on_connect = [on](const transport::Endpoint&) {
      return sim::ConnectFate{on ? sim::ConnectFate::Kind::refuse : sim::ConnectFate::Kind::normal,
                              {}};
    };
  }
  /// I/O commands are received and nothing is done about them.
  void hold_io() {
    target.intercept = [](FakeTarget::Connection& at, ControllerCommand& c) {
      return at.qid != 0 && !c.sqe.is_fabrics();
    };
  }
  /// The target's process dies: every connection says so.
  void kill_target() {
    for (const auto& link : loop.links()) link->cut();
  }
  void submit(Request& r, BlockOp op, std::uint64_t lba, std::vector<std::byte>& data,
              std::size_t reactor = 0, std::uint32_t nsid = 1) {
    r.op = op;
    r.offset_bytes = lba * kBlock;
    r.length_bytes = data.size();
    r.data = data.data();
    host_->device(reactor, nsid)->submit(r);
  }
  bool wait_for(const std::function<bool()>& done, Duration most = seconds(60)) {
    return loop.run_until(done, most);
  }
  std::vector<host::NamespaceHealth> namespace_health() {
    std::optional<std::vector<host::NamespaceHealth>> all;
    host::spawn(ask(*host_, all));
    EXPECT_TRUE(wait_for([&] { return all.has_value(); }));
    return *all;
  }
  std::size_t writes_seen() const { return target.io_commands(nvme::NvmOpcode::write).size(); }

  Watcher watcher;
  std::unique_ptr<host::RemoteSubsystem> host_;

 private:
  static host::Task<void> ask(host::RemoteSubsystem& s,
                              std::optional<std::vector<host::NamespaceHealth>>& out) {
    out = co_await s.namespace_health();
  }
};

}  // namespace nvmf::test
