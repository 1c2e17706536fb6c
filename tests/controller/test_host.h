// A host in a few lines: real host queue pairs over the virtual loop, with calls that look
// synchronous because they run the loop until the answer is there.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "controller/target.h"
#include "nvme/admin.h"
#include "nvme/fabrics.h"
#include "nvme/identify.h"
#include "nvme/log_pages.h"
#include "sim/virtual_loop.h"
#include "transport/tcp/host_qpair.h"

namespace nvmf::controller {

using namespace std::chrono_literals;
using Bytes = std::vector<std::byte>;

inline const std::string kSubsystemNqn = "nqn.2026-01.org.example:disk";
inline const std::string kHostNqn = "nqn.2026-01.org.example:host";

inline nvme::HostId host_id(std::uint8_t last) {
  nvme::HostId id{};
  id[15] = static_cast<std::byte>(last);
  return id;
}

inline Bytes random_bytes(std::size_t length, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(length);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

/// How a command ended.
struct Answer {
  transport::Delivery delivery = transport::Delivery::not_sent;
  nvme::Status status;
  std::uint64_t result = 0;
  std::uint32_t received_bytes = 0;
  Bytes data;

  [[nodiscard]] bool answered() const { return delivery == transport::Delivery::answered; }
  [[nodiscard]] bool ok() const { return answered() && status.ok(); }
  /// The status code, for EXPECT_EQ; FFFh if there was no answer.
  [[nodiscard]] unsigned code() const {
    return answered() ? static_cast<unsigned>(status.code()) : 0xfffu;
  }
  [[nodiscard]] std::uint32_t dw0() const { return static_cast<std::uint32_t>(result); }
};

inline unsigned code_of(nvme::StatusCode code) {
  return static_cast<unsigned>(code);
}

/// A command that may be left waiting.
struct Pending : transport::HostCommand {
  Bytes buffer;
  bool done = false;

  [[nodiscard]] Answer answer() const {
    return {delivery, cqe.status, cqe.result, received_bytes, buffer};
  }
};

/// One queue of a host: connection, handshake, commands.
class TestQueue final : public transport::HostQpairEvents {
 public:
  TestQueue(sim::VirtualLoop& loop, const transport::Endpoint& to, std::uint16_t qid,
            std::uint32_t entries = 32, bool data_digest = false)
      : loop_(loop) {
    tcp::HostQpairOptions options;
    options.data_digest = data_digest;
    options.qid = qid;
    options.queue_entries = entries;
    qpair_ = std::make_unique<tcp::HostQpair>(options, *this);
    qpair_->start(loop, to, {});
    loop.run_until([&] { return ready_ || reason_; }, 30s);
  }
  ~TestQueue() {
    end();
    loop_.run_until([&] { return reason_.has_value(); }, 30s);
  }

  [[nodiscard]] bool ready() const { return ready_; }
  [[nodiscard]] bool ended() const { return reason_.has_value(); }
  tcp::HostQpair& qpair() { return *qpair_; }
  void end() {
    if (!reason_) qpair_->end(Error{"The test ended the connection"});
  }
  void finish() {
    if (!reason_) qpair_->finish();
  }

  /// `data` is sent, or filled if `from` (then only its length counts).
  std::shared_ptr<Pending> start(const nvme::Sqe& sqe, Bytes data = {}, bool from = false) {
    auto pending = std::make_shared<Pending>();
    pending->sqe = sqe;
    pending->buffer = std::move(data);
    pending->data = pending->buffer.data();
    pending->data_bytes = static_cast<std::uint32_t>(pending->buffer.size());
    pending->direction = pending->buffer.empty() ? transport::DataDirection::none
                         : from                  ? transport::DataDirection::from_controller
                                                 : transport::DataDirection::to_controller;
    pending->complete = [](transport::HostCommand& c) { static_cast<Pending&>(c).done = true; };
    if (reason_) {
      pending->done = true;
      return pending;
    }
    std::erase_if(in_flight_, [](const auto& one) { return one->done; });
    in_flight_.push_back(pending);
    qpair_->submit(*pending);
    return pending;
  }
  Answer wait(const Pending& pending, Duration most = 60s) {
    EXPECT_TRUE(loop_.run_until([&] { return pending.done; }, most));
    return pending.answer();
  }
  Answer send(const nvme::Sqe& sqe, Bytes data = {}) { return wait(*start(sqe, std::move(data))); }
  Answer fetch(const nvme::Sqe& sqe, std::size_t length) {
    return wait(*start(sqe, Bytes(length), true));
  }

  // transport::HostQpairEvents
  void on_ready() override { ready_ = true; }
  void on_slot_free() override {}
  void on_ended(const Error& reason) override { reason_ = reason; }

 private:
  sim::VirtualLoop& loop_;
  std::unique_ptr<tcp::HostQpair> qpair_;
  std::vector<std::shared_ptr<Pending>> in_flight_;  // however soon the test forgets them
  bool ready_ = false;
  std::optional<Error> reason_;
};

struct HostOptions {
  std::string subnqn = kSubsystemNqn;
  std::string hostnqn = kHostNqn;
  nvme::HostId hostid = host_id(1);
  std::uint32_t kato_ms = 0;
  std::uint8_t cattr = 0;
  std::uint32_t queue_entries = 32;
  bool data_digest = false;  // of I/O queues
};

/// An association: admin queue, then I/O queues.
class TestHost {
 public:
  TestHost(sim::VirtualLoop& loop, const transport::Endpoint& to, HostOptions options = {})
      : loop_(loop), to_(to), options_(std::move(options)) {}

  Answer connect(TestQueue& queue, const nvme::ConnectCommand& command,
                 const nvme::ConnectData& data) {
    Bytes bytes(nvme::kConnectDataBytes);
    data.encode(std::span<std::byte, nvme::kConnectDataBytes>(bytes));
    return queue.send(command.to_sqe(), std::move(bytes));
  }
  [[nodiscard]] nvme::ConnectData connect_data() const {
    return {.hostid = options_.hostid,
            .cntlid = cntlid_,
            .subnqn = options_.subnqn,
            .hostnqn = options_.hostnqn};
  }
  [[nodiscard]] nvme::ConnectCommand connect_command(std::uint16_t qid) const {
    return {.recfmt = 0,
            .qid = qid,
            .queue_entries = options_.queue_entries,
            .cattr = options_.cattr,
            .kato_ms = qid == 0 ? options_.kato_ms : 0};
  }

  Answer connect_admin() {
    admin_ = std::make_unique<TestQueue>(loop_, to_, 0, options_.queue_entries);
    Answer answer = connect(*admin_, connect_command(0), connect_data());
    if (answer.ok()) cntlid_ = nvme::ConnectResponse::decode(answer.result).cntlid;
    return answer;
  }
  Answer set_cc(const nvme::ControllerConfiguration& cc) {
    return admin().send(nvme::property_set(nvme::Property::cc, cc.encode()));
  }
  static nvme::ControllerConfiguration enabled() {
    nvme::ControllerConfiguration cc;
    cc.en = true;
    cc.iosqes = 6;
    cc.iocqes = 4;
    return cc;
  }
  nvme::ControllerStatus csts() {
    return nvme::ControllerStatus::decode(
        admin().send(nvme::property_get(nvme::Property::csts)).dw0());
  }
  /// Connects the admin queue and enables the controller.
  void bring_up() {
    const Answer connected = connect_admin();
    ASSERT_TRUE(connected.ok()) << nvme::describe(connected.status, nvme::StatusContext::fabrics);
    ASSERT_TRUE(set_cc(enabled()).ok());
    ASSERT_TRUE(csts().rdy);
  }
  Answer connect_io(std::uint16_t qid) {
    auto queue =
        std::make_unique<TestQueue>(loop_, to_, qid, options_.queue_entries, options_.data_digest);
    Answer answer = connect(*queue, connect_command(qid), connect_data());
    io_[qid] = std::move(queue);
    return answer;
  }
  /// bring_up() and one I/O queue, with in-capsule data as Identify offers it.
  void bring_up_io() {
    ASSERT_NO_FATAL_FAILURE(bring_up());
    const Answer connected = connect_io(1);
    ASSERT_TRUE(connected.ok()) << nvme::describe(connected.status, nvme::StatusContext::fabrics);
    io().qpair().set_in_capsule_bytes(
        static_cast<std::uint32_t>(identify_controller().in_capsule_bytes()));
  }

  Answer identify(nvme::Cns cns, std::uint32_t nsid = 0, nvme::Csi csi = nvme::Csi::nvm) {
    return admin().fetch(nvme::identify(cns, nsid, csi), nvme::kIdentifyBytes);
  }
  nvme::IdentifyController identify_controller() {
    const Answer answer = identify(nvme::Cns::controller);
    EXPECT_TRUE(answer.ok());
    return nvme::IdentifyController::decode(answer.data);
  }
  Answer log(const nvme::GetLogPage& get) { return admin().fetch(get.to_sqe(), get.length_bytes); }
  Answer log(nvme::LogPage page, std::uint64_t length, std::uint64_t offset = 0,
             bool retain = false) {
    nvme::GetLogPage get;
    get.page = page;
    get.length_bytes = length;
    get.offset_bytes = offset;
    get.retain_event = retain;
    return log(get);
  }
  nvme::SmartLog smart() {
    return nvme::SmartLog::decode(log(nvme::LogPage::smart, nvme::kSmartBytes).data);
  }

  Answer read(std::uint64_t lba, std::uint32_t blocks, std::uint32_t block_bytes = 512,
              std::uint32_t nsid = 1) {
    return io().fetch(nvme::read_command(nsid, lba, blocks), std::size_t{blocks} * block_bytes);
  }
  Answer write(std::uint64_t lba, Bytes data, std::uint32_t block_bytes = 512,
               std::uint32_t nsid = 1, std::uint32_t bits = 0) {
    const auto blocks = static_cast<std::uint32_t>(data.size() / block_bytes);
    return io().send(nvme::write_command(nsid, lba, blocks, bits), std::move(data));
  }

  TestQueue& admin() { return *admin_; }
  TestQueue& io(std::uint16_t qid = 1) { return *io_.at(qid); }
  [[nodiscard]] std::uint16_t cntlid() const { return cntlid_; }
  HostOptions& options() { return options_; }
  void drop_io(std::uint16_t qid) { io_.erase(qid); }
  void drop_all() {
    io_.clear();
    admin_.reset();
  }

 private:
  sim::VirtualLoop& loop_;
  transport::Endpoint to_;
  HostOptions options_;
  std::uint16_t cntlid_ = nvme::kCntlidDynamic;
  std::unique_ptr<TestQueue> admin_;
  std::map<std::uint16_t, std::unique_ptr<TestQueue>> io_;
};

/// A target on 127.0.0.1:4420 of a virtual network; stopped, and seen to stop, at the end.
class ControllerTest : public testing::Test {
 protected:
  static NamespaceConfig memory(std::uint64_t bytes, std::uint32_t block_bytes = 512) {
    NamespaceConfig config;
    config.size_bytes = bytes;
    config.block_bytes = block_bytes;
    return config;
  }
  NamespaceConfig file(const std::string& path, std::size_t bytes,
                       std::uint32_t block_bytes = 512) {
    loop.register_file(path, Bytes(bytes));
    NamespaceConfig config;
    config.kind = NamespaceConfig::Kind::file;
    config.path = path;
    config.block_bytes = block_bytes;
    return config;
  }
  static TargetConfig one_subsystem(std::vector<NamespaceConfig> namespaces) {
    TargetConfig config;
    config.subsystems.push_back({kSubsystemNqn, std::move(namespaces), {}, {}});
    return config;
  }

  void start(TargetConfig config, const std::string& address = "127.0.0.1") {
    config.log = [this](const std::string& line) { lines.push_back(line); };
    auto made = Target::create(loop, std::move(config));
    ASSERT_TRUE(made) << made.error().message;
    target = std::move(*made);
    auto listening = target->listen({address, 4420, ""});
    ASSERT_TRUE(listening) << listening.error().message;
  }
  TestHost& host(HostOptions options = {}) {
    hosts.push_back(std::make_unique<TestHost>(loop, at, std::move(options)));
    return *hosts.back();
  }
  void stop() {
    if (!target) return;
    bool stopped = false;
    target->stop([&](Result<void> done) {
      EXPECT_TRUE(done) << done.error().message;
      stopped = true;
    });
    EXPECT_TRUE(loop.run_until([&] { return stopped; }, 10s));
    EXPECT_EQ(target->connection_count(), 0u);
    EXPECT_EQ(target->controller_count(), 0u);
    EXPECT_EQ(target->buffers().free_count(), target->buffers().count());
    target.reset();
  }
  void TearDown() override {
    stop();
    hosts.clear();
  }

  sim::VirtualLoop loop;
  transport::Endpoint at{"127.0.0.1", 4420, ""};
  std::unique_ptr<Target> target;
  std::vector<std::unique_ptr<TestHost>> hosts;
  std::vector<std::string> lines;
};

}  // namespace nvmf::controller
