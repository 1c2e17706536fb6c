#include "tool_target.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "host/identity.h"
#include "host/subsystem.h"
#include "io/reactor.h"
#include "nvme/address.h"
#include "nvme/text.h"
#include "tool_control.h"

namespace nvmf::tools {

using nlohmann::json;

namespace {

constexpr std::size_t kIdentifyBytes = 4096;
/// A live association's own limit for an admin command is 60 s; it answers by then.
constexpr Duration kAdminPatience{std::chrono::seconds(65)};
/// Nobody else uses a temporary connection: its commands need not wait as long.
constexpr Duration kTemporaryAdminTimeout{std::chrono::seconds(10)};

Error refused(nvme::Status status) {
  return {fmt::format("the controller answered Identify with {}",
                      nvme::describe(status, nvme::StatusContext::admin)),
          EREMOTEIO};
}

/// A connection without I/O queues that lives for one admin command.
class TemporaryConnection final : public host::SubsystemEvents {
 public:
  TemporaryConnection(io::Reactor& reactor, const host::ConnectParams& params, nvme::Sqe sqe)
      : reactor_(reactor), subsystem_(params, {&reactor}, *this), sqe_(sqe) {}

  /// Runs the reactor until all is done.
  Result<std::vector<std::byte>> run() {
    subsystem_.start();
    reactor_.run();
    return std::move(result_);
  }

  void on_live() override { host::spawn(ask()); }
  void on_ended(const Error& reason) override {
    if (!answered_) result_ = std::unexpected(reason);
    reactor_.stop();
  }

 private:
  host::Task<void> ask() {
    std::vector<std::byte> data(kIdentifyBytes);
    const Result<host::CommandOutcome> outcome =
        co_await subsystem_.admin(sqe_, transport::DataDirection::from_controller, data);
    answered_ = true;
    if (!outcome) {
      result_ = std::unexpected(outcome.error());
    } else if (!outcome->cqe.status.ok()) {
      result_ = std::unexpected(refused(outcome->cqe.status));
    } else {
      result_ = std::move(data);
    }
    subsystem_.stop();
  }

  io::Reactor& reactor_;
  host::RemoteSubsystem subsystem_;
  nvme::Sqe sqe_;
  Result<std::vector<std::byte>> result_ = fail("nothing was asked");
  bool answered_ = false;
};

Result<Target> from_uri(const std::string& text, const TemporaryOptions& options) {
  auto uri = nvme::TargetUri::parse(text);
  if (!uri) return fail(uri.error().message, EINVAL);
  Target target;
  if (const auto* nsid = std::get_if<std::uint32_t>(&uri->namespace_selector)) {
    target.nsid = *nsid;
  } else if (uri->namespace_selector.index() != 0) {
    return fail("name the namespace by its number for this command", EINVAL);
  }
  auto identity =
      host::host_identity(options.hostnqn, options.hostid, host::IdentityPaths::from_environment());
  if (!identity) return std::unexpected(identity.error());
  host::ConnectParams params;
  params.name = "nvmf";
  params.traddr = uri->host;
  params.port = uri->port;
  params.subnqn = uri->subnqn;
  params.hostnqn = identity->hostnqn;
  params.hostid = identity->hostid;
  params.host_traddr = options.host_traddr;
  params.host_iface = options.host_iface;
  params.header_digest = options.header_digest;
  params.data_digest = options.data_digest;
  params.nr_io_queues = 0;
  params.admin_timeout = kTemporaryAdminTimeout;
  params.loss.ctrl_loss = Duration::zero();  // whoever asks may ask again
  if (auto valid = params.validate(); !valid) return fail(valid.error().message, EINVAL);
  target.at = std::move(params);
  return target;
}

}  // namespace

std::optional<std::pair<std::string, std::uint32_t>> split_namespace_name(const std::string& text) {
  const std::size_t n = text.find_last_not_of("0123456789");
  if (n == std::string::npos || n == 0 || text[n] != 'n' || n + 1 == text.size()) return {};
  std::uint32_t nsid = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + n + 1, end, nsid);
  if (parsed.ec != std::errc() || parsed.ptr != end || nsid == 0) return {};
  return std::pair(text.substr(0, n), nsid);
}

Result<Target> Target::find(const std::string& text, const TemporaryOptions& options) {
  if (nvme::looks_like_uri(text)) return from_uri(text, options);
  if (auto good = control::check_name(text); !good) return std::unexpected(good.error());
  const auto runtime = control::RuntimeDir::open();
  if (!runtime) return std::unexpected(runtime.error());
  // A connection may be called "disk1n2": the name as it stands comes first.
  Target target;
  if (runtime->find(text)) {
    target.at = Running{runtime->control_socket(text)};
    return target;
  }
  if (const auto split = split_namespace_name(text); split && runtime->find(split->first)) {
    target.at = Running{runtime->control_socket(split->first)};
    target.nsid = split->second;
    return target;
  }
  return fail(fmt::format("there is no connection {} in {}: `nvmf list` shows those that there are",
                          text, runtime->path()),
              ENOENT);
}

Result<std::vector<std::byte>> identify(const Target& target,
                                        const nvme::IdentifyCommand& command) {
  if (const auto* params = std::get_if<host::ConnectParams>(&target.at)) {
    auto reactor = io::make_reactor();
    if (!reactor) return std::unexpected(reactor.error());
    TemporaryConnection connection(**reactor, *params, command.to_sqe());
    auto result = connection.run();
    (*reactor)->end();
    return result;
  }
  const std::string& socket = std::get<Target::Running>(target.at).socket;
  const ControlAnswer answer = call(socket, "identify",
                                    {{"cns", static_cast<unsigned>(command.cns)},
                                     {"nsid", command.nsid},
                                     {"cntid", command.cntid}},
                                    kAdminPatience);
  if (!answer.ok) return std::unexpected(answer.ok.error());
  const auto data = answer.fields->find("data");
  std::optional<std::vector<std::byte>> bytes;
  if (data != answer.fields->end() && data->is_string()) {
    bytes = nvme::parse_hex(data->get_ref<const std::string&>());
  }
  if (!bytes || bytes->size() != kIdentifyBytes) {
    return fail(fmt::format("{} answered without identify data", socket), EBADMSG);
  }
  return std::move(*bytes);
}

}  // namespace nvmf::tools
