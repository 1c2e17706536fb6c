#include "host/bring_up.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "host/connect_error.h"
#include "host/feature_setup.h"
#include "host/log.h"
#include "host/namespace_scan.h"
#include "nvme/admin.h"
#include "nvme/explain.h"
#include "nvme/fabrics.h"

namespace nvmf::host {

namespace {

using std::chrono::milliseconds;

// Addresses of a name that are tried one after the other.
constexpr std::size_t kAddressesMax = 8;
constexpr Duration kResolveWatch = milliseconds(50);
// Between two looks at CSTS: doubles from the first to the last.
constexpr Duration kStatusPollFirst = milliseconds(1);
constexpr Duration kStatusPollLast = milliseconds(100);
// Before another attempt at a controller that is busy: doubles from the first to the last.
constexpr Duration kBusyPauseFirst = milliseconds(100);
constexpr Duration kBusyPauseLast = milliseconds(1000);
constexpr Duration kCancelWatch = milliseconds(50);

template <class T>
std::unexpected<Error> error_of(const Result<T>& result) {
  return std::unexpected(result.error());
}

/// The state of one bring-up, and the commands that its steps are made of.
struct BringUp {
  Association& a;
  Duration timeout;

  [[nodiscard]] const ConnectParams& params() const { return a.params(); }

  /// A command that must be answered; any status.
  Task<Result<nvme::Cqe>> ask(nvme::Sqe sqe) {
    auto outcome = co_await a.admin().execute(sqe, timeout);
    if (!outcome) co_return error_of(outcome);
    co_return outcome->cqe;
  }

