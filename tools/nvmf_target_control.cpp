#include "nvmf_target_control.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "controller/config.h"
#include "controller/faults.h"
#include "nvme/log_pages.h"
#include "nvme/text.h"

namespace nvmf::tools {

using control::unsigned_arg;
using controller::FaultScope;
using controller::Target;
using nlohmann::json;

namespace {

/// Durations of a day at most: whatever is longer is a mistake.
constexpr std::uint64_t kMsMax = 86'400'000;
constexpr std::uint64_t kAny = ~std::uint64_t{0};

/// The arguments of one request, taken one by one. The first mistake stays; finish() tells it, or
/// names an argument that nobody has asked for.
class Args {
 public:
  Args(const json& args, Target& target) : left_(args), target_(target) {}

  std::optional<std::uint64_t> number(const char* key, std::uint64_t most = kAny) {
    if (!left_.contains(key)) return std::nullopt;
    const auto value = unsigned_arg(left_, key, most, 0);
    left_.erase(key);
    if (value) return *value;
    mistake(value.error());
    return 0;
  }
  std::uint64_t needed(const char* key, std::uint64_t most = kAny) {
    if (!left_.contains(key)) mistake({fmt::format("\"{}\" is missing", key), EINVAL});
    return number(key, most).value_or(0);
  }
  bool flag(const char* key) {
    const auto found = left_.find(key);
    if (found == left_.end()) return false;
    if (!found->is_boolean()) mistake({fmt::format("\"{}\" is not true or false", key), EINVAL});
    const bool value = found->is_boolean() && found->get<bool>();
    left_.erase(key);
    return value;
  }
  std::string text(const char* key) {
    const auto found = left_.find(key);
    if (found == left_.end()) return {};
    if (!found->is_string()) mistake({fmt::format("\"{}\" is not a string", key), EINVAL});
    std::string value = found->is_string() ? found->get<std::string>() : std::string();
    left_.erase(key);
    return value;
  }
  std::vector<std::string> texts(const char* key) {
    const auto found = left_.find(key);
    if (found == left_.end()) return {};
    std::vector<std::string> values;
    const bool list = found->is_array() && std::ranges::all_of(*found, &json::is_string);
    if (list) values = found->get<std::vector<std::string>>();
    if (!list) mistake({fmt::format("\"{}\" is not a list of strings", key), EINVAL});
    left_.erase(key);
    return values;
  }
  std::optional<Duration> lasts() {
    const auto ms = number("ms", kMsMax);
    if (!ms) return std::nullopt;
    return std::chrono::milliseconds(*ms);
  }
  Duration duration(const char* key = "ms") {
    return std::chrono::milliseconds(needed(key, kMsMax));
  }

  enum class With : std::uint8_t { none = 0, nsid = 1, controller = 2, queue = 4 };
  FaultScope scope(std::initializer_list<With> with) {
    FaultScope scope;
    scope.subnqn = text("subsystem");
    if (!scope.subnqn.empty() && target_.find(scope.subnqn) == nullptr) {
      mistake(
          {fmt::format("There is no subsystem {} here", nvme::printable(scope.subnqn)), ENOENT});
    }
    for (const With one : with) {
      if (one == With::nsid)
        scope.nsid = static_cast<std::uint32_t>(number("nsid", kAny >> 32).value_or(0));
      if (one == With::controller) {
        scope.cntlid = static_cast<std::uint16_t>(number("controller", 0xffff).value_or(0));
      }
      if (one == With::queue) {
        if (const auto qid = number("queue", 0xffff)) scope.qid = static_cast<std::uint16_t>(*qid);
      }
    }
    return scope;
  }
  /// The subsystem whose namespaces are to be changed; it need not be named if it is the only one.
  std::string subsystem() {
    std::string nqn = text("subsystem");
    const auto& all = target_.subsystems();
    if (nqn.empty() && all.size() == 1) return all.front()->nqn();
    if (nqn.empty()) {
      mistake({fmt::format("This target has {} subsystems: say which one", all.size()), EINVAL});
    }
    return nqn;
  }
  std::optional<nvme::Status> status() {
    const auto code = number("status", 0x7ff);
    const bool dnr = flag("dnr");
    const auto crd = number("crd", 3);
    if (!code) {
      if (dnr || crd) mistake({"\"dnr\" and \"crd\" go with a status only", EINVAL});
      return std::nullopt;
    }
    if (*code == 0) mistake({"Status 0 is success: nothing would fail", EINVAL});
    nvme::Status status(static_cast<nvme::StatusCode>(*code), dnr);
    status.crd = static_cast<std::uint8_t>(crd.value_or(0));
    return status;
  }
  void mistake(Error error) {
    if (!mistake_) mistake_ = std::move(error);
  }
  Result<void> finish() {
    if (!left_.empty()) {
      mistake(
          {fmt::format("\"{}\" means nothing here", nvme::printable(left_.begin().key())), EINVAL});
    }
    if (mistake_) return std::unexpected(*mistake_);
    return {};
  }

