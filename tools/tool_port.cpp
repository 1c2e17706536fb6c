#include "tool_port.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "control/crash_record.h"
#include "control/protocol.h"
#include "control/runtime_dir.h"
#include "host/log.h"
#include "host/subsystem.h"
#include "io/reactor.h"
#include "tool_control.h"
#include "tool_passthrough.h"
#include "tool_program.h"
#include "tool_timers.h"

namespace nvmf::tools {

using nlohmann::json;

namespace {

/// A live association's own limit for a command is 60 s, and it may have to be aborted then.
constexpr Duration kDefaultTimeout{std::chrono::seconds(60)};
/// What the process on the other side may take beyond the command's own time.
constexpr Duration kPatience{std::chrono::seconds(20)};
/// Nobody else uses a temporary connection: its commands need not wait as long.
constexpr Duration kTemporaryAdminTimeout{std::chrono::seconds(10)};
/// For an answer from memory.
constexpr Duration kStatusPatience{std::chrono::seconds(5)};

/// Through the control socket of a running connection.
class RunningPort final : public CommandPort {
 public:
  RunningPort(std::string target, const Target& found)
      : CommandPort(std::move(target), found.nsid),
        socket_(std::get<Target::Running>(found.at).socket) {}

  Result<PortReply> execute(const host::PassthroughCommand& command) override {
    const bool writes = command.direction == transport::DataDirection::to_controller;
    const bool reads = command.direction == transport::DataDirection::from_controller;
    ControlPayload payload;
    if (writes) payload.bytes.assign(command.data.begin(), command.data.end());
    if (reads) payload.room_bytes = command.data.size();
    const Duration timeout = command.timeout > Duration::zero() ? command.timeout : kDefaultTimeout;
    const ControlAnswer answer =
        call(socket_, kPassthroughVerb, passthrough_args(command), timeout + kPatience, payload);
    if (!answer.ok) return std::unexpected(answer.ok.error());
    const auto parsed = parse_passthrough_answer(*answer.fields);
    if (!parsed) return std::unexpected(parsed.error());
    std::ranges::copy(payload.bytes, command.data.begin());  // no more than it had room for
    return PortReply{.status = parsed->status,
                     .result = parsed->result,
                     .received_bytes = static_cast<std::uint32_t>(payload.bytes.size())};
  }

  Result<std::uint64_t> transfer_bytes_max() override {
    const ControlAnswer answer = call(socket_, "health", json::object(), kStatusPatience);
    if (!answer.ok) return std::unexpected(answer.ok.error());
    return control::unsigned_arg(*answer.fields, "transfer_bytes_max", control::kPayloadBytesMax,
                                 control::kPayloadBytesMax);
  }

 private:
  std::string socket_;
};

/// A connection of its own, with one I/O queue at most.
class TemporaryPort final : public CommandPort, public host::SubsystemEvents {
 public:
  TemporaryPort(std::string target, std::optional<std::uint32_t> nsid)
      : CommandPort(std::move(target), nsid) {}

  ~TemporaryPort() override {
    if (subsystem_ && !ended_) {
      subsystem_->stop();
      while (!ended_) reactor_->run();
    }
    if (record_ && subsystem_) (void)record_->ended(subsystem_->still_executing_for());
    if (reactor_) reactor_->end();
  }

  Result<void> connect(host::ConnectParams params, PortUse use) {
    auto reactor = io::make_reactor();
    if (!reactor) return std::unexpected(reactor.error());
    reactor_ = std::move(*reactor);
    params.nr_io_queues = use == PortUse::admin ? 0 : 1;
    params.admin_timeout = kTemporaryAdminTimeout;
    if (use == PortUse::io_writes) {
      if (auto claimed = claim(params); !claimed) return claimed;
    }
    subsystem_ = std::make_unique<host::RemoteSubsystem>(
        params, std::vector<transport::Loop*>{reactor_.get()}, *this);
    subsystem_->start();
    while (!live_ && !ended_) reactor_->run();
    if (!live_) return std::unexpected(end_);
    if (!record_) return {};
    const host::AssociationInfo* info = subsystem_->info();
    if (info == nullptr) return fail("the target was lost as soon as it was reached", ECONNRESET);
    const host::SilenceFacts facts = {.katt_ms = info->katt_ms,
                                      .traffic_based = info->traffic_based_keep_alive,
                                      .cqt_ms = info->controller.cqt};
    if (auto recorded = record_->went_live(facts, host::silence_bound(facts, params)); !recorded) {
      return recorded;
    }
    return wait_for(params.hold_writes);
  }

  Result<PortReply> execute(const host::PassthroughCommand& command) override {
    if (ended_) return std::unexpected(end_);
    std::optional<Result<PortReply>> reply;
    host::spawn(ask(command, reply));
    while (!reply) reactor_->run();
    return std::move(*reply);
  }