  /// A command that must succeed; `what` completes "the controller refused …".
  Task<Result<nvme::Cqe>> need(nvme::Sqe sqe, const char* what) {
    auto cqe = co_await ask(sqe);
    if (cqe && !cqe->status.ok()) {
      co_return fail(fmt::format("the controller refused {}: {}", what,
                                 nvme::explain(cqe->status, nvme::StatusContext::admin)));
    }
    co_return cqe;
  }
};

Result<void> check_csts(std::uint32_t value) {
  // Base 2.1 §3.1.4.6: all ones is what a property reads as when nobody is there.
  if (value == 0xffffffff) return fail("the controller's status reads as all ones: it is gone");
  if (nvme::ControllerStatus::decode(value).cfs) {
    return fail("the controller reports a fatal error (CSTS.CFS); reset it on the target");
  }
  return {};
}

struct Resolving {
  explicit Resolving(transport::Loop& loop) : done(loop) {}
  Signal done;
  std::optional<Result<std::vector<std::string>>> addresses;
};

/// The resolver has no deadline and cannot be called off: a late answer finds only what we share
/// with it.
Task<Result<std::vector<std::string>>> resolve(BringUp& b) {
  transport::Loop& loop = b.a.control();
  const std::string& host = b.params().traddr;
  auto state = std::make_shared<Resolving>(loop);
  loop.resolve(host, [state](Result<std::vector<std::string>> addresses) {
    if (state->done.fired()) return;
    state->addresses = std::move(addresses);
    state->done.fire();
  });
  const Instant until = loop.now() + b.timeout;
  transport::Timer watch(loop.timers(), [&] {
    if (b.a.ending() || loop.now() >= until) return state->done.fire();
    watch.arm(loop.now() + kResolveWatch);
  });
  watch.arm(loop.now() + kResolveWatch);
  co_await state->done;
  if (!state->addresses) {
    co_return fail(fmt::format("the name {} could not be resolved within {:g} s", host,
                               std::chrono::duration<double>(b.timeout).count()),
                   ETIMEDOUT);
  }
  if (*state->addresses && (*state->addresses)->empty()) {
    co_return fail(fmt::format("the name {} has no address", host), EHOSTUNREACH);
  }
  co_return std::move(*state->addresses);
}

transport::ConnectOptions connect_options(const ConnectParams& p) {
  transport::ConnectOptions o;
  o.host_traddr = p.host_traddr;
  o.host_iface = p.host_iface;
  o.tos = p.tos;
  o.through = p.through;
  o.connect_timeout = p.connect_timeout;
  // Data that nobody acknowledges shows the loss no later than the keep-alive would.
  o.user_timeout = milliseconds(p.keep_alive_ms);
  return o;
}

tcp::HostQpairOptions qpair_options(const Association& a, std::uint16_t qid) {
  const ConnectParams& p = a.params();
  tcp::HostQpairOptions o;
  o.qid = qid;
  o.queue_entries = qid == 0 ? p.admin_queue_size : a.info.io_queue_entries;
  o.header_digest = p.header_digest;
  o.data_digest = p.data_digest;
  o.r2t_max = a.info.r2t_max;
  o.hpda = p.hpda;
  if (qid != 0) {
    o.in_capsule_bytes = static_cast<std::uint32_t>(std::min<std::uint64_t>(
        a.info.controller.in_capsule_bytes(), transport::kInCapsuleBytesMax));
  }
  return o;
}

/// Opens the admin queue at one address. Targets before Linux 5.2 close without a word when they
/// are offered more than one R2T: then once more with one.
Task<Result<void>> open_admin(BringUp& b) {
  Association& a = b.a;
  a.info.r2t_max = b.params().r2t_max;
  auto opened = co_await a.admin().open(a.info.endpoint, connect_options(b.params()),
                                        qpair_options(a, 0), b.timeout);
  if (opened || opened.error().code != ECONNABORTED || a.info.r2t_max == 1 || a.ending()) {
    co_return opened;
  }
  co_await a.admin().close(opened.error());
  if (a.ending()) co_return opened;
  a.renew_admin();
  a.info.r2t_max = 1;
  auto again = co_await a.admin().open(a.info.endpoint, connect_options(b.params()),
                                       qpair_options(a, 0), b.timeout);
  if (again) {
    log(LogLevel::info,
        fmt::format("{} takes one R2T per command only", a.info.endpoint.to_string()));
  }
  co_return again;
}

Task<Result<void>> reach(BringUp& b) {
  Association& a = b.a;
  auto addresses = co_await resolve(b);
  if (!addresses) co_return error_of(addresses);
  if (addresses->size() > kAddressesMax) addresses->resize(kAddressesMax);
  Result<void> opened;
  for (const std::string& address : *addresses) {
    if (!opened) {
      co_await a.admin().close(opened.error());
      if (a.ending()) break;
      a.renew_admin();
    }
    a.info.endpoint = {};
    a.info.endpoint.host = address;
    a.info.endpoint.port = b.params().port;
    opened = co_await open_admin(b);
    if (opened || a.ending()) break;
  }
  co_return opened;
}

/// What Connect of any queue says.
Task<Result<nvme::ConnectResponse>> connect_queue(const ConnectParams& p, QueueLink& queue,
                                                  std::uint16_t cntlid, std::uint32_t entries,
                                                  bool& sq_flow_control, Duration timeout) {
  nvme::ConnectData data;
  data.hostid = p.hostid;
  data.cntlid = cntlid;
  data.subnqn = p.subnqn;
  data.hostnqn = p.hostnqn;
  std::vector<std::byte> bytes(nvme::kConnectDataBytes);
  data.encode(std::span(bytes).first<nvme::kConnectDataBytes>());
  nvme::ConnectCommand command;
  command.qid = queue.qid();
  command.queue_entries = entries;
  command.cattr = p.disable_sqflow ? nvme::kCattrDisableSqFlowControl : std::uint8_t{0};
  command.kato_ms = queue.qid() == 0 ? p.keep_alive_ms : 0;
  auto answer =
      co_await queue.run(command.to_sqe(), transport::DataDirection::to_controller, bytes, timeout);
  if (!answer) co_return error_of(answer);
  if (!answer->cqe.status.ok()) {
    co_return std::unexpected(connect_refused(p, queue.qid(), answer->cqe));
  }
  const auto response = nvme::ConnectResponse::decode(answer->cqe.result);
  if (response.authentication_required || response.secure_channel_required) {
    co_return fail("the target requires authentication, which is not supported yet",
                   kAuthenticationFailed);
  }
  // Base 2.1 §6.3: SQHD FFFFh says that SQ flow control is off, which only the host may ask for.
  sq_flow_control = answer->cqe.sqhd != nvme::kSqhdFlowControlOff;
  if (!sq_flow_control && !p.disable_sqflow) {
    co_return fail(fmt::format("the target turned SQ flow control of {} off without being asked; "
                               "try --disable-sqflow",
                               queue.describe()),
                   EPROTO);
  }
  co_return response;
}

Task<Result<void>> connect_admin(BringUp& b) {
  Association& a = b.a;
  auto response =
      co_await connect_queue(b.params(), a.admin(), nvme::kCntlidDynamic,
                             b.params().admin_queue_size, a.info.sq_flow_control, b.timeout);
  if (!response) co_return error_of(response);
  // 0 and FFF0h and up are reserved (Base 2.1 §5.1.13.2.1); a controller with one has no name.
  if (response->cntlid == 0 || response->cntlid >= 0xfff0) {
    co_return fail(
        fmt::format("the target gave the impossible controller ID {:#06x}", response->cntlid),
        EPROTO);
  }
  if (b.params().disable_sqflow && a.info.sq_flow_control) {
    log(LogLevel::info, fmt::format("{} keeps SQ flow control on", a.info.endpoint.to_string()));
  }
  a.info.cntlid = response->cntlid;
  co_return Result<void>{};
}

/// Until CSTS.RDY is `ready`, at most as long as CAP.TO allows. Base 2.1 §3.1.4.1.
Task<Result<void>> wait_ready(BringUp& b, bool ready) {
  Association& a = b.a;
  const Duration most = milliseconds(500) * std::max<int>(a.info.cap.to, 1);
  const Instant until = a.control().now() + most;
  Duration pause = kStatusPollFirst;
  for (;;) {
    auto csts = co_await b.need(nvme::property_get(nvme::Property::csts), "to tell its status");
    if (!csts) co_return error_of(csts);
    if (auto ok = check_csts(csts->dw0()); !ok) co_return ok;
    if (nvme::ControllerStatus::decode(csts->dw0()).rdy == ready) co_return Result<void>{};
    if (a.control().now() >= until) {
      co_return fail(fmt::format("the controller did not become {} within the {:g} s that it asks "
                                 "for (CAP.TO)",
                                 ready ? "ready (CSTS.RDY)" : "disabled (CSTS.RDY)",
                                 std::chrono::duration<double>(most).count()),
                     ETIMEDOUT);
    }
    co_await sleep(a.control(), pause);
    pause = std::min(2 * pause, kStatusPollLast);
  }
}

Task<Result<void>> enable(BringUp& b) {
  Association& a = b.a;
  auto cap = co_await b.need(nvme::property_get(nvme::Property::cap), "to tell its capabilities");
  if (!cap) co_return error_of(cap);
  a.info.cap = nvme::ControllerCapabilities::decode(cap->result);
  auto vs = co_await b.need(nvme::property_get(nvme::Property::vs), "to tell its version");
  if (!vs) co_return error_of(vs);
  a.info.vs = vs->dw0();
  auto now = co_await b.need(nvme::property_get(nvme::Property::cc), "to tell its configuration");
  if (!now) co_return error_of(now);
  if (nvme::ControllerConfiguration::decode(now->dw0()).en) {
    auto off = co_await b.need(nvme::property_set(nvme::Property::cc, 0), "to be disabled");
    if (!off) co_return error_of(off);
    if (auto ok = co_await wait_ready(b, false); !ok) co_return ok;
  }
  const std::uint8_t css = a.info.cap.css;
  if ((css & (nvme::kCapCssNvm | nvme::kCapCssIo)) == 0 && b.params().nr_io_queues != 0) {
    co_return fail("the controller has no I/O command set (CAP.CSS)");
  }
  nvme::ControllerConfiguration cc;
  cc.en = true;
  cc.css = (css & nvme::kCapCssNvm) != 0 ? 0 : (css & nvme::kCapCssIo) != 0 ? 6 : 7;
  // Memory pages mean nothing over fabrics, but MPS has to be one that the controller has.
  cc.mps = a.info.cap.mpsmin;
  cc.iosqes = 6;
  cc.iocqes = 4;
  a.info.cc = cc;
  auto on = co_await b.need(nvme::property_set(nvme::Property::cc, cc.encode()), "to be enabled");
  if (!on) co_return error_of(on);
  co_return co_await wait_ready(b, true);
}

Task<Result<void>> identify_controller(BringUp& b) {
  Association& a = b.a;
  std::vector<std::byte> page(nvme::kIdentifyBytes);
  auto answer =
      co_await a.admin().execute(nvme::identify(nvme::Cns::controller),
                                 transport::DataDirection::from_controller, page, b.timeout);
  if (!answer) co_return error_of(answer);
  if (!answer->cqe.status.ok()) {
    co_return fail(fmt::format("the controller refused to identify itself: {}",
                               nvme::explain(answer->cqe.status, nvme::StatusContext::admin)));
  }
  a.info.controller = nvme::IdentifyController::decode(page);
  a.info.traffic_based_keep_alive = (a.info.controller.ctratt & nvme::kCtrattTbkas) != 0;
  co_return check_controller(b.params(), a.info.controller, a.info.cntlid);
}

/// The controller rounds KATO up to its granularity; what it really waits is what it says now.
Task<Result<void>> read_keep_alive(BringUp& b) {
  Association& a = b.a;
  if (b.params().keep_alive_ms == 0) co_return Result<void>{};
  auto kato = co_await b.ask(nvme::get_features(nvme::Feature::keep_alive_timer));
  if (!kato) co_return error_of(kato);
  if (kato->status.ok()) {
    a.info.katt_ms = kato->dw0();
    if (a.info.katt_ms == 0) {
      log(LogLevel::warning,
          fmt::format("{} has turned its keep-alive timer off", a.info.endpoint.to_string()));
    }
  } else {
    const std::uint64_t unit = std::uint64_t{a.info.controller.kas} * 100;
    a.info.katt_ms =
        static_cast<std::uint32_t>((b.params().keep_alive_ms + unit - 1) / unit * unit);
  }
  a.start_keep_alive();
  co_return Result<void>{};
}

/// CNS 06h of the NVM command set; controllers before 2.0 may not have it.
Task<Result<void>> read_limits(BringUp& b) {
  Association& a = b.a;
  std::vector<std::byte> page(nvme::kIdentifyBytes);
  auto answer =
      co_await a.admin().execute(nvme::identify(nvme::Cns::csi_controller, 0, nvme::Csi::nvm),
                                 transport::DataDirection::from_controller, page, b.timeout);
  if (!answer) co_return error_of(answer);
  if (answer->cqe.status.ok()) {
    a.info.nvm_controller = nvme::IdentifyNvmController::decode(page);
  }
  co_return Result<void>{};
}

/// SMART's critical warnings that are told as events: spare, temperature, reliability, read-only,
/// backup (Asynchronous Event Configuration bits 7:0).
constexpr std::uint32_t kSmartWarnings = 0x1f;

Task<Result<void>> configure_events(BringUp& b) {
  Association& a = b.a;
  const bool serves_disks = b.params().nr_io_queues != 0;
  std::uint32_t wanted =
      nvme::kOaesNamespaceAttributes | nvme::kOaesFirmwareActivation | nvme::kOaesAnaChange;
  if (!serves_disks) wanted |= nvme::kOaesDiscoveryChange;
  const std::uint32_t events = a.info.controller.oaes & wanted;
  // Linux's target refuses the bits of critical warnings, with all others beside them.
  for (const std::uint32_t warnings : {serves_disks ? kSmartWarnings : 0, std::uint32_t{0}}) {
    if ((events | warnings) == 0) co_return Result<void>{};
    auto set = co_await b.ask(nvme::set_async_events(events | warnings));
    if (!set) co_return error_of(set);
    if (set->status.ok()) {
      a.info.events_configured = events | warnings;
      co_return Result<void>{};
    }
    if (warnings != 0) continue;
    log(LogLevel::info,
        fmt::format("{} does not take an event configuration: {}", a.info.endpoint.to_string(),
                    nvme::describe(set->status, nvme::StatusContext::admin)));
  }
  co_return Result<void>{};
}

/// How many I/O queues, and how large. Fewer than asked for is a fact, not a failure.
Task<Result<std::uint32_t>> negotiate_queues(BringUp& b) {
  Association& a = b.a;
  const std::uint32_t asked = b.params().nr_io_queues;
  auto granted = co_await b.need(nvme::set_queue_count(asked), "to grant I/O queues");
  if (!granted) co_return error_of(granted);
  const auto count = nvme::QueueCount::decode(granted->dw0());
  // 1-based MQES, and as many entries as MAXCMD can keep busy.
  const std::uint32_t entries =
      std::min({b.params().queue_size, a.info.cap.mqes + 1u, a.info.controller.maxcmd + 1u});
  if (entries < transport::kQueueEntriesMin) {
    co_return fail(
        fmt::format("the controller's queues have {} entries at most, too few to use", entries));
  }
  a.info.io_queue_entries = entries;
  const std::uint32_t queues = std::min({asked, count.submission, count.completion});
  if (queues < asked) {
    log(LogLevel::info, fmt::format("{} grants {} of the {} I/O queues asked for",
                                    a.info.endpoint.to_string(), queues, asked));
  }
  co_return queues;
}

/// Opens and connects one I/O queue on its own reactor and comes back to the control loop.
Task<Result<void>> bring_up_queue(BringUp& b, IoQueue& queue) {
  // Copies and constants: nothing that the control loop may change meanwhile.
  const ConnectParams p = b.params();
  const AssociationInfo& info = b.a.info;
  const tcp::HostQpairOptions options = qpair_options(b.a, queue.qid());
  const std::uint16_t cntlid = info.cntlid;
  const transport::Endpoint endpoint = info.endpoint;
  transport::Loop& control = b.a.control();
  co_await switch_to(queue.loop());
  Result<void> result =
      co_await queue.open(endpoint, connect_options(p), options, p.connect_timeout);
  if (result) {
    bool flow_control = true;
    auto response = co_await connect_queue(p, queue, cntlid, options.queue_entries, flow_control,
                                           p.connect_timeout);
    if (!response) {
      result = error_of(response);
    } else if (response->cntlid != cntlid) {
      result =
          fail(fmt::format("{} was connected to controller {} instead of {}; try to connect again",
                           queue.describe(), response->cntlid, cntlid),
               EPROTO);
    } else {
      queue.prepare();
    }
  }
  co_await switch_to(control);
  co_return result;
}

Task<Result<void>> bring_up_queues(BringUp& b) {
  auto count = co_await negotiate_queues(b);
  if (!count) co_return error_of(count);
  b.a.reserve_queues(*count);
  // One after the other, as Linux does: a target under attack by its own hosts helps nobody.
  for (std::uint32_t i = 0; i < *count && !b.a.ending(); ++i) {
    IoQueue& queue = *b.a.add_queue().queue;
    if (auto ok = co_await bring_up_queue(b, queue); !ok) co_return ok;
  }
  co_return Result<void>{};
}

Task<Result<void>> all_steps(BringUp& b) {
  using Step = Task<Result<void>> (*)(BringUp&);
  static constexpr Step kAlways[] = {reach,           connect_admin,   enable, identify_controller,
                                     read_keep_alive, configure_events};
  for (const Step step : kAlways) {
    if (auto ok = co_await step(b); !ok) co_return ok;
  }
  if (b.params().nr_io_queues != 0) {
    if (auto ok = co_await set_up_features(b.a, b.timeout); !ok) co_return ok;
    if (auto ok = co_await read_limits(b); !ok) co_return ok;
    if (auto ok = co_await scan_namespaces(b.a, b.timeout); !ok) co_return ok;
    if (auto ok = co_await bring_up_queues(b); !ok) co_return ok;
  }
  if (!b.a.ending()) b.a.start_events();
  co_return Result<void>{};
}

Error with_context(const ConnectParams& params, const Error& error) {
  return {connect_context(params) + error.message, error.code};
}

/// One attempt, which ends by itself `left` from now at the latest, because bring-up as a whole has
/// `all`. The error has its context.
Task<Result<std::unique_ptr<Association>>> attempt(ConnectParams params,
                                                   std::vector<transport::Loop*> loops,
                                                   BringUpControl& control, Duration left,
                                                   std::shared_ptr<ConnectionCounters> counters) {
  const Duration all = params.bring_up_timeout;
  const Duration step = std::min(params.connect_timeout, params.admin_timeout);
  auto association =
      std::make_unique<Association>(std::move(params), std::move(loops), std::move(counters));
  Association& a = *association;
  control.watch(&a);
  transport::Timer deadline(a.control().timers(), [&a, all] {
    a.end(Error{fmt::format("the target took longer than {:g} s to be ready for use",
                            std::chrono::duration<double>(all).count()),
                ETIMEDOUT});
  });
  deadline.arm(a.control().now() + left);
  BringUp b{.a = a, .timeout = step};
  Result<void> result = co_await all_steps(b);
  deadline.cancel();
  control.watch(nullptr);
  // A reason that we gave ourselves, or a queue's, says more than the step that it stopped.
  if (a.ending()) result = std::unexpected(a.end_reason());
  if (result) co_return std::move(association);
  const Error reason = with_context(a.params(), result.error());
  co_await a.close(reason);
  co_return std::unexpected(reason);
}

/// False if it was called off meanwhile.
Task<bool> pause_unless_cancelled(transport::Loop& loop, BringUpControl& control, Duration pause) {
  const Instant until = loop.now() + pause;
  while (!control.cancelled() && loop.now() < until) {
    co_await sleep(loop, std::min<Duration>(until - loop.now(), kCancelWatch));
  }
  co_return !control.cancelled();
}

}  // namespace

void BringUpControl::cancel(Error reason) {
  if (!reason_) reason_ = reason;
  if (association_ != nullptr) association_->end(std::move(reason));
}

void BringUpControl::watch(Association* association) {
  association_ = association;
  if (association != nullptr && reason_) association->end(*reason_);
}

Task<Result<std::unique_ptr<Association>>> bring_up(ConnectParams params,
                                                    std::vector<transport::Loop*> loops,
                                                    BringUpControl& control, WhenBusy when_busy,
                                                    std::shared_ptr<ConnectionCounters> counters) {
  if (auto ok = params.validate(); !ok) co_return error_of(ok);
  transport::Loop& loop = *loops.at(0);
  const Instant until = loop.now() + params.bring_up_timeout;
  Duration pause = kBusyPauseFirst;
  for (;;) {
    auto made = co_await attempt(params, loops, control, until - loop.now(), counters);
    const bool busy = !made && made.error().code == kControllerBusy;
    if (!busy || when_busy == WhenBusy::fail || loop.now() + pause >= until) co_return made;
    if (!co_await pause_unless_cancelled(loop, control, pause)) {
      co_return std::unexpected(with_context(params, *control.cancelled()));
    }
    pause = std::min(2 * pause, kBusyPauseLast);
  }
}

}  // namespace nvmf::host
