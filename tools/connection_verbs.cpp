// What a running connection answers on its control socket.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "connection.h"
#include "host/log.h"
#include "nvme/address.h"
#include "nvme/status.h"
#include "nvme/text.h"
#include "stats_format.h"
#include "tool_passthrough.h"
#include "tool_timers.h"

namespace nvmf::tools {

using nlohmann::json;

namespace {

/// Fences that are shown, one by one; of more there is the number.
constexpr std::size_t kFencesShownMax = 64;

const char* word_for(host::Unflushed mode) {
  switch (mode) {
    case host::Unflushed::trust:
      return "trust";
    case host::Unflushed::fail:
      return "fail";
    case host::Unflushed::replay:
      return "replay";
  }
  return "unknown";
}

json to_json(const host::LossPolicy& policy) {
  return {{"reconnect_delay_ms", to_ms(policy.reconnect_delay)},
          {"ctrl_loss_ms", ms_or_null(policy.ctrl_loss)},
          {"fast_io_fail_ms", ms_or_null(policy.fast_io_fail)}};
}

json to_json(const host::FenceInfo& fence) {
  return {{"offset_bytes", fence.offset_bytes},
          {"length_bytes", fence.length_bytes},
          {"lifts_in_ms", fence.never ? json(nullptr) : ms_or_null(fence.lifts_in)},
          {"never", fence.never}};
}

/// A timer of the policy in milliseconds, null for never; `value` stays if it is not given.
Result<void> take_timer(const json& args, const char* key, std::optional<Duration>& value) {
  const auto given = args.find(key);
  if (given == args.end()) return {};
  if (given->is_null()) {
    value.reset();
    return {};
  }
  const auto ms =
      control::unsigned_arg(args, key, static_cast<std::uint64_t>(to_ms(host::kLossTimerMax)), 0);
  if (!ms) return std::unexpected(ms.error());
  value = std::chrono::milliseconds(*ms);
  return {};
}

}  // namespace

void Connection::add_verbs() {
  control_.handle("status", [this](const json&, control::Responder respond) {
    host::spawn(run_status(std::move(respond)));
  });
  control_.handle("health",
                  [this](const json&, control::Responder respond) { respond.succeed(health()); });
  control_.handle("stats", [this](const json&, control::Responder respond) {
    respond.succeed(statistics_to_json(subsystem_->statistics()));
  });
  control_.handle("trace", [this](const json& args, control::Responder respond) {
    trace(args, std::move(respond));
  });
  control_.handle("policy", [this](const json& args, control::Responder respond) {
    set_policy(args, std::move(respond));
  });
  control_.handle("reset",
                  [this](const json&, control::Responder respond) { reset(std::move(respond)); });
  control_.handle("accept", [this](const json& args, control::Responder respond) {
    const auto nsid = control::unsigned_arg(args, "nsid", 0xffffffff, 0);
    if (!nsid) return respond.fail(nsid.error());
    host::spawn(run_accept(static_cast<std::uint32_t>(*nsid), std::move(respond)));
  });
  control_.handle("rescan", [this](const json&, control::Responder respond) {
    host::spawn(run_rescan(std::move(respond)));
  });
  control_.handle_payload(
      kPassthroughVerb,
      [this](const json& args, control::Server::Payload payload, control::Responder respond) {
        passthrough(args, std::move(payload), std::move(respond));
      });
  control_.handle("events", [this](const json& args, control::Responder respond) {
    events_.serve(args, subsystem_->event_counts(), std::move(respond));
  });
  control_.handle("disconnect", [this](const json& args, control::Responder respond) {
    const auto force = args.find("force");
    json held = json::array();
    if (faces_ && state_ == State::live) held = faces_->held();
    respond.succeed({{"pid", ::getpid()}, {"held", std::move(held)}});
    ask_end("disconnected on request");
    if (force != args.end() && *force == true) hurry();
  });
}

/// What can be said at once.
json Connection::health() const {
  json s = {{"name", claim_.name()}, {"pid", ::getpid()}, {"lives", lives_}};
  const host::Health h = subsystem_->health();
  s["state"] = state_ == State::ending       ? "ending"
               : state_ == State::connecting ? "connecting"
                                             : host::name_of(h.state);
  s["losses"] = h.losses;
  s["attempts"] = h.attempts;
  s["last_loss"] = nvme::printable(h.last_loss);
  s["last_attempt"] = nvme::printable(h.last_attempt);
  s["lost_for_ms"] = ms_or_null(h.lost_for);
  s["next_attempt_in_ms"] = ms_or_null(h.next_attempt_in);
  s["io_fails_in_ms"] = ms_or_null(h.io_fails_in);
  s["gone_in_ms"] = ms_or_null(h.gone_in);
  s["policy"] = to_json(h.policy);
  // Of a discovery controller, and of a disk that is only read, no write can be held.
  const bool held = lives_ != 0 && !options_.discovery && !options_.params.read_only;
  s["writes_held_at_most_ms"] = held ? ms_or_null(writes_held_at_most_) : json(0);
  if (const host::AssociationInfo* info = subsystem_->info()) {
    s["transfer_bytes_max"] = std::min<std::uint64_t>(
        info->controller.max_transfer_bytes(info->cap.mpsmin).value_or(control::kPayloadBytesMax),
        control::kPayloadBytesMax);
  }
  return s;
}

host::Task<void> Connection::run_status(control::Responder respond) {
  std::vector<host::NamespaceHealth> healths;
  if (faces_ && !subsystem_ended_) healths = co_await subsystem_->namespace_health();
  respond.succeed(status(healths));
}

json Connection::status(const std::vector<host::NamespaceHealth>& healths) const {
  const host::ConnectParams& p = options_.params;
  json s = health();
  s.update({{"transport", "tcp"},
            {"traddr", p.traddr},
            {"trsvcid", std::to_string(p.port)},
            {"address", p.address()},
            {"subnqn", p.subnqn},
            {"hostnqn", p.hostnqn},
            {"hostid", nvme::format_uuid(p.hostid)},
            {"hdr_digest", p.header_digest},
            {"data_digest", p.data_digest},
            {"read_only", p.read_only},
            {"fence", p.fence},
            {"cqt_unreported_ms", to_ms(p.cqt_unreported)},
            {"trust_peer_close", p.trust_peer_close},
            {"unflushed_mode", word_for(p.unflushed)},
            {"weak_identity", p.weak_identity},
            {"io", pool_.at(0).backend_name()},
            {"namespaces", json::array()}});
  s.update(*controller_);
  if (lives_ != 0) {
    s["uptime_ms"] = to_ms(loop_.now() - live_at_);
    const bool for_ever = p.hold_writes == Duration::max();
    s["writes_held_for_ever"] = for_ever;
    s["writes_held_for_ms"] =
        for_ever ? json(nullptr)
                 : json(std::max<std::int64_t>(to_ms(live_at_ + p.hold_writes - loop_.now()), 0));
    json& queues = s["queues"] = json::array();
    for (const host::QueueStatistics& q : subsystem_->statistics().queues) {
      if (q.qid == 0 || !q.live) continue;
      queues.push_back({{"qid", q.qid},
                        {"reactor", q.reactor},
                        {"commands", q.commands},
                        {"read_bytes", q.read_bytes},
                        {"written_bytes", q.written_bytes},
                        {"errors", q.errors}});
    }
  }
  s["events"] = event_counts_to_json(subsystem_->event_counts());
  if (!faces_) return s;
  faces_->describe(s);
  s["namespaces"] = namespaces_status(healths);
  return s;
}

/// By rising NSID.
json Connection::namespaces_status(const std::vector<host::NamespaceHealth>& healths) const {
  auto all = subsystem_->namespaces();
  std::ranges::sort(all, {}, [](const auto& ns) { return ns->info.nsid; });
  json list = json::array();
  for (const auto& ns : all) {
    const auto found =
        std::ranges::find(healths, ns->info.nsid, [](const auto& health) { return health.nsid; });
    list.push_back(namespace_status(*ns, found == healths.end() ? nullptr : &*found));
  }
  return list;
}

json Connection::namespace_status(const host::Namespace& ns,
                                  const host::NamespaceHealth* health) const {
  json one = {{"name", ns.info.name},
              {"nsid", ns.info.nsid},
              {"size_bytes", ns.info.size_bytes},
              {"block_bytes", ns.info.block_bytes},
              {"read_only", ns.info.read_only},
              {"attached", subsystem_->attached(ns.info.nsid)}};
  if (ns.uuid) one["uuid"] = nvme::format_uuid(*ns.uuid);
  faces_->add_places(one, ns.info);
  if (health == nullptr) return one;
  one["stopped"] = nvme::printable(health->stopped);
  one["acceptable"] = health->acceptable;
  one["waiting"] = health->waiting;
  one["refused"] = health->refused;
  if (health->refused != 0) {
    one["refusal"] = nvme::describe(health->refusal, nvme::StatusContext::nvm);
  }
  one["unflushed"] = health->unflushed;
  one["fence_count"] = health->fences.size();
  json& fences = one["fences"] = json::array();
  for (const host::FenceInfo& fence : health->fences) {
    if (fences.size() == kFencesShownMax) break;
    fences.push_back(to_json(fence));
  }
  return one;
}

/// "file": a path begins a trace, null ends it, nothing asks. The counts are those of the trace
/// that is on or was ended just now.
void Connection::trace(const json& args, control::Responder respond) {
  std::optional<io::TraceCounts> counts = trace_.counts();
  bool on = counts.has_value();
  if (const auto file = args.find("file"); file != args.end() && file->is_null()) {
    counts = trace_.stop();
    if (!counts) return respond.fail({claim_.name() + " writes no trace", ENOENT});
    on = false;
    host::log(host::LogLevel::info, "the wire trace was ended on request");
  } else if (file != args.end()) {
    const std::string path = file->is_string() ? file->get<std::string>() : "";
    // The system would take what comes before a NUL.
    if (!path.starts_with('/') || path.find('\0') != std::string::npos) {
      return respond.fail({"\"file\" must be a path that begins with /, or null", EINVAL});
    }
    if (auto started = trace_.start(path); !started) return respond.fail(started.error());
    counts = io::TraceCounts{};
    on = true;
    host::log(host::LogLevel::info,
              fmt::format("writing a wire trace to {} on request", nvme::printable(path)));
  }
  const io::TraceCounts c = counts.value_or(io::TraceCounts{});
  respond.succeed({{"on", on},
                   {"packets", c.packets},
                   {"dropped", c.dropped},
                   {"bytes", c.bytes},
                   {"error", c.error}});
}

/// Answers with what is in force then; without arguments nothing is changed.
void Connection::set_policy(const json& args, control::Responder respond) {
  host::LossPolicy policy = subsystem_->health().policy;
  std::optional<Duration> delay = policy.reconnect_delay;
  for (const auto& taken : {take_timer(args, "reconnect_delay_ms", delay),
                            take_timer(args, "ctrl_loss_ms", policy.ctrl_loss),
                            take_timer(args, "fast_io_fail_ms", policy.fast_io_fail)}) {
    if (!taken) return respond.fail(taken.error());
  }
  policy.reconnect_delay = delay.value_or(policy.reconnect_delay);
  if (state_ == State::ending) return respond.fail({claim_.name() + " is ending", ESHUTDOWN});
  if (auto set = subsystem_->set_policy(policy); !set) return respond.fail(set.error());
  respond.succeed(health());
}

/// Answers at once; "lives" is one more when it is live again.
void Connection::reset(control::Responder respond) {
  const json before = health();
  if (state_ != State::live) {
    return respond.fail({fmt::format("{} is {} and cannot be reset", claim_.name(),
                                     before["state"].get<std::string>()),
                         ENOTCONN});
  }
  if (auto done = subsystem_->reset(); !done) {
    return respond.fail(
        {fmt::format("{} cannot be reset: it is not live, and looks for its target anyway",
                     claim_.name()),
         done.error().code});
  }
  host::log(host::LogLevel::info, "reset on request");
  respond.succeed(before);
}

/// NSID 0: every namespace that waits for the user's word.
host::Task<void> Connection::run_accept(std::uint32_t nsid, control::Responder respond) {
  std::vector<host::NamespaceHealth> healths;
  if (faces_ && !subsystem_ended_) healths = co_await subsystem_->namespace_health();
  json accepted = json::array();
  for (const host::NamespaceHealth& h : healths) {
    if (!h.acceptable || (nsid != 0 && h.nsid != nsid)) continue;
    if (auto done = subsystem_->accept(h.nsid); !done) {
      respond.fail(done.error());
      co_return;
    }
    const std::string name = fmt::format("{}n{}", claim_.name(), h.nsid);
    host::log(host::LogLevel::warning,
              fmt::format("{} is accepted as it is now, on request", name));
    accepted.push_back(name);
  }
  if (accepted.empty()) {
    respond.fail({nsid != 0
                      ? fmt::format("{}n{} waits for nobody's word: `nvmf list` shows what "
                                    "is there and what it does",
                                    claim_.name(), nsid)
                      : fmt::format("no namespace of {} waits for anybody's word", claim_.name()),
                  ENOENT});
    co_return;
  }
  respond.succeed({{"accepted", std::move(accepted)}});
}

/// Answers when what has changed has been acted on.
host::Task<void> Connection::run_rescan(control::Responder respond) {
  if (state_ == State::ending) {
    respond.fail({claim_.name() + " is ending", ESHUTDOWN});
    co_return;
  }
  const auto report = co_await subsystem_->rescan();
  if (!report) {
    respond.fail(report.error().code == ENOTCONN && state_ == State::live ? lost_target()
                                                                          : report.error());
    co_return;
  }
  json stopped = json::array();
  for (const auto& one : report->stopped) {
    stopped.push_back({{"nsid", one.nsid}, {"why", nvme::printable(one.why)}});
  }
  respond.succeed({{"active", report->active},
                   {"added", report->added},
                   {"not_served", report->not_served},
                   {"gone", report->gone},
                   {"stopped", std::move(stopped)}});
}

Error Connection::lost_target() const {
  return {fmt::format("{} has lost its target and cannot ask it: `nvmf list` says why, and when it "
                      "tries again",
                      claim_.name()),
          ENOTCONN};
}

/// A tool's command. Its data lives in this frame; the subsystem's end waits for it.
host::Task<void> Connection::run_passthrough(host::PassthroughCommand command,
                                             control::Server::Payload payload,
                                             control::Responder respond) {
  std::vector<std::byte> data = std::move(payload.bytes);
  if (!data.empty()) {
    command.direction = transport::DataDirection::to_controller;
  } else if (payload.room_bytes != 0) {
    command.direction = transport::DataDirection::from_controller;
    data.resize(payload.room_bytes);
  }
  command.data = data;
  const bool reads = command.direction == transport::DataDirection::from_controller;
  const Result<host::CommandOutcome> outcome = co_await subsystem_->passthrough(command);
  if (outcome) {
    data.resize(reads ? outcome->received_bytes : 0);
    respond.succeed(passthrough_answer(*outcome), std::move(data));
  } else if (outcome.error().code == ENOTCONN && state_ == State::live) {
    respond.fail(lost_target());
  } else {
    respond.fail(outcome.error());
  }
}

void Connection::passthrough(const json& args, control::Server::Payload payload,
                             control::Responder respond) {
  auto command = parse_passthrough(args);
  if (!command) return respond.fail(command.error());
  if (!payload.bytes.empty() && payload.room_bytes != 0) {
    return respond.fail({"a command moves data in one direction only", EINVAL});
  }
  if (state_ == State::ending) return respond.fail({claim_.name() + " is ending", ESHUTDOWN});
  host::spawn(run_passthrough(*command, std::move(payload), std::move(respond)));
}

}  // namespace nvmf::tools
