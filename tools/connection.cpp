#include "connection.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "face_kernel.h"
#include "host/events.h"
#include "host/fence_time.h"
#include "host/log.h"
#include "nvme/address.h"
#include "nvme/print.h"
#include "nvme/text.h"
#include "stats_format.h"
#include "tool_program.h"
#include "tool_timers.h"
#include "transport/tcp/pdu_border.h"

namespace nvmf::tools {

using host::LogLevel;
using nlohmann::json;

namespace {

/// How long the command may take to end once it has been told.
constexpr Duration kCommandGrace{std::chrono::milliseconds(500)};
/// How long requests of the faces' users that are under way may take before the connection behind
/// them is ended, too.
constexpr Duration kServeGrace{std::chrono::milliseconds(200)};
/// Then nothing is waited for any more. What is left of kEndTimeMax is for the control socket's
/// last answers and for the kernel.
constexpr Duration kHurryAfter{std::chrono::milliseconds(1400)};
static_assert(kHurryAfter + control::kStopGrace < kEndTimeMax);
/// Beyond this something of ours hangs.
constexpr Duration kEndDeadline = 2 * kEndTimeMax;

void remember_controller(const host::AssociationInfo& info, json& told) {
  told = {{"peer", info.endpoint.to_string()},
          {"cntlid", info.cntlid},
          {"queue_size", info.io_queue_entries},
          {"keep_alive_ms", info.katt_ms},
          {"sq_flow_control", info.sq_flow_control},
          {"cqt_ms", info.controller.cqt},
          {"model", nvme::printable(info.controller.mn)},
          {"serial", nvme::printable(info.controller.sn)},
          {"firmware", nvme::printable(info.controller.fr)}};
}

frontends::DiskState state_of(host::IoState state) {
  switch (state) {
    case host::IoState::live:
      return frontends::DiskState::live;
    case host::IoState::waiting:
      return frontends::DiskState::waiting;
    case host::IoState::failing:
      break;
  }
  return frontends::DiskState::failing;
}

std::vector<transport::Loop*> all_loops(io::ReactorPool& pool) {
  std::vector<transport::Loop*> loops;
  loops.reserve(pool.size());
  for (std::size_t i = 0; i < pool.size(); ++i) loops.push_back(&pool.at(i));
  return loops;
}

}  // namespace

Connection::Connection(ConnectOptions options, const control::RuntimeDir& runtime,
                       control::Claim& claim, control::OwnCrashRecord& crash_record,
                       io::ReactorPool& pool, Reporter& reporter)
    : options_(std::move(options)),
      runtime_(runtime),
      claim_(claim),
      crash_record_(crash_record),
      pool_(pool),
      reporter_(reporter),
      loop_(pool.at(0)),
      control_(loop_),
      trace_({.begins = tcp::begins_with_pdu, .handshake_bytes = tcp::first_pdus_bytes}),
      events_(claim.name()),
      service_(loop_),
      controller_(std::make_unique<json>(json::object())),
      command_timer_(loop_.timers(),
                     [this] {
                       if (command_) command_->send(SIGKILL);
                     }),
      grace_timer_(loop_.timers(), [this] { stop_subsystem(); }),
      hurry_timer_(loop_.timers(), [this] { hurry(); }),
      deadline_(loop_.timers(), [this] { force_end(); }) {}

Connection::~Connection() = default;

Result<void> Connection::start() {
  options_.params.through = &trace_;
  if (!options_.pcap.empty()) {
    if (auto tracing = trace_.start(options_.pcap); !tracing) return tracing;
  }
  add_verbs();
  control_.admit_only(::geteuid());
  if (auto ok = control_.listen({.unix_path = runtime_.control_socket(claim_.name())}); !ok) {
    return ok;
  }
  subsystem_ = std::make_unique<host::RemoteSubsystem>(options_.params, all_loops(pool_), *this);
  if (options_.connect_all) make_follower();
  subsystem_->start();
  service_.status(in_words("connecting"));
  return {};
}

void Connection::make_follower() {
  ConnectAllOptions all;
  all.params = options_.params;
  all.words = options_.words;
  all.persistent = !options_.referred;
  follower_ = std::make_unique<DiscoveryFollower>(loop_, runtime_, *subsystem_, std::move(all));
}

// Up.

void Connection::on_live() {
  if (state_ != State::connecting) return;
  live_at_ = loop_.now();
  // In this order: whoever kills us from here on must know what we may have sent.
  if (auto recorded = record_live(); !recorded) return fail_with(recorded.error());
  if (options_.discovery) {
    const host::AssociationInfo* info = subsystem_->info();
    return serving(info == nullptr ? Result<void>() : host::check_is_discovery(info->controller));
  }
  if (auto made = make_faces_of_all(); !made) return fail_with(made.error());
  faces_->start([this](const Result<void>& started) { serving(started); });
}

/// All faces serve, or one of them cannot.
void Connection::serving(const Result<void>& started) {
  if (state_ != State::connecting) return;
  if (!started) return fail_with(started.error());
  state_ = State::live;
  log(LogLevel::info,
      fmt::format("connected to {} at {} with {} I/O queues", options_.params.subnqn,
                  options_.params.address(), subsystem_->statistics().live_io_queues()));
  tell_of_short_patience();
  if (options_.run.empty()) {
    announce();
  } else if (auto begun = start_command(); !begun) {
    return fail_with(begun.error());
  }
  reporter_.ready();
  service_.ready(in_words(subsystem_->live() ? "live" : "lost, and being made again"));
  if (follower_) follower_->look();
}

/// What the controller is like from now on: for those who ask, and for those who come after us.
Result<void> Connection::record_live() {
  ++lives_;
  const host::AssociationInfo* info = subsystem_->info();
  if (info == nullptr) return {};  // lost again already: then the next one is recorded
  remember_controller(*info, *controller_);
  controller_text_ = nvme::print(info->controller);
  if (options_.discovery) return {};  // nothing is written to it, and nothing to be waited for
  const host::SilenceFacts facts = {.katt_ms = info->katt_ms,
                                    .traffic_based = info->traffic_based_keep_alive,
                                    .cqt_ms = info->controller.cqt};
  // Who does without the fence decides that for this connection, not for the next.
  host::ConnectParams fenced = options_.params;
  fenced.fence = true;
  writes_held_at_most_ = host::silence_bound(facts, options_.params);
  if (options_.params.hold_writes == control::kForEver) {
    writes_held_at_most_.reset();
  } else if (writes_held_at_most_) {
    writes_held_at_most_ = std::max(*writes_held_at_most_, options_.params.hold_writes);
  }
  return crash_record_.went_live(facts, host::silence_bound(facts, fenced));
}

void Connection::on_lost(const Error& reason) {
  if (state_ == State::ending) return;
  service_.status(in_words(fmt::format("lost ({}), and being made again", reason.message)));
  log(LogLevel::warning,
      fmt::format(
          "the connection {} to {} at {} is lost: {}; {}", claim_.name(), options_.params.subnqn,
          options_.params.address(), reason.message,
          options_.discovery ? "it is made again" : "requests wait while it is made again"));
}

void Connection::on_live_again() {
  service_.status(in_words("live again"));
  log(LogLevel::warning, fmt::format("the connection {} to {} at {} is live again", claim_.name(),
                                     options_.params.subnqn, options_.params.address()));
  if (auto recorded = record_live(); !recorded) log(LogLevel::error, recorded.error().message);
  // What changed while it was away was told to nobody.
  if (follower_) follower_->look();
}

void Connection::on_event(const host::HostEvent& event) {
  events_.happened(event);
  if (event.kind == host::EventKind::discovery_changed && follower_) follower_->look();
}

Result<void> Connection::make_faces_of_all() {
  for (const std::string& sentence : subsystem_->refused_namespaces()) {
    reporter_.complain(sentence);
    if (reporter_.background()) log(LogLevel::warning, sentence);
  }
  if (subsystem_->namespaces().empty()) {
    return fail(
        fmt::format("the subsystem {} at {} has no namespace that could be served to the "
                    "host {}",
                    options_.params.subnqn, options_.params.address(), options_.params.hostnqn),
        ENODEV);
  }
  FaceContext context = {.options = options_,
                         .runtime = runtime_,
                         .name = claim_.name(),
                         .loops = all_loops(pool_),
                         .grace = kServeGrace,
                         .on_gone = [this](const std::string& how) { face_gone(how); },
                         .identity = [this](std::uint32_t nsid) { return identity(nsid); },
                         .writes_held_at_most = writes_held_at_most_,
                         .texts = texts()};
  // Only reactors that have a queue serve clients.
  context.loops.resize(subsystem_->reactors());
  faces_ = std::make_unique<Faces>(make_faces(std::move(context)));
  // One may have been removed while the queues were being made.
  for (const auto& ns : subsystem_->namespaces()) {
    if (subsystem_->attached(ns->info.nsid)) faces_->attached(disk(ns->info.nsid));
  }
  return {};
}

std::vector<ConnectionText> Connection::texts() {
  return {{"state", [this] { return state_text(status({})); }},
          {"identify", [this] { return controller_text_; }},
          {"stats", [this] { return stats_text(std::array{subsystem_->statistics()}); }}};
}

/// With the last face, what the connection was for has gone.
void Connection::face_gone(const std::string& how) {
  if (faces_->serving()) {
    log(LogLevel::info, how);
  } else {
    ask_end(how);
  }
}

std::string Connection::identity(std::uint32_t nsid) const {
  const host::Namespace* ns = subsystem_->find(nsid);
  return ns == nullptr ? std::string() : kernel_identity(*ns);
}

frontends::Disk Connection::disk(std::uint32_t nsid) {
  frontends::Disk disk{.info = subsystem_->find(nsid)->info,
                       .state = state_of(subsystem_->io_state(nsid))};
  for (std::size_t r = 0; r < subsystem_->reactors(); ++r) {
    disk.devices.push_back(subsystem_->device(r, nsid));
  }
  return disk;
}

void Connection::on_namespace_attached(std::uint32_t nsid) {
  if (has_faces()) faces_->attached(disk(nsid));
}

void Connection::on_namespace_detached(std::uint32_t nsid) {
  if (has_faces()) faces_->detached(nsid);
}

void Connection::on_namespace_changed(std::uint32_t nsid) {
  if (has_faces()) faces_->changed(disk(nsid));
}

/// Known only now: it depends on what the controller says.
void Connection::tell_of_short_patience() {
  if (options_.discovery || options_.params.read_only) return;
  const std::string note = note_about_hold(options_.params.loss, writes_held_at_most_);
  if (note.empty()) return;
  reporter_.complain(note);
  if (reporter_.background()) log(LogLevel::info, note);
}

void Connection::announce() {
  if (options_.json) {
    json document = {{"device", claim_.name()}, {"namespaces", json::array()}};
    for (const auto& ns : subsystem_->namespaces()) {
      json one = {{"name", ns->info.name}, {"nsid", ns->info.nsid}};
      faces_->add_places(one, ns->info);
      document["namespaces"].push_back(std::move(one));
    }
    if (options_.discovery) document["uri"] = discovery_uri();
    reporter_.print(document.dump(-1, ' ', false, json::error_handler_t::replace));
    return;
  }
  if (options_.discovery) {
    reporter_.print(fmt::format("{} {}", claim_.name(), discovery_uri()));
  }
  for (const auto& ns : subsystem_->namespaces()) {
    reporter_.print(fmt::format("{} {}", ns->info.name, faces_->line(ns->info)));
  }
  tell_of_other_places();
}

/// Scripts rely on a line for each namespace: what more there is does not go there.
void Connection::tell_of_other_places() {
  const auto all = subsystem_->namespaces();
  if (all.empty() || !faces_) return;
  const host::BlockInfo& first = all.front()->info;
  const std::vector<std::string> others = faces_->not_in_line(first);
  if (others.empty()) return;
  reporter_.complain(fmt::format("note: {} is at {}, too{}; `nvmf list` shows every address",
                                 first.name, fmt::join(others, " and "),
                                 all.size() == 1 ? "" : ", and the others likewise"));
}

/// For the service manager.
std::string Connection::in_words(std::string_view state) const {
  return fmt::format("{} to {} at {}: {}", claim_.name(), options_.params.subnqn,
                     options_.params.address(), state);
}

/// Where it is connected to: there is nothing else to tell of a discovery controller.
std::string Connection::discovery_uri() const {
  nvme::TargetUri at;
  at.host = options_.params.traddr;
  at.port = options_.params.port;
  at.subnqn = options_.params.subnqn;
  return at.to_string();
}

Result<void> Connection::start_command() {
  const host::BlockInfo& first = subsystem_->namespaces().front()->info;
  auto command = Command::start(loop_, options_.run, faces_->variables(first),
                                [this](int status) { command_ended(status); });
  if (!command) return std::unexpected(command.error());
  command_ = std::move(*command);
  return {};
}

// Down.

void Connection::on_ended(const Error& reason) {
  subsystem_ended_ = true;
  if (!options_.discovery) {
    if (auto recorded = crash_record_.ended(subsystem_->still_executing_for()); !recorded) {
      log(LogLevel::error, recorded.error().message);
    }
  }
  if (state_ != State::ending) {
    // While connecting, the reason names the target already.
    lost_ = true;
    fail_with(state_ == State::connecting
                  ? reason
                  : Error{fmt::format("the connection {} to {} is lost for good: {}", claim_.name(),
                                      options_.params.subnqn, reason.message),
                          reason.code});
    return;
  }
  stop_serving();
  stop_control();
}

/// Says why and begins the end, once.
void Connection::fail_with(const Error& reason) {
  if (state_ == State::ending) return;
  reporter_.complain(reason.message);
  if (reporter_.background()) log(LogLevel::error, reason.message);
  end(kExitFailure);
}

void Connection::end_by_signal(const std::string& why) {
  if (state_ == State::ending) {
    hurry();
  } else {
    ask_end(why);
  }
}

void Connection::ask_end(const std::string& why) {
  if (state_ == State::ending) return;
  log(LogLevel::info, why);
  if (state_ == State::connecting) {
    reporter_.complain(fmt::format("{} while connecting to {}", why, options_.params.address()));
  }
  end(state_ == State::connecting ? kExitFailure : kExitSuccess);
}

void Connection::end(int status) {
  state_ = State::ending;
  exit_status_ = status;
  service_.stopping(in_words("ending"));
  hurry_timer_.arm(loop_.now() + kHurryAfter);
  deadline_.arm(loop_.now() + kEndDeadline);
  end_at_the_latest("nvmf-connect",
                    2 * std::chrono::duration_cast<std::chrono::seconds>(kEndDeadline));
  stop_follower();
  if (command_ && command_->running()) {
    command_->send(SIGTERM);
    command_timer_.arm(loop_.now() + kCommandGrace);
    // It may still have something to write, unless there is nothing left to write to.
    if (!lost_) return;
  }
  stop_serving();
}

/// Nothing is waited for any more: whatever waits or is under way gets an error at once, sockets to
/// the target are reset.
void Connection::hurry() {
  hurry_timer_.cancel();
  if (command_) command_->send(SIGKILL);
  if (!subsystem_ended_ && subsystem_) {
    subsystem_stopping_ = true;
    subsystem_->stop(true);
  }
  if (faces_) faces_->hurry();
  stop_serving();
}

void Connection::command_ended(int status) {
  command_timer_.cancel();
  if (state_ != State::ending) {
    end(status);
    return;
  }
  // Its status counts if it was we who were asked to end, not if something failed.
  if (exit_status_ == kExitSuccess) exit_status_ = status;
  stop_serving();
  stop_control();
}

/// No new clients; those that there are finish what is under way, as far as the time allows.
void Connection::stop_serving() {
  if (std::exchange(serving_stopped_, true)) return;
  if (!faces_) {
    faces_stopped_ = true;
    stop_subsystem();
    return;
  }
  grace_timer_.arm(loop_.now() + kServeGrace);
  faces_->stop([this] {
    faces_stopped_ = true;
    stop_subsystem();
    stop_control();
  });
  // Without the target nothing is under way that could be finished.
  if (!subsystem_->live()) stop_subsystem();
}

/// What it is just doing is called off.
void Connection::stop_follower() {
  if (!follower_ || std::exchange(follower_stopping_, true)) return;
  follower_->stop([this] { stop_control(); });
}

/// Requests that the faces still wait for end with it.
void Connection::stop_subsystem() {
  grace_timer_.cancel();
  if (std::exchange(subsystem_stopping_, true)) return;
  if (!subsystem_ended_ && subsystem_) {
    subsystem_->stop(faces_ && !subsystem_->live());
  } else {
    loop_.post([this] { stop_control(); });
  }
}

void Connection::stop_control() {
  if (!faces_stopped_ || !subsystem_ended_ || control_stopping_) return;
  if (command_ && command_->running()) return;
  if (follower_ && !follower_->idle()) return;
  control_stopping_ = true;
  events_.close();
  control_.stop([this] { pool_.stop(); });
}

/// Something does not end although all its limits have passed. The sockets' files are removed, the
/// rest is the kernel's.
void Connection::force_end() {
  log(LogLevel::error,
      "the connection did not end in time and is ended by force: what it had sent "
      "may still be executed, and the next one will hold its writes");
  if (command_) command_->send(SIGKILL);
  ::unlink(runtime_.control_socket(claim_.name()).c_str());
  if (faces_) faces_->remove_traces();
  reporter_.failed(kExitFailure);
  ::_exit(kExitFailure);
}

}  // namespace nvmf::tools