  Result<std::uint64_t> transfer_bytes_max() override {
    const host::AssociationInfo* info = subsystem_->info();
    if (info == nullptr) return std::unexpected(end_);
    return std::min<std::uint64_t>(
        info->controller.max_transfer_bytes(info->cap.mpsmin).value_or(control::kPayloadBytesMax),
        control::kPayloadBytesMax);
  }

 private:
  void on_live() override {
    live_ = true;
    reactor_->stop();
  }
  void on_ended(const Error& reason) override {
    ended_ = true;
    end_ = reason;
    reactor_->stop();
  }

  host::Task<void> ask(const host::PassthroughCommand& command,
                       std::optional<Result<PortReply>>& reply) {
    const auto outcome = co_await subsystem_->passthrough(command);
    if (outcome) {
      reply = PortReply{.status = outcome->cqe.status,
                        .result = outcome->cqe.result,
                        .received_bytes = outcome->received_bytes};
    } else {
      reply = Result<PortReply>(std::unexpected(outcome.error()));
    }
    reactor_->stop();
  }

  /// Until nothing that killed connections have sent can be executed any more. Here, as there is
  /// nothing else to do meanwhile, and a command's own limit is not for this.
  Result<void> wait_for(Duration hold) {
    const Instant until = reactor_->now() + hold;
    transport::Timer timer(reactor_->timers(), [this] { reactor_->stop(); });
    timer.arm(until);
    while (!ended_ && reactor_->now() < until) reactor_->run();
    return ended_ ? Result<void>(std::unexpected(end_)) : Result<void>();
  }

  /// Takes over what killed connections to the subsystem have left, and leaves as much if killed.
  Result<void> claim(host::ConnectParams& params) {
    auto runtime = control::RuntimeDir::open();
    if (!runtime) return std::unexpected(runtime.error());
    runtime_ = std::move(*runtime);
    record_.emplace(*runtime_, params.subnqn, params.address());
    control::Connection wanted;
    wanted.name = fmt::format("command{}", ::getpid());
    wanted.address = params.traddr;
    wanted.port = params.port;
    wanted.subnqn = params.subnqn;
    wanted.hostnqn = params.hostnqn;
    control::Inheritance inherited;
    auto claimed = runtime_->claim(wanted, {}, [&](const std::string& name) -> Result<void> {
      auto taken = record_->take_over(*runtime_, name);
      if (!taken) return std::unexpected(taken.error());
      inherited = std::move(*taken);
      return {};
    });
    if (!claimed) return std::unexpected(claimed.error());
    claim_.emplace(std::move(*claimed));
    for (const std::string& sentence : inherited.complaints) complain("nvmf", "note: " + sentence);
    if (inherited.hold == control::kForEver) {
      return fail(fmt::format("what the connection {} had sent to {} may still be executed, and "
                              "nobody knows until when. When you know that the target has been "
                              "restarted since, connect with nvmf-connect --no-fence",
                              inherited.owner, params.subnqn),
                  EBUSY);
    }
    params.hold_writes = inherited.hold;
    if (inherited.hold != Duration::zero()) {
      complain("nvmf",
               fmt::format("note: what the connection {} had sent to {} may still be executed for "
                           "{}: this waits until then",
                           inherited.owner, params.subnqn, show_duration(inherited.hold)));
    }
    return {};
  }

  std::unique_ptr<io::Reactor> reactor_;
  std::optional<control::RuntimeDir> runtime_;
  std::optional<control::Claim> claim_;
  std::optional<control::OwnCrashRecord> record_;
  std::unique_ptr<host::RemoteSubsystem> subsystem_;
  bool live_ = false;
  bool ended_ = false;
  Error end_;
};

}  // namespace

Result<std::unique_ptr<CommandPort>> CommandPort::open(const std::string& target,
                                                       const TemporaryOptions& options,
                                                       PortUse use) {
  auto found = Target::find(target, options);
  if (!found) return std::unexpected(found.error());
  if (std::holds_alternative<Target::Running>(found->at)) {
    return std::make_unique<RunningPort>(target, *found);
  }
  auto port = std::make_unique<TemporaryPort>(target, found->nsid);
  if (auto ok = port->connect(std::get<host::ConnectParams>(found->at), use); !ok) {
    return std::unexpected(ok.error());
  }
  return port;
}

Result<PortReply> read_admin(CommandPort& port, const nvme::Sqe& sqe, std::span<std::byte> out,
                             Duration timeout) {
  auto reply = port.execute({.sqe = sqe,
                             .direction = transport::DataDirection::from_controller,
                             .data = out,
                             .timeout = timeout});
  if (reply && reply->status.ok() && reply->received_bytes != out.size()) {
    return fail(fmt::format("{} brought {} bytes instead of {}", nvme::opcode_name(sqe, true),
                            reply->received_bytes, out.size()),
                EBADMSG);
  }
  return reply;
}

}  // namespace nvmf::tools
