// A host's queue pair whose controller is a RawPeer: what every test of broken controllers needs.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "tcp/raw_peer.h"
#include "transport/tcp/host_qpair.h"

namespace nvmf::tcp {

using namespace std::chrono_literals;
using transport::DataDirection;
using transport::Delivery;

struct Events final : transport::HostQpairEvents {
  void on_ready() override { ready = true; }
  void on_slot_free() override {}
  void on_ended(const Error& reason) override { ended = reason; }
  bool ready = false;
  std::optional<Error> ended;
};

struct Command : transport::HostCommand {
  Bytes buffer;
  int completions = 0;
  Command(DataDirection d, std::uint32_t length) : buffer(length, std::byte{0x5a}) {
    direction = d;
    data = buffer.data();
    data_bytes = length;
    complete = [](transport::HostCommand& c) { ++static_cast<Command&>(c).completions; };
  }
};

class HostileController : public ::testing::Test {
 protected:
  void start(const HostQpairOptions& options = {.queue_entries = 8, .in_capsule_bytes = 0}) {
    auto listening = loop.listen({"127.0.0.1", 4420, ""}, [this](auto incoming) {
      peer.stream = loop.adopt(std::move(incoming), peer);
    });
    listener = std::move(*listening);
    qpair = std::make_unique<HostQpair>(options, events);
    qpair->start(loop, {"127.0.0.1", 4420, ""}, {});
    ASSERT_TRUE(loop.run_until([&] { return peer.incoming.size() == kIcBytes; }, 10s));
  }
  void ready(const IcResp& resp = {.maxh2cdata_bytes = 4096}) {
    peer.send(ic_resp_bytes(resp));
    ASSERT_TRUE(loop.run_until([&] { return events.ready || events.ended; }, 10s));
  }
  /// Submits and returns the CID that arrived at the peer.
  std::uint16_t submit(Command& c) {
    const std::size_t before = peer.pdus().size();
    qpair->submit(c);
    EXPECT_TRUE(loop.run_until([&] { return peer.pdus().size() > before; }, 10s));
    const Bytes pdu = peer.pdus().back();
    return nvme::Sqe::decode(std::span(pdu).subspan<8, 64>()).cid;
  }
  /// Ends a command that a test has seen enough of, before it goes.
  void finish(Command& c) {
    peer.send(capsule_resp_bytes(c.sqe.cid, nvme::StatusCode::internal_error));
    ASSERT_TRUE(loop.run_until([&] { return c.completions == 1; }, 10s));
  }
  void expect_term_req(Fes fes, std::uint32_t fei) {
    ASSERT_TRUE(loop.run_until([&] { return peer.term_req().has_value(); }, 10s));
    EXPECT_EQ(peer.term_req()->fes, fes);
    EXPECT_EQ(peer.term_req()->fei, fei);
    ASSERT_TRUE(loop.run_until([&] { return events.ended.has_value(); }, 10s));
    EXPECT_FALSE(events.ended->message.empty());
  }
  void TearDown() override {
    if (qpair && !events.ended) {
      qpair->end(Error{"test over"});
    }
    EXPECT_TRUE(loop.run_until([&] { return !qpair || events.ended.has_value(); }, 10s));
    if (peer.stream && !peer.closed) peer.stream->reset(Error{"test over"});
    EXPECT_TRUE(loop.run_until([&] { return !peer.stream || peer.closed.has_value(); }, 10s));
  }

  sim::VirtualLoop loop;
  std::unique_ptr<transport::Listener> listener;
  RawPeer peer;
  Events events;
  std::unique_ptr<HostQpair> qpair;
};

}  // namespace nvmf::tcp
