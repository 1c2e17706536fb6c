#include "connection.h"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "frontends/nbd/uri.h"
#include "host/log.h"
#include "io/pages.h"
#include "nvme/address.h"
#include "nvme/admin.h"
#include "nvme/text.h"
#include "tool_program.h"

namespace nvmf::tools {

using host::LogLevel;
using nlohmann::json;

namespace {

/// How long the command may take to end once it has been told.
constexpr Duration kCommandGrace{std::chrono::seconds(1)};
/// How long NBD requests under way may take before the connection behind them is ended, too.
constexpr Duration kServeGrace{std::chrono::milliseconds(500)};
/// The subsystem ends within about two seconds of its own; beyond this something of ours hangs.
constexpr Duration kEndDeadline{std::chrono::seconds(6)};

constexpr std::size_t kIdentifyBytes = 4096;

std::vector<transport::Loop*> all_loops(io::ReactorPool& pool) {
  std::vector<transport::Loop*> loops;
  for (std::size_t i = 0; i < pool.size(); ++i) loops.push_back(&pool.at(i));
  return loops;
}

}  // namespace

Connection::Connection(ConnectOptions options, const control::RuntimeDir& runtime,
                       control::Claim& claim, io::ReactorPool& pool, Reporter& reporter)
    : options_(std::move(options)),
      runtime_(runtime),
      claim_(claim),
      pool_(pool),
      reporter_(reporter),
      loop_(pool.at(0)),
      control_(loop_),
      command_timer_(loop_.timers(),
                     [this] {
                       if (command_) command_->send(SIGKILL);
                     }),
      grace_timer_(loop_.timers(), [this] { stop_subsystem(); }),
      deadline_(loop_.timers(), [this] { force_end(); }) {}

Connection::~Connection() = default;

Result<void> Connection::start() {
  add_verbs();
  if (auto ok = control_.listen({.unix_path = runtime_.control_socket(claim_.name())}); !ok) {
    return ok;
  }
  subsystem_ = std::make_unique<host::RemoteSubsystem>(options_.params, all_loops(pool_), *this);
  subsystem_->start();
  return {};
}

// Up.

void Connection::on_live() {
  if (state_ != State::connecting) return;
  live_at_ = loop_.now();
  if (auto served = serve(); !served) {
    fail_with(served.error());
    return;
  }
  state_ = State::live;
  log(LogLevel::info,
      fmt::format("connected to {} at {} with {} I/O queues", options_.params.subnqn,
                  options_.params.address(), subsystem_->statistics().size()));
  if (options_.run.empty()) {
    announce();
  } else if (auto started = start_command(); !started) {
    fail_with(started.error());
    return;
  }
  reporter_.ready();
}

Result<void> Connection::serve() {
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
  nbd::ExportList exports;
  for (const auto& ns : subsystem_->namespaces()) {
    std::vector<host::BlockDevice*> devices;
    for (std::size_t r = 0; r < subsystem_->reactors(); ++r) {
      devices.push_back(subsystem_->device(r, ns->info.nsid));
    }
    exports.add(nbd::make_export(std::move(devices)));
  }
  // Only reactors that have a queue serve clients.
  std::vector<transport::Loop*> loops = all_loops(pool_);
  loops.resize(subsystem_->reactors());
  nbd::ServerOptions options;
  options.grace = kServeGrace;
  options.discard = &io::discard_pages;
  options.on_misbehaviour = [](const std::string& sentence) { log(LogLevel::warning, sentence); };
  nbd_ = std::make_unique<nbd::Server>(std::move(loops), std::move(exports), std::move(options));
  return listen_nbd();
}

Result<void> Connection::listen_nbd() {
  std::vector<transport::Endpoint> wanted = options_.nbd;
  if (wanted.empty()) {
    transport::Endpoint standard;
    standard.unix_path = runtime_.nbd_socket(claim_.name());
    wanted.push_back(std::move(standard));
  }
  for (const transport::Endpoint& place : wanted) {
    auto listening = nbd_->listen(place);
    if (!listening) return std::unexpected(listening.error());
    nbd_places_.push_back(std::move(*listening));
  }
  return {};
}

std::string Connection::uri(std::size_t place, const std::string& export_name) const {
  return nbd::uri(nbd_places_[place], export_name);
}

void Connection::announce() {
  if (options_.json) {
    json document = {{"device", claim_.name()}, {"namespaces", json::array()}};
    for (const auto& ns : subsystem_->namespaces()) {
      json uris = json::array();
      for (std::size_t i = 0; i < nbd_places_.size(); ++i) uris.push_back(uri(i, ns->info.name));
      document["namespaces"].push_back(
          {{"name", ns->info.name}, {"nsid", ns->info.nsid}, {"uris", std::move(uris)}});
    }
    reporter_.print(document.dump(-1, ' ', false, json::error_handler_t::replace));
    return;
  }
  for (const auto& ns : subsystem_->namespaces()) {
    reporter_.print(fmt::format("{} {}", ns->info.name, uri(0, ns->info.name)));
  }
}

Result<void> Connection::start_command() {
  const std::string& first = subsystem_->namespaces().front()->info.name;
  auto command = Command::start(loop_, options_.run, {{"uri", uri(0, first)}},
                                [this](int status) { command_ended(status); });
  if (!command) return std::unexpected(command.error());
  command_ = std::move(*command);
  return {};
}

// Down.

void Connection::on_ended(const Error& reason) {
  subsystem_ended_ = true;
  if (state_ != State::ending) {
    // While connecting, the reason names the target already.
    lost_ = true;
    fail_with(state_ == State::connecting
                  ? reason
                  : Error{fmt::format("the connection {} to {} is lost: {}", claim_.name(),
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

void Connection::ask_end(const std::string& why) {
  if (state_ == State::ending) {
    command_timer_.arm(loop_.now());
    grace_timer_.arm(loop_.now());
    return;
  }
  log(LogLevel::info, why);
  if (state_ == State::connecting) {
    reporter_.complain(fmt::format("{} while connecting to {}", why, options_.params.address()));
  }
  end(state_ == State::connecting ? kExitFailure : kExitSuccess);
}

void Connection::end(int status) {
  state_ = State::ending;
  exit_status_ = status;
  deadline_.arm(loop_.now() + kEndDeadline);
  end_at_the_latest("nvmf-connect",
                    2 * std::chrono::duration_cast<std::chrono::seconds>(kEndDeadline));
  if (command_ && command_->running()) {
    command_->send(SIGTERM);
    command_timer_.arm(loop_.now() + kCommandGrace);
    // It may still have something to write, unless there is nothing left to write to.
    if (!lost_) return;
  }
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
  if (!nbd_) {
    nbd_stopped_ = true;
    stop_subsystem();
    return;
  }
  grace_timer_.arm(loop_.now() + kServeGrace);
  nbd_->stop([this] {
    nbd_stopped_ = true;
    stop_subsystem();
    stop_control();
  });
}

/// Requests that the NBD server still waits for end with it.
void Connection::stop_subsystem() {
  if (std::exchange(subsystem_stopping_, true)) return;
  grace_timer_.cancel();
  if (!subsystem_ended_ && subsystem_) {
    subsystem_->stop();
  } else {
    loop_.post([this] { stop_control(); });
  }
}

void Connection::stop_control() {
  if (!nbd_stopped_ || !subsystem_ended_ || control_stopping_) return;
  if (command_ && command_->running()) return;
  control_stopping_ = true;
  control_.stop([this] { pool_.stop(); });
}

/// Something does not end although all its limits have passed. The sockets' files are removed, the
/// rest is the kernel's.
void Connection::force_end() {
  log(LogLevel::error, "the connection did not end in time and is ended by force");
  if (command_) command_->send(SIGKILL);
  ::unlink(runtime_.control_socket(claim_.name()).c_str());
  for (const transport::Endpoint& place : nbd_places_) {
    if (place.is_unix()) ::unlink(place.unix_path.c_str());
  }
  reporter_.failed(kExitFailure);
  ::_exit(kExitFailure);
}

// Verbs.

void Connection::add_verbs() {
  control_.handle("status",
                  [this](const json&, control::Responder respond) { respond.succeed(status()); });
  control_.handle("identify", [this](const json& args, control::Responder respond) {
    identify(args, std::move(respond));
  });
  control_.handle("disconnect", [this](const json&, control::Responder respond) {
    respond.succeed({{"pid", ::getpid()}});
    ask_end("disconnected on request");
  });
}

json Connection::status() const {
  const host::ConnectParams& p = options_.params;
  static constexpr const char* kStates[] = {"connecting", "live", "ending"};
  json s = {{"name", claim_.name()},
            {"pid", ::getpid()},
            {"state", kStates[static_cast<std::size_t>(state_)]},
            {"transport", "tcp"},
            {"traddr", p.traddr},
            {"trsvcid", std::to_string(p.port)},
            {"address", p.address()},
            {"subnqn", p.subnqn},
            {"hostnqn", p.hostnqn},
            {"hdr_digest", p.header_digest},
            {"data_digest", p.data_digest},
            {"read_only", p.read_only},
            {"io", pool_.at(0).backend_name()},
            {"namespaces", json::array()}};
  if (state_ != State::connecting) {
    s["uptime_ms"] =
        std::chrono::duration_cast<std::chrono::milliseconds>(loop_.now() - live_at_).count();
  }
  if (const host::AssociationInfo* info = subsystem_ ? subsystem_->info() : nullptr) {
    s["peer"] = info->endpoint.to_string();
    s["cntlid"] = info->cntlid;
    s["queue_size"] = info->io_queue_entries;
    s["keep_alive_ms"] = info->katt_ms;
    s["sq_flow_control"] = info->sq_flow_control;
    s["model"] = nvme::printable(info->controller.mn);
    s["serial"] = nvme::printable(info->controller.sn);
    s["firmware"] = nvme::printable(info->controller.fr);
    json& queues = s["queues"] = json::array();
    for (const host::QueueStatistics& q : subsystem_->statistics()) {
      queues.push_back({{"qid", q.qid},
                        {"reactor", q.reactor},
                        {"commands", q.commands},
                        {"read_bytes", q.read_bytes},
                        {"written_bytes", q.written_bytes},
                        {"errors", q.errors}});
    }
  }
  if (!nbd_) return s;
  s["nbd_clients"] = nbd_->totals().clients;
  for (const auto& ns : subsystem_->namespaces()) {
    json one = {{"name", ns->info.name},
                {"nsid", ns->info.nsid},
                {"size_bytes", ns->info.size_bytes},
                {"block_bytes", ns->info.block_bytes},
                {"read_only", ns->info.read_only},
                {"uris", json::array()}};
    if (ns->uuid) one["uuid"] = nvme::format_uuid(*ns->uuid);
    for (std::size_t i = 0; i < nbd_places_.size(); ++i) {
      one["uris"].push_back(uri(i, ns->info.name));
    }
    s["namespaces"].push_back(std::move(one));
  }
  return s;
}

void Connection::identify(const json& args, control::Responder respond) {
  const auto cns = control::unsigned_arg(args, "cns", 0xff, 1);
  const auto nsid = control::unsigned_arg(args, "nsid", 0xffffffff, 0);
  const auto cntid = control::unsigned_arg(args, "cntid", 0xffff, 0);
  const auto csi = control::unsigned_arg(args, "csi", 0xff, 0);
  for (const auto* number : {&cns, &nsid, &cntid, &csi}) {
    if (!*number) return respond.fail(number->error());
  }
  nvme::IdentifyCommand command;
  command.cns = static_cast<nvme::Cns>(*cns);
  command.nsid = static_cast<std::uint32_t>(*nsid);
  command.cntid = static_cast<std::uint16_t>(*cntid);
  command.csi = static_cast<nvme::Csi>(*csi);
  host::spawn(run_identify(command.to_sqe(), std::move(respond)));
}

/// The subsystem's end waits for admin commands under way, and so ours for this.
host::Task<void> Connection::run_identify(nvme::Sqe sqe, control::Responder respond) {
  std::vector<std::byte> data(kIdentifyBytes);
  const Result<host::CommandOutcome> outcome =
      co_await subsystem_->admin(sqe, transport::DataDirection::from_controller, data);
  if (!outcome) {
    respond.fail(outcome.error());
  } else if (!outcome->cqe.status.ok()) {
    respond.fail({fmt::format("the controller answered Identify with {}",
                              nvme::describe(outcome->cqe.status, nvme::StatusContext::admin)),
                  EREMOTEIO});
  } else {
    respond.succeed({{"data", nvme::format_hex(data)}});
  }
}

}  // namespace nvmf::tools