 private:
  json left_;
  Target& target_;
  std::optional<Error> mistake_;
};

using With = Args::With;
using Reply = Result<json>;

Reply counted(std::size_t count, bool narrowed, const char* what) {
  if (count == 0 && narrowed) return fail(fmt::format("No {} fits that", what), ENOENT);
  return json{{"count", count}};
}

// ---- at once

Reply drop(Target& target, Args& args) {
  const FaultScope scope = args.scope({With::controller, With::queue});
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  return counted(target.faults().drop(scope), !scope.everything(), "connection");
}

Reply close_queue(Target& target, Args& args) {
  FaultScope scope = args.scope({With::controller});
  const auto qid = static_cast<std::uint16_t>(args.needed("queue", 0xffff));
  const bool fin = args.flag("fin");
  if (qid == 0) args.mistake({"Queue 0 is the admin queue: drop ends that", EINVAL});
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  return counted(target.faults().close_queue(qid, !fin, std::move(scope)), true, "queue");
}

Reply cfs(Target& target, Args& args) {
  const FaultScope scope = args.scope({With::controller});
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  return counted(target.faults().fatal(scope), true, "enabled controller");
}

Reply health(Target& target, Args& args, const FaultScope& scope) {
  controller::HealthChange change;
  const auto byte = [&args](const char* key) -> std::optional<std::uint8_t> {
    const auto value = args.number(key, 0xff);
    if (!value) return std::nullopt;
    return static_cast<std::uint8_t>(*value);
  };
  change.critical_warning = byte("warning");
  change.spare_percent = byte("spare");
  change.used_percent = byte("used");
  if (const auto kelvins = args.number("temperature", 0xffff)) {
    change.temperature_kelvins = static_cast<std::uint16_t>(*kelvins);
  }
  if (scope.cntlid != 0) {
    args.mistake({"The health is the subsystem's: name that, not a controller", EINVAL});
  }
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  return counted(target.faults().health(scope, change), true, "subsystem");
}

Reply event(Target& target, Args& args) {
  const std::string kind = args.text("kind");
  const FaultScope scope = args.scope({With::controller});
  if (kind == "smart") return health(target, args, scope);
  if (kind != "error" && kind != "firmware") {
    args.mistake(
        {fmt::format("\"{}\" is no event: smart, error and firmware are", nvme::printable(kind)),
         EINVAL});
  }
  nvme::Status status = nvme::StatusCode::internal_error;
  bool persistent = false;
  if (kind == "error") {
    status = args.status().value_or(status);
    persistent = args.flag("persistent");
  }
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  return counted(kind == "error" ? target.faults().error_event(scope, status, persistent)
                                 : target.faults().firmware_event(scope),
                 true, "enabled controller");
}

Reply restart(Target& target, Args& args, bool power_loss) {
  Target::Restart how{.down = args.lasts().value_or(Duration{}), .power_loss = power_loss};
  if (const auto n = args.number("max_queues", 0xffff)) {
    how.max_queues = static_cast<std::uint32_t>(*n);
  }
  if (const auto n = args.number("queue_size", 0xffff)) {
    how.queue_entries = static_cast<std::uint32_t>(*n);
  }
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  if (auto done = target.restart(how); !done) return std::unexpected(done.error());
  return json::object();
}

// ---- standing

Reply refuse(Target& target, Args& args) {
  controller::RefuseFault fault;
  fault.scope = args.scope({With::queue});
  fault.status = args.status();
  fault.count = args.number("count");
  fault.lasts = args.lasts();
  if (!fault.status && !fault.scope.everything()) {
    args.mistake(
        {"Whose connection it will be is not known before its Connect command: give a "
         "status to refuse that with, or no subsystem and no queue",
         EINVAL});
  }
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  target.faults().refuse(std::move(fault));
  return json::object();
}

Reply blackhole(Target& target, Args& args) {
  controller::BlackholeFault fault;
  fault.scope = args.scope({With::controller, With::queue});
  fault.lasts = args.lasts();
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  target.faults().blackhole(fault);
  return json::object();
}

/// What concerns disks concerns no command of an admin queue.
FaultScope io_scope(Args& args) {
  FaultScope scope = args.scope({With::nsid, With::controller, With::queue});
  if (scope.qid == 0) {
    args.mistake({"Queue 0 is the admin queue: only commands of I/O queues can wait", EINVAL});
  }
  return scope;
}

std::optional<std::uint8_t> opcode(Args& args) {
  const auto code = args.number("opcode", 0xff);
  if (!code) return std::nullopt;
  return static_cast<std::uint8_t>(*code);
}

Reply delay(Target& target, Args& args) {
  controller::DelayFault fault;
  fault.scope = io_scope(args);
  fault.opcode = opcode(args);
  fault.count = args.number("count");
  (args.flag("after") ? fault.after : fault.before) = args.duration();
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  target.faults().delay(std::move(fault));
  return json::object();
}

Reply late(Target& target, Args& args) {
  controller::LateFault fault;
  fault.scope = io_scope(args);
  fault.hold = args.number("hold").value_or(0);
  fault.after = args.duration();
  fault.even_if_stopped = args.flag("even_if_stopped");
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  target.faults().late(std::move(fault));
  return json::object();
}

Reply fail_commands(Target& target, Args& args) {
  controller::FailFault fault;
  fault.scope = args.scope({With::nsid, With::controller, With::queue});
  const auto status = args.status();
  if (!status) args.mistake({"\"status\" is missing", EINVAL});
  fault.status = status.value_or(nvme::Status{});
  fault.opcode = opcode(args);
  fault.count = args.number("count");
  fault.first_lba = args.number("first_lba");
  fault.last_lba = args.number("last_lba").value_or(fault.last_lba);
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  target.faults().fail(std::move(fault));
  return json::object();
}

Reply corrupt(Target& target, Args& args) {
  controller::CorruptFault fault;
  fault.scope = args.scope({With::controller, With::queue});
  fault.count = args.number("count").value_or(1);
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  target.faults().corrupt(std::move(fault));
  return json::object();
}

Reply keep_alive(Target& target, Args& args) {
  controller::KeepAliveFault fault{args.scope({With::controller})};
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  target.faults().ignore_keep_alive(std::move(fault));
  return json::object();
}

Reply done(const Result<void>& result) {
  if (!result) return std::unexpected(result.error());
  return json::object();
}

// ---- namespaces

Result<controller::NamespaceConfig> namespace_spec(Args& args) {
  return controller::NamespaceConfig::parse(args.text("namespace"));
}

/// What a verb asks for that makes namespaces: which they are, and what to do once those of NBD are
/// open. Without any of NBD it is done at once.
struct Making {
  std::vector<controller::NamespaceConfig> namespaces;
  std::function<Reply(Target&, std::vector<controller::NamespaceConfig>)> make;
};

Result<Making> ns_add(Target& /*target*/, Args& args) {
  const std::string nqn = args.subsystem();
  const auto spec = namespace_spec(args);
  if (!spec) return std::unexpected(spec.error());
  const auto wanted = static_cast<std::uint32_t>(args.number("nsid", 0xffff'ffff).value_or(0));
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  return Making{{*spec}, [nqn, wanted](Target& target, const auto& specs) -> Reply {
                  const auto nsid = target.add_namespace(nqn, specs.front(), wanted);
                  if (!nsid) return std::unexpected(nsid.error());
                  return json{{"nsid", *nsid}};
                }};
}

Result<Making> ns_swap(Target& /*target*/, Args& args) {
  const std::string nqn = args.subsystem();
  const auto nsid = static_cast<std::uint32_t>(args.needed("nsid", 0xffff'ffff));
  const auto spec = namespace_spec(args);
  if (!spec) return std::unexpected(spec.error());
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  return Making{{*spec}, [nqn, nsid](Target& target, const auto& specs) {
                  return done(target.swap_namespace(nqn, nsid, specs.front()));
                }};
}

Reply ns_change(Target& target, Args& args, std::string_view verb) {
  const std::string nqn = args.subsystem();
  const auto nsid = static_cast<std::uint32_t>(args.needed("nsid", 0xffff'ffff));
  const std::uint64_t bytes = verb == "ns-resize" ? args.needed("bytes") : 0;
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  if (verb == "ns-resize") return done(target.resize_namespace(nqn, nsid, bytes));
  if (verb == "ns-remove") return done(target.remove_namespace(nqn, nsid));
  return done(target.protect_namespace(nqn, nsid, verb == "ns-protect"));
}

Reply ana(Target& target, Args& args) {
  constexpr std::array kStates{nvme::AnaState::optimized, nvme::AnaState::non_optimized,
                               nvme::AnaState::inaccessible, nvme::AnaState::persistent_loss,
                               nvme::AnaState::change};
  const std::string nqn = args.subsystem();
  const auto group = static_cast<std::uint32_t>(args.needed("group", 0xffff'ffff));
  const std::string name = args.text("state");
  const auto state = std::ranges::find(kStates, name, nvme::ana_state_name);
  if (state == kStates.end()) {
    args.mistake({fmt::format("\"{}\" is no ANA state: optimized, non-optimized, inaccessible, "
                              "persistent-loss and change are",
                              nvme::printable(name)),
                  EINVAL});
  }
  const auto port = static_cast<std::uint16_t>(args.number("port", 0xffff).value_or(0));
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  if (auto set = target.set_ana_state(nqn, group, *state, port); !set) {
    return std::unexpected(set.error());
  }
  return json::object();
}

// ---- subsystems, hosts, referrals

Result<Making> subsystem_add(Target& /*target*/, Args& args) {
  controller::SubsystemConfig config;
  config.nqn = args.text("nqn");
  config.serial = args.text("serial");
  config.hosts = args.texts("hosts");
  config.ana_groups = static_cast<std::uint32_t>(args.number("ana", 0xffff'ffff).value_or(0));
  for (const std::string& text : args.texts("namespaces")) {
    auto spec = controller::NamespaceConfig::parse(text);
    if (!spec) return std::unexpected(spec.error());
    config.namespaces.push_back(std::move(*spec));
  }
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  return Making{config.namespaces, [config](Target& target, auto specs) {
                  auto opened = config;
                  opened.namespaces = std::move(specs);
                  return done(target.add_subsystem(opened));
                }};
}

Reply subsystem_remove(Target& target, Args& args) {
  const std::string nqn = args.text("nqn");
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  return done(target.remove_subsystem(nqn));
}

Reply change_host(Target& target, Args& args, bool allow) {
  const std::string nqn = args.subsystem();
  const std::string hostnqn = args.text("hostnqn");
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  return done(allow ? target.allow_host(nqn, hostnqn) : target.disallow_host(nqn, hostnqn));
}

Reply change_referral(Target& target, Args& args, bool add) {
  const auto at = controller::parse_referral(args.text("at"));
  if (auto good = args.finish(); !good) return std::unexpected(good.error());
  if (!at) return std::unexpected(at.error());
  return done(add ? target.add_referral(*at) : target.remove_referral(*at));
}

void answer(const Reply& reply, control::Responder& respond) {
  if (reply) {
    respond.succeed(*reply);
  } else {
    respond.fail(reply.error());
  }
}

/// A verb that makes namespaces: it is answered when the NBD servers among them have answered.
void add_making_verb(control::Server& server, Target& target, controller::NbdOpener& opener,
                     const char* verb, Result<Making> (*read)(Target&, Args&)) {
  server.handle(verb, [&target, &opener, read](const json& given, control::Responder respond) {
    Args args(given, target);
    auto making = read(target, args);
    if (!making) return respond.fail(making.error());
    if (!controller::NbdOpener::needed(making->namespaces)) {
      return answer(making->make(target, std::move(making->namespaces)), respond);
    }
    opener.open(std::move(making->namespaces),
                [&target, make = std::move(making->make), respond = std::move(respond)](
                    Result<std::vector<controller::NamespaceConfig>> opened) mutable {
                  if (!opened) return respond.fail(opened.error());
                  answer(make(target, std::move(*opened)), respond);
                });
  });
}

}  // namespace

void add_target_verbs(control::Server& server, Target& target, controller::NbdOpener& opener) {
  using Act = std::function<Reply(Target&, Args&)>;
  const auto add = [&](const char* verb, Act act) {
    server.handle(verb,
                  [&target, act = std::move(act)](const json& given, control::Responder respond) {
                    Args args(given, target);
                    answer(act(target, args), respond);
                  });
  };
  add("drop", drop);
  add("close-queue", close_queue);
  add("cfs", cfs);
  add("event", event);
  add("restart", [](Target& t, Args& args) { return restart(t, args, false); });
  add("power-loss", [](Target& t, Args& args) { return restart(t, args, true); });
  add("refuse", refuse);
  add("blackhole", blackhole);
  add("delay", delay);
  add("late", late);
  add("fail", fail_commands);
  add("corrupt", corrupt);
  add("keep-alive", keep_alive);
  add_making_verb(server, target, opener, "ns-add", ns_add);
  add_making_verb(server, target, opener, "ns-swap", ns_swap);
  for (const char* verb : {"ns-remove", "ns-resize", "ns-protect", "ns-unprotect"}) {
    add(verb, [verb](Target& t, Args& args) { return ns_change(t, args, verb); });
  }
  add("ana", ana);
  add_making_verb(server, target, opener, "subsystem-add", subsystem_add);
  add("subsystem-remove", subsystem_remove);
  for (const bool yes : {true, false}) {
    add(yes ? "allow-host" : "disallow-host",
        [yes](Target& t, Args& args) { return change_host(t, args, yes); });
    add(yes ? "referral-add" : "referral-remove",
        [yes](Target& t, Args& args) { return change_referral(t, args, yes); });
  }
  add("show", [](Target& t, Args& args) -> Reply {
    if (auto good = args.finish(); !good) return std::unexpected(good.error());
    return t.faults().show();
  });
  add("clear", [](Target& t, Args& args) -> Reply {
    if (auto good = args.finish(); !good) return std::unexpected(good.error());
    t.faults().clear();
    return json::object();
  });
}

}  // namespace nvmf::tools
